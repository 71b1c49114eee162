"""What each validator is known to have signed, from every source that a test can reach.

What travels (the observer), what a dead validator's sign guard and store hold, and what the
certificates of the chain show are all entered here, and each statement is compared with each other
one of its signer and view by `is_conflict`: signing twice can not hide in the moment when the
observer had not redialled yet.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from consensus.guard import decode_guard
from consensus.statement import Statement, StatementKind, is_conflict
from ledger.certificate import Certificate, verify_certificate
from ledger.genesis_state import GenesisState
from ledger.store import LevelStore
from node import config as cfg
from node.daemon import STORE_FOLDER
from node.devnet import Devnet
from node.handlers import open_chain
from tests.e2e.network import genesis_of, public_key_of


class SignedBook:
    """Statements by signer and (height, view), each with the source that showed it first."""

    def __init__(self, genesis: GenesisState) -> None:
        self.conflicts: list[str] = []
        self._chain_id = genesis.chain_id
        self._validators = genesis.validators
        self._sources: dict[bytes, dict[tuple[int, int], dict[Statement, str]]] = {
            validator.public_key: {} for validator in genesis.validators.validators
        }

    def is_validator(self, key: bytes) -> bool:
        return key in self._sources

    def knows(self, signer: bytes, statement: Statement) -> bool:
        place = (statement.height, statement.view)
        return statement in self._sources[signer].get(place, {})

    def of(self, signer: bytes) -> list[Statement]:
        """All that the signer is known to have signed."""
        return [s for known in self._sources[signer].values() for s in known]

    def note(self, signer: bytes, statement: Statement, source: str) -> None:
        """Enter a statement whose signature is known to be good."""
        known = self._sources[signer].setdefault((statement.height, statement.view), {})
        if statement in known:
            return
        self.conflicts += [
            f"{signer.hex()[:8]} signed {other} ({where}) and {statement} ({source})"
            for other, where in known.items()
            if is_conflict(other, statement)
        ]
        known[statement] = source

    def note_certificate(self, certificate: Certificate, source: str) -> None:
        """Enter what its signers say. Raises InvalidInputError for one that does not hold."""
        verify_certificate(certificate, self._validators, self._chain_id)
        statement = Statement(
            kind=StatementKind(int(certificate.kind)),
            height=certificate.height,
            view=certificate.view,
            block_hash=certificate.block_hash,
        )
        for index in certificate.signer_indexes(self._validators):
            self.note(self._validators.validators[index].public_key, statement, source)


class DiskReader:
    """Reads the guards and stores of validators that do not run, at each of their deaths."""

    def __init__(self, devnet: Devnet, book: SignedBook) -> None:
        self.faults: list[str] = []
        self._devnet = devnet
        self._book = book
        self._genesis = genesis_of(devnet)
        self._read_up_to: dict[int, int] = {}

    def read(self, index: int) -> None:
        """Enter what the disk of a dead validator holds. A fault: a statement that left, or was on
        record at an earlier death, is not on record now."""
        key = public_key_of(self._devnet, index)
        home = self._devnet.nodes[index].home
        guard, _ = decode_guard((home / cfg.GUARD_FILE).read_bytes(), self._genesis.chain_id, key)
        records = set(guard.records())
        self.faults += [
            f"validator-{index} signed {statement} without a record"
            for statement in self._book.of(key)
            if (statement.height, statement.view) > guard.floor and statement not in records
        ]
        for record in records:
            self._book.note(key, record, f"guard of validator-{index}")
        for certificate in self._certificates(index, home):
            self._book.note_certificate(certificate, f"store of validator-{index}")

    def read_all(self) -> None:
        for node in self._devnet.nodes:
            self.read(node.index)

    def _certificates(self, index: int, home: Path) -> Iterable[Certificate]:
        """Those of the heights since the last reading, and of the height in work. Reads a copy: the
        validator starts from what its death left, not from what our reading made of it."""
        copy = self._devnet.folder / "copy-of-a-store"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(home / cfg.DATA_FOLDER / STORE_FOLDER, copy)
        store = LevelStore.open(copy)
        try:
            chain = open_chain(store, self._genesis)
            for height in range(self._read_up_to.get(index, 0) + 1, chain.height + 1):
                yield chain.certificate(height)
            self._read_up_to[index] = chain.height
            yield from chain.load_consensus(chain.height + 1)[1]
        finally:
            store.close()
            shutil.rmtree(copy)
