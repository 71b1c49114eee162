"""A real network at an upgrade: all nodes halt at the same block with exit code 6, stay out as long
as they are old, and go on with the same chain once their software speaks the version."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genesis.document import GenesisDocument
from ledger.block import PROTOCOL_VERSION
from ledger.chain import Chain
from ledger.governance_proposal import (
    Change,
    Choice,
    ParamsChange,
    ProposeBody,
    UpgradeChange,
    VoteBody,
)
from ledger.params import ChainParams
from ledger.store import LevelStore
from ledger.tx import Message
from ledger.upgrade import UPGRADE_KEY, Upgrade, UpgradeState
from node import config as cfg
from node.config import READY_FILE, ConsensusSettings
from node.daemon import STORE_FOLDER
from node.devnet import Devnet
from node.handlers import AUDIT_LOG
from node.keys import load_key
from node.wallet import Wallet
from rpc.client import RpcClient
from tests.e2e.next_version import NEXT_VERSION

pytestmark = pytest.mark.e2e

HALT = 6
EXIT_CODE = 6
INFO = "install zynk 2.0"
REASON = f"this node must be upgraded: height {HALT} needs protocol version {NEXT_VERSION}"
ENDED_TIMEOUT_S = 90.0


def schedule_from_genesis(home: Path) -> None:
    """Write the node's height 0 with an upgrade scheduled, as if stake had voted for it."""
    state = GenesisDocument.parse((home / cfg.GENESIS_FILE).read_bytes()).to_state()
    upgrade = Upgrade(height=HALT, version=NEXT_VERSION, info=INFO)
    rows = {**state.module_rows, UPGRADE_KEY: UpgradeState(scheduled=upgrade).encode()}
    folder = home / cfg.DATA_FOLDER / STORE_FOLDER
    folder.mkdir(parents=True)
    store = LevelStore.open(folder)
    try:
        Chain.open(store, replace(state, module_rows=rows), {}, AUDIT_LOG)
    finally:
        store.close()


def launch_next(devnet: Devnet, index: int) -> None:
    """Start a node of the next release on the home of this one."""
    node = devnet.nodes[index]
    (node.home / READY_FILE).unlink(missing_ok=True)
    with (node.home / "node.log").open("ab") as log_file:
        node.process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.next_version", str(node.home)],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )


async def wait_ended(devnet: Devnet, timeout_s: float = ENDED_TIMEOUT_S) -> list[int]:
    """Exit codes of all nodes, once all have ended."""
    deadline = time.monotonic() + timeout_s
    while any(node.is_running for node in devnet.nodes):
        assert time.monotonic() < deadline, devnet.nodes[0].log_tail()
        await asyncio.sleep(0.1)
    return [node.process.wait() for node in devnet.nodes if node.process is not None]


async def block_hash(devnet: Devnet, index: int, height: int) -> str:
    async with RpcClient(devnet.nodes[index].url) as client:
        found = await client.call("chain_header", block=height)
        return str(found["hash"])


async def wait_reason(devnet: Devnet, index: int) -> dict[str, Any]:
    """The status of a node that has halted and not ended yet."""
    deadline = time.monotonic() + ENDED_TIMEOUT_S
    while True:
        status = await devnet.status(index)
        if not status["validator"]["voting"] and REASON in status["validator"]["reason"]:
            return status
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.1)


