"""Events of staking: `stake.*`, with sorted text attributes."""

from __future__ import annotations

from typing import Protocol

from ledger.accounts import encode_account_id
from ledger.execution import Event


class Emitter(Protocol):
    """A tx's context or a block's."""

    def emit(self, event: Event) -> None: ...


def tell(context: Emitter, event: str, **attributes: bytes | int | str) -> None:
    """Emit an event; 32-byte values are accounts or keys and become their Multikey text."""
    pairs = (
        (name, encode_account_id(value) if isinstance(value, bytes) else str(value))
        for name, value in sorted(attributes.items())
    )
    context.emit(Event(event, tuple(pairs)))
