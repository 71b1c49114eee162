"""What execution asks of a message handler, and gives to it.

A handler owns a message type. `check` judges the body alone (mempool admission and block
validity: a body it refuses makes the tx inadmissible); `apply` runs it on a state view. A handler
that raises `TxFailure` fails its tx: every write of the tx is dropped, fee and nonce stay, and the
result carries the code. Anything else it raises is our own bug: `HandlerError`, no result.

Whatever a handler reads is in the state tree (through `ExecutionContext.state`) or in the context:
never a clock, a file or a process-local table, so that a node joined by snapshot executes the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ledger.errors import ZynkError


class TxFailure(ZynkError):
    """A tx was included and failed. `code` is a stable, documented word such as `did/bad-seq`."""

    def __init__(self, code: str, message: str, *, expected: str = "", got: str = "") -> None:
        super().__init__(message, expected=expected, got=got, retry=False)
        self.code = code


class HandlerError(ZynkError):
    """A handler raised what it must not: our own bug. The block that holds `tx_id` (32 B) is never
    valid here, so the tx has to be kept out of blocks."""

    def __init__(self, tx_id: bytes, message_type: str, error: Exception) -> None:
        super().__init__(f"the handler of {message_type} has a bug", got=repr(error)[:200])
        self.tx_id = tx_id


@dataclass(frozen=True, slots=True)
class Event:
    """Something a tx did. `type` is dotted (`did.created`), `attributes` are sorted text pairs."""

    type: str
    attributes: tuple[tuple[str, str], ...]


class StateView(Protocol):
    """Reads and writes rows of the state tree; keys come from `ledger.state.state_key`."""

    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> None: ...


class ExecutionContext(Protocol):
    """What `apply` may see and do while one tx of one block runs."""

    chain_id: str
    height: int
    time_ms: int
    """Of the block being executed."""
    payer: bytes
    tx_id: bytes
    state: StateView

    def side_put(self, key: bytes, value: bytes) -> None:
        """A row outside the state tree, written with the height (history, indexes). It can not
        be read by execution. Dropped with the tx if it fails. Keys begin with the handler's
        own prefix (`d/` for did, `a/` for audit)."""

    def log_append(self, entry: bytes) -> int:
        """Append `entry` to the global audit log; return its leaf index (0-based)."""

    def emit(self, event: Event) -> None: ...


class TxHandler(Protocol):
    """One message type."""

    type: str

    def weight_of(self, body: bytes) -> int:
        """Cost of a checked body in weight units (1 = a transfer); blocks have a weight limit."""

    def check(self, body: bytes) -> None:
        """Raise InvalidInputError if the body can not be right in any state."""

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Run it. Raises TxFailure, after which none of its writes remain."""


class AuditLog(Protocol):
    """The part of the global RFC 6962 log that execution needs: a frontier held as bytes in the
    state tree, so that appending needs no history. Implemented in `audit.frontier`; execution
    gets it injected, because ledger can not import audit."""

    def append(self, frontier: bytes, entries: list[bytes]) -> bytes:
        """The frontier after appending; `frontier` is b"" for the empty log."""

    def size_and_root(self, frontier: bytes) -> tuple[int, bytes]:
        """Tree size and RFC 6962 root hash of a frontier."""
