"""A validator whose key signs twice, on a real network under load: evidence that bites.

Its twin is a second node with the same key and an empty guard of its own. As soon as the key leads,
there are two proposals; whoever sees both tells all others, and any leader puts it into a block.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from consensus.evidence import Evidence
from consensus.statement import Statement, StatementKind, statement_sign_bytes
from genesis.document import GenesisDocument
from ledger.accounts import encode_account_id
from ledger.ed25519 import KeyPair
from ledger.errors import ZynkError
from ledger.params import PPM, ChainParams
from ledger.staking_messages import AmountBody
from ledger.staking_record import POWER_UNIT
from ledger.staking_rows import UnbondingEntry
from ledger.staking_unbonding import ENTRIES_MAX
from ledger.tx import Message
from node import config as cfg
from node.devnet import Devnet
from node.keys import load_key
from node.wallet import Wallet
from rpc.client import RpcClient
from rpc.params import bytes_of_text
from tests.e2e.network import (
    FINAL_TIMEOUT_MS,
    LIMIT_S,
    Load,
    height_of,
    public_key_of,
    until_height,
    zynk,
)
from tests.e2e.twins import (
    add_twin,
    ask,
    block_events,
    contradictions,
    inspect_home,
    operator_of,
    peer_id,
    powers_at,
    stopped_chain,
)

pytestmark = pytest.mark.e2e

CHAIN_ID = "zynk-equivocator"
HONEST = (0, 1, 2)
CULPRIT = 3
EVERYBODY = (0, 1, 2, 3)
PARAMS = ChainParams(
    unbonding_ms=30_000, evidence_window_ms=25_000, inflation_ppm=0, inflation_ppm_min=0
)
"""No inflation: what the supply loses is what was burned."""
STAKERS = [KeyPair.from_seed(bytes([7, number]) * 16) for number in range(8)]
"""Who delegates to the culprit, and takes the stake away again, 8 times each."""
DELEGATED = 10_000 * POWER_UNIT
BONDED = 1_000_000 * POWER_UNIT + len(STAKERS) * DELEGATED
SHARES = 500 * POWER_UNIT + 7
"""What is undelegated at a time; a little more each time, so that rounding shows."""
SLASHED_WITHIN = 10
GOES_ON_FOR = 20
IS_SOAK = os.environ.get("ZYNK_SOAK") == "1"
SOAK_ALONE = pytest.mark.skipif(not IS_SOAK, reason="./dev soak runs it")

Validator = dict[str, Any]


class Left(NamedTuple):
    """An unbonding entry: what left the validator, and what of it its account gets."""

    account: bytes
    height: int
    amount: int
    left: int

    @property
    def owed(self) -> int:
        return self.amount - self.left


@pytest.mark.slow
@pytest.mark.parametrize(
    "seen_by",
    [
        pytest.param(EVERYBODY, id="all see it", marks=SOAK_ALONE),
        pytest.param((1,), id="one sees it"),
    ],
)
def test_an_equivocator_is_slashed_within_ten_heights_and_the_others_go_on(
    seen_by: tuple[int, ...],
) -> None:
    async def run() -> None:
        folder = Path(tempfile.mkdtemp(prefix="zynk-e2e-"))
        devnet = Devnet.create(
            folder,
            chain_id=CHAIN_ID,
            params=PARAMS,
            extra_accounts=[(key.public_key, 2 * DELEGATED) for key in STAKERS],
        )
        load = Load(devnet, nodes=list(HONEST), rate_tx_s=10)
        try:
            twin = add_twin(devnet, CULPRIT, seen_by)
            await devnet.start(EVERYBODY)
            await until_height(devnet, 1, EVERYBODY)
            await load.start()
            await delegate(devnet)
            # What an empty twin says of heights long final harms nobody; those are not looked up.
            since = await height_of(devnet, 0)
            devnet.launch(twin)
            leaving = asyncio.create_task(undelegate_on_and_on(devnet))
            found = [await until_tombstoned(devnet, index) for index in HONEST]
            left = await leaving
            slash = check_slash(found)
            slashed_at = int(slash["slashed_height"])
            entries = await check_unbonding(devnet, slash)
            assert len(entries) == left
            await until_height(devnet, slashed_at + GOES_ON_FOR, HONEST)
            await check_set(devnet, slashed_at)
            for index in HONEST:
                others = [await validator(devnet, index, other) for other in HONEST]
                assert [(v["status"], v["slash"]) for v in others] == [("active", None)] * 3
            await until_released(devnet, entries)
            await load.stop()
            await devnet.stop()
            assert load.failures == []
            assert len(load.final) > GOES_ON_FOR
            check_who_met_the_twin(devnet, twin, seen_by)
            made = contradictions(devnet, CULPRIT, twin)
            assert slash["offence_height"] in made
            first = min(slash["offence_height"], *(h for h in made if h >= since))
            print(f"twin since {since}, contradictions at {made[:10]}, {slash}")
            assert first < slashed_at <= first + SLASHED_WITHIN
            for index in HONEST:
                check_store(devnet, index, slashed_at, entries)
        finally:
            await load.stop()
            await devnet.stop()
            devnet.remove()

    asyncio.run(run())


@pytest.mark.slow
def test_evidence_that_somebody_hands_in_is_punished(tmp_path: Path) -> None:
    """A key that signs at leisure, away from the network: nobody but the submitter saw it."""

    async def run() -> None:
        folder = Path(tempfile.mkdtemp(prefix="zynk-e2e-"))
        devnet = Devnet.create(folder, chain_id=CHAIN_ID, params=PARAMS)
        try:
            await devnet.start(EVERYBODY)
            await until_height(devnet, 4, EVERYBODY)
            file = tmp_path / "evidence.hex"
            for height, status in ((3, "kept"), (2**60, "evidence/not-needed")):
                file.write_text(confess(devnet, height).encode().hex())
                command = "evidence", "submit", str(file), "--rpc", devnet.nodes[0].url, "--json"
                done = await asyncio.to_thread(zynk, *command)
                told = json.loads(done.stdout.splitlines()[-1])["evidence"]
                assert [row["status"].startswith(status) for row in told] == [True], done.stderr
                assert done.returncode == (0 if status == "kept" else 1)
            found = [await until_tombstoned(devnet, index) for index in HONEST]
            assert check_slash(found)["offence_height"] == 3
        finally:
            await devnet.stop()
            devnet.remove()

    asyncio.run(run())


def confess(devnet: Devnet, height: int) -> Evidence:
    """The culprit's key notarizes two blocks in one view."""
    key = load_key(devnet.nodes[CULPRIT].home / cfg.VALIDATOR_KEY_FILE)
    pair = []
    for number in (1, 2):
        block_hash = bytes([number]) * 32
        said = Statement(kind=StatementKind.NOTARIZE, height=height, view=1, block_hash=block_hash)
        pair.append((said, key.sign(statement_sign_bytes(CHAIN_ID, said))))
    return Evidence.of(key.public_key, pair[0], pair[1])


