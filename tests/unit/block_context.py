"""A block's context over a plain dictionary, for tests of block modules."""

from __future__ import annotations

from dataclasses import dataclass, field

from ledger.execution import BlockFacts, Event, StateView
from ledger.params import ChainParams


@dataclass
class DictState:
    """A `StateView` over `rows`."""

    rows: dict[bytes, bytes] = field(default_factory=dict)

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        self.rows.pop(key, None)


@dataclass
class BlockWorld:
    """A `BlockContext` whose block is set by the test."""

    chain_id: str
    height: int = 1
    time_ms: int = 1_700_000_000_000
    parent_time_ms: int = 1_699_999_999_000
    parent_hash: bytes = bytes(32)
    params: ChainParams = field(default_factory=ChainParams)
    facts: BlockFacts = field(default_factory=lambda: BlockFacts(proposer=bytes(32)))
    state: StateView = field(default_factory=DictState)
    events: list[Event] = field(default_factory=list)
    side: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def rows(self) -> dict[bytes, bytes]:
        """All rows of the state."""
        assert isinstance(self.state, DictState)
        return self.state.rows

    def restore(self, rows: dict[bytes, bytes]) -> None:
        self.state = DictState(dict(rows))

    def side_put(self, key: bytes, value: bytes) -> None:
        self.side[key] = value

    def emit(self, event: Event) -> None:
        self.events.append(event)
