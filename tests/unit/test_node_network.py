"""Four real drivers, guards and chains over a link in memory, on virtual time: one crashes at each
of its writes, and again in the life after it, and the network never notices more than a pause."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import cast

import pytest

from consensus.core import Core
from consensus.messages import Vote, decode_message
from consensus.statement import Statement, StatementKind, is_conflict
from consensus.timing import Timing
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.mempool import Mempool
from ledger.store import CrashStore, SimulatedCrash
from node import wire
from node.driver import ConsensusDriver
from node.evidence_pool import EvidencePool
from node.guard import GuardFile
from node.signature_pool import SignaturePool
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.unit.chain_fixture import (
    CHAIN_ID,
    FAUCET,
    GENESIS_TIME_MS,
    VALIDATOR_KEYS,
    open_chain,
    transfer,
)
from tests.unit.node_fixture import FakeLink
from tests.unit.virtual_time import run_virtual

TIMING = Timing(heartbeat_ms=2000)
DELAY_S = 0.01
HEIGHTS = 8
QUORUM = "abc"
"""With "d" away nothing becomes final without "a", so that each of its votes counts."""
TO = bytes(range(32))
Disk = tuple[CrashStore, Path]


class Validator:
    """One life of one validator."""

    def __init__(self, network: Network, name: str, key: KeyPair, disk: Disk) -> None:
        self.name, self.key, self.store = name, key, disk[0]
        self.is_dead = False
        self.chain = open_chain(self.store)
        self.guard = GuardFile.open(disk[1], CHAIN_ID, key.public_key)
        self.signatures = SignaturePool(threads=1)
        self.link = MemoryLink(network, self)
        self.pool = TxPool(
            chain=self.chain,
            mempool=Mempool(),
            signatures=self.signatures,
            link=cast(P2PLink, self.link),
            topic="tx/test",
            on_pending=lambda: self.driver.wake(),
        )
        loop = asyncio.get_running_loop()
        self.driver = ConsensusDriver(
            chain=self.chain,
            core=Core(chain_id=CHAIN_ID, key=key.public_key, sign=key.sign, timing=network.timing),
            make_facts=lambda _: self.chain.plain_facts(key.public_key),
            evidence=EvidencePool(self.chain, self.store, lambda *_: None),
            guard=self.guard,
            link=cast(P2PLink, self.link),
            txpool=self.pool,
            wall_ms=lambda: GENESIS_TIME_MS + int(loop.time() * 1000),
            on_commit=self.pool.on_commit,
            on_need_sync=lambda *_: None,
            on_offence=lambda peer, why: network.offences.append(f"{self.name}: {peer}: {why}"),
            on_fork=lambda _: None,
        )

    def start(self) -> None:
        """In a turn of the loop of its own, where a crash ends this life alone."""
        asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self.driver.start_height()
        for peer in self.link.network.alive():
            if peer is not self:
                self.driver.on_peer_up(peer.name)
                peer.driver.on_peer_up(self.name)

    def end(self) -> None:
        """The process is gone: nothing of it is heard or done any more."""
        if not self.is_dead:
            self.is_dead = True
            self.driver.stop("node is stopping")
            self.guard.close()
            self.signatures.close()


class MemoryLink(FakeLink):
    """Delivers to the living after `DELAY_S`, in order."""

    def __init__(self, network: Network, owner: Validator) -> None:
        super().__init__()
        self.network = network
        self.owner = owner

    def send(self, peer: str, channel: int, payload: bytes) -> bool:
        if self.owner.is_dead:
            return False
        self.network.sent.append((self.owner.key.public_key, payload))
        loop = asyncio.get_running_loop()
        loop.call_later(DELAY_S, self.network.deliver, self.owner.name, peer, payload)
        return True

    def broadcast(self, channel: int, payload: bytes) -> None:
        assert channel == wire.CHANNEL_CONSENSUS
        for peer in self.network.alive():
            if peer is not self.owner:
                self.send(peer.name, channel, payload)


class Network:
    """Validators by name; what was sent, by key."""

    def __init__(self, folder: Path, timing: Timing = TIMING) -> None:
        self.folder = folder
        self.timing = timing
        self.keys = dict(zip("abcd", VALIDATOR_KEYS.values(), strict=True))
        self.lives: dict[str, Validator] = {}
        self.sent: list[tuple[bytes, bytes]] = []
        self.offences: list[str] = []
        self.crashes = 0
        self.bugs: list[object] = []
        asyncio.get_running_loop().set_exception_handler(self._on_exception)

    def _on_exception(self, _: object, context: dict[str, object]) -> None:
        if not isinstance(context.get("exception"), SimulatedCrash):
            self.bugs.append(context)
            return
        self.crashes += 1
        self.lives["a"].end()  # the only one whose store crashes

    def launch(self, name: str, store: CrashStore) -> Validator:
        key, path = self.keys[name], self.folder / name
        if not path.exists():
            GuardFile.create(path, CHAIN_ID, key.public_key).close()
        self.lives[name] = Validator(self, name, key, (store, path))
        return self.lives[name]

    def alive(self) -> list[Validator]:
        return [life for life in self.lives.values() if not life.is_dead]

    def deliver(self, sender: str, receiver: str, payload: bytes) -> None:
        life = self.lives[receiver]
        if life.is_dead:
            return
        try:
            life.driver.on_message(sender, payload)
        except InvalidInputError as error:
            self.offences.append(f"{sender}: {error}")

    async def until(self, height: int, names: str = "abcd", timeout_s: float = 80) -> bool:
        """Until those are at `height`; False if one of them died first."""
        for _ in range(round(timeout_s / 0.02)):
            lives = [self.lives[name] for name in names]
            if any(life.is_dead for life in lives):
                return False
            if all(life.chain.height >= height for life in lives):
                return True
            await asyncio.sleep(0.02)
        raise AssertionError({life.name: life.chain.height for life in self.lives.values()})

    def statements(self, key: bytes) -> list[Statement]:
        """All that the holder of `key` signed and sent, in order."""
        found = []
        for sender, payload in self.sent:
            if payload[0] == wire.TAG_COMPACT:
                message: wire.CompactProposal | Vote = wire.CompactProposal.decode(payload[1:])
                kind = StatementKind.PROPOSE
            elif payload[0] == wire.TAG_CONSENSUS and isinstance(
                vote := decode_message(payload[1:]), Vote
            ):
                kind, message = StatementKind(int(vote.kind)), vote
            else:
                continue
            block_hash = message.block_hash if isinstance(message, Vote) else message.header.hash
            if message.signer == key and sender == key:
                at = (message.height, message.view)
                found.append(Statement(kind=kind, height=at[0], view=at[1], block_hash=block_hash))
        return list(dict.fromkeys(found))

    def assert_sound(self) -> None:
        """No contradiction, one chain, no offence by honest nodes."""
        for key in VALIDATOR_KEYS:
            said = self.statements(key)
            for i, statement in enumerate(said):
                assert not any(is_conflict(other, statement) for other in said[:i])
        lives = list(self.lives.values())
        assert all(self.statements(life.key.public_key) for life in lives)
        for height in range(1, min(life.chain.height for life in lives) + 1):
            assert len({life.chain.header(height).hash for life in lives}) == 1
        assert not self.offences
        assert not self.bugs
        assert not any(life.driver.failures_total for life in lives)

    def end(self) -> None:
        for life in self.lives.values():
            life.end()


async def start(folder: Path, store: CrashStore, names: str = "abcd") -> Network:
    """A network of those whose validator "a" uses `store`, with a tx that only "b" has."""
    folder.mkdir()
    network = Network(folder)
    for name in names:
        network.launch(name, store if name == "a" else CrashStore())
    for life in network.alive():
        life.start()
    tx = transfer(FAUCET, 0, TO, 1)
    assert await network.lives["b"].pool.submit([tx.encoded]) == [tx.id]
    return network


async def count_writes(folder: Path) -> int:
    store = CrashStore()
    network = await start(folder, store, QUORUM)
    assert await network.until(HEIGHTS, QUORUM)
    network.assert_sound()
    network.end()
    return store.writes


async def crash_twice(folder: Path, when: str, number: int) -> None:
    """Validator "a" crashes at write `number`, and at the third write of its next life."""
    store = CrashStore()
    network = await start(folder, store, QUORUM)
    final: dict[int, bytes] = {}
    for life_number, write in enumerate((number - store.writes, 3)):
        (store.stop_before if when == "before" else store.stop_after)(write)
        if await network.until(HEIGHTS + 3, "a"):
            break
        assert network.crashes == life_number + 1
        chain = network.lives["a"].chain
        final |= {h: chain.header(h).hash for h in range(1, chain.height + 1)}
        store = store.crash(rng=random.Random(number))
        network.launch("a", store).start()
    goal = max(life.chain.height for life in network.lives.values()) + 2
    assert await network.until(goal, QUORUM)
    while network.lives["a"].chain.account(TO).balance == 0:  # until "b" has led
        assert goal < 50
        goal += 1
        assert await network.until(goal, QUORUM)
    network.assert_sound()
    for height, block_hash in final.items():
        assert network.lives["a"].chain.header(height).hash == block_hash
    network.end()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_validator_that_crashes_at_any_write_never_contradicts_itself(
    tmp_path: Path, when: str
) -> None:
    writes = 0

    async def count() -> None:
        nonlocal writes
        writes = await count_writes(tmp_path / "count")

    run_virtual(count())
    assert writes > 2 * HEIGHTS
    for number in range(2, writes + 1):
        run_virtual(crash_twice(tmp_path / str(number), when, number))


@pytest.mark.slow
def test_the_same_network_runs_the_same_way_again(tmp_path: Path) -> None:
    traces = []

    async def body(folder: Path) -> None:
        network = await start(folder, CrashStore())
        await network.until(HEIGHTS)
        traces.append(list(network.sent))
        network.end()

    for name in ("one", "two"):
        run_virtual(body(tmp_path / name))
    assert traces[0] == traces[1]


@pytest.mark.slow
def test_three_of_four_go_on_and_the_fourth_comes_back_to_their_chain(tmp_path: Path) -> None:
    async def body() -> None:
        store = CrashStore()
        network = await start(tmp_path / "net", store)
        assert await network.until(2)
        network.lives["a"].end()
        height = network.lives["a"].chain.height
        assert await network.until(height + 3, "bcd")
        network.launch("a", store.crash()).start()
        assert await network.until(height + 5)
        network.assert_sound()
        network.end()

    run_virtual(body())
