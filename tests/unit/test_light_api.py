"""The light client's RPC over a real node's answers, some of which were tampered with."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from did.syntax import encode_did
from ledger.errors import ZynkError
from ledger.light import TrustPoint
from node.light_api import LightApi
from node.light_follow import Follower
from node.light_source import Endpoint
from node.light_trust import TrustRoot
from rpc.api import NodeApi
from rpc.errors import RpcCode, RpcError, as_rpc_error
from rpc.methods import METHODS
from rpc.registry import Registry
from tests.unit.chain_fixture import CHAIN_ID, FAUCET, GENESIS, GENESIS_TIME_MS, transfer
from tests.unit.light_lies import Lie, another_chain, flip_blob, hide, more_money, replay_of
from tests.unit.test_node_api import ApiWorld, run

PERIOD_MS = 10 * 365 * 24 * 3600 * 1000
ROOT = TrustRoot(
    chain_id=CHAIN_ID,
    root=GENESIS.genesis_hash,
    height=0,
    trusting_period_ms=PERIOD_MS,
    point=TrustPoint(
        chain_id=CHAIN_ID,
        height=0,
        time_ms=GENESIS_TIME_MS,
        validators=GENESIS.validators,
        trusting_period_ms=PERIOD_MS,
        header_hash=GENESIS.genesis_hash,
    ),
)
FAUCET_ID = FAUCET.public_key
OTHER = encode_did(bytes(32))


class ApiSource(Endpoint):
    """An endpoint whose node is in this process; `lie` changes its answers."""

    def __init__(self, url: str, api: NodeApi, lie: Lie | None = None) -> None:
        super().__init__(url)
        self._api = api
        self._registry = Registry(METHODS)
        self.lie = lie

    async def call(self, method: str, **params: object) -> Mapping[str, Any]:
        given = {k: v for k, v in params.items() if v is not None}
        found = self._registry.get(method)
        try:
            answer = await found.bind(self._api)(*found.arguments(given))
        except ZynkError as error:
            raise as_rpc_error(error, carries_tx=found.carries_tx) from error
        plain = json.loads(json.dumps(answer))
        if self.lie is not None:
            plain = self.lie(method, dict(params), plain)
        shown: dict[str, Any] = plain
        return shown


class LightWorld:
    """A node with a DID and an anchored leaf, a source of its answers, and a light client."""

    def __init__(self, world: ApiWorld, folder: Path) -> None:
        self.world = world
        self.source = ApiSource("a", world.api)
        self.follower = Follower(ROOT, [self.source], folder, witness_wait_s=0)
        self.api = LightApi(self.follower)
        self.did = ""
        self.leaf = b""

    async def fill(self) -> None:
        parts = self.world.parts
        await parts.fund()
        stream = await parts.make_stream()
        answer = await self.world.api.audit_submit(stream, [b"\x12\x20" + bytes(32)], None)
        await parts.until_pending()
        parts.commit()
        self.leaf = bytes.fromhex(answer["leaves"][0]["leaf"])  # type: ignore[index]  # as documented
        found = await self.world.api.audit_stream(stream)
        self.did = str(found["owner"])
        await self.follower.start()
        await self.follower.advance()


def run_light(folder: Path, test: Callable[[LightWorld], Awaitable[None]]) -> None:
    async def body(world: ApiWorld) -> None:
        light = LightWorld(world, folder)
        await light.fill()
        await test(light)

    run(folder, body)


def flipped(seed: int, method: str, params: dict[str, Any], answer: Any) -> Any:
    return flip_blob(answer, seed)


async def refusal(call: Awaitable[object]) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await call
    return caught.value


@pytest.mark.slow
def test_what_was_verified_is_served_as_the_node_says_it(tmp_path: Path) -> None:
    async def test(light: LightWorld) -> None:
        node, api = light.world.api, light.api
        top = light.world.parts.chain.height
        assert light.follower.trust.height == top
        account = dict(await node.chain_account(FAUCET_ID, None, top))
        account.pop("next_nonce")
        assert await api.chain_account(FAUCET_ID, None) == account
        unknown = await api.chain_account(bytes(32), None)
        assert (unknown["balance"], unknown["nonce"]) == ("0", 0)
        assert await api.chain_params() == await node.chain_params(top)
        assert await api.chain_head() == await node.chain_head(top)
        assert await api.chain_validators(None) == await node.chain_validators(None, top)
        assert await api.did_resolve(light.did, None, None) == json.loads(
            json.dumps(await node.did_resolve(light.did, None, None, top))
        )
        assert "error" in (await api.did_resolve(OTHER, None, None))["didResolutionMetadata"]  # type: ignore[operator]  # an object
        for version_id, version_time, height in (
            ("0-zQm", None, None),
            (None, "2020-01-01T00:00:00Z", None),
            (None, None, top),
            (None, None, 1),
        ):
            shown = await node.did_resolve(light.did, version_id, version_time, top, height)
            found = await api.did_resolve(light.did, version_id, version_time, 0, height)
            assert found == json.loads(json.dumps(shown))
        assert await api.did_resolve("did:zynk:x", None, None) == (
            await node.did_resolve("did:zynk:x", None, None)
        )
        dids = [light.did, OTHER, "did:web:a"]
        assert await api.did_resolve_batch(dids, None) == json.loads(
            json.dumps(await node.did_resolve_batch(dids, None, top))
        )
        assert await api.did_proof(light.did, None) == json.loads(
            json.dumps(await node.did_proof(light.did, None, top))
        )
        assert await api.audit_receipt(light.leaf) == await node.audit_receipt(light.leaf, top)
        tx = transfer(FAUCET, 2, bytes(32), 1)
        assert (await api.tx_submit(tx.encoded, "accepted", 100))["tx_id"] == tx.id.hex()
        refused = await refusal(api.tx_submit(tx.encoded[:-1] + b"\0", "accepted", 100))
        assert refused.code == RpcCode.TX_REFUSED

    run_light(tmp_path, test)


@pytest.mark.slow
def test_each_lie_is_refused_with_its_verdict(tmp_path: Path) -> None:
    async def test(light: LightWorld) -> None:
        node, api, source = light.world.api, light.api, light.source
        old = await node.chain_account(FAUCET_ID, None)
        light.world.parts.commit()
        await light.follower.advance()
        absent = await node.did_resolve(OTHER, None, None)
        account = partial(api.chain_account, FAUCET_ID, None)
        resolve = partial(api.did_resolve, light.did, None, None)
        for lie, call, reason in (
            (more_money, account, "light/wrong"),
            (another_chain, account, "light/wrong"),
            (replay_of("chain_account", old), account, "light/cannot-tell"),
            (hide(light.did, OTHER, absent), resolve, "light/wrong"),
        ):
            await call()
            source.lie = lie
            error = await refusal(call())
            assert (error.code, error.reason) == (RpcCode.UNVERIFIED, reason), error
            source.lie = None
        assert light.follower.health["a"].faults == 3

    run_light(tmp_path, test)


@pytest.mark.slow
def test_no_changed_byte_of_any_answer_comes_through(tmp_path: Path) -> None:
    """What comes through a tampered answer is the truth, or nothing."""

    async def test(light: LightWorld) -> None:
        api, source = light.api, light.source
        calls: list[Callable[[], Awaitable[Mapping[str, object]]]] = [
            api.chain_head,
            partial(api.chain_validators, None),
            partial(api.chain_account, FAUCET_ID, None),
            api.chain_params,
            partial(api.did_resolve, light.did, None, None),
            partial(api.did_resolve, OTHER, None, None),
            partial(api.did_resolve_batch, [light.did, OTHER], None),
            partial(api.did_proof, light.did, None),
            partial(api.audit_receipt, light.leaf),
        ]
        for call in calls:
            source.lie = None
            true = await call()
            refused = 0
            for seed in range(40):
                source.lie = partial(flipped, seed)
                try:
                    shown = await call()
                except RpcError as error:
                    refused += error.code == RpcCode.UNVERIFIED
                else:
                    assert shown == true, "as if nothing had been changed"
            assert refused > 0

    run_light(tmp_path, test)


@pytest.mark.slow
def test_the_next_endpoint_answers_for_one_that_lies(tmp_path: Path) -> None:
    async def test(light: LightWorld) -> None:
        liar = ApiSource("liar", light.world.api, more_money)
        follower = Follower(ROOT, [liar, light.source], tmp_path, witness_wait_s=0)
        await follower.start()
        api = LightApi(follower)
        true = await light.api.chain_account(FAUCET_ID, None)
        assert (await api.chain_account(FAUCET_ID, None))["balance"] == true["balance"]
        assert (follower.health["liar"].faults, follower.health["a"].faults) == (1, 0)

    run_light(tmp_path, test)


@pytest.mark.slow
def test_what_has_no_proof_or_lies_before_the_head_is_refused(tmp_path: Path) -> None:
    async def test(light: LightWorld) -> None:
        api = light.api
        for call in (
            api.chain_block(None),
            api.tx_get(bytes(32)),
            api.audit_status([]),
            api.stake_delegations(None, None, 0, 10),
            api.stake_validators(0, 10, 1),
            api.chain_head(1),
        ):
            assert (await refusal(call)).code == RpcCode.UNSUPPORTED
        assert (await refusal(api.chain_header(1))).code == RpcCode.INVALID_PARAMS
        beyond = await refusal(api.did_resolve(light.did, None, "2999-01-01T00:00:00Z"))
        assert beyond.code == RpcCode.UNVERIFIED
        assert light.follower.health["a"].faults == 0
        assert api.readiness().ready
        status = await api.node_status()
        assert status["height"] == light.follower.trust.height
        light.follower.now_ms = lambda: time.time_ns() // 1_000_000 + 3_600_000
        assert not api.readiness().ready

    run_light(tmp_path, test)
