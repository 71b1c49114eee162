"""Checking a saved answer of any kind, offline: resolution, dereferencing, batch, history, record.

The kind shows in the answer's members. What was asked is the caller's to say: an answer that is
true of another DID, version or fragment is no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from did import strict_json
from did.dereference import content_metadata, dereference
from did.did_url import DidUrl, parse_did_url
from did.record import Status
from did.resolution_error import ResolutionError, error_object
from did.resolution_options import Options, read_options
from did.resolver import describe_record
from did.verify import (
    ANSWER_BYTES_MAX,
    Outcome,
    Verdict,
    encode_plain,
    verify_proof,
    verify_resolution,
)
from did.verify_batch import verify_batch
from did.verify_history import verify_history, verify_history_operation
from did.version import CONTENT_TYPE
from ledger.errors import InvalidInputError, UsageError
from ledger.light import Trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What the verifier relies on: whom it trusts, and how old a block may be at `now_ms` (Unix
    ms); `max_age_ms` None accepts any age."""

    trusted: Trusted
    chain_id: str
    max_age_ms: int | None
    now_ms: int | None


def verify_answer(
    data: bytes, *, asked: Sequence[str], options: Mapping[str, object], basis: Basis
) -> list[Verdict]:
    """Check the bytes of an answer about the DIDs or DID URLs `asked`, with these options of
    resolution. One verdict a DID. `asked` may be empty where the answer names its DID.

    Raises InvalidInputError naming the first thing that is wrong; UsageError if it can not be told
    which DID was asked about.
    """
    answer = strict_json.decode(data, bytes_max=ANSWER_BYTES_MAX)
    if type(answer) is dict and answer.keys() == {"jsonrpc", "id", "result"}:
        answer = answer["result"]
    if type(answer) is not dict:
        raise InvalidInputError("answer is not an object")
    names = answer.keys()
    dids = list(asked) or _names_in(answer)
    if not dids:
        raise UsageError("the answer names no DID", expected="the DID that was asked about")
    if options and ("proof" in names or "operations" in names):
        raise InvalidInputError("answer is of a kind that has no options", got=", ".join(options))
    if names == {"results", "proof"}:
        found = verify_batch(answer, dids=dids, **_arguments(basis))
        return [verdict for verdict in found if verdict is not None]
    if len(dids) != 1:
        raise InvalidInputError("answer is about one DID", expected="the DID that was asked about")
    if "operations" in names:
        return [_verify_history_page(answer, dids[0], basis)]
    if names == {"did", "record", "proof"}:
        return [_verify_record(answer, dids[0], basis)]
    try:
        url = parse_did_url(dids[0])
        read = read_options({**url.parameters, **options})
    except ResolutionError as error:
        raise InvalidInputError("the question is malformed", got=error.message) from error
    if "dereferencingMetadata" in names:
        return [verify_dereferencing(answer, url, read, basis)]
    if url.path or url.fragment is not None or read.is_dereferencing:
        raise InvalidInputError("answer is about the DID, not about the DID URL", expected=dids[0])
    return [verify_resolution(answer, did=url.did, query=read.version, **_arguments(basis))]


def verify_dereferencing(
    answer: Mapping[str, Any], url: DidUrl, options: Options, basis: Basis
) -> Verdict:
    """Check a dereferencing result: the document it comes from is verified, and the content found
    in it again. Raises InvalidInputError."""
    if answer.keys() != _DEREFERENCING_MEMBERS:
        raise InvalidInputError("dereferencing result is malformed")
    shown, content = answer["dereferencingMetadata"], answer["content"]
    metadata = answer["contentMetadata"]
    if type(shown) is not dict or type(metadata) is not dict:
        raise InvalidInputError("metadata is not an object")
    if encode_plain(content) != encode_plain(answer["contentStream"]):
        raise InvalidInputError("content and contentStream differ")
    failed = shown.get("error")
    if failed is not None and (content is not None or metadata):
        raise InvalidInputError("an error comes with content")
    if "proof" in shown:  # the DID or its version was not found
        resolution: dict[str, Any] = {
            "didDocument": None, "didResolutionMetadata": shown, "didDocumentMetadata": {},
        }  # fmt: skip
    elif failed is not None:
        resolution = _resolution_of(shown.get("didDocument"), shown.get("didDocumentMetadata"))
    else:
        resolution = _resolution_of(shown.get("didDocument", content), metadata)
    verdict = verify_resolution(resolution, did=url.did, query=options.version, **_arguments(basis))
    if "proof" in shown:
        return verdict
    expected = _expect_content(resolution, url, options)
    found = {"content": content, "dereferencingMetadata": shown}
    if encode_plain(found) != encode_plain(expected):
        raise InvalidInputError("content is not what the document has under this DID URL")
    step = "the content is what the document has under this DID URL"
    return replace(verdict, steps=(*verdict.steps, step))