async def delegate(devnet: Devnet) -> None:
    body = AmountBody(operator=culprit_of(devnet), amount=DELEGATED).encode()
    async with RpcClient(devnet.nodes[0].url) as client:
        message = Message("stake/delegate", body)
        waits = [Wallet(client, key).submit([message]) for key in STAKERS]
        await asyncio.gather(*waits)


async def undelegate_on_and_on(devnet: Devnet) -> int:
    """The stakers take stake away in block after block, before, at and after the offence, until
    the culprit is out; how many times."""
    count = 0
    async with RpcClient(devnet.nodes[0].url) as client:
        wallets = [Wallet(client, key) for key in STAKERS]
        while (await validator(devnet, 0, CULPRIT))["status"] != "tombstoned":
            assert count < len(wallets) * ENTRIES_MAX, "the culprit is not punished"
            body = AmountBody(operator=culprit_of(devnet), amount=SHARES + count).encode()
            wallet = wallets[count % len(wallets)]
            await wallet.submit([Message("stake/undelegate", body)], timeout_ms=FINAL_TIMEOUT_MS)
            count += 1
    return count


def culprit_of(devnet: Devnet) -> bytes:
    return bytes.fromhex(operator_of(devnet, CULPRIT))


async def validator(devnet: Devnet, index: int, whose: int) -> Validator:
    return await ask(devnet, index, "stake_validator", operator=operator_of(devnet, whose))


async def until_tombstoned(devnet: Devnet, index: int) -> Validator:
    """The culprit as node `index` has it, once it is out for ever."""
    deadline = time.monotonic() + LIMIT_S
    while (found := await validator(devnet, index, CULPRIT))["status"] != "tombstoned":
        if time.monotonic() > deadline:
            raise ZynkError(f"node {index} does not punish", got=str(found["status"]))
        await asyncio.sleep(0.1)
    return found


def check_slash(found: list[Validator]) -> dict[str, int]:
    """Every honest node has the same slash."""
    slash: dict[str, int] = found[0]["slash"]
    assert all(v["slash"] == slash for v in found)
    assert slash["ppm"] == PARAMS.slash_double_sign_ppm
    return slash


