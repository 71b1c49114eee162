"""Stake, governance and DID histories: a light client makes each answer again from its rows."""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from did.build import update_operation
from did.control import Control
from did.operation import decode_operation
from did.oplog import LogEntry
from did.syntax import encode_did
from ledger import codec
from ledger.ed25519 import KeyPair
from ledger.fees import sign_tx
from ledger.governance import GovernanceModule
from ledger.governance_proposal import Choice, ParamsChange, ProposeBody, VoteBody
from ledger.staking_candidates import touch_candidates
from ledger.staking_messages import AmountBody
from ledger.staking_module import StakingModule
from ledger.tx import Message
from rpc.errors import RpcCode, RpcError
from rpc.params import bytes_of_text
from tests.unit.anchoring_world import OWNER
from tests.unit.chain_fixture import CHAIN_ID, FAUCET, NETWORK, PARAMS
from tests.unit.light_lies import flip_blob
from tests.unit.test_light_api import LightWorld
from tests.unit.test_node_api import ApiWorld, run

OPERATORS = [node.operator_key for node in NETWORK.nodes]
RETIRED = OPERATORS[3]
ME = FAUCET.public_key
Calls = dict[str, Callable[..., Awaitable[Mapping[str, Any]]]]


class StakeWorld(LightWorld):
    """Four validators, of which one retires; delegations, a queue, proposals with votes."""

    async def fill(self) -> None:
        one, two = OPERATORS[0].public_key, OPERATORS[1].public_key
        await self.do(FAUCET, "stake/delegate", AmountBody(operator=one, amount=5 * 10**9))
        await self.do(FAUCET, "stake/delegate", AmountBody(operator=two, amount=3 * 10**9))
        await self.do(OPERATORS[2], "stake/delegate", AmountBody(operator=one, amount=10**8))
        await self.do(FAUCET, "stake/undelegate", AmountBody(operator=two, amount=10**9))
        await self.do(OPERATORS[2], "stake/undelegate", AmountBody(operator=one, amount=10**7))
        for fee in (50, 60):
            change = ParamsChange(values=(("fee_base", fee),))
            await self.do(
                FAUCET, "gov/propose", ProposeBody(title=f"to {fee}", summary="", change=change)
            )
        await self.do(FAUCET, "gov/vote", VoteBody(proposal_id=1, operator=one, choice=Choice.YES))
        await self.do(
            OPERATORS[1], "gov/vote", VoteBody(proposal_id=1, operator=two, choice=Choice.NO)
        )
        await self.do(RETIRED, "stake/retire", None)
        await super().fill()
        history: Any = await self.world.api.did_history(self.did, 0, 10)
        [create] = history["operations"]
        created = LogEntry.decode(bytes_of_text(create["entry"])).operation
        update = update_operation(
            net=CHAIN_ID,
            exp_height=1000,
            did=self.did,
            prev=decode_operation(created).hash,
            seq=1,
            document={},
            control=Control.of([OWNER.public_key]),
            signers=[OWNER],
        )
        await self.do(FAUCET, "did/op", update)
        await self.follower.advance()

    async def do(self, payer: KeyPair, kind: str, body: Any) -> None:
        parts = self.world.parts
        tx = sign_tx(
            payer,
            chain_id=CHAIN_ID,
            nonce=parts.chain.account(payer.public_key).nonce,
            valid_until=1000,
            messages=[Message(kind, _encoded(body))],
            params=PARAMS,
        )
        assert isinstance((await parts.pool.submit([tx.encoded]))[0], bytes)
        assert [result.code for result in parts.commit().results] == [""]

    def calls(self, api: Any) -> Calls:
        one = OPERATORS[0].public_key
        return {
            "validators": partial(api.stake_validators, 0, 10),
            "a page of them": partial(api.stake_validators, 1, 2),
            "candidates and the retired": partial(api.stake_validators, 2, 2),
            "after the candidates": partial(api.stake_validators, 3, 5),
            "after all": partial(api.stake_validators, 9, 5),
            "a validator": partial(api.stake_validator, one),
            "a retired one": partial(api.stake_validator, RETIRED.public_key),
            "my delegations": partial(api.stake_delegations, ME, None, 0, 10),
            "a page of mine": partial(api.stake_delegations, ME, None, 0, 2),
            "nobody's": partial(api.stake_delegations, bytes(32), None, 0, 10),
            "to a validator": partial(api.stake_delegations, None, one, 0, 10),
            "a page of those": partial(api.stake_delegations, None, one, 1, 1),
            "to nobody": partial(api.stake_delegations, None, bytes(32), 0, 10),
            "one delegation": partial(api.stake_delegations, ME, one, 0, 10),
            "no delegation": partial(api.stake_delegations, ME, RETIRED.public_key, 0, 10),
            "the queue": partial(api.stake_unbonding, None, 0, 10),
            "mine in the queue": partial(api.stake_unbonding, ME, 0, 10),
            "a page of the queue": partial(api.stake_unbonding, None, 0, 1),
            "proposals": partial(api.gov_proposals, 0, 10),
            "a page of proposals": partial(api.gov_proposals, 2, 1),
            "a proposal": partial(api.gov_proposal, 1),
            "history": partial(api.did_history, self.did, 0, 10),
            "a page of history": partial(api.did_history, self.did, 1, 1),
        }


