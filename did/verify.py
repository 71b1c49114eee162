"""Checking a resolver's answer, offline, with nothing but a trusted validator set.

The steps are those of the chain of proof: validator set -> certificate -> header -> state root ->
record -> document and metadata. Everything in the answer is judged: what does not follow from the
proof is refused, so that no byte that means something can be changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from did import strict_json
from did.document import compute_document_hash, to_stored
from did.log_suffix import verify_suffix
from did.multikey import decode_base64url
from did.record import RECORD_BYTES_MAX, Record, Status, record_key
from did.resolution_error import ResolutionError
from did.resolution_options import VersionQuery
from did.resolver import (
    HISTORY_PROOF_TYPE,
    PROOF_TYPE,
    compute_metadata,
    error_result,
    not_found_result,
)
from did.syntax import decode_did
from did.version import (
    CONTENT_TYPE,
    check_within,
    find_next,
    format_time,
    is_head_asked,
    version_result,
)
from ledger.block import HEADER_BYTES_MAX, Header
from ledger.certificate import CERTIFICATE_BYTES_MAX, Certificate
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import HANDOFFS_MAX, FinalityProof, Handoff
from ledger.light import TooOldError, Trusted, verify_trusted
from ledger.state import verify_state_proof
from ledger.validator_set import VALIDATOR_SET_BYTES_MAX, ValidatorSet

STATE_PROOF_BYTES_MAX = 16 * 1024
ANSWER_BYTES_MAX = 8 * 1024 * 1024
CLOCK_SKEW_MAX_MS = 10_000
"""How far ahead of our clock a header may be; voters themselves allow 500 ms."""


class Outcome(StrEnum):
    """What a verified answer shows."""

    FOUND = "found"
    DEACTIVATED = "deactivated"
    NOT_FOUND = "not found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A verified answer: as of block `height` at `time_ms` (Unix ms). `record` is None if there
    is none, `version_id` None unless a version is shown. `steps` say in words what was checked."""

    did: str
    outcome: Outcome
    height: int
    time_ms: int
    record: Record | None
    version_id: str | None
    steps: tuple[str, ...]


def verify_resolution(
    answer: dict[str, Any],
    *,
    did: str,
    trusted: Trusted,
    chain_id: str,
    max_age_ms: int | None,
    now_ms: int | None,
    query: VersionQuery | None = None,
) -> Verdict:
    """Check a resolution result for `did`, at the version that `query` asks for (None: the newest).
    `max_age_ms` None accepts any age; else, and with a trust point, `now_ms` (Unix ms) is needed.
    Raises InvalidInputError naming the first thing that is wrong (`ledger.light.verdict_of`)."""
    # Back and forth through strict JSON: whatever follows meets plain values of bounded depth.
    answer = decode_answer(encode_plain(answer))
    resolution, metadata = answer["didResolutionMetadata"], answer["didDocumentMetadata"]
    if type(resolution) is not dict or type(metadata) is not dict:
        raise InvalidInputError("metadata is not an object")
    found = "error" not in resolution
    proof, log_form = split_proof((metadata if found else resolution).get("proof"))
    header, record, steps = verify_proof(
        proof,
        did=did,
        trusted=trusted,
        chain_id=chain_id,
        max_age_ms=max_age_ms,
        now_ms=now_ms,
    )
    if query is not None:
        check_within(query, height=header.height, time_ms=header.time_ms)
    if record is None:
        expected, is_older = not_found_result(did), False
    else:
        expected, is_older = _expect(record, query, log_form, answer["didDocument"], steps)
    if is_older is not (log_form is not None):
        raise InvalidInputError("proof is of the wrong kind for what was asked")
    shown = {
        "didDocument": answer["didDocument"],
        "didResolutionMetadata": {k: v for k, v in resolution.items() if found or k != "proof"},
        "didDocumentMetadata": {k: v for k, v in metadata.items() if not found or k != "proof"},
    }
    if encode_plain(shown) != encode_plain(expected):
        raise InvalidInputError("answer says something that its proof does not show")
    outcome = outcome_of(expected)
    steps.append(f"metadata follows from the record: {outcome.value}")
    return Verdict(
        did=did,
        outcome=outcome,
        height=header.height,
        time_ms=header.time_ms,
        record=record,
        version_id=expected["didDocumentMetadata"].get("versionId"),
        steps=tuple(steps),
    )


