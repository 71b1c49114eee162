"""DID resolution and dereferencing over HTTP: GET and POST /1.0/identifiers/{DID or DID URL}.

W3C DID Resolution, "HTTP(S) Binding". The DID URL is percent-decoded once; its parameters, those
of the outer query and the members of a POST body are options of one call, and a name in two of
them is INVALID_DID_URL. With a path, a fragment, a service or a verificationRelationship it is
dereferenced, else resolved. Accept picks the representation; whatever the outcome, there is a
result body, but for 303 and 304.

An answer about a version that can no longer change (its dispute window is closed, or it is as of a
height) is immutable for caches; the newest version has to be revalidated.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from did import strict_json
from did.dereference import (
    URI_LIST_TYPE,
    content_metadata,
    dereference,
    dereferencing_result,
)
from did.did_url import DidUrl, parse_did_url, parse_query, percent_decode
from did.multikey import decode_base64url
from did.record import RECORD_BYTES_MAX, Record
from did.resolution_error import ResolutionError, error_object, status_of_error
from did.resolution_options import Options, read_options
from did.resolver import error_result
from did.version import format_time
from ledger.block import HEADER_BYTES_MAX, Header
from ledger.errors import InvalidInputError
from rpc.dispatch import Caller, Dispatcher, encode_json
from rpc.errors import RpcCode, RpcError
from rpc.negotiation import MediaType, choose, parse_accept

PATH_PREFIX: Final = "/1.0/identifiers/"
OPTIONS_BYTES_MAX: Final = 16 * 1024
DID_CHARS_MAX = 512
RESULT = MediaType(name="application/did-resolution")
LD_RESULT = MediaType(
    name="application/ld+json", parameters={"profile": "https://w3id.org/did-resolution"}
)
DEREFERENCING = MediaType(name="application/did-url-dereferencing")
DOCUMENTS = tuple(
    MediaType(name=f"application/{name}") for name in ("did", "did+json", "did+ld+json", "json")
)
URI_LIST = MediaType(name=URI_LIST_TYPE)
ACCEPTS_MAX = 64
"""Accept headers whose outcome is remembered."""
IMMUTABLE = "public, max-age=31536000, immutable"
REVALIDATE = "public, no-cache"
NEVER = "no-store"
_ERROR_BY_RPC_CODE: dict[int, tuple[str, int]] = {
    RpcCode.INVALID_PARAMS: ("INVALID_OPTIONS", 400),
    RpcCode.UNSUPPORTED: ("FEATURE_NOT_SUPPORTED", 501),
    RpcCode.RATE_LIMITED: ("INTERNAL_ERROR", 429),
    RpcCode.NOT_READY: ("INTERNAL_ERROR", 503),
    RpcCode.TIMED_OUT: ("INTERNAL_ERROR", 504),
}


class _Offer(Enum):
    """What there is to choose from."""

    FUNCTIONS = (RESULT, LD_RESULT, DEREFERENCING)
    WHOLE = (RESULT, LD_RESULT, *DOCUMENTS, DEREFERENCING)
    PART = (DEREFERENCING, *DOCUMENTS)
    SERVICES = (DEREFERENCING, *DOCUMENTS, URI_LIST)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverRequest:
    """`target` and `query` are raw, as in the request line, the path prefix cut off; `body` is None
    for a GET."""

    target: str
    query: str
    body: bytes | None
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
    chosen = _choose(request.accept, _Offer.FUNCTIONS)
    try:
        url, options = _read_request(request)
        is_part = bool(url.path or url.fragment is not None or options.is_dereferencing)
        offer = _Offer.WHOLE
        if is_part:
            offer = _Offer.SERVICES if options.selects_services else _Offer.PART
        chosen = _choose(request.accept, offer)
        if chosen is None:
            chosen = DEREFERENCING if is_part else RESULT
            raise ResolutionError(
                "REPRESENTATION_NOT_SUPPORTED",
                "Accept takes none of " + ", ".join(media_type.text for media_type in offer.value),
            )
        is_bare = chosen in DOCUMENTS or chosen == URI_LIST
        result = await _resolve(dispatcher, caller, url.did, options, is_proven=not is_bare)
    except ResolutionError as error:
        return _answer_error(chosen, error_result(error.code, error.message))
    except RpcError as error:
        code, status = _ERROR_BY_RPC_CODE.get(error.code, ("INTERNAL_ERROR", 500))
        return _answer_error(chosen, error_result(code, error.message), status)
    if "error" in result["didResolutionMetadata"]:
        return _answer_error(chosen, result)
    response = _answer_found(chosen, result, url, options, is_part=is_part)
    return _make_conditional(response, request)


def refuse_body(accept: str, error: RpcError, status: int) -> ResolverResponse:
    """The answer to a POST whose body was not taken."""
    chosen = _choose(accept, _Offer.FUNCTIONS)
    return _answer_error(chosen, error_result("INVALID_OPTIONS", error.message), status)


@lru_cache(maxsize=ACCEPTS_MAX)
def _choose(accept: str, offer: _Offer) -> MediaType | None:
    """What an Accept header likes best of an offer; None if nothing. Callers say the same few
    headers again and again."""
    return choose(parse_accept(accept), offer.value)


def _read_request(request: ResolverRequest) -> tuple[DidUrl, Options]:
    """Raises ResolutionError."""
    try:
        text = percent_decode(request.target)
    except InvalidInputError as error:
        raise ResolutionError("INVALID_DID_URL", str(error)) from error
    try:
        url = parse_did_url(text)
        sources: list[Mapping[str, object]] = [url.parameters, parse_query(request.query)]
    except InvalidInputError as error:
        is_url = bool(request.query) or any(mark in text for mark in "/?#")
        code = "INVALID_DID_URL" if is_url else "INVALID_DID"
        raise ResolutionError(code, str(error)) from error
    if len(url.did) > DID_CHARS_MAX:
        raise ResolutionError("INVALID_DID", f"a DID has at most {DID_CHARS_MAX} characters")
    if request.body:
        sources.append(_read_body(request.body))
    merged: dict[str, object] = {}
    for source in sources:
        repeated = next((name for name in source if name in merged), None)
        if repeated is not None:
            raise ResolutionError("INVALID_DID_URL", f"{repeated[:64]!r} is given twice")
        merged |= source
    return url, read_options(merged)


def _read_body(body: bytes) -> dict[str, object]:
    try:
        found = strict_json.decode(body, bytes_max=OPTIONS_BYTES_MAX)
    except InvalidInputError as error:
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


def _answer_error(
    chosen: MediaType | None, result: dict[str, Any], status: int | None = None
) -> ResolverResponse:
    """An error as a whole result, of the function that was asked for."""
    resolution = result["didResolutionMetadata"]
    if status is None:
        status = status_of_error(resolution["error"])
    if chosen == DEREFERENCING:
        return _respond(status, DEREFERENCING, dereferencing_result(None, resolution, {}), NEVER)
    return _respond(status, chosen if chosen == LD_RESULT else RESULT, result, NEVER)


def _answer_found(
    chosen: MediaType, result: dict[str, Any], url: DidUrl, options: Options, *, is_part: bool
) -> ResolverResponse:
    document, metadata = result["didDocument"], result["didDocumentMetadata"]
    if document is None:  # deactivated: there is nothing to represent but the fact
        if chosen == DEREFERENCING:
            return _respond(410, chosen, dereferencing_result(None, {}, metadata), REVALIDATE)
        return _respond(410, chosen if chosen == LD_RESULT else RESULT, result, REVALIDATE)
    cache = compute_cache_control(options, metadata, is_result=chosen not in (*DOCUMENTS, URI_LIST))
    if chosen in (RESULT, LD_RESULT):
        return _respond(200, chosen, result, cache)
    try:
        content = dereference(document, url, options, wants_urls=chosen == URI_LIST)
    except ResolutionError as error:
        found = {"didDocument": document, "didDocumentMetadata": metadata}
        failed = {"error": error_object(error.code, error.message), **found}
        status = status_of_error(failed["error"])
        return _respond(status, DEREFERENCING, dereferencing_result(None, failed, {}), NEVER)
    if chosen == URI_LIST:
        headers = {"Location": content.value[0], "Cache-Control": cache}  # type: ignore[index]  # a list
        return ResolverResponse(status=303, content_type="", body=b"", headers=headers)
    if chosen == DEREFERENCING:
        shown = content_metadata(content, document)
        return _respond(200, chosen, dereferencing_result(content.value, shown, metadata), cache)
    return _respond(200, chosen, content.value, cache)


def compute_cache_control(options: Options, metadata: Mapping[str, Any], *, is_result: bool) -> str:
    """Immutable if the answer can not change: the version is settled, and so, where the metadata is
    shown too, is what followed it."""
    if options.version is None:
        return REVALIDATE
    proof = metadata["proof"]
    record = Record.decode(decode_base64url(proof["record"], bytes_max=RECORD_BYTES_MAX))
    header = Header.decode(decode_base64url(proof["header"], bytes_max=HEADER_BYTES_MAX))
    window_ms = record.dispute_until_ms - record.updated_ms if record.dispute_until_ms else -1
    settled_before = format_time(max(0, header.time_ms - window_ms))

    def is_settled(time: str | None) -> bool:
        return time is None or window_ms < 0 or time < settled_before

    if options.as_of_height is None:
        if not is_settled(metadata.get("updated")):
            return REVALIDATE
        if is_result and not ("nextUpdate" in metadata and is_settled(metadata["nextUpdate"])):
            return REVALIDATE
    return IMMUTABLE


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
