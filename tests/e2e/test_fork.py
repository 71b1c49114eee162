"""A real network of four is forked by two Byzantine validators, and each honest node names both.

Four validators, one chain. Then both culprits run twins, and the network falls in two: one honest
validator with both culprits on each side, three of four, so each side has a quorum and goes on.
When the honest ones meet they stop, each with a proof that needs nothing but the genesis file.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from ledger.accounts import TransferBody, encode_account_id
from ledger.ed25519 import KeyPair
from ledger.errors import ZynkError
from ledger.staking_record import POWER_UNIT
from ledger.tx import Message
from node import config as cfg
from node.devnet import Devnet
from node.keys import load_key
from node.wallet import Wallet
from rpc.client import RpcClient
from tests.e2e.network import (
    FINAL_TIMEOUT_MS,
    LIMIT_S,
    chain_hashes,
    height_of,
    public_key_of,
    until_height,
    until_status,
    zynk,
)
from tests.e2e.twins import add_twin, ask, operator_of, powers_at, set_peers

pytestmark = pytest.mark.e2e

HONEST = (0, 1)
CULPRITS = (2, 3)
POWER = 1_000_000
DELEGATED_POWER = 400_000
"""Moved to the first culprit before the fork, so that the proof must bring the set of the forked
height; and to the honest one on each side after it, so that neither side knows the other's set."""
STAYS_HALTED_S = 2.0
SOAK_ALONE = pytest.mark.skipif(os.environ.get("ZYNK_SOAK") != "1", reason="./dev soak runs it")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ahead", "sets_part"),
    [
        pytest.param(0, False, id="side by side"),
        pytest.param(0, True, id="sets part", marks=SOAK_ALONE),
        pytest.param(12, True, id="sets part and one side is far ahead"),
    ],
)
def test_each_honest_node_of_a_forked_network_halts_and_proves_who_forked_it(
    ahead: int, sets_part: bool
) -> None:
    async def run() -> None:
        folder = Path(tempfile.mkdtemp(prefix="zynk-e2e-"))
        devnet = Devnet.create(folder, chain_id="zynk-fork")
        try:
            await devnet.start()
            await until_height(devnet, 1)
            await delegate(devnet, HONEST[0], CULPRITS[0])
            sides = await fork(devnet)
            if sets_part:
                await asyncio.gather(*(delegate(devnet, index, index) for index in HONEST))
            await asyncio.gather(
                send(devnet, HONEST[0], b"one side", 3 + ahead),
                send(devnet, HONEST[1], b"other side", 3),
            )
            forked_at = await first_difference(devnet)
            held = await powers_at(devnet, HONEST[0], forked_at)
            await meet(devnet, sides)
            for index in HONEST:
                await check_halted(devnet, index)
                await check_proof(devnet, index, forked_at, held)
            await check_restart(devnet, HONEST[1])
        finally:
            await devnet.stop()
            devnet.remove()

    asyncio.run(run())


async def delegate(devnet: Devnet, at: int, to: int) -> None:
    """Stake moves to a validator, and the set that votes is another."""
    done = await asyncio.to_thread(
        zynk,
        *("stake", "delegate", "--key", str(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE)),
        *("--to", encode_account_id(bytes.fromhex(operator_of(devnet, to)))),
        *("--amount", str(DELEGATED_POWER * POWER_UNIT), "--rpc", devnet.nodes[at].url),
    )
    assert done.returncode == 0, done.stderr
    await send(devnet, at, b"until it counts", 3)
    powers = await powers_at(devnet, at)
    assert powers[public_key_of(devnet, to).hex()] == POWER + DELEGATED_POWER


async def fork(devnet: Devnet) -> tuple[list[int], list[int]]:
    """Stop all, make twins of the culprits, and start two networks; the indexes of each."""
    await until_height(devnet, await height_of(devnet, 0))
    assert await devnet.stop() == [0] * 4
    twins = [add_twin(devnet, index, ()) for index in CULPRITS]
    sides = [HONEST[0], *CULPRITS], [HONEST[1], *twins]
    for side in sides:
        for index in side:
            set_peers(devnet, index, side)
    await devnet.start()
    return sides


