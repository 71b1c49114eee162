"""What a DID URL names inside a resolved document (W3C DID Resolution, "DID URL Dereferencing").

`dereference` is a pure function of the resolved document, the DID URL and the options, so that a
verifier computes it again over a document that it has verified. This method defines no paths: a
DID URL with one names nothing.

- `service`, `serviceType`: the document with the services that fit alone; as `text/uri-list` their
  endpoints, each with `relativeRef` resolved against it (RFC 3986 section 5) and with the DID URL's
  fragment. Endpoints that are objects have no URL and are passed over. A `relativeRef` with a
  scheme or a host is refused: it would lead away from what the document names. So is one with `..`
  in its path, percent-encoded however often ("Path Traversal via relativeRef").
- a fragment: the verification method or service of that id. With `verificationRelationship` it has
  to be a verification method that the document lists under that relationship.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from did.did_url import DidUrl
from did.reference import resolve_reference
from did.resolution_error import ResolutionError, error_object
from did.resolution_options import Options

CONTENT_TYPE = "application/did"
URI_LIST_TYPE = "text/uri-list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What was found: a JSON object, or a list of URLs. `is_document` where it is the whole
    resolved document."""

    value: dict[str, Any] | list[str]
    content_type: str
    is_document: bool


def dereference(
    document: Mapping[str, Any], url: DidUrl, options: Options, *, wants_urls: bool
) -> Content:
    """The content that `url` and `options` name in `document`, which resolved at their DID and
    version. `wants_urls`: the caller prefers `text/uri-list`. Raises ResolutionError."""
    if url.path:
        raise ResolutionError("NOT_FOUND", "did:zynk defines no paths")
    resource = dict(document)
    if options.selects_services:
        selected = _select_services(document, url.did, options)
        if wants_urls:
            urls = [_join(endpoint, url, options) for endpoint in _endpoints(selected)]
            if not urls:
                raise ResolutionError("NOT_FOUND", "the services selected have no URL")
            return Content(value=urls, content_type=URI_LIST_TYPE, is_document=False)
        resource["service"] = selected
    if wants_urls:
        raise ResolutionError(
            "REPRESENTATION_NOT_SUPPORTED", "text/uri-list needs service or serviceType"
        )
    if url.fragment is None and options.verification_relationship is None:
        is_document = not options.selects_services
        return Content(value=resource, content_type=CONTENT_TYPE, is_document=is_document)
    return Content(
        value=_find_fragment(resource, url, options.verification_relationship),
        content_type=CONTENT_TYPE,
        is_document=False,
    )


def content_metadata(content: Content, document: Mapping[str, Any]) -> dict[str, Any]:
    """dereferencingMetadata of what was found; with the document it was found in, so that it can be
    found again in a document that is proven."""
    shown: dict[str, Any] = {"contentType": content.content_type}
    if not content.is_document:
        shown["didDocument"] = document
    return shown


def dereferencing_result(
    content: object, dereferencing: Mapping[str, Any], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """The content is there under the two names that versions of the text give it."""
    return {
        "dereferencingMetadata": dereferencing,
        "content": content,
        "contentStream": content,
        "contentMetadata": metadata,
    }


def failed_dereferencing(error: ResolutionError, result: Mapping[str, Any]) -> dict[str, Any]:
    """For what the result's document does not hold: with the document, which proves it."""
    shown = {name: result[name] for name in ("didDocument", "didDocumentMetadata")}
    told = {"error": error_object(error.code, error.message), **shown}
    return dereferencing_result(None, told, {})


def dereference_answer(result: Mapping[str, Any], url: DidUrl, options: Options) -> dict[str, Any]:
    """The dereferencing result that follows from a resolution result of the URL's DID at the
    version asked for; errors included."""
    document, metadata = result["didDocument"], result["didDocumentMetadata"]
    if "error" in result["didResolutionMetadata"]:
        return dereferencing_result(None, result["didResolutionMetadata"], {})
    if document is None:  # deactivated
        return dereferencing_result(None, {}, metadata)
    try:
        content = dereference(document, url, options, wants_urls=False)
    except ResolutionError as error:
        return failed_dereferencing(error, result)
    return dereferencing_result(content.value, content_metadata(content, document), metadata)


def _select_services(
    document: Mapping[str, Any], did: str, options: Options
) -> list[dict[str, Any]]:
    """Services by id (absolute, or relative to the DID) and type. Raises ResolutionError."""
    wanted = options.service
    if wanted is not None and not wanted.startswith("did:"):
        wanted = did + "#" + wanted.removeprefix("#")
    found = [
        service
        for service in document.get("service", ())
        if wanted in (None, service["id"])
        and (options.service_type is None or options.service_type in _as_list(service["type"]))
    ]
    if not found:
        raise ResolutionError("NOT_FOUND", "the document has no such service")
    return found


def _endpoints(services: list[dict[str, Any]]) -> list[str]:
    return [
        endpoint
        for service in services
        for endpoint in _as_list(service["serviceEndpoint"])
        if isinstance(endpoint, str)
    ]


def _join(endpoint: str, url: DidUrl, options: Options) -> str:
    """The endpoint with `relativeRef` and fragment. Raises ResolutionError."""
    joined = endpoint
    if options.relative_ref is not None:
        if _RELATIVE_REF.fullmatch(options.relative_ref) is None:
            raise ResolutionError(
                "INVALID_DID_URL", "relativeRef is not a relative reference without authority"
            )
        if _climbs(options.relative_ref):
            raise ResolutionError("INVALID_DID_URL", "relativeRef leads upwards")
        joined = resolve_reference(endpoint, options.relative_ref)
    if url.fragment is None:
        return joined
    if "#" in joined:
        raise ResolutionError("INVALID_DID_URL", "the service endpoint has a fragment of its own")
    return f"{joined}#{url.fragment}"


# RFC 3986 section 4.2, but no network-path reference: with it a DID URL could lead away from the
# host that the document names. The first segment of a relative path has no colon.
_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_RELATIVE_REF = re.compile(
    rf"(?!//)(?![^/?#]*:)(?:/|{_PCHAR})*(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
)


def _climbs(relative_ref: str) -> bool:
    """True if a segment of the path is `..`, or would be for a server that decodes once more."""
    path = re.split("[?#]", relative_ref, maxsplit=1)[0]
    while (decoded := unquote(path, errors="replace")) != path:
        path = decoded
    return ".." in re.split(r"[/\\]", path)


def _find_fragment(
    document: Mapping[str, Any], url: DidUrl, relationship: str | None
) -> dict[str, Any]:
    """The verification method or service with the URL's id. Raises ResolutionError."""
    wanted = f"{url.did}#{url.fragment or ''}"
    methods = document.get("verificationMethod", ())
    found = next((method for method in methods if method["id"] == wanted), None)
    if relationship is not None:
        if found is None:
            raise ResolutionError(
                "INVALID_VERIFICATION_METHOD", "the DID URL names no verification method"
            )
        if wanted not in document.get(relationship, ()):
            raise ResolutionError(
                "INVALID_RELATIONSHIP_FOR_VERIFICATION_METHOD",
                f"the verification method is not for {relationship}",
            )
    if found is None:
        services = document.get("service", ())
        found = next((service for service in services if service["id"] == wanted), None)
    if found is None:
        raise ResolutionError("NOT_FOUND", "the document has nothing with this fragment")
    return {"@context": list(document["@context"]), **found}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