def _encoded(body: Any) -> bytes:
    if body is None:
        return codec.encode([])
    return body if isinstance(body, bytes) else bytes(body.encode())


def run_stake(folder: Path, test: Callable[[StakeWorld], Awaitable[None]]) -> None:
    async def body(world: ApiWorld) -> None:
        light = StakeWorld(world, folder)
        await light.fill()
        await test(light)

    run(folder, body, (StakingModule(), GovernanceModule(on_params_changed=touch_candidates)))


async def outcome(call: Awaitable[Mapping[str, Any]]) -> Any:
    try:
        return json.loads(json.dumps(await call))
    except RpcError as error:
        return error.code


@pytest.mark.slow
def test_each_answer_made_again_is_the_nodes_own(tmp_path: Path) -> None:
    async def test(light: StakeWorld) -> None:
        top = light.follower.trust.height
        assert top == light.world.parts.chain.height
        ours, theirs = light.calls(light.api), light.calls(light.world.api)
        for name, call in ours.items():
            shown = await outcome(call())
            assert shown == await outcome(theirs[name](trusted_height=top)), name
        validators = await ours["validators"]()
        assert validators["candidates"] == 3
        assert [v["status"] for v in validators["validators"]] == ["active"] * 3 + ["retired"]
        assert validators["listed"] == [RETIRED.public_key.hex()]
        assert len((await ours["my delegations"]())["delegations"]) == 2
        assert [d["delegator"] for d in (await ours["one delegation"]())["delegations"]] == [
            ME.hex()
        ]
        assert (await ours["nobody's"]())["delegations"] == []
        assert len((await ours["the queue"]())["entries"]) == 2
        assert len((await ours["mine in the queue"]())["entries"]) == 1
        newest, first = (await ours["proposals"]())["proposals"]
        assert (newest["id"], first["id"]) == (2, 1)
        assert int(first["yes"]) == 5 * 10**9
        assert int(first["no"]) > 2 * 10**9, "the validator's own and mine with it"

    run_stake(tmp_path, test)


def _without_rows(answer: Any) -> Any:
    return {**answer, "rows": answer["rows"][:-1]}


def _richer(answer: Any) -> Any:
    answer["validators"][0]["tokens"] = "1"
    answer["validators"][0]["power"] = "99"
    answer["candidates"] = 99
    return answer


def _without_candidate(answer: Any) -> Any:
    """The least candidate is hidden, or said to be none."""
    answer["validators"] = [v for v in answer["validators"] if v["status"] == "retired"]
    return answer


def _listed_twice(answer: Any) -> Any:
    answer["listed"] = sorted([*answer["listed"], answer["validators"][0]["operator"]])
    return answer