async def send(devnet: Devnet, index: int, memo: bytes, count: int) -> None:
    """So many txs one after the other, each of them final before the next."""
    key: KeyPair = load_key(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE)
    body = TransferBody(to=key.public_key, amount=1, memo=memo).encode()
    async with RpcClient(devnet.nodes[index].url) as client:
        wallet = Wallet(client, key)
        for _ in range(count):
            await wallet.submit([Message("bank/transfer", body)], timeout_ms=FINAL_TIMEOUT_MS)


async def first_difference(devnet: Devnet) -> int:
    """The lowest height of which two blocks are final."""
    top = min([await height_of(devnet, index) for index in HONEST])
    one, other = [await chain_hashes(devnet, index, range(1, top + 1)) for index in HONEST]
    return min(height for height in one if one[height] != other[height])


async def meet(devnet: Devnet, sides: tuple[list[int], list[int]]) -> None:
    """The two honest nodes know each other from here on; one of them was never stopped."""
    assert await devnet.stop_node(HONEST[0]) == 0
    set_peers(devnet, HONEST[0], [*sides[0], HONEST[1]])
    await devnet.start([HONEST[0]])


async def check_halted(devnet: Devnet, index: int) -> None:
    """The node says that the chain has forked, makes no block more, and answers."""
    await until_status(
        devnet, index, "the node halts", lambda s: "has forked" in s["validator"]["reason"]
    )
    before = await height_of(devnet, index)
    said = await asyncio.to_thread(zynk, "status", "--rpc", devnet.nodes[index].url)
    assert said.returncode == 0, said.stderr
    rows = dict(line.split(maxsplit=1) for line in said.stdout.splitlines() if " " in line.strip())
    assert rows["voting"].startswith("no: consensus stopped: the chain has forked"), said.stdout
    assert rows["ready"].startswith("no: "), said.stdout
    await asyncio.sleep(STAYS_HALTED_S)
    assert await height_of(devnet, index) == before
    assert (await ask(devnet, index, "chain_head"))["height"] == before
    account = operator_of(devnet, index)
    assert "proof" in await ask(devnet, index, "chain_account", account=account)


async def check_proof(devnet: Devnet, index: int, forked_at: int, held: dict[str, int]) -> None:
    """Its proof holds for whoever has the genesis, and names the culprits and nobody else."""
    found = await until_proven(devnet, index)
    height, blocks = found["height"], {block["hash"] for block in found["blocks"]}
    assert height >= forked_at
    assert len(blocks) == 2
    for honest in HONEST:  # the height may be the one that was in work when they met
        if height <= await height_of(devnet, honest):
            assert set((await chain_hashes(devnet, honest, [height])).values()) < blocks
    assert {row["validator"]: row["power"] for row in found["culprits"]} == {
        (key := public_key_of(devnet, culprit).hex()): held[key] for culprit in CULPRITS
    }
    assert found["total_power"] == sum(held.values()) == 4 * POWER + DELEGATED_POWER
    assert found["named_power"] == 2 * POWER + DELEGATED_POWER


async def until_proven(devnet: Devnet, index: int) -> dict[str, Any]:
    """What `zynk inspect fork` says; the nodes may still be showing each other what they hold."""
    home = devnet.nodes[index].home
    deadline = time.monotonic() + LIMIT_S
    while True:
        done = await asyncio.to_thread(
            zynk,
            *("inspect", "fork", str(home / cfg.FORK_PROOF_FILE)),
            *("--trust", str(home / cfg.GENESIS_FILE), "--json"),
        )
        if done.returncode == 0:
            report: dict[str, Any] = json.loads(done.stdout)
            return report
        if time.monotonic() > deadline:
            raise ZynkError(f"node {index} proves nothing", got=done.stderr)
        await asyncio.sleep(0.2)


async def check_restart(devnet: Devnet, index: int) -> None:
    """With the proof in its home a node does not vote again, and says what to do."""
    assert await devnet.stop_node(index) == 0
    await devnet.start([index])
    status = await devnet.status(index)
    assert not status["validator"]["voting"]
    assert "has forked" in status["validator"]["reason"]
    assert (devnet.nodes[index].home / cfg.FORK_PROOF_FILE).exists()
