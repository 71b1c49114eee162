"""Parameters and result members that several groups of methods share."""

from __future__ import annotations

from rpc.errors import RpcCode
from rpc.params import (
    HEIGHT,
    Param,
    Schema,
    blob,
    choice,
    integer,
)
from rpc.results import (
    BLOB,
    COUNT,
    array,
    or_null,
    record,
)

TX_BYTES_MAX = 64 * 1024
"""As ledger.tx; the envelope itself is the node's business."""
WAIT_MS_DEFAULT = 10_000
WAIT_MS_MAX = 60_000
PAGE_DEFAULT = 100
PAGE_MAX = 1000
AT_HEIGHT = Param(
    name="height",
    kind=HEIGHT,
    description="State after this height; absent: after the newest final block.",
)
TRUSTED = Param(
    name="trusted_height",
    kind=HEIGHT,
    description="Proofs begin at the set that this height's header names for the next; 0: genesis.",
    default=0,
)
TX = Param(
    name="tx", kind=blob(TX_BYTES_MAX), description="A signed tx's wire bytes.", required=True
)
WAIT = Param(
    name="wait",
    kind=choice("none", "accepted", "finalized"),
    description="When to answer: at once, when the mempool has judged it, or when it is final.",
    default="accepted",
)
TIMEOUT = Param(
    name="timeout_ms",
    kind=integer(1, WAIT_MS_MAX),
    description="How long to wait; then the answer has the status reached so far.",
    default=WAIT_MS_DEFAULT,
)
TX_ERRORS = (RpcCode.TX_REFUSED, RpcCode.MEMPOOL_FULL, RpcCode.NOT_READY)
CURSOR = Param(
    name="cursor",
    kind=integer(0, 2**53 - 1),
    description="`next_cursor` of the page before; absent: from the start.",
    default=0,
)
LIMIT = Param(
    name="limit",
    kind=integer(1, PAGE_MAX),
    description="Items a page.",
    default=PAGE_DEFAULT,
)
NEXT_CURSOR = or_null(COUNT)
ROW = record(key=BLOB, value=or_null(BLOB), state_proof=BLOB)
ROWS: dict[str, Schema] = {"rows": array(ROW), "finality": BLOB}
"""What a whole answer follows from, with the items' own rows (node/answer_view.py)."""
