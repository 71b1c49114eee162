"""Which version of a DID an answer is, decided from its record and the end of its operation log.

Rules (docs/protocol.md, "Older versions"): the *settled history* is what no later recovery has
nullified. It is the chain of `prev` from the head back. `versionId` names one of its operations;
`versionTime` the last one executed at or before that second of block time; `asOfHeight` cuts the
log after that height first, so that the history is the one known then, and without one of the
others its newest version. A time or height beyond the proof's own block has no answer, not even for
a DID that does not exist.

Where the record alone does not decide, the **log from the version on** does: the operation in
question and all after it, with the peaks of the tree before it. That shows its place, that nothing
after it nullifies it, and which operation followed it when.

The resolver and the verifier both come here for the decision, from their own sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from did import strict_json
from did.document import DOCUMENT_BYTES_MAX, to_resolved
from did.operation import Operation, OperationType
from did.oplog import LogEntry
from did.record import Record
from did.resolution_error import ResolutionError
from did.resolution_options import VersionQuery
from ledger.errors import InvalidInputError

CONTENT_TYPE = "application/did"
LOG_OPERATIONS_MAX = 512
LOG_BYTES_MAX = 2 * 1024 * 1024
TIME_MS_MAX = 253_402_300_799_999  # the end of the year 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """An operation in its place in the log."""

    entry: LogEntry
    operation: Operation


def check_within(query: VersionQuery, *, height: int, time_ms: int) -> None:
    """Raise ResolutionError INVALID_OPTIONS if `query` reaches beyond the block of `height` and
    `time_ms` that the answer is proven by: what comes after it is open."""
    if query.as_of_height is not None and query.as_of_height > height:
        raise ResolutionError("INVALID_OPTIONS", f"asOfHeight is above height {height}")
    # of the block's own second there may be more blocks
    if query.time_s is not None and query.time_s >= time_ms // 1000:
        raise ResolutionError(
            "INVALID_OPTIONS",
            f"versionTime is not before the newest block, of {format_time(time_ms)}",
        )


def is_head_asked(record: Record, query: VersionQuery) -> bool:
    """True if the record alone shows that its head is the answer, False if the log has to be seen.
    `query` is one that `check_within` let pass.

    Raises ResolutionError NOT_FOUND where the record alone shows that there is no such version.
    """
    as_of, version, time_s = query.as_of_height, query.version, query.time_s
    if as_of is not None and as_of < record.created_height:
        raise ResolutionError("NOT_FOUND", f"the DID was not known at height {as_of}")
    if time_s is not None and time_s < record.created_ms // 1000:
        raise ResolutionError("NOT_FOUND", "the DID did not exist at this time")
    is_head_known = as_of is None or record.updated_height <= as_of
    if version is not None and version[0] >= record.seq:
        if version == (record.seq, record.head) and is_head_known:
            return True
        raise ResolutionError("NOT_FOUND", "the DID has no such version")
    return (
        version is None
        and is_head_known
        and (time_s is None or record.updated_ms // 1000 <= time_s)
    )


def find_next(log: Sequence[Logged], query: VersionQuery) -> Logged | None:
    """What followed `log[0]`, the version that `query` asks for; None if it was the newest. `log`
    goes on to the record's head.

    Raises ResolutionError NOT_FOUND if `log` shows that there is no such version; InvalidInputError
    if it does not begin where the answer to `query` is.
    """
    known = [
        item
        for item in log
        if query.as_of_height is None or item.entry.height <= query.as_of_height
    ]
    if query.version is not None:
        if log[0].entry.seq != query.version[0]:
            raise InvalidInputError("log does not begin at the version asked for")
        if not known or log[0].operation.hash != query.version[1]:
            raise ResolutionError("NOT_FOUND", "the DID has no such version")
    elif not known:
        raise InvalidInputError("log begins after the height asked for")
    living = _find_living(known)
    if living[0] is not log[0]:
        if query.version is not None:
            raise ResolutionError("NOT_FOUND", "this version was set aside by a recovery")
        raise InvalidInputError("log begins at an operation that was set aside")
    following = living[1] if len(living) > 1 else None
    if query.version is None:
        begins_late = query.time_s is not None and _second_of(log[0]) > query.time_s
        begins_early = following is not None and (
            query.time_s is None or _second_of(following) <= query.time_s
        )
        if begins_late or begins_early:
            raise InvalidInputError("log does not begin at the version in force")
    return following


def _find_living(log: Sequence[Logged]) -> list[Logged]:
    """The operations that no later one in `log` nullifies. Raises InvalidInputError."""
    living: list[Logged] = []
    for item in log:
        prev = item.operation.prev
        at = len(living)
        while at and living[at - 1].operation.hash != prev:
            at -= 1
        if living and at != len(living) and item.operation.type is not OperationType.RECOVER:
            raise InvalidInputError("operation forks without being a recovery")
        living = [*living[:at], item]
    return living


def _second_of(item: Logged) -> int:
    return item.entry.time_ms // 1000


def version_result(
    record: Record, query: VersionQuery, shown: Logged, following: Logged | None
) -> dict[str, Any]:
    """The resolution result for an older version, without its proof.

    `disputeUntil` is the head's, which goes with whatever a recovery reaches before it; a version's
    own end may be earlier, but the log does not show the windows. The create can not be set aside,
    and what was known at a height stays so."""
    operation, time_ms = shown.operation, shown.entry.time_ms
    metadata: dict[str, Any] = {
        "created": format_time(record.created_ms),
        "versionId": operation.version_id,
        "canonicalId": record.did_text,
    }
    if operation.seq > 0:
        metadata["updated"] = format_time(time_ms)
    if operation.document is None:
        metadata["deactivated"] = True
    until_ms = compute_dispute_until(record, operation.seq)
    if until_ms and query.as_of_height is None:
        metadata["disputeUntil"] = format_time(until_ms)
    if following is not None:
        metadata["nextVersionId"] = following.operation.version_id
        metadata["nextUpdate"] = format_time(following.entry.time_ms)
    document = None
    if operation.document is not None:
        stored = strict_json.decode(operation.document, bytes_max=DOCUMENT_BYTES_MAX)
        document = to_resolved(record.did_text, stored)
    return {
        "didDocument": document,
        "didResolutionMetadata": {"contentType": CONTENT_TYPE},
        "didDocumentMetadata": metadata,
    }


def compute_dispute_until(record: Record, seq: int) -> int:
    """The block time (Unix ms) from which on no tier can nullify operation `seq`; 0 if none can. Of
    operations before the head it is an upper bound: a recovery reaches them through the head's."""
    return record.dispute_until_ms if seq > 0 else 0


def format_time(time_ms: int) -> str:
    """Unix milliseconds as `YYYY-MM-DDThh:mm:ssZ`, fractions cut off. Raises InvalidInputError past
    the year 9999."""
    if time_ms > TIME_MS_MAX:
        raise InvalidInputError("time is past the year 9999", got=str(time_ms))
    return _format_second(time_ms // 1000)


@lru_cache(maxsize=4096)
def _format_second(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
