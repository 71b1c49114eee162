"""Four real drivers go on finalising while a stranger says everything to each of them at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from consensus.messages import (
    BodyRequest,
    CertificateMessage,
    ConsensusMessage,
    Final,
    Propose,
    Status,
    Vote,
)
from ledger.certificate import VoteKind
from ledger.errors import InvalidInputError
from ledger.store import CrashStore
from node import wire
from node.sync import BlockSync
from tests.unit import test_node_network as four
from tests.unit.chain_fixture import FAUCET, build, certify
from tests.unit.virtual_time import run_virtual

STRANGER = "stranger"
FORGED = bytes(64)


def lies(life: four.Validator, number: int) -> list[bytes]:
    """One of each kind for the height in work and the next, none of it signed by who it names."""
    height = life.chain.height + 1 + number % 2
    validator = life.key.public_key
    block = build(life.chain)
    certificate = certify(block, keys={FAUCET.public_key: FAUCET})
    messages: list[ConsensusMessage] = [
        Status(height=10**6 + number, view=10**6, need=tuple(range(1, 65))),
        BodyRequest(height=height, block_hash=number.to_bytes(32)),
        CertificateMessage(certificate=certificate),
        Final(block=block, certificate=certificate),
    ]
    payloads = [bytes([wire.TAG_CONSENSUS]) + message.encode() for message in messages]
    for signer in (validator, FAUCET.public_key):
        for kind in VoteKind:
            block_hash = b"" if kind is VoteKind.NULLIFY else block.hash
            vote = Vote(
                kind=kind,
                height=height,
                view=1 + number,
                block_hash=block_hash,
                signer=signer,
                signature=FORGED,
            )
            payloads.append(bytes([wire.TAG_CONSENSUS]) + vote.encode())
        propose = Propose(
            height=block.height, view=1, block=block, justify=(), signer=signer, signature=FORGED
        )
        payloads.append(wire.CompactProposal.of(propose, lambda _: True).encode())
    return payloads


@pytest.mark.slow
def test_finality_goes_on_among_lies_and_no_honest_node_is_blamed(tmp_path: Path) -> None:
    async def flood(network: four.Network, counts: dict[str, int]) -> None:
        for number in range(10**6):
            for life in network.alive():
                for payload in lies(life, number):
                    try:
                        life.driver.on_message(STRANGER, payload)
                    except InvalidInputError:
                        counts[life.name] = counts.get(life.name, 0) + 1
            await asyncio.sleep(0.02)

    async def body() -> None:
        network = await four.start(tmp_path / "net", CrashStore())
        counts: dict[str, int] = {}
        task = asyncio.create_task(flood(network, counts))
        assert await network.until(6)
        task.cancel()
        blamed = {line.split(": ")[1] for line in network.offences}
        assert blamed == {STRANGER}
        assert min(counts[name] for name in "abcd") > 100, "the stranger's faults are scored"
        network.offences.clear()
        network.assert_sound()
        for life in network.alive():
            assert life.chain.certificate(3).view == 1, "no view was lost"
        network.end()

    run_virtual(body())


def test_sync_is_not_started_by_every_claim(tmp_path: Path) -> None:
    """A claim asks its peer once, and then not before a pause; meanwhile nothing says "syncing"."""

    async def body() -> None:
        network = await four.start(tmp_path / "net", CrashStore())
        life = network.lives["a"]
        failures: list[str] = []
        sync = BlockSync(
            chain=life.chain,
            txpool=life.pool,
            link=life.link,  # type: ignore[arg-type]  # a double of P2PLink
            on_commit=life.driver.committed,
            on_caught_up=life.driver.start_height,
            on_bad_peer=lambda peer, error: failures.append(peer),
            on_failure=failures.append,
        )
        sent = len(network.sent)
        for _ in range(100):
            sync.on_peer_height(STRANGER, 10**6)
            await asyncio.sleep(0.01)
            assert not sync.progress.is_syncing
        asked = [p for _, p in network.sent[sent:] if p[0] == wire.TAG_RANGE_REQUEST]
        assert len(asked) == 1
        await sync.stop()
        network.end()

    run_virtual(body())
