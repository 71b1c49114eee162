"""Nodes that cosign the log of one chain, over links in memory and on virtual time; a test makes
the blocks. Each node has a chain, a log guard and keys of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from audit.checkpoint import compute_origin, log_note_key
from audit.cosign import Cosigned, read_cosigners, verify_cosigned
from audit.note import Note, verify_signed
from audit.tree_store import LogTree, commit_rows
from ledger.block import Block
from ledger.certificate import Certificate
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.store import MemoryStore
from ledger.tx import Tx
from node.cosigning import Cosigning
from node.log_guard import LogGuard
from p2p.link import P2PLink
from tests.unit.chain_fixture import (
    CHAIN_ID,
    FAUCET,
    GENESIS_TIME_MS,
    NETWORK,
    PROPOSER,
    certify,
    open_chain,
    probe,
)
from tests.unit.node_fixture import FakeLink

DELAY_S = 0.005
ORIGIN = compute_origin(CHAIN_ID)


async def at_once(work: Callable[[], None]) -> None:
    """In place of a thread, which virtual time would not wait for."""
    work()


class MemoryLink(FakeLink):
    """Delivers to neighbours after `DELAY_S`; what a receiver objects to is noted."""

    def __init__(self, world: CosigningWorld, name: str) -> None:
        super().__init__()
        self.world = world
        self.name = name

    def send(self, peer: str, channel: int, payload: bytes) -> bool:
        super().send(peer, channel, payload)
        asyncio.get_running_loop().call_later(DELAY_S, self._deliver, peer, payload)
        return True

    def _deliver(self, peer: str, payload: bytes) -> None:
        node = self.world.nodes.get(peer)
        if node is None or not node.is_up:
            return
        try:
            node.cosigning.on_message(self.name, payload)
        except InvalidInputError as error:
            self.world.offences.append((peer, self.name, str(error)))


class CosigningNode:
    """One life of one node; `index` None: it has no cosign key."""

    def __init__(self, world: CosigningWorld, name: str, index: int | None, guard: Path) -> None:
        self.world = world
        self.name = name
        self.chain = open_chain(world.stores.setdefault(name, MemoryStore()), commit_rows)
        self.log_tree = LogTree(world.stores[name])
        self.link = MemoryLink(world, name)
        self.is_up = False
        self.guard = LogGuard.open(guard, ORIGIN)
        self.log_key = KeyPair.from_seed(name.encode().ljust(32, b"l"))
        self.published: list[int] = []
        self.guard_writes = 0
        self.cosigning = Cosigning(
            chain=self.chain,
            log_tree=self.log_tree,
            log_key=self.log_key,
            guard=self.guard,
            reason="",
            cosign_key=None if index is None else NETWORK.nodes[index].cosign_key,
            link=cast(P2PLink, self.link),
            wall_ms=world.wall_ms,
            run_blocking=world.run_blocking,
        )
        self.cosigning.on_published = lambda board: self.published.append(
            board.checkpoint.tree_size
        )

    def start(self) -> None:
        for block, certificate in self.world.blocks[self.chain.height :]:
            self.chain.commit(block, certificate)
        self.is_up = True
        self.cosigning.start()
        for other in self.world.neighbours(self.name):
            if other.is_up:
                self.cosigning.on_peer_up(other.name)
                other.cosigning.on_peer_up(self.name)

    async def stop(self) -> None:
        self.is_up = False
        await self.cosigning.stop()
        for other in self.world.neighbours(self.name):
            other.cosigning.on_peer_down(self.name)

    def verified(self) -> Cosigned:
        """What its published checkpoint amounts to, checked as an offline verifier would."""
        text = self.cosigning.published_note
        assert text is not None
        note = Note.decode(text)
        verify_signed(note, log_note_key(CHAIN_ID, self.log_key.public_key))
        known = read_cosigners(self.chain.tree, self.chain.validators, CHAIN_ID)
        found = verify_cosigned(note, known, CHAIN_ID)
        assert found.checkpoint.root_hash == self.log_tree.root(found.checkpoint.tree_size)
        return found


class CosigningWorld:
    """`links` are pairs of names; by default everybody is a neighbour of everybody."""

    def __init__(self, folder: Path, links: Sequence[str] = ()) -> None:
        self.folder = folder
        self.links = {frozenset(pair) for pair in links}
        self.stores: dict[str, MemoryStore] = {}
        self.nodes: dict[str, CosigningNode] = {}
        self.blocks: list[tuple[Block, Certificate]] = []
        self.offences: list[tuple[str, str, str]] = []
        self.run_blocking = at_once
        self._maker = open_chain(MemoryStore(), commit_rows)
        self._entries = 0

    def wall_ms(self) -> int:
        return GENESIS_TIME_MS + int(asyncio.get_running_loop().time() * 1000)

    def add(self, name: str, index: int | None) -> CosigningNode:
        """A node on its own disk, not started."""
        guard = self.folder / f"{name}.guard"
        if not guard.exists():
            LogGuard.create(guard, ORIGIN)
        self.nodes[name] = CosigningNode(self, name, index, guard)
        return self.nodes[name]

    def start(self, names: str = "abcd") -> list[CosigningNode]:
        """Validators 0.. under one letter each; "o" is an observer."""
        nodes = [self.add(name, None if name == "o" else "abcd".index(name)) for name in names]
        for node in nodes:
            node.start()
        return nodes

    async def stop(self) -> None:
        for node in self.nodes.values():
            await node.stop()

    def neighbours(self, name: str) -> list[CosigningNode]:
        return [
            node
            for other, node in self.nodes.items()
            if other != name and (not self.links or frozenset((name, other)) in self.links)
        ]

    def commit(self, entries: int = 1) -> int:
        """A block with so many log entries, final on every node that is up; the log's size."""
        nonce = self._maker.account(FAUCET.public_key).nonce
        txs: list[Tx] = []
        for i in range(entries):
            self._entries += 1
            txs.append(probe(FAUCET, nonce + i, "ok", f"entry {self._entries}"))
        block = self._maker.build(
            view=1,
            facts=self._maker.plain_facts(PROPOSER),
            time_ms=self.wall_ms(),
            candidates=txs,
        )
        certificate = certify(block, voters=self._maker.validators)
        self._maker.commit(block, certificate)
        self.blocks.append((block, certificate))
        for node in self.nodes.values():
            if node.is_up:
                node.cosigning.on_commit(node.chain.commit(block, certificate))
        assert block.header.audit_size == self._entries
        return self._entries