_DEREFERENCING_MEMBERS = {"dereferencingMetadata", "content", "contentStream", "contentMetadata"}


def _resolution_of(document: object, metadata: object) -> dict[str, Any]:
    return {
        "didDocument": document,
        "didResolutionMetadata": {"contentType": CONTENT_TYPE},
        "didDocumentMetadata": metadata,
    }


def _expect_content(resolution: Mapping[str, Any], url: DidUrl, options: Options) -> dict[str, Any]:
    """What has to be shown besides the metadata, given a verified resolution."""
    document = resolution["didDocument"]
    if document is None:
        return {"content": None, "dereferencingMetadata": {}}
    try:
        found = dereference(document, url, options, wants_urls=False)
    except ResolutionError as error:
        shown = {
            "error": error_object(error.code, error.message),
            "didDocument": document,
            "didDocumentMetadata": resolution["didDocumentMetadata"],
        }
        return {"content": None, "dereferencingMetadata": shown}
    return {
        "content": found.value,
        "dereferencingMetadata": content_metadata(found, document),
    }


def _verify_history_page(answer: Mapping[str, Any], did: str, basis: Basis) -> Verdict:
    """A page of `did_history`. The whole history on one page is checked as a whole; of a part, each
    operation by itself, and `nullifiedBy` is then not proven."""
    _require_members(answer, {"did", "operations", "nextCursor", "proof"}, did)
    verdict = _verify_plain_proof(answer["proof"], did, basis)
    items, record = answer["operations"], verdict.record
    if type(items) is not list:
        raise InvalidInputError("operations are not a list")
    if record is None:
        if items or answer["nextCursor"] is not None:
            raise InvalidInputError("a DID that does not exist has operations")
        return verdict
    if len(items) == record.seq + 1:
        if answer["nextCursor"] is not None:
            raise InvalidInputError("history is whole and names another page")
        verify_history(items, record)
        step = f"all {len(items)} operations are there, in their order and rightly flagged"
    else:
        seqs = [verify_history_operation(item, record).seq for item in items]
        if seqs != list(range(seqs[0], seqs[0] + len(seqs))):
            raise InvalidInputError("history is not in order of seq")
        if not seqs:
            raise InvalidInputError("history page of an existing DID is empty")
        after = seqs[-1] + 1
        if answer["nextCursor"] != (after if after <= record.seq else None):
            raise InvalidInputError("history page names the wrong next page")
        step = f"{len(items)} operations are in the log; a part does not show which are nullified"
    return replace(verdict, steps=(*verdict.steps, step))


def _verify_record(answer: Mapping[str, Any], did: str, basis: Basis) -> Verdict:
    """An answer of `did_proof`."""
    _require_members(answer, {"did", "record", "proof"}, did)
    verdict = _verify_plain_proof(answer["proof"], did, basis)
    record = verdict.record
    expected = None if record is None else describe_record(record)
    if encode_plain(answer["record"]) != encode_plain(expected):
        raise InvalidInputError("record is not the one that the proof shows")
    return verdict


def _verify_plain_proof(proof: object, did: str, basis: Basis) -> Verdict:
    header, record, steps = verify_proof(proof, did=did, **_arguments(basis))
    outcome = Outcome.NOT_FOUND
    if record is not None:
        outcome = Outcome.FOUND if record.status is Status.ACTIVE else Outcome.DEACTIVATED
    return Verdict(
        did=did,
        outcome=outcome,
        height=header.height,
        time_ms=header.time_ms,
        record=record,
        version_id=None if record is None else record.version_id,
        steps=tuple(steps),
    )


def _require_members(answer: Mapping[str, Any], names: set[str], did: str) -> None:
    if answer.keys() != names:
        raise InvalidInputError("answer is malformed", expected=", ".join(sorted(names)))
    if answer["did"] != did:
        raise InvalidInputError("answer is about another DID", expected=did)


def _names_in(answer: Mapping[str, Any]) -> list[str]:
    """The DIDs that an answer claims to be about; the check then shows whether it is."""
    if isinstance(answer.get("did"), str):
        return [answer["did"]]
    results = answer.get("results", [answer])
    found = [_name_in(result) for result in results] if isinstance(results, list) else []
    return [name for name in found if name is not None]


def _name_in(result: object) -> str | None:
    if not isinstance(result, dict):
        return None
    for holder, name in (
        ("didDocument", "id"), ("didDocumentMetadata", "canonicalId"),
        ("contentMetadata", "canonicalId"),
    ):  # fmt: skip
        part = result.get(holder)
        if isinstance(part, dict) and isinstance(part.get(name), str):
            return str(part[name])
    return None


def _arguments(basis: Basis) -> dict[str, Any]:
    return {
        "trusted": basis.trusted,
        "chain_id": basis.chain_id,
        "max_age_ms": basis.max_age_ms,
        "now_ms": basis.now_ms,
    }
