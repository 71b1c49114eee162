"""DID resolution over HTTP: GET /1.0/identifiers/{did} (first cut).

W3C DID Resolution, "Bindings / HTTP(S)". `Accept: application/did+json`, `application/did+ld+json`
or `application/did` gets the document alone; anything else the whole result with its proof. Query
parameters `versionId` and `versionTime` are the resolution options. The status tells the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rpc.dispatch import Caller, Dispatcher, encode_json
from rpc.errors import RpcCode, RpcError

PATH_PREFIX: Final = "/1.0/identifiers/"
RESULT_TYPE = "application/did-resolution"
DOCUMENT_TYPES = ("application/did+ld+json", "application/did+json", "application/did")
STATUS_BY_ERROR = {
    "invalidDid": 400,
    "invalidDidUrl": 400,
    "invalidOptions": 400,
    "notFound": 404,
    "representationNotSupported": 406,
    "methodNotSupported": 501,
    "internalError": 500,
}
"""Resolution errors; also in the form of the newer text, `...#NOT_FOUND`."""
_QUERY = {"versionId": "version_id", "versionTime": "version_time"}


async def resolve_over_http(
    dispatcher: Dispatcher, caller: Caller, did: str, query: Mapping[str, str], accept: str
) -> tuple[int, str, str]:
    """(HTTP status, content type, body). Raises RpcError."""
    unknown = [name for name in query if name not in _QUERY]
    if unknown:
        raise RpcError(
            RpcCode.INVALID_PARAMS,
            "unknown query parameter",
            expected=", ".join(_QUERY),
            got=unknown[0][:64],
        )
    params: dict[str, object] = {_QUERY[name]: value for name, value in query.items()}
    result = await dispatcher.invoke("did_resolve", {"did": did, **params}, caller)
    assert isinstance(result, Mapping)
    status = _status(result)
    wanted = next((kind for kind in DOCUMENT_TYPES if kind in accept), None)
    if wanted is not None and RESULT_TYPE not in accept and status == 200:
        return status, wanted, encode_json(result["didDocument"])
    return status, RESULT_TYPE, encode_json(dict(result))


def _status(result: Mapping[str, object]) -> int:
    resolution = result.get("didResolutionMetadata")
    error = resolution.get("error") if isinstance(resolution, Mapping) else None
    if isinstance(error, Mapping):
        error = error.get("type")
    if error:
        return STATUS_BY_ERROR.get(_camel(str(error)), 500)
    metadata = result.get("didDocumentMetadata")
    if isinstance(metadata, Mapping) and metadata.get("deactivated"):
        return 410
    return 200


def _camel(error: str) -> str:
    """`https://www.w3.org/ns/did#INVALID_DID` -> `invalidDid`; `invalidDid` stays."""
    name = error.rsplit("#", 1)[-1]
    if not name.isupper():
        return name
    first, *rest = name.lower().split("_")
    return first + "".join(word.capitalize() for word in rest)
