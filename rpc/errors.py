"""JSON-RPC error codes, and how our own errors become them.

Codes are interfaces: a number never changes its meaning and is never used again (docs/rpc.md holds
the same table). The five standard codes are those of the JSON-RPC 2.0 specification, section 5.1;
-32000..-32099 are ours. Every error's `data` is {reason, expected, got, retry}: `reason` is a
stable word such as `tx/bad-nonce`, `retry` tells whether the unchanged call can succeed later.
"""

from __future__ import annotations

from enum import IntEnum

from ledger.errors import (
    DamagedStoreError,
    DurabilityError,
    InvalidInputError,
    UsageError,
    ZynkError,
)


class RpcCode(IntEnum):
    """The table of codes."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    NOT_READY = -32000
    MEMPOOL_FULL = -32001
    TX_REFUSED = -32002
    NOT_FOUND = -32003
    RATE_LIMITED = -32004
    TOO_LARGE = -32005
    HISTORY_PRUNED = -32006
    TIMED_OUT = -32007
    FORBIDDEN = -32008
    UNSUPPORTED = -32009
    STORAGE_FAILED = -32010
    UNVERIFIED = -32011
    EVIDENCE_REFUSED = -32012


MEANING_BY_CODE: dict[RpcCode, tuple[str, bool, str]] = {
    RpcCode.PARSE_ERROR: ("parse-error", False, "The body is not JSON text in UTF-8."),
    RpcCode.INVALID_REQUEST: ("invalid-request", False, "The JSON is not a JSON-RPC 2.0 request."),
    RpcCode.METHOD_NOT_FOUND: ("method-not-found", False, "There is no such method."),
    RpcCode.INVALID_PARAMS: ("invalid-params", False, "A parameter is missing, unknown or wrong."),
    RpcCode.INTERNAL_ERROR: (
        "internal-error",
        False,
        "A bug in the node, or its store is damaged.",
    ),
    RpcCode.NOT_READY: ("not-ready", True, "The node is starting, syncing or stopping."),
    RpcCode.MEMPOOL_FULL: ("mempool-full", True, "No room for this transaction at this fee now."),
    RpcCode.TX_REFUSED: ("tx-refused", False, "The transaction breaks a rule; reason says which."),
    RpcCode.NOT_FOUND: ("not-found", False, "The thing asked for does not exist here."),
    RpcCode.RATE_LIMITED: ("rate-limited", True, "Too many calls, connections or bytes at a time."),
    RpcCode.TOO_LARGE: ("too-large", False, "A body, batch or answer is over its limit."),
    RpcCode.HISTORY_PRUNED: ("history-pruned", False, "That height is no longer kept here."),
    RpcCode.TIMED_OUT: ("timed-out", True, "The call took longer than the server allows."),
    RpcCode.FORBIDDEN: ("forbidden", False, "This web origin may not call this node."),
    RpcCode.UNSUPPORTED: ("unsupported", False, "This node is not set up to do that."),
    RpcCode.STORAGE_FAILED: ("storage-failed", False, "The node could not write and is stopping."),
    RpcCode.UNVERIFIED: ("unverified", True, "A light client got no answer that it could verify."),
    RpcCode.EVIDENCE_REFUSED: (
        "evidence/false",
        False,
        "The evidence is false, or convicts nobody more; reason says which.",
    ),
}
"""code -> (default reason, default retry, meaning)."""

HTTP_STATUS_BY_CODE: dict[int, int] = {
    RpcCode.INVALID_PARAMS: 400,
    RpcCode.INVALID_REQUEST: 400,
    RpcCode.FORBIDDEN: 403,
    RpcCode.NOT_FOUND: 404,
    RpcCode.HISTORY_PRUNED: 410,
    RpcCode.TOO_LARGE: 413,
    RpcCode.RATE_LIMITED: 429,
    RpcCode.UNSUPPORTED: 501,
    RpcCode.NOT_READY: 503,
    RpcCode.TIMED_OUT: 504,
}
"""Outside JSON-RPC; any other is 500."""

TEXT_CHARS_MAX = 300
"""Messages, `expected` and `got` are cut here, so that an error never mirrors a large input."""


class RpcError(ZynkError):
    """An answer with an error: raised by NodeApi and by the client.

    `code` is usually an RpcCode; the client keeps numbers that it does not know.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        expected: str = "",
        got: str = "",
        retry: bool | None = None,
    ) -> None:
        default_reason, default_retry, _ = MEANING_BY_CODE.get(
            code,  # type: ignore[call-overload]  # an IntEnum key equals its int
            ("unknown", False, ""),
        )
        super().__init__(
            message, expected=expected, got=got, retry=default_retry if retry is None else retry
        )
        self.code = code
        self.reason = reason or default_reason

    def to_json(self) -> dict[str, object]:
        """The `error` member of an answer."""
        return {
            "code": int(self.code),
            "message": self.message[:TEXT_CHARS_MAX],
            "data": {
                "reason": self.reason[:TEXT_CHARS_MAX],
                "expected": self.expected[:TEXT_CHARS_MAX],
                "got": self.got[:TEXT_CHARS_MAX],
                "retry": self.retry,
            },
        }


