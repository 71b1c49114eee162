"""RDF Dataset Canonicalization, RDFC-1.0 with SHA-256 (W3C Recommendation, 21 May 2024).

A quad is four texts, each as canonical N-Quads writes it: `<iri>`, `_:label`, or a quoted literal;
the graph is "" for the default graph. The result is the sorted canonical N-Quads document, in
which blank nodes are `_:c14n0`, `_:c14n1`, ...

The algorithm tries every order of blank nodes that look alike, so a small dataset can cost
factorial time (section 7.1, dataset poisoning). Every step is charged to a budget, and a dataset
that needs more is refused: of the W3C test suite all but the one that is meant to be refused fit.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from itertools import permutations
from typing import NamedTuple

from ledger.errors import InvalidInputError

QUADS_MAX = 4096
WORK_MAX = 200_000
"""Hashed quads, and steps along orders of blank nodes: about half a second."""
DEPTH_MAX = 64
XSD_STRING = "http://www.w3.org/2001/XMLSchema#string"

Issuer = dict[str, str]
"""Blank node label -> the identifier it was issued, in the order of issuing."""

_ESCAPES = {
    **{code: f"\\u{code:04X}" for code in (*range(0x20), 0x7F)},
    0x08: "\\b",
    0x09: "\\t",
    0x0A: "\\n",
    0x0C: "\\f",
    0x0D: "\\r",
    0x22: '\\"',
    0x5C: "\\\\",
}


class Quad(NamedTuple):
    """One statement; the members are written out (see above)."""

    subject: str
    predicate: str
    object: str
    graph: str = ""

    def to_line(self) -> str:
        """The N-Quads line, with its line feed."""
        return " ".join(part for part in self if part) + " .\n"


def encode_literal(value: str, datatype: str = XSD_STRING, language: str = "") -> str:
    """A literal in canonical N-Quads."""
    quoted = '"' + value.translate(_ESCAPES) + '"'
    if language:
        return f"{quoted}@{language}"
    return quoted if datatype == XSD_STRING else f"{quoted}^^<{datatype}>"


def canonicalize(quads: Iterable[Quad]) -> str:
    """The canonical N-Quads document. Raises InvalidInputError for a dataset that is too large or
    would take too long."""
    return _Canonicalization(quads).run()


class _Canonicalization:
    """The state of section 4.2, for one dataset."""

    def __init__(self, quads: Iterable[Quad]) -> None:
        self._quads = list(dict.fromkeys(quads))
        if len(self._quads) > QUADS_MAX:
            raise InvalidInputError("RDF dataset is too large", expected=f"{QUADS_MAX} quads")
        self._quads_by_node: dict[str, list[Quad]] = defaultdict(list)
        for quad in self._quads:
            for label in dict.fromkeys(filter(_is_blank, quad)):
                self._quads_by_node[label].append(quad)
        self._canonical: Issuer = {}
        self._first_degree: dict[str, str] = {}
        self._work = 0

    def run(self) -> str:
        nodes_by_hash: dict[str, list[str]] = defaultdict(list)
        for node in self._quads_by_node:
            self._first_degree[node] = self._hash_first_degree(node)
            nodes_by_hash[self._first_degree[node]].append(node)
        shared = []
        for _, nodes in sorted(nodes_by_hash.items()):
            if len(nodes) == 1:
                _issue(self._canonical, nodes[0], "c14n")
            else:
                shared.append(nodes)
        for nodes in shared:
            found = []
            for node in nodes:
                if node not in self._canonical:
                    issuer: Issuer = {}
                    _issue(issuer, node, "b")
                    found.append(self._hash_n_degree(node, issuer, 1))
            for _, issuer in sorted(found, key=lambda item: item[0]):
                for node in issuer:
                    _issue(self._canonical, node, "c14n")
        return "".join(sorted(self._relabel(quad).to_line() for quad in self._quads))

    def _relabel(self, quad: Quad) -> Quad:
        return Quad(*(self._canonical.get(part, part) for part in quad))

    def _hash_first_degree(self, node: str) -> str:
        """Section 4.6: the hash of a node's quads, all other blank nodes being alike."""
        lines = []
        for quad in self._quads_by_node[node]:
            self._charge(1)
            masked = (
                ("_:a" if part == node else "_:z") if _is_blank(part) else part for part in quad
            )
            lines.append(Quad(*masked).to_line())
        return _hash("".join(sorted(lines)))

    def _hash_related(self, related: str, quad: Quad, issuer: Issuer, position: str) -> str:
        """Section 4.7."""
        identifier = (
            self._canonical.get(related) or issuer.get(related) or self._first_degree[related]
        )
        return _hash(position + ("" if position == "g" else quad.predicate) + identifier)

    def _hash_n_degree(self, node: str, issuer: Issuer, depth: int) -> tuple[str, Issuer]:
        """Section 4.8: the node's hash, and the issuer that led to it."""
        if depth > DEPTH_MAX:
            raise InvalidInputError("RDF dataset is poisoned: blank nodes lead too deep")
        related_by_hash: dict[str, list[str]] = defaultdict(list)
        for quad in self._quads_by_node[node]:
            self._charge(1)
            for part, position in ((quad.subject, "s"), (quad.object, "o"), (quad.graph, "g")):
                if _is_blank(part) and part != node:
                    key = self._hash_related(part, quad, issuer, position)
                    related_by_hash[key].append(part)
        data = ""
        for key, related in sorted(related_by_hash.items()):
            chosen_path, chosen_issuer = "", issuer
            for order in permutations(related):
                self._charge(len(order) + len(issuer))
                candidate = self._follow(order, dict(issuer), chosen_path, depth)
                if candidate is not None and (not chosen_path or candidate[0] < chosen_path):
                    chosen_path, chosen_issuer = candidate
            data += key + chosen_path
            issuer = chosen_issuer
        return _hash(data), issuer

    def _follow(
        self, order: tuple[str, ...], issuer: Issuer, chosen_path: str, depth: int
    ) -> tuple[str, Issuer] | None:
        """Steps 5.4.4 and 5.4.5 for one order; None once its path can not be the least."""
        path = ""
        unvisited = []
        for related in order:
            if related in self._canonical:
                path += self._canonical[related]
            else:
                if related not in issuer:
                    unvisited.append(related)
                path += _issue(issuer, related, "b")
            if _is_beaten(path, chosen_path):
                return None
        for related in unvisited:
            digest, returned = self._hash_n_degree(related, issuer, depth + 1)
            path += _issue(issuer, related, "b") + f"<{digest}>"
            issuer = dict(returned)
            if _is_beaten(path, chosen_path):
                return None
        return path, issuer

    def _charge(self, amount: int) -> None:
        self._work += amount
        if self._work > WORK_MAX:
            raise InvalidInputError(
                "RDF dataset is poisoned: too many blank nodes look alike",
                expected=f"at most {WORK_MAX} steps",
            )


def _issue(issuer: Issuer, node: str, prefix: str) -> str:
    return issuer.setdefault(node, f"_:{prefix}{len(issuer)}")


def _is_blank(part: str) -> bool:
    return part.startswith("_:")


def _is_beaten(path: str, chosen_path: str) -> bool:
    return bool(chosen_path) and len(path) >= len(chosen_path) and path > chosen_path


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
