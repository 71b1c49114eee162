"""Which document of a DID was in force at a time: what proofs of the past are judged by.

`DocumentSource` is all that the credential verifier needs to know. `ProvenHistory` is one: a DID's
whole history, proven to end in the record of a final block (`did.verify_history`), so that nothing
in it is left out. Operations that a recovery nullified count as if they had never been. It answers
for times up to its block's; what came after that it can not know. One thing that may come is a
recovery: so a document in force comes with those that would be in its place after one.

An answer file is what `did_history` returns, all pages in one:

    {"did": text, "operations": [item, ...], "nextCursor": null, "proof": {...}}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from did import strict_json
from did.document import DOCUMENT_BYTES_MAX, to_resolved
from did.operation import Operation, decode_operation
from did.verify import ANSWER_BYTES_MAX, verify_proof
from did.verify_history import compute_nullified, verify_history
from did.version import compute_dispute_until, format_time
from ledger.errors import InvalidInputError
from ledger.finality import CannotTellError
from ledger.light import Trusted

_MEMBERS = frozenset(("did", "operations", "nextCursor", "proof"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentInForce:
    """A document in resolved form, the version it is, and in words why it is that one.

    `instead` are the documents of which one would have been in force had a recovery come that was
    still possible when the source was made, empty ones for "deactivated"; none once `version_id` is
    settled, which is at `disputed_until_ms` (Unix ms of block time)."""

    document: Mapping[str, Any]
    version_id: str
    text: str
    instead: tuple[Mapping[str, Any], ...] = ()
    disputed_until_ms: int = 0


class DocumentSource(Protocol):
    """Verified answers about DIDs and times."""

    def document_at(self, did: str, time_ms: int) -> DocumentInForce:
        """The document in force at `time_ms` (Unix ms). Raises InvalidInputError if there was
        none, or if the source can not tell."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    time_ms: int
    operation: Operation
    open_until_ms: int

    def resolved(self) -> dict[str, Any]:
        """Its document, empty for a deactivation."""
        if self.operation.document is None:
            return {}
        stored = strict_json.decode(self.operation.document, bytes_max=DOCUMENT_BYTES_MAX)
        return to_resolved(self.operation.did_text, stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenHistory:
    """A DID's settled history as of block `height` at `time_ms`."""

    did: str
    height: int
    time_ms: int
    steps: tuple[str, ...]
    changes: tuple[_Change, ...]

    def document_at(self, did: str, time_ms: int) -> DocumentInForce:
        """See `DocumentSource`."""
        if did != self.did:
            raise InvalidInputError("no answer about this DID is at hand", expected=did)
        if time_ms > self.time_ms:
            raise CannotTellError(
                "the answer about the DID is older than the time asked for",
                expected=f"a block of {format_time(time_ms)} or later",
                got=f"block {self.height} of {format_time(self.time_ms)}",
                retry=True,
            )
        at = [change for change in self.changes if change.time_ms <= time_ms]
        if not at:
            raise InvalidInputError(
                "the DID did not exist yet", got=f"{did} at {format_time(time_ms)}"
            )
        operation = at[-1].operation
        if operation.document is None:
            raise InvalidInputError(
                "the DID was deactivated", got=f"{did} at {format_time(time_ms)}"
            )
        return DocumentInForce(
            document=at[-1].resolved(),
            version_id=operation.version_id,
            text=(
                f"Version {operation.version_id} of {did} was in force at "
                f"{format_time(time_ms)}, in the history as of block {self.height}, "
                f"{format_time(self.time_ms)}."
            ),
            instead=self._find_instead(at),
            disputed_until_ms=at[-1].open_until_ms,
        )

    def _find_instead(self, changes: Sequence[_Change]) -> tuple[Mapping[str, Any], ...]:
        """The documents that recoveries from now on can bring back in place of the last one's."""
        found = []
        for change, before in zip(reversed(changes), reversed(changes[:-1]), strict=False):
            if change.open_until_ms <= self.time_ms:
                break
            found.append(before.resolved())
        return tuple(found)


def decode_history_answer(data: bytes) -> dict[str, Any]:
    """Parse an answer file; not verified. Raises InvalidInputError."""
    answer = strict_json.decode(data, bytes_max=ANSWER_BYTES_MAX)
    if type(answer) is not dict or answer.keys() != _MEMBERS:
        raise InvalidInputError(
            "answer about a DID is malformed", expected=", ".join(sorted(_MEMBERS))
        )
    if answer["nextCursor"] is not None:
        raise InvalidInputError("answer about a DID is one page of several")
    if type(answer["did"]) is not str or type(answer["operations"]) is not list:
        raise InvalidInputError("answer about a DID is malformed", expected="a DID and operations")
    return answer


def verify_history_answer(
    answer: Mapping[str, Any],
    *,
    trusted: Trusted,
    chain_id: str,
    max_age_ms: int | None = None,
    now_ms: int | None = None,
) -> ProvenHistory:
    """Check an answer with a trusted validator set; `max_age_ms` and `now_ms` as in `did.verify`.
    Raises InvalidInputError."""
    did, items = answer["did"], answer["operations"]
    header, record, steps = verify_proof(
        answer["proof"],
        did=did,
        trusted=trusted,
        chain_id=chain_id,
        max_age_ms=max_age_ms,
        now_ms=now_ms,
    )
    if record is None:
        raise InvalidInputError("the DID does not exist", got=did)
    entries = verify_history(items, record)
    operations = [decode_operation(entry.operation) for entry in entries]
    nullified = compute_nullified(operations)
    return ProvenHistory(
        did=did,
        height=header.height,
        time_ms=header.time_ms,
        steps=(*steps, f"all {len(entries)} operation(s) are in the log that the record names"),
        changes=tuple(
            _Change(
                time_ms=entry.time_ms,
                operation=operation,
                open_until_ms=compute_dispute_until(record, entry.seq),
            )
            for entry, operation, by in zip(entries, operations, nullified, strict=True)
            if by is None
        ),
    )
