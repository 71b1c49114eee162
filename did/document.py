"""The DID document: what an operation may carry, and how it turns into what a resolver returns.

**Stored form** (in the operation and in the state tree): a JSON object without `id`, since a create
operation's hash *is* the DID. Everything inside refers to itself by fragment:

    {"verificationMethod": [{"id": "#k1", "type": "Multikey", "publicKeyMultibase": "z6Mk..."}],
     "authentication": ["#k1"],
     "service": [{"id": "#files", "type": "Files", "serviceEndpoint": "https://example.org/"}],
     "alsoKnownAs": ["did:web:example.org"]}

**Resolved form**: `@context`, `id`, absolute ids, and the DID as controller of each method. The
two forms are in one-to-one correspondence (`to_resolved`, `to_stored`), so a verifier hashes what
it was shown.

No personal data belongs on a chain: URIs with the schemes below, and URIs with user information,
are refused. An absent list is left out, never empty: one meaning has one spelling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from did import strict_json
from did.multikey import ED25519_PREFIX, X25519_PREFIX, split_multikey
from ledger.codec import hash_tagged
from ledger.errors import InvalidInputError

DOCUMENT_BYTES_MAX = 8 * 1024
VERIFICATION_METHODS_MAX = 16
SERVICES_MAX = 16
ALSO_KNOWN_AS_MAX = 16
URI_BYTES_MAX = 512
ENDPOINTS_MAX = 8
ENDPOINT_MEMBERS_MAX = 8
TYPE_CHARACTERS_MAX = 64

CONTEXT = ("https://www.w3.org/ns/did/v1.1",)
RELATIONSHIPS = (
    "authentication",
    "assertionMethod",
    "keyAgreement",
    "capabilityInvocation",
    "capabilityDelegation",
)
PERSONAL_SCHEMES = frozenset(
    ("acct", "data", "geo", "im", "mailto", "pres", "sip", "sips", "sms", "tel", "xmpp")
)
_MEMBERS = frozenset(("verificationMethod", "service", "alsoKnownAs", *RELATIONSHIPS))
_FRAGMENT = re.compile(r"#[A-Za-z0-9._-]{1,64}")
_URI = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*):((?:[A-Za-z0-9._~!$&'()*+,;=:@/?#\[\]-]|%[0-9A-Fa-f]{2})+)"
)
_TYPE = re.compile(r"[A-Za-z0-9._:/#-]+")
# No control characters, no surrogates; not str.isprintable, which changes with Python's Unicode.
_MEMBER_TEXT = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{URI_BYTES_MAX}}}")
_MEMBER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")


def encode_document(value: object) -> bytes:
    """Validate a stored-form document; return its JCS bytes. Raises InvalidInputError."""
    validate_document(value)
    data = strict_json.encode(value)
    if len(data) > DOCUMENT_BYTES_MAX:
        raise InvalidInputError(
            "document is too long", expected=f"at most {DOCUMENT_BYTES_MAX} B", got=f"{len(data)} B"
        )
    return data


def compute_document_hash(data: bytes) -> bytes:
    """docHash: the tagged hash of a stored-form document's JCS bytes."""
    return hash_tagged("did-document", data)


def validate_document(value: object) -> None:
    """Check the stored form, size aside. Raises InvalidInputError naming the first defect."""
    document = _read_object(value, "document", required=frozenset(), optional=_MEMBERS)
    prefix_by_id = _check_methods(document)
    ids = set(prefix_by_id)
    _check_services(document, ids)
    for uri in _read_items(document, "alsoKnownAs", ALSO_KNOWN_AS_MAX, unique=True):
        _check_uri(uri, "alsoKnownAs")
    for relationship in RELATIONSHIPS:
        wanted = X25519_PREFIX if relationship == "keyAgreement" else ED25519_PREFIX
        for reference in _read_items(document, relationship, VERIFICATION_METHODS_MAX, unique=True):
            prefix = prefix_by_id.get(reference) if type(reference) is str else None
            if prefix is None:
                raise InvalidInputError(
                    f"{relationship} refers to no verification method", got=repr(reference)[:80]
                )
            if prefix != wanted:
                raise InvalidInputError(
                    f"{relationship} refers to a key of the wrong kind",
                    expected="X25519" if wanted is X25519_PREFIX else "Ed25519",
                    got=repr(reference)[:80],
                )