class WrongMethodError(RpcError):
    """HTTP 405; `allowed` goes into the Allow header."""

    def __init__(self, allowed: tuple[str, ...], got: str) -> None:
        super().__init__(
            RpcCode.INVALID_REQUEST,
            "wrong HTTP method for this path",
            expected=", ".join(allowed),
            got=got[:32],
        )
        self.allowed = ", ".join(allowed)


class WrongContentTypeError(RpcError):
    """HTTP 415."""


def http_status_of(error: RpcError) -> int:
    """The HTTP status of a refusal outside JSON-RPC."""
    match error:
        case WrongMethodError():
            return 405
        case WrongContentTypeError():
            return 415
        case _:
            return HTTP_STATUS_BY_CODE.get(error.code, 500)


class RpcConnectionError(ZynkError):
    """Client side: no answer came (refused, reset, timed out, not JSON-RPC)."""

    def __init__(self, message: str, *, expected: str = "", got: str = "") -> None:
        super().__init__(message, expected=expected, got=got, retry=True)


def not_found(what: str, *, reason: str = "", got: str = "") -> RpcError:
    """`what` (e.g. "tx") is not known to this node."""
    return RpcError(RpcCode.NOT_FOUND, f"{what} not found", reason=reason, got=got)


def not_ready(why: str, *, reason: str = "") -> RpcError:
    """The node can not answer this yet; asking again later is right."""
    return RpcError(RpcCode.NOT_READY, why, reason=reason)


def history_pruned(height: int, oldest_height: int) -> RpcError:
    """State or blocks at `height` are gone; `oldest_height` is the first still kept."""
    return RpcError(
        RpcCode.HISTORY_PRUNED,
        "this height is no longer kept",
        expected=f"height >= {oldest_height}",
        got=str(height),
    )


def unsupported(what: str) -> RpcError:
    """`what` is switched off or not part of this node."""
    return RpcError(RpcCode.UNSUPPORTED, f"{what} is not supported by this node")


def mempool_full(message: str, *, expected: str = "", got: str = "") -> RpcError:
    """No room at this fee."""
    return RpcError(RpcCode.MEMPOOL_FULL, message, expected=expected, got=got)


def tx_refused(reason: str, message: str, *, expected: str = "", got: str = "") -> RpcError:
    """A tx was not admitted; `reason` is its stable code, such as `tx/bad-nonce`."""
    return RpcError(RpcCode.TX_REFUSED, message, reason=reason, expected=expected, got=got)


def as_rpc_error(error: ZynkError, *, carries_tx: bool = False) -> RpcError:
    """Translate an error that the node raised while it answered a call.

    A `code` attribute (TxFailure and its like have one) becomes the reason. `carries_tx`: the
    caller's data was a transaction, so wrong data means that the transaction is refused.
    """
    if isinstance(error, RpcError):
        return error
    reason = getattr(error, "code", "")
    if not isinstance(reason, str):
        reason = ""
    if isinstance(error, DamagedStoreError):
        code, reason = RpcCode.INTERNAL_ERROR, "store-damaged"
    elif isinstance(error, DurabilityError):
        code = RpcCode.STORAGE_FAILED
    elif carries_tx:
        code, reason = RpcCode.TX_REFUSED, reason or "tx/invalid"
    elif isinstance(error, UsageError | InvalidInputError) or not reason:
        code = RpcCode.INVALID_PARAMS
    else:
        code = RpcCode.TX_REFUSED
    return RpcError(
        code,
        error.message,
        reason=reason,
        expected=error.expected,
        got=error.got,
        retry=error.retry,
    )
