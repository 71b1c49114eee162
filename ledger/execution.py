"""What execution asks of a message handler, and gives to it.

A handler owns a message type. `check` judges the body alone (mempool admission and block
validity: a body it refuses makes the tx inadmissible); `apply` runs it on a state view. A handler
that raises `TxFailure` fails its tx: every write of the tx is dropped, fee and nonce stay, and the
result carries the code. Anything else it raises is our own bug: `HandlerError`, no result.

Whatever a handler reads is in the state tree (through `ExecutionContext.state`) or in the context:
never a clock, a file or a process-local table, so that a node joined by snapshot executes the same.

A block module runs beside the txs: `begin` before the first, `end` after the last, each module in
its place of a fixed order. It judges what the block says besides its txs (`BlockFacts`) and does
what falls due by height or block time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ledger.certificate import Certificate
from ledger.errors import ZynkError
from ledger.params import ChainParams


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFacts:
    """What a block says besides its txs. The parent certificate has been verified; nothing else
    has. `late_votes` and `evidence` are wire bytes (docs/protocol.md)."""

    proposer: bytes
    vrf_proof: bytes = b""
    parent_certificate: Certificate | None = None
    late_votes: tuple[bytes, ...] = ()
    evidence: tuple[bytes, ...] = ()


class BlockContext(Protocol):
    """What a block module may see and do."""

    chain_id: str
    height: int
    time_ms: int
    parent_time_ms: int
    parent_hash: bytes
    params: ChainParams
    facts: BlockFacts
    state: StateView

    def side_put(self, key: bytes, value: bytes) -> None:
        """As `ExecutionContext.side_put`."""

    def emit(self, event: Event) -> None:
        """Into the block's own result, which the results root covers (`ledger.tx_result`)."""


class BlockModule(Protocol):
    """Does its part of each block. Both raise InvalidInputError if the block can not be valid;
    anything else that they raise is our own bug."""

    def begin(self, context: BlockContext) -> None:
        """Before the first tx."""

    def end(self, context: BlockContext) -> None:
        """After the last tx, when the block's fees are in the pool."""


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
