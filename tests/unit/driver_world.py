"""A driver with a real chain, store and guard, whose core is a script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import UnionType
from typing import Any, cast

from consensus import effects as fx
from consensus import inputs
from consensus.core import Core
from consensus.messages import Status
from consensus.statement import Statement, StatementKind
from ledger.chain import Chain, Commit
from ledger.mempool import Mempool
from ledger.store import CrashStore
from node.driver import ConsensusDriver
from node.evidence_pool import EvidencePool
from node.guard import GuardFile
from node.signature_pool import SignaturePool
from node.txpool import TxPool
from p2p.link import P2PLink
from tests.unit.chain_fixture import CHAIN_ID, PROPOSER, open_chain
from tests.unit.node_fixture import FakeLink
from tests.unit.virtual_time import run_virtual

MESSAGE = Status(height=1, view=1, need=())
SEND = fx.Broadcast(message=MESSAGE)


class ScriptedCore:
    """`Core.step` by a table: what to answer to an input of a kind, in order."""

    def __init__(self) -> None:
        self.height = 0
        self.steps: list[inputs.Input] = []
        self.answers: dict[type, list[list[fx.Effect]]] = {}
        self.fails = False
        self.fails_on: type | UnionType | None = None

    def status(self) -> None:
        return None

    def step(self, now_ms: int, event: inputs.Input) -> list[fx.Effect]:
        self.steps.append(event)
        if isinstance(event, inputs.StartHeight):
            self.height = event.height
        if self.fails or (self.fails_on and isinstance(event, self.fails_on)):
            raise KeyError("a bug")
        queue = self.answers.get(type(event), [])
        return queue.pop(0) if queue else []


class BuggyChain:
    """A real chain, whose writes raise the world's `chain_bug` if there is one."""

    def __init__(self, world: World, chain: Chain) -> None:
        self._world, self._chain = world, chain

    def __getattr__(self, name: str) -> Any:
        if name in ("commit", "store_consensus") and self._world.chain_bug is not None:
            raise self._world.chain_bug
        return getattr(self._chain, name)


class World:
    """A driver whose core is a script."""

    def __init__(self, folder: Path) -> None:
        self.store = CrashStore()
        self.chain_bug: Exception | None = None
        self.chain = cast(Chain, BuggyChain(self, open_chain(self.store)))
        self.commit_bug: Exception | None = None
        self.sync_error: OSError | None = None
        self.guard = GuardFile.create(folder / "guard", CHAIN_ID, PROPOSER, sync=self._sync)
        self.link = FakeLink(peers=("a",))
        self.signatures = SignaturePool(threads=1)
        self.core = ScriptedCore()
        self.core.height = 1
        self.commits: list[Commit] = []
        self.offences: list[tuple[str, str]] = []
        self.syncs: list[tuple[str, int]] = []
        self.forks: list[object] = []
        self.fork_error: OSError | None = None
        self.now_ms = 0
        self.pool = TxPool(
            chain=self.chain,
            mempool=Mempool(),
            signatures=self.signatures,
            link=cast(P2PLink, self.link),
            topic="tx/test",
            on_pending=lambda: None,
        )
        self.evidence = EvidencePool(self.chain, self.store, lambda *_: None)
        self.driver = ConsensusDriver(
            chain=self.chain,
            core=cast(Core, self.core),
            make_facts=lambda _: self.chain.plain_facts(PROPOSER),
            evidence=self.evidence,
            guard=self.guard,
            link=cast(P2PLink, self.link),
            txpool=self.pool,
            wall_ms=lambda: self.now_ms,
            on_commit=self._on_commit,
            on_need_sync=lambda peer, height: self.syncs.append((peer, height)),
            on_offence=lambda peer, reason: self.offences.append((peer, reason)),
            on_fork=self._on_fork,
        )

    def _sync(self, _: int) -> None:
        if self.sync_error is not None:
            raise self.sync_error

    def _on_commit(self, commit: Commit) -> None:
        self.commits.append(commit)
        if self.commit_bug is not None:
            raise self.commit_bug

    def _on_fork(self, proof: object) -> None:
        self.forks.append(proof)
        if self.fork_error is not None:
            raise self.fork_error

    def perform(self, *effects: fx.Effect) -> None:
        """One step with these effects."""
        self.core.answers[inputs.Awake] = [list(effects)]
        self.driver.wake()

    def vote(self, view: int = 1) -> Statement:
        return Statement(kind=StatementKind.NULLIFY, height=1, view=view, block_hash=b"")


def run(folder: Path, test: Callable[[World], Awaitable[None]]) -> None:
    async def body() -> None:
        world = World(folder)
        try:
            await test(world)
        finally:
            world.driver.stop("node is stopping")
            world.guard.close()
            world.signatures.close()

    run_virtual(body())


def assert_stopped(world: World, word: str) -> None:
    """Nothing goes in or out any more."""
    assert word in (world.driver.stop_reason or "")
    assert not world.link.broadcasts
    assert not world.link.sent
    steps = len(world.core.steps)
    world.perform(SEND)
    world.driver.on_peer_up("b")
    world.driver.start_height()
    assert len(world.core.steps) == steps
    assert not world.link.broadcasts