def _without_delegator(answer: Any) -> Any:
    left = answer["delegations"][1:]
    return {**answer, "delegations": left, "listed": [d["delegator"] for d in left]}


def _nobody_listed(answer: Any) -> Any:
    answer["listed"] = sorted([*answer["listed"], "ab" * 32])
    return answer


def _shorter_history(answer: Any) -> Any:
    return {**answer, "operations": answer["operations"][:-1]}


def _cut_page(answer: Any) -> Any:
    return {**answer, "next_cursor": 1, "listed": []}


@pytest.mark.slow
def test_what_is_changed_or_left_out_is_refused_or_does_not_matter(tmp_path: Path) -> None:
    lies: list[tuple[str, Callable[[Any], Any], bool]] = [
        ("validators", _without_rows, False),
        ("validators", _richer, True),
        ("validators", _without_candidate, False),
        ("validators", _listed_twice, False),
        ("validators", _nobody_listed, False),
        ("validators", _cut_page, False),
        ("my delegations", _without_rows, False),
        ("to a validator", _without_delegator, False),
        ("to a validator", _nobody_listed, False),
        ("one delegation", _without_rows, False),
        ("the queue", lambda answer: {**answer, "entries": answer["entries"][1:]}, False),
        ("the queue", lambda answer: {**answer, "next_cursor": 7}, True),
        ("mine in the queue", lambda answer: {**answer, "entries": []}, False),
        ("proposals", lambda answer: {**answer, "proposals": answer["proposals"][1:]}, False),
        ("a proposal", _without_rows, False),
        ("a proposal", lambda answer: {**answer, "yes": "0"}, True),
        ("history", _shorter_history, False),
    ]

    async def test(light: StakeWorld) -> None:
        calls = light.calls(light.api)
        for name, change, is_harmless in lies:
            light.source.lie = None
            true = await calls[name]()
            told: list[bool] = []

            def lie(
                method: str,
                params: object,
                answer: Any,
                change: Callable[[Any], Any] = change,
                told: list[bool] = told,
            ) -> Any:
                changed = change(copy.deepcopy(answer))
                told.append(changed != answer)
                return changed

            light.source.lie = lie
            if is_harmless:
                assert await calls[name]() == true, name
            else:
                assert await outcome(calls[name]()) == RpcCode.UNVERIFIED, (name, change)
            assert told == [True], (name, change)

    run_stake(tmp_path, test)


@pytest.mark.slow
def test_no_changed_byte_of_any_row_comes_through(tmp_path: Path) -> None:
    async def test(light: StakeWorld) -> None:
        calls = light.calls(light.api)
        for name in ("validators", "my delegations", "the queue", "proposals", "history"):
            light.source.lie = None
            true = await calls[name]()
            refused = 0
            for seed in range(25):
                light.source.lie = lambda method, params, answer, seed=seed: flip_blob(answer, seed)
                shown = await outcome(calls[name]())
                refused += shown == RpcCode.UNVERIFIED
                assert shown in (RpcCode.UNVERIFIED, json.loads(json.dumps(true))), name
            assert refused > 0, name

    run_stake(tmp_path, test)


@pytest.mark.slow
def test_what_no_proof_shows_is_refused_by_name(tmp_path: Path) -> None:
    async def test(light: StakeWorld) -> None:
        with pytest.raises(RpcError, match="name an account or a validator") as caught:
            await light.api.stake_delegations(None, None, 0, 10)
        assert caught.value.code == RpcCode.UNSUPPORTED
        everybody = await light.world.api.stake_delegations(None, None, 0, 100)
        assert len(everybody["delegations"]) == 4 + 3  # type: ignore[arg-type]  # a list
        assert await outcome(light.api.stake_validator(bytes(32))) == RpcCode.NOT_FOUND
        assert await outcome(light.api.gov_proposal(9)) == RpcCode.NOT_FOUND
        unknown = await light.api.did_history(encode_did(bytes(32)), 0, 10)
        assert (unknown["operations"], unknown["nextCursor"]) == ([], None)

    run_stake(tmp_path, test)
