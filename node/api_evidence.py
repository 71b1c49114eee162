"""Evidence that somebody hands in: judged as a peer's, with a word on what became of it."""

from __future__ import annotations

from consensus.evidence import Evidence
from ledger.errors import InvalidInputError
from node.evidence_pool import EvidencePool, NotNeededError
from rpc.errors import RpcCode, RpcError

REASON_FALSE = "evidence/false"
REASON_NOT_NEEDED = "evidence/not-needed"


def submit_evidence(pool: EvidencePool, data: bytes) -> dict[str, object]:
    """Whom it convicts, and of an offence at which height. Raises RpcError, DurabilityError."""
    try:
        operator = pool.submit(data)
    except InvalidInputError as error:
        is_needed = not isinstance(error, NotNeededError)
        raise RpcError(
            RpcCode.EVIDENCE_REFUSED,
            error.message,
            reason=REASON_FALSE if is_needed else REASON_NOT_NEEDED,
            expected=error.expected,
            got=error.got,
            retry=error.retry,
        ) from error
    return {"operator": operator.hex(), "height": Evidence.decode(data).first.height}
