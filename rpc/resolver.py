"""DID resolution and dereferencing over HTTP: GET and POST /1.0/identifiers/{DID or DID URL}.

W3C DID Resolution, "HTTP(S) Binding". The DID URL is percent-decoded once; its parameters, those
of the outer query and the members of a POST body are options of one call, and a name in two of
them is INVALID_DID_URL. With a path, a fragment, a service or a verificationRelationship it is
dereferenced, else resolved. Accept picks the representation.

A request is judged in the order of the DID resolution algorithm: syntax, method, options (known,
then valid), then the representation. Whatever the outcome, there is a result body, but for 303 and
304. HTTP status and error type go together as the binding says. What was refused before it was
carried out (405, 429, 503, 504) has the type `about:blank` instead, by which RFC 9457 (section
4.2.1) says that there is no more to it than the status.

An answer about a version that can no longer change (its dispute window is closed, or it is as of a
height) is immutable for caches; the newest version has to be revalidated.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from did import strict_json
from did.dereference import (
    URI_LIST_TYPE,
    content_metadata,
    dereference,
    dereferencing_result,
    failed_dereferencing,
)
from did.did_url import DidUrl, parse_did_url, parse_query, percent_decode
from did.multikey import decode_base64url
from did.record import RECORD_BYTES_MAX, Record
from did.resolution_error import ResolutionError, status_of_error
from did.resolution_options import Options, read_options
from did.resolver import error_result, require_did
from did.syntax import is_did_syntax
from ledger.block import HEADER_BYTES_MAX, Header
from ledger.errors import InvalidInputError
from rpc.dispatch import Caller, Dispatcher, check_marks, encode_json
from rpc.errors import RpcCode, RpcError, http_status_of
from rpc.negotiation import MediaType, choose, parse_accept

PATH_PREFIX: Final = "/1.0/identifiers/"
OPTIONS_BYTES_MAX: Final = 16 * 1024
OPTIONS_MARKS_MAX: Final = 256
RESULT = MediaType(name="application/did-resolution")
LD_RESULT = MediaType(
    name="application/ld+json", parameters={"profile": "https://w3id.org/did-resolution"}
)
DEREFERENCING = MediaType(name="application/did-url-dereferencing")
RESULTS = (RESULT, LD_RESULT, DEREFERENCING)
DOCUMENTS = tuple(
    MediaType(name=f"application/{name}") for name in ("did", "did+json", "did+ld+json", "json")
)
URI_LIST = MediaType(name=URI_LIST_TYPE)
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "public, no-cache"
NEVER = "no-store"
_WORD_BY_CODE: dict[int, str] = {
    RpcCode.INVALID_PARAMS: "INVALID_OPTIONS",
    RpcCode.UNSUPPORTED: "FEATURE_NOT_SUPPORTED",
}
_NOT_CARRIED_OUT = frozenset((405, 429, 503, 504))
_AGAIN = frozenset((429, 503))
RETRY_AFTER_S = 1
_MARK = re.compile("[/?#]")
_ENCODED_MARK = re.compile("/|%2[Ff]|%3[Ff]|%23")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverRequest:
    """`target` and `query` are raw, as in the request line, the path prefix cut off; a fragment
    should not be there. `body` is None for a GET, and an error if it could not be read."""

    target: str
    query: str
    has_fragment: bool
    body: bytes | RpcError | None
    accept: str
    if_none_match: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverResponse:
    """`content_type` is "" where there is no body."""

    status: int
    content_type: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


async def answer_resolver(
    dispatcher: Dispatcher, caller: Caller, request: ResolverRequest
) -> ResolverResponse:
    """The whole of the binding. Raises nothing but cancellation."""
    ranges = parse_accept(request.accept)
    kind = choose(ranges, RESULTS) or RESULT
    try:
        url, options = _read_request(request)
        is_part = bool(url.path or url.fragment is not None or options.is_dereferencing)
        offered = (DEREFERENCING, *DOCUMENTS) if is_part else (RESULT, LD_RESULT, *DOCUMENTS)
        if is_part and options.selects_services:
            offered = (*offered, URI_LIST)
        chosen = choose(ranges, offered if is_part else (*offered, DEREFERENCING))
        kind = DEREFERENCING if is_part else RESULT
        if chosen in RESULTS:
            kind = chosen
        if chosen is None:
            raise ResolutionError(
                "REPRESENTATION_NOT_SUPPORTED",
                "Accept takes none of " + ", ".join(media_type.text for media_type in offered),
            )
        result = await _resolve(dispatcher, caller, url.did, options, is_proven=chosen == kind)
    except ResolutionError as error:
        return _answer_error(kind, error_result(error.code, error.message))
    except RpcError as error:
        return _answer_refusal(kind, error)
    if "error" in result["didResolutionMetadata"]:
        return _answer_error(kind, result)
    if result["didDocument"] is None:
        return _answer_deactivated(kind, result)
    return _make_conditional(_answer_found(chosen, result, url, options), request)


def refuse(accept: str, error: RpcError) -> ResolverResponse:
    """The answer to a request that did not get as far as `answer_resolver`, or not back."""
    return _answer_refusal(choose(parse_accept(accept), RESULTS) or RESULT, error)


def _read_request(request: ResolverRequest) -> tuple[DidUrl, Options]:
    """Raises ResolutionError, RpcError."""
    text = _read_target(request)
    did = _MARK.split(text, maxsplit=1)[0]
    try:
        require_did(did)
    except ResolutionError as error:
        if did == text or is_did_syntax(did):
            raise
        raise ResolutionError("INVALID_DID_URL", error.message) from error
    try:
        url = parse_did_url(text)
        sources: list[Mapping[str, object]] = [url.parameters, parse_query(request.query)]
    except InvalidInputError as error:
        raise ResolutionError("INVALID_DID_URL", str(error)) from error
    if request.body:
        sources.append(_read_body(request.body))
    merged: dict[str, object] = {}
    for source in sources:
        repeated = next((name for name in source if name in merged), None)
        if repeated is not None:
            raise ResolutionError("INVALID_DID_URL", f"{repeated[:64]!r} is given twice")
        merged |= source
    return url, read_options(merged)


def _read_target(request: ResolverRequest) -> str:
    """The DID or DID URL, decoded. Raises ResolutionError."""
    if request.has_fragment:
        raise ResolutionError("INVALID_DID_URL", "a fragment has to be percent-encoded: %23")
    try:
        return percent_decode(request.target)
    except InvalidInputError as error:
        code = "INVALID_DID_URL" if _ENCODED_MARK.search(request.target) else "INVALID_DID"
        raise ResolutionError(code, str(error)) from error


def _read_body(body: bytes | RpcError) -> dict[str, object]:
    """Raises ResolutionError, and RpcError for what says nothing of the body."""
    if isinstance(body, RpcError):
        if http_status_of(body) in _NOT_CARRIED_OUT:
            raise body
        raise ResolutionError("INVALID_OPTIONS", str(body))
    try:
        check_marks(body, OPTIONS_MARKS_MAX)
        found = strict_json.decode(body, bytes_max=OPTIONS_BYTES_MAX)
    except (InvalidInputError, RpcError) as error:
        raise ResolutionError("INVALID_OPTIONS", str(error)) from error
    if type(found) is not dict:
        raise ResolutionError("INVALID_OPTIONS", "the body is not an object of options")
    return found


async def _resolve(
    dispatcher: Dispatcher, caller: Caller, did: str, options: Options, *, is_proven: bool
) -> dict[str, Any]:
    """The resolution result. Raises RpcError."""
    params: dict[str, object] = {
        "did": did,
        "version_id": options.version_id,
        "version_time": options.version_time,
        "trusted_height": options.trusted_height,
        "as_of_height": options.as_of_height,
        "proof": None if is_proven else False,
    }
    given = {name: value for name, value in params.items() if value is not None}
    result = await dispatcher.invoke("did_resolve", given, caller)
    assert isinstance(result, dict)
    return result


# --- representations ---


def _answer_error(kind: MediaType, result: dict[str, Any]) -> ResolverResponse:
    """An error as a whole result, of the function that was asked for."""
    status = status_of_error(result["didResolutionMetadata"]["error"])
    return _respond(status, kind, _as_kind(kind, result), NEVER)


def _answer_refusal(kind: MediaType, error: RpcError) -> ResolverResponse:
    """What the node answered with an error of its own."""
    status = http_status_of(error)
    word = _WORD_BY_CODE.get(error.code)
    if word is not None or status not in _NOT_CARRIED_OUT:
        return _answer_error(kind, error_result(word or "INTERNAL_ERROR", str(error)))
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "detail": str(error)}
    result: dict[str, Any] = {
        "didDocument": None,
        "didResolutionMetadata": {"error": told},
        "didDocumentMetadata": {},
    }
    response = _respond(status, kind, _as_kind(kind, result), NEVER)
    if status in _AGAIN:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _answer_deactivated(kind: MediaType, result: dict[str, Any]) -> ResolverResponse:
    """There is nothing to represent but the fact."""
    return _respond(410, kind, _as_kind(kind, result), REVALIDATE)


def _as_kind(kind: MediaType, result: dict[str, Any]) -> dict[str, Any]:
    """A resolution result without a document, in the shape of `kind`."""
    if kind != DEREFERENCING:
        return result
    resolution, metadata = result["didResolutionMetadata"], result["didDocumentMetadata"]
    shown = {} if metadata else resolution
    return dereferencing_result(None, shown, metadata)


def _answer_found(
    chosen: MediaType, result: dict[str, Any], url: DidUrl, options: Options
) -> ResolverResponse:
    document, metadata = result["didDocument"], result["didDocumentMetadata"]
    cache = NEVER
    if not options.no_cache:
        cache = compute_cache_control(options, metadata, is_result=chosen in RESULTS)
    if chosen in (RESULT, LD_RESULT):
        return _respond(200, chosen, result, cache)
    try:
        content = dereference(document, url, options, wants_urls=chosen == URI_LIST)
    except ResolutionError as error:
        failed = failed_dereferencing(error, result)
        status = status_of_error(failed["dereferencingMetadata"]["error"])
        return _respond(status, DEREFERENCING, failed, NEVER)
    if chosen == URI_LIST:
        headers = {"Location": content.value[0], "Cache-Control": cache}  # type: ignore[index]  # a list
        return ResolverResponse(status=303, content_type="", body=b"", headers=headers)
    if chosen == DEREFERENCING:
        shown = content_metadata(content, document)
        return _respond(200, chosen, dereferencing_result(content.value, shown, metadata), cache)
    return _respond(200, chosen, content.value, cache)


def compute_cache_control(options: Options, metadata: Mapping[str, Any], *, is_result: bool) -> str:
    """Immutable if the answer can not change: no recovery can set the version aside any more nor,
    where the metadata is shown too, what followed it."""
    if options.version is None:
        return REVALIDATE
    if options.as_of_height is not None:
        return IMMUTABLE
    (proof,) = metadata["proof"]
    record = Record.decode(decode_base64url(proof["record"], bytes_max=RECORD_BYTES_MAX))
    header = Header.decode(decode_base64url(proof["header"], bytes_max=HEADER_BYTES_MAX))
    is_open = record.dispute_until_ms > header.time_ms
    is_create = "updated" not in metadata  # which nothing sets aside
    if is_open and (is_result or not is_create):
        return REVALIDATE
    return REVALIDATE if is_result and "nextUpdate" not in metadata else IMMUTABLE


def _respond(status: int, media_type: MediaType, value: object, cache: str) -> ResolverResponse:
    return ResolverResponse(
        status=status,
        content_type=media_type.text,
        body=encode_json(value).encode("ascii"),
        headers={"Cache-Control": cache},
    )


def _make_conditional(response: ResolverResponse, request: ResolverRequest) -> ResolverResponse:
    """With an ETag; 304 if the caller has it already (RFC 9110 section 13.1.2)."""
    if response.status != 200 or request.body is not None:
        return response
    digest = hashlib.sha256(response.content_type.encode() + b"\0" + response.body).digest()
    tag = '"' + base64.urlsafe_b64encode(digest[:18]).decode("ascii") + '"'
    headers = {**response.headers, "ETag": tag}
    known = [item.strip().removeprefix("W/") for item in request.if_none_match.split(",")]
    is_known = tag in known or known == ["*"]
    return ResolverResponse(
        status=304 if is_known else 200,
        content_type="" if is_known else response.content_type,
        body=b"" if is_known else response.body,
        headers=headers,
    )