def _expect(
    record: Record,
    query: VersionQuery | None,
    log_form: object,
    document: object,
    steps: list[str],
) -> tuple[dict[str, Any], bool]:
    """(what the answer has to say, whether its proof needs the log). Raises InvalidInputError."""
    try:
        if query is None or is_head_asked(record, query):
            return expect_head(record, document, steps), False
    except ResolutionError as error:
        if verify_suffix(log_form, record):
            raise InvalidInputError("proof shows a log that it does not need") from error
        return _expect_nothing(error, steps), True
    log = verify_suffix(log_form, record)
    if not log:
        raise InvalidInputError("proof lacks the operation log", expected="an older version")
    steps.append(f"the operation log from version {log[0].operation.version_id} on is whole")
    try:
        following = find_next(log, query)
    except ResolutionError as error:
        return _expect_nothing(error, steps), True
    steps.append("it shows the version asked for, and what came after it")
    return version_result(record, query, log[0], following), True


def _expect_nothing(error: ResolutionError, steps: list[str]) -> dict[str, Any]:
    steps.append(f"there is no such version: {error.message}")
    return error_result(error.code, error.message)


def expect_head(record: Record, document: object, steps: list[str]) -> dict[str, Any]:
    """What an answer about the newest version has to say; the document, if it is the record's."""
    if record.status is Status.ACTIVE:
        stored = strict_json.encode(to_stored(record.did_text, document))
        if compute_document_hash(stored) != record.doc_hash:
            raise InvalidInputError(
                "document is not the one that the record names",
                expected=record.doc_hash.hex(),
                got=compute_document_hash(stored).hex(),
            )
        steps.append("the document has the hash that the record names")
    return {
        "didDocument": document if record.status is Status.ACTIVE else None,
        "didResolutionMetadata": {"contentType": CONTENT_TYPE},
        "didDocumentMetadata": compute_metadata(record),
    }


def outcome_of(result: dict[str, Any]) -> Outcome:
    """What an expected result shows."""
    if "error" in result["didResolutionMetadata"]:
        return Outcome.NOT_FOUND
    if result["didDocumentMetadata"].get("deactivated"):
        return Outcome.DEACTIVATED
    return Outcome.FOUND


def split_proof(proofs: object) -> tuple[object, object]:
    """The one item of the `proof` list in an answer's metadata, in two: (the plain proof object,
    the log of an older version's or None). Not judged. Raises InvalidInputError if it is no such
    list."""
    if type(proofs) is not list or len(proofs) != 1:
        got = f"{len(proofs)} items" if type(proofs) is list else type(proofs).__name__
        raise InvalidInputError("proof is not a list of one item", expected="1 item", got=got)
    (proof,) = proofs
    if type(proof) is not dict or proof.get("type") != HISTORY_PROOF_TYPE or "log" not in proof:
        return proof, None
    plain = {name: value for name, value in proof.items() if name != "log"}
    return {**plain, "type": PROOF_TYPE}, proof["log"]


def decode_answer(data: bytes) -> dict[str, Any]:
    """Parse an answer as it came over the wire. Raises InvalidInputError, also for a repeated name,
    which two readers would read differently."""
    answer = strict_json.decode(data, bytes_max=ANSWER_BYTES_MAX)
    return _read_members(answer, _ANSWER_MEMBERS, "answer")