async def check_unbonding(devnet: Devnet, slash: dict[str, int]) -> list[Left]:
    """Bond and unbonding stake are smaller by exactly what they owe: stake that voted when the
    offence was made and left before the slash pays; what had left before does not."""
    answer = await ask(devnet, 0, "stake_unbonding", limit=100)
    entries: list[Left] = []
    for item in answer["entries"]:
        entry = UnbondingEntry.decode(bytes_of_text(item["row"]["value"]))
        pays = slash["offence_height"] - 1 <= entry.height < slash["slashed_height"]
        entries.append(Left(entry.delegator, entry.height, entry.amount, int(item["amount"])))
        assert int(item["amount"]) == (after_slash(entry.amount) if pays else entry.amount)
    paying = [e for e in entries if e.owed]
    # On a busy machine two of them may be further apart than offence and slash, which are close.
    assert paying or not IS_SOAK, "something was unbonding, and liable"
    assert len(paying) < len(entries), "something had left before the offence"
    at = slash["slashed_height"]
    bonded = after_slash(BONDED - sum(e.amount for e in entries if e.height < at))
    bonded -= sum(e.amount for e in entries if e.height >= at)
    for index in HONEST:
        assert (await validator(devnet, index, CULPRIT))["tokens"] == str(bonded)
    return entries


def after_slash(amount: int) -> int:
    return amount - amount * PARAMS.slash_double_sign_ppm // PPM


async def check_set(devnet: Devnet, slashed_at: int) -> None:
    """Changes made in H count from H+2."""
    key = public_key_of(devnet, CULPRIT).hex()
    for index in HONEST:
        assert key in await powers_at(devnet, index, slashed_at + 1)
        assert key not in await powers_at(devnet, index, slashed_at + 2)
        assert len(await powers_at(devnet, index)) == len(HONEST)


async def until_released(devnet: Devnet, entries: list[Left]) -> None:
    """What was undelegated comes out, less what it owes."""
    before = await balance_of_stakers(devnet)
    deadline = time.monotonic() + LIMIT_S
    while (await ask(devnet, 0, "stake_unbonding"))["entries"]:
        assert time.monotonic() < deadline, "the unbonding stake is not released"
        await asyncio.sleep(0.2)
    after = await balance_of_stakers(devnet)
    assert after - before == sum(entry.left for entry in entries)


async def balance_of_stakers(devnet: Devnet) -> int:
    accounts = [key.public_key.hex() for key in STAKERS]
    answers = [await ask(devnet, 0, "chain_account", account=account) for account in accounts]
    return sum(int(answer["balance"]) for answer in answers)


def check_who_met_the_twin(devnet: Devnet, twin: int, seen_by: tuple[int, ...]) -> None:
    """The twin talked to those alone."""
    up = f"peer={peer_id(devnet, twin)}"
    met = [i for i in EVERYBODY if up in (devnet.nodes[i].home / "node.log").read_text()]
    assert met == list(seen_by)


def check_store(devnet: Devnet, index: int, slashed_at: int, entries: list[Left]) -> None:
    """The block says it, it was punished once, and nothing but what was burned has left."""
    with stopped_chain(devnet, index) as chain:
        events = [
            (height, event.type, dict(event.attributes))
            for height in range(1, chain.height + 1)
            for event in block_events(chain, height)
        ]
        with_evidence = [h for h in range(1, chain.height + 1) if chain.block(h).evidence]
    assert with_evidence[0] == slashed_at, "more could only be about an earlier offence"
    culprit = encode_account_id(culprit_of(devnet))
    bonded = BONDED - sum(e.amount for e in entries if e.height < slashed_at)
    burned = bonded - after_slash(bonded)
    slashed = {"operator": culprit, "amount": str(burned), "reason": "double-sign"}
    jailed = {"operator": culprit, "until": "for ever"}
    assert [e for e in events if e[1] in ("stake.slashed", "stake.jailed")] == [
        (slashed_at, "stake.slashed", slashed),
        (slashed_at, "stake.jailed", jailed),
    ]
    released: Counter[tuple[str, str]] = Counter()
    expected: Counter[tuple[str, str]] = Counter()
    for said in (said for _, kind, said in events if kind == "stake.released"):
        released[said["account"], "amount"] += int(said["amount"])
        released[said["account"], "burned"] += int(said["burned"])
    for entry in entries:
        account = encode_account_id(entry.account)
        expected[account, "amount"] += entry.left
        expected[account, "burned"] += entry.owed
    assert released == expected
    document = GenesisDocument.parse((devnet.nodes[index].home / cfg.GENESIS_FILE).read_bytes())
    supply = sum(account.balance for account in document.accounts)
    burned_later = sum(entry.owed for entry in entries)
    assert int(inspect_home(devnet, index)["supply"]) == supply - burned - burned_later
