"""A disk that keeps what was synced and, in a crash, loses some suffix of what was not."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Generic, TypeVar

from consensus.statement import Statement, is_conflict
from ledger.block import Block
from ledger.certificate import Certificate

if TYPE_CHECKING:
    from tests.sim.network import Simulation

Record = TypeVar("Record")


class Journal(Generic[Record]):
    """An append-only file: records are in the page cache until `sync`."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._synced_count = 0

    def append(self, record: Record) -> None:
        self.records.append(record)

    def sync(self) -> None:
        self._synced_count = len(self.records)

    def crash(self, rng: random.Random) -> None:
        """Any suffix of the unsynced records is gone."""
        kept = rng.randint(self._synced_count, len(self.records))
        del self.records[kept:]
        self._synced_count = len(self.records)


class Disk:
    """One node's durable state: the guard file, the consensus records, the chain."""

    def __init__(self) -> None:
        self.guard: Journal[Statement] = Journal()
        self.records: Journal[Block | Certificate] = Journal()
        self.chain: list[tuple[Block, Certificate]] = []

    def check_guard(self, statement: Statement, sim: Simulation) -> None:
        """What the real guard refuses, the core must never ask for."""
        for known in self.guard.records:
            if is_conflict(known, statement):
                sim.on_guard_refusal(statement)

    def crash(self, rng: random.Random) -> None:
        self.guard.crash(rng)
        self.records.crash(rng)
