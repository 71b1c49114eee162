"""From a JSON-LD document to RDF quads, such that everything shown is in the quads.

PyLD does the expansion, with the bundled contexts (`did.contexts`) and no others. What RDF would
lose, or what lets one set of quads be shown as different JSON, is refused, because the signature
covers the quads while people and programs read the JSON:

- `@context` is a list of bundled URLs, at the top only: an inline context could give a signed
  property another name;
- a member that no context defines, null, an empty list, a relative identifier: RDF drops them;
- member names with a colon (an IRI or prefixed name is a second name of a property), keywords
  other than `@value` and `@language`, blank node labels;
- the document's own `id` on an object inside: a member could move from the top into that object.

Size, depth and counts are bounded before the expansion begins, and IRIs are checked by RFC 3987's
shape, so that none can break out of its place in an N-Quads line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from did.contexts import load_document
from did.rdf_canonical import XSD_STRING, Quad, encode_literal
from did.strict_json import DEPTH_MAX
from ledger.errors import InvalidInputError

CONTEXTS_MAX = 8
OBJECTS_MAX = 256
VALUES_MAX = 1024
"""PyLD compares each value of a property with all before it: 4,096 take 8 s, 1,024 take 0.5 s."""
TYPES_MAX = 8

BASE = "relative-iri://refused/"
"""Where PyLD resolves relative identifiers to, so that they can be told; with an empty base it
takes one of its own."""
_IRI = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20<>"{}|^`\\\ud800-\udfff]*')
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")
_VALUE_KEYWORDS = frozenset(("@value", "@language"))
_EXPANDED_KEYWORDS = frozenset(("@id", "@type", "@value", "@language", "@list", "@graph"))

_resolved: dict[str, Any] = {}
"""PyLD's processed contexts; only the bundled ones get here."""


def to_quads(document: Mapping[str, Any]) -> list[Quad]:
    """The quads of a document. Raises InvalidInputError, and nothing else."""
    # PyLD takes 0.1 s to import, and brings HTTP clients; who signs no RDF does without.
    from pyld import ContextResolver, jsonld

    check_document(document)
    options = {
        "base": BASE,
        "documentLoader": load_document,
        "contextResolver": ContextResolver(_resolved, load_document),
        "processingMode": "json-ld-1.1",
    }
    processor = jsonld.JsonLdProcessor(on_property_dropped=_refuse_dropped)
    try:
        expanded = processor.expand(dict(document), options)
        _check_expanded(expanded)
        dataset = processor.to_rdf(expanded, options)
    except InvalidInputError:
        raise
    except Exception as error:  # whatever a library raises about someone's data
        raise InvalidInputError("not JSON-LD", got=_describe(error)) from error
    return [_read_quad(triple, name) for name, triples in dataset.items() for triple in triples]


def check_document(document: Mapping[str, Any]) -> None:
    """The rules above that can be checked before the expansion. Raises InvalidInputError."""
    contexts = document.get("@context")
    if type(contexts) is not list or not 1 <= len(contexts) <= CONTEXTS_MAX:
        raise InvalidInputError("@context is not a list", expected=f"1..{CONTEXTS_MAX} URLs")
    for url in contexts:
        if type(url) is not str:
            raise InvalidInputError("@context is inline", expected="URLs only")
        load_document(url)
    rest = {name: value for name, value in document.items() if name != "@context"}
    _Limits(rest.get("id")).check(rest, 1)


class _Limits:
    """Counts what one document holds."""

    def __init__(self, root_id: object) -> None:
        self._root_id = root_id
        self._objects = 0
        self._values = 0

    def check(self, value: object, depth: int) -> None:
        self._values += 1
        if depth > DEPTH_MAX or self._values > VALUES_MAX:
            raise InvalidInputError(
                "JSON-LD is too deep or too large",
                expected=f"depth {DEPTH_MAX}, {VALUES_MAX} values",
            )
        if isinstance(value, dict):
            self._check_object(value, depth)
        elif isinstance(value, list):
            if not value:
                raise InvalidInputError("empty list: RDF would drop it")
            for item in value:
                self.check(item, depth + 1)
        elif value is None:
            raise InvalidInputError("null: RDF would drop it")

    def _check_object(self, value: dict[str, Any], depth: int) -> None:
        self._objects += 1
        if self._objects > OBJECTS_MAX:
            raise InvalidInputError("JSON-LD has too many objects", expected=f"{OBJECTS_MAX}")
        for name in value:
            if ":" in name or (name.startswith("@") and name not in _VALUE_KEYWORDS):
                raise InvalidInputError(
                    "member name is not a plain term", expected="no colon, no keyword", got=name
                )
        types = value.get("type")
        if isinstance(types, list) and len(types) > TYPES_MAX:
            raise InvalidInputError("object has too many types", expected=f"at most {TYPES_MAX}")
        identifier = value.get("id")
        if isinstance(identifier, str) and identifier.startswith("_:"):
            raise InvalidInputError("id is a blank node label", got=identifier[:80])
        if depth > 1 and identifier is not None and identifier == self._root_id:
            raise InvalidInputError("an object inside has the document's own id", got=identifier)
        for member in value.values():
            self.check(member, depth + 1)


def _refuse_dropped(name: object) -> None:
    raise InvalidInputError(
        "no context defines a member, so it would not be signed",
        expected="a context that does, such as undefined-terms/v2",
        got=repr(name)[:80],
    )


def _check_expanded(value: object) -> None:
    """Every name and identifier is absolute, so that the conversion to RDF drops none."""
    if isinstance(value, list):
        for item in value:
            _check_expanded(item)
        return
    if not isinstance(value, Mapping):
        return
    for name, member in value.items():
        if name in ("@id", "@type"):
            for iri in member if isinstance(member, list) else [member]:
                if iri != "@json":
                    _check_iri(iri)
        elif name == "@language":
            if type(member) is not str or _LANGUAGE.fullmatch(member) is None:
                raise InvalidInputError("language tag is malformed", got=repr(member)[:40])
        elif name == "@value":
            continue
        elif name not in _EXPANDED_KEYWORDS:
            _check_iri(name)
        _check_expanded(member)


def _check_iri(value: object) -> str:
    if type(value) is not str or _IRI.fullmatch(value) is None or value.startswith(BASE):
        raise InvalidInputError("not an absolute IRI", got=repr(value)[:80])
    return value


def _read_quad(triple: Mapping[str, Any], graph: str) -> Quad:
    return Quad(
        _read_term(triple["subject"]),
        _read_term(triple["predicate"]),
        _read_term(triple["object"]),
        "" if graph == "@default" else _read_resource(graph),
    )


def _read_term(term: Mapping[str, Any]) -> str:
    value = term["value"]
    if term["type"] != "literal":
        return _read_resource(value)
    datatype = _check_iri(term.get("datatype", XSD_STRING))
    return encode_literal(value, datatype, term.get("language", ""))


def _read_resource(value: str) -> str:
    return value if value.startswith("_:") else f"<{_check_iri(value)}>"


def _describe(error: BaseException) -> str:
    """What PyLD says, with the cause that names the place."""
    innermost = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    return f"{type(innermost).__name__}: {innermost}".splitlines()[0][:160]