def to_resolved(did: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved form of a valid stored form."""
    resolved: dict[str, Any] = {"@context": list(CONTEXT), "id": did}
    resolved.update(stored)
    for name in RELATIONSHIPS:
        if name in resolved:
            resolved[name] = [did + reference for reference in resolved[name]]
    if "verificationMethod" in resolved:
        resolved["verificationMethod"] = [
            {**m, "id": did + m["id"], "controller": did} for m in resolved["verificationMethod"]
        ]
    if "service" in resolved:
        resolved["service"] = [{**s, "id": did + s["id"]} for s in resolved["service"]]
    return resolved


def to_stored(did: str, resolved: object) -> dict[str, Any]:
    """Inverse of `to_resolved`. Raises InvalidInputError for anything it can not have made."""
    if type(resolved) is not dict:
        raise InvalidInputError("document is not an object", got=type(resolved).__name__)
    stored = {name: value for name, value in resolved.items() if name not in ("@context", "id")}
    for name in RELATIONSHIPS:
        if name in stored:
            stored[name] = [_relative(did, x) for x in _read_list(stored[name], name)]
    for name, dropped in (("verificationMethod", {"controller"}), ("service", set[str]())):
        if name in stored:
            stored[name] = [
                {k: _relative(did, v) if k == "id" else v for k, v in m.items() if k not in dropped}
                for m in map(_read_dict, _read_list(stored[name], name))
            ]
    validate_document(stored)
    if strict_json.encode(to_resolved(did, stored)) != _encode_foreign(resolved):
        raise InvalidInputError("document is not what this method resolves to")
    return stored


def _encode_foreign(value: object) -> bytes:
    try:
        return strict_json.encode(value)
    except Exception as error:
        raise InvalidInputError("document has no canonical form") from error


def _relative(did: str, value: object) -> str:
    if type(value) is not str or not value.startswith(did + "#"):
        raise InvalidInputError("id is not of this DID", expected=did, got=repr(value)[:120])
    return value[len(did) :]


def _check_methods(document: dict[str, Any]) -> dict[str, bytes]:
    prefix_by_id: dict[str, bytes] = {}
    for item in _read_items(document, "verificationMethod", VERIFICATION_METHODS_MAX):
        method = _read_object(
            item, "verification method", required=_METHOD_MEMBERS, optional=frozenset()
        )
        _check_fragment(method["id"], prefix_by_id)
        if method["type"] != "Multikey":
            raise InvalidInputError(
                "verification method has a wrong type",
                expected="Multikey",
                got=repr(method["type"])[:80],
            )
        prefix_by_id[method["id"]] = split_multikey(method["publicKeyMultibase"])[0]
    return prefix_by_id


_METHOD_MEMBERS = frozenset(("id", "type", "publicKeyMultibase"))
_SERVICE_MEMBERS = frozenset(("id", "type", "serviceEndpoint"))


def _check_services(document: dict[str, Any], ids: set[str]) -> None:
    for item in _read_items(document, "service", SERVICES_MAX):
        service = _read_object(item, "service", required=_SERVICE_MEMBERS, optional=frozenset())
        _check_fragment(service["id"], ids)
        ids.add(service["id"])
        _each(service["type"], "service type", _check_type)
        _each(service["serviceEndpoint"], "serviceEndpoint", _check_endpoint)


def _each(value: object, what: str, check: Callable[[object], None]) -> None:
    """One item, or a list of 1..8 different ones."""
    if type(value) is not list:
        check(value)
        return
    if not 1 <= len(value) <= ENDPOINTS_MAX or any(x in value[:i] for i, x in enumerate(value)):
        raise InvalidInputError(f"{what} is malformed", expected=f"1..{ENDPOINTS_MAX} items")
    for item in value:
        check(item)


def _check_type(value: object) -> None:
    if type(value) is not str or len(value) > TYPE_CHARACTERS_MAX or _TYPE.fullmatch(value) is None:
        raise InvalidInputError("service type is malformed", got=repr(value)[:80])


def _check_endpoint(value: object) -> None:
    """A URI, or an object of `uri` and members that are text or lists of text (DIDComm style)."""
    if type(value) is str:
        _check_uri(value, "serviceEndpoint")
        return
    if type(value) is not dict or "uri" not in value or len(value) > ENDPOINT_MEMBERS_MAX:
        raise InvalidInputError(
            "serviceEndpoint is malformed", expected="a URI or an object with uri"
        )
    _check_uri(value["uri"], "serviceEndpoint uri")
    for name, member in value.items():
        if _MEMBER_NAME.fullmatch(name) is None:
            raise InvalidInputError("serviceEndpoint member has a bad name", got=repr(name)[:80])
        for text in member if type(member) is list and 1 <= len(member) <= 8 else [member]:
            if type(text) is not str or _MEMBER_TEXT.fullmatch(text) is None:
                raise InvalidInputError("serviceEndpoint member is malformed", got=name)
            _refuse_personal(text, "serviceEndpoint member")


def _check_uri(value: object, what: str) -> None:
    if type(value) is not str or len(value) > URI_BYTES_MAX or _URI.fullmatch(value) is None:
        raise InvalidInputError(
            f"{what} is not a URI", expected=f"at most {URI_BYTES_MAX} B", got=repr(value)[:80]
        )
    _refuse_personal(value, what)


def _refuse_personal(value: str, what: str) -> None:
    scheme, colon, rest = value.strip(" ").partition(":")
    if colon and scheme.lower() in PERSONAL_SCHEMES:
        raise InvalidInputError(f"{what} would put personal data on chain", got=scheme + ":")
    if rest.startswith("//") and "@" in re.split("[/?#]", rest[2:], maxsplit=1)[0]:
        raise InvalidInputError(f"{what} holds user information", got=scheme + "://...@")


def _check_fragment(value: object, taken: Mapping[str, object] | set[str]) -> None:
    if type(value) is not str or _FRAGMENT.fullmatch(value) is None:
        raise InvalidInputError("id is not a fragment", expected="#name", got=repr(value)[:80])
    if value in taken:
        raise InvalidInputError("document uses an id twice", got=value)


def _read_object(
    value: object, what: str, *, required: frozenset[str], optional: frozenset[str]
) -> dict[str, Any]:
    if type(value) is not dict:
        raise InvalidInputError(f"{what} is not an object", got=type(value).__name__)
    names = frozenset(value)
    if not required <= names <= required | optional:
        odd = sorted(map(str, (names - required - optional) | (required - names)))
        raise InvalidInputError(f"{what} has unknown or missing members", got=", ".join(odd)[:120])
    return value


def _read_items(
    document: dict[str, Any], name: str, count_max: int, *, unique: bool = False
) -> list[Any]:
    if name not in document:
        return []
    items = _read_list(document[name], name)
    if not 1 <= len(items) <= count_max:
        raise InvalidInputError(
            f"{name} has a wrong count", expected=f"1..{count_max}", got=str(len(items))
        )
    if unique and any(x in items[:i] for i, x in enumerate(items)):
        raise InvalidInputError(f"{name} repeats an item")
    return items


def _read_list(value: object, what: str) -> list[Any]:
    if type(value) is not list:
        raise InvalidInputError(f"{what} is not a list", got=type(value).__name__)
    return value


def _read_dict(value: object) -> dict[str, Any]:
    if type(value) is not dict:
        raise InvalidInputError("member is not an object", got=type(value).__name__)
    return value
