"""The observer of the crash tests catches what it is there for, through the real p2p path."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from consensus.messages import Vote
from consensus.statement import Statement, StatementKind, statement_sign_bytes
from ledger.block import PROTOCOL_VERSION
from ledger.certificate import VoteKind
from ledger.ed25519 import KeyPair
from ledger.genesis_state import GenesisState
from ledger.store import LevelStore
from node import config as cfg
from node import wire
from node.daemon import STORE_FOLDER
from node.devnet import Devnet
from node.guard import GuardFile
from node.handlers import open_chain
from node.keys import load_key
from p2p.config import P2PConfig
from tests.e2e.network import genesis_of, until
from tests.e2e.observer import Observer
from tests.e2e.p2p_network import Node
from tests.e2e.signed import DiskReader, SignedBook

pytestmark = pytest.mark.e2e


class Traitor(Node):
    """A validator's key in the hands of somebody who sends what it likes."""

    def __init__(self, genesis: GenesisState, key: KeyPair, home: Path, peer: str) -> None:
        home.mkdir()
        super().__init__(
            P2PConfig(
                identity_seed=bytes(range(32)),
                listen_host="127.0.0.1",
                listen_port=0,
                chain_id=genesis.chain_id,
                genesis_hash=genesis.genesis_hash,
                protocol_version=PROTOCOL_VERSION,
                home=home,
                peers=(peer,),
                validators=(),
            )
        )
        self._chain_id = genesis.chain_id
        self._key = key

    def vote(self, block_hash: bytes, *, forged: bool = False) -> None:
        """Notarize a block at height 5, view 1."""
        statement = Statement(kind=StatementKind.NOTARIZE, height=5, view=1, block_hash=block_hash)
        signature = self._key.sign(statement_sign_bytes(self._chain_id, statement))
        vote = Vote(
            kind=VoteKind.NOTARIZE,
            height=5,
            view=1,
            block_hash=block_hash,
            signer=self._key.public_key,
            signature=bytes(64) if forged else signature,
        )
        self.send(bytes([wire.TAG_CONSENSUS]) + vote.encode())

    def send(self, payload: bytes) -> None:
        self.link.broadcast(wire.CHANNEL_CONSENSUS, payload)


def test_the_observer_catches_a_forged_vote_a_conflicting_vote_and_its_own_bugs(
    tmp_path: Path,
) -> None:
    devnet = Devnet.create(tmp_path / "net", chain_id="zynk-e2e")  # homes alone: nothing runs
    genesis = genesis_of(devnet)
    key = load_key(devnet.nodes[0].home / cfg.VALIDATOR_KEY_FILE)

    async def run() -> None:
        async with Observer(genesis, tmp_path / "observer") as observer:
            traitor = Traitor(genesis, key, tmp_path / "traitor", observer.link.listen_addr)
            await traitor.link.start()
            try:
                await until("the traitor is connected", lambda: traitor.up)
                traitor.vote(b"\1" * 32)
                await until("the honest vote", lambda: observer.count == 1)
                observer.check()

                traitor.vote(b"\2" * 32, forged=True)
                await until("the forged vote is a fault", lambda: observer.faults)
                assert "forged" in observer.faults[0]
                assert observer.count == 1, "what nobody signed counts for nothing"
                assert observer.book.conflicts == [], "nor against anybody"
                with pytest.raises(AssertionError):
                    observer.check()
                observer.faults.clear()

                traitor.vote(b"\2" * 32)
                await until("the second vote is a conflict", lambda: observer.book.conflicts)
                assert observer.faults == []
                with pytest.raises(AssertionError):
                    observer.check()
                observer.book.conflicts.clear()
                observer.check()

                for payload in (b"", bytes([wire.TAG_CONSENSUS]), bytes([wire.TAG_COMPACT, 1])):
                    traitor.send(payload)
                await until("malformed frames are faults", lambda: len(observer.faults) == 3)
                observer.faults.clear()

                observer.new = None  # type: ignore[assignment]  # a bug in a handler
                traitor.vote(b"\3" * 32)
                await until(
                    "the bug is counted", lambda: observer.link.stats().get("event_errors", 0)
                )
            finally:
                await traitor.link.stop()

    asyncio.run(run())


def test_a_vote_without_a_record_and_a_record_against_a_vote_are_seen_on_disk(
    tmp_path: Path,
) -> None:
    devnet = Devnet.create(tmp_path / "net", chain_id="zynk-e2e")
    genesis = genesis_of(devnet)
    home = devnet.nodes[0].home
    key = load_key(home / cfg.VALIDATOR_KEY_FILE).public_key
    folder = home / cfg.DATA_FOLDER / STORE_FOLDER
    folder.parent.mkdir(exist_ok=True)
    store = LevelStore.open(folder)
    open_chain(store, genesis)
    store.close()
    book = SignedBook(genesis)
    disk = DiskReader(devnet, book)

    def vote(block_hash: bytes) -> Statement:
        kind = StatementKind.FINALIZE
        return Statement(kind=kind, height=5, view=1, block_hash=block_hash)

    with GuardFile.open(home / cfg.GUARD_FILE, genesis.chain_id, key) as guard:
        guard.append([vote(b"\1" * 32)])
    disk.read(0)
    assert (disk.faults, book.conflicts) == ([], [])
    assert book.knows(key, vote(b"\1" * 32))

    book.note(key, vote(b"\2" * 32), "wire")
    assert len(book.conflicts) == 1
    disk.read(0)
    assert len(disk.faults) == 1
    assert "without a record" in disk.faults[0]