def verify_proof(
    proof: object,
    *,
    did: str,
    trusted: Trusted,
    chain_id: str,
    max_age_ms: int | None,
    now_ms: int | None,
) -> tuple[Header, Record | None, list[str]]:
    """Check a proof object (`did.resolver`). Returns the header and the DID's record, both now
    trusted, and the steps taken. Raises InvalidInputError."""
    identifier = decode_did(did)
    form = _read_members(proof, _PROOF_MEMBERS, "proof")
    if form["type"] != PROOF_TYPE:
        raise InvalidInputError("proof has another type", expected=PROOF_TYPE)
    finality = decode_proof_finality(form)
    header = verify_trusted(finality, trusted, chain_id, now_ms=now_ms)
    steps = [
        f"{len(finality.handoffs)} handoffs lead from the trusted validator set to the signers",
        f"signers with more than 2/3 of the power finalized block {header.height}",
    ]
    check_age(header, max_age_ms, now_ms)
    if max_age_ms is not None:
        steps.append(f"the block, of {format_time(header.time_ms)}, is young enough")
    shown = form["record"]
    row = None if shown is None else decode_base64url(shown, bytes_max=RECORD_BYTES_MAX)
    state_proof = decode_base64url(form["stateProof"], bytes_max=STATE_PROOF_BYTES_MAX)
    verify_state_proof(header.state_root, record_key(identifier), row, state_proof)
    if row is None:
        steps.append("the block's state holds no record of the DID")
        return header, None, steps
    record = Record.decode(row)
    if record.did != identifier:
        raise InvalidInputError("record is of another DID", expected=did, got=record.did_text)
    steps.append(f"the block's state holds the record, version {record.version_id}")
    return header, record, steps


_ANSWER_MEMBERS = frozenset(("didDocument", "didResolutionMetadata", "didDocumentMetadata"))
_PROOF_MEMBERS = frozenset(("type", "record", "stateProof", "header", "certificate", "handoffs"))
_HANDOFF_MEMBERS = frozenset(("header", "certificate", "nextValidators"))


def decode_proof_finality(proof: object) -> FinalityProof:
    """The finality proof in a proof object, not yet verified. Raises InvalidInputError."""
    return decode_finality(_read_members(proof, _PROOF_MEMBERS, "proof"))


def decode_finality(form: dict[str, Any]) -> FinalityProof:
    """The same, of an object that has its members. Raises InvalidInputError."""
    handoffs = form["handoffs"]
    if type(handoffs) is not list or len(handoffs) > HANDOFFS_MAX:
        raise InvalidInputError("handoffs are malformed", expected=f"at most {HANDOFFS_MAX}")
    found = []
    for item in handoffs:
        handoff = _read_members(item, _HANDOFF_MEMBERS, "handoff")
        next_set = decode_base64url(handoff["nextValidators"], bytes_max=VALIDATOR_SET_BYTES_MAX)
        found.append(
            Handoff(
                header=_read_header(handoff),
                certificate=_read_certificate(handoff),
                next_validators=ValidatorSet.decode(next_set),
            )
        )
    return FinalityProof(
        header=_read_header(form), certificate=_read_certificate(form), handoffs=tuple(found)
    )


def _read_header(form: dict[str, Any]) -> Header:
    return Header.decode(decode_base64url(form["header"], bytes_max=HEADER_BYTES_MAX))


def _read_certificate(form: dict[str, Any]) -> Certificate:
    raw = decode_base64url(form["certificate"], bytes_max=CERTIFICATE_BYTES_MAX)
    return Certificate.decode(raw)


def check_age(header: Header, max_age_ms: int | None, now_ms: int | None) -> None:
    """Raise TooOldError unless the block is at most `max_age_ms` old (None: any age), and
    InvalidInputError if it is from the future."""
    if max_age_ms is None:
        return
    if now_ms is None:
        raise UsageError("a maximum age needs the time", expected="now_ms")
    if header.time_ms < now_ms - max_age_ms:
        raise TooOldError(
            "answer is stale",
            expected=f"a block at most {max_age_ms} ms old",
            got=f"{now_ms - header.time_ms} ms",
            retry=True,
        )
    if header.time_ms > now_ms + CLOCK_SKEW_MAX_MS:
        raise InvalidInputError(
            "answer is of a block from the future; is this clock right?",
            got=f"{header.time_ms - now_ms} ms ahead",
        )


def _read_members(value: object, names: frozenset[str], what: str) -> dict[str, Any]:
    if type(value) is not dict or value.keys() != names:
        raise InvalidInputError(f"{what} is malformed", expected=", ".join(sorted(names)))
    return value


def encode_plain(value: object) -> bytes:
    """JCS bytes of an answer's part. Raises InvalidInputError."""
    try:
        return strict_json.encode(value)
    except UsageError as error:
        raise InvalidInputError("answer has no canonical form") from error