def test_a_network_halts_for_an_upgrade_and_goes_on_with_the_next_release() -> None:
    async def run() -> None:
        folder = Path(tempfile.mkdtemp(prefix="zynk-upgrade-"))
        devnet = Devnet.create(
            folder, chain_id="zynk-upgrade", consensus=ConsensusSettings(heartbeat_ms=1000)
        )
        try:
            for node in devnet.nodes:
                schedule_from_genesis(node.home)
            await devnet.start()
            status = await wait_reason(devnet, 0)
            assert status["height"] == HALT - 1
            assert not status["ready"]
            assert any(REASON in reason for reason in status["reasons"])
            assert await wait_ended(devnet) == [EXIT_CODE] * 4
            for node in devnet.nodes:
                spoken = f"and this software speaks {PROTOCOL_VERSION} ({INFO})"
                assert f"zynk: {REASON}, {spoken}" in node.log_tail()

            devnet.launch(0)
            while devnet.nodes[0].is_running:
                await asyncio.sleep(0.1)
            assert await wait_ended(devnet) == [EXIT_CODE] * 4, "still too old"
            assert devnet.nodes[0].log_tail().count(f"zynk: {REASON}") == 2

            for index in range(4):
                launch_next(devnet, index)
            for index in range(4):
                await devnet.wait_listening(index)
            await devnet.wait_height(HALT + 2, timeout_s=ENDED_TIMEOUT_S)
            for height in (1, HALT - 1, HALT, HALT + 2):
                assert len({await block_hash(devnet, i, height) for i in range(4)}) == 1
            async with RpcClient(devnet.nodes[0].url) as client:
                for height, version in ((HALT - 1, NEXT_VERSION - 1), (HALT, NEXT_VERSION)):
                    found = await client.call("chain_header", block=height)
                    assert found["header"]["protocol_version"] == version
            assert await devnet.stop() == [0] * 4
        finally:
            await devnet.stop()
            devnet.remove()

    asyncio.run(run())


OPERATOR_KEY_FILE = "keys/operator.json"
HALT_AFTER = 36
"""Heights from the proposal to the upgrade; at 1 s a height the vote is over well before."""


async def propose(wallet: Wallet, change: Change) -> None:
    body = ProposeBody(title="A title", summary="", change=change)
    await wallet.submit([Message("gov/propose", body.encode())])


async def vote_yes(devnet: Devnet, index: int, proposals: list[int]) -> None:
    """The operator of a validator votes with all that is bonded to it."""
    key = load_key(devnet.nodes[index].home / OPERATOR_KEY_FILE)
    async with RpcClient(devnet.nodes[index].url) as client:
        bodies = [
            VoteBody(proposal_id=i, operator=key.public_key, choice=Choice.YES) for i in proposals
        ]
        await Wallet(client, key).submit([Message("gov/vote", b.encode()) for b in bodies])


def test_stake_votes_for_a_parameter_and_for_the_upgrade_of_a_real_network() -> None:
    async def run() -> None:
        folder = Path(tempfile.mkdtemp(prefix="zynk-governed-"))
        devnet = Devnet.create(
            folder,
            chain_id="zynk-governed",
            consensus=ConsensusSettings(heartbeat_ms=1000),
            params=ChainParams(gov_voting_ms=4000, gov_deposit=1_000_000),
        )
        try:
            await devnet.start()
            await devnet.wait_height(1)
            halt = (await devnet.status(0))["height"] + HALT_AFTER
            async with RpcClient(devnet.nodes[0].url) as client:
                wallet = Wallet(client, load_key(devnet.nodes[0].home / OPERATOR_KEY_FILE))
                await propose(wallet, ParamsChange(values=(("fee_base", 77),)))
                upgrade = Upgrade(height=halt, version=NEXT_VERSION, info=INFO)
                await propose(wallet, UpgradeChange(upgrade=upgrade))
                assert (await client.call("chain_params"))["params"]["fee_base"] == 100
            await asyncio.gather(*(vote_yes(devnet, index, [1, 2]) for index in range(3)))
            assert await wait_ended(devnet) == [EXIT_CODE] * 4
            for node in devnet.nodes:
                assert f"height {halt} needs protocol version {NEXT_VERSION}" in node.log_tail()
            for index in range(4):
                launch_next(devnet, index)
            for index in range(4):
                await devnet.wait_listening(index)
            await devnet.wait_height(halt + 2, timeout_s=ENDED_TIMEOUT_S)
            for height in (1, halt - 1, halt, halt + 2):
                assert len({await block_hash(devnet, i, height) for i in range(4)}) == 1
            async with RpcClient(devnet.nodes[3].url) as client:
                found = await client.call("chain_header", block=halt)
                assert found["header"]["protocol_version"] == NEXT_VERSION
                assert (await client.call("chain_params"))["params"]["fee_base"] == 77
        finally:
            await devnet.stop()
            devnet.remove()

    asyncio.run(run())
