"""A small N-Quads reader, for the RDFC-1.0 test suite."""

from __future__ import annotations

import re

from did.rdf_canonical import XSD_STRING, Quad, encode_literal

_LITERAL = r'"(?:[^"\\]|\\.)*"(?:@[A-Za-z0-9-]+|\^\^<[^>]*>)?'
_TERM = rf"(<[^>]*>|_:\S+|{_LITERAL})"
_LINE = re.compile(rf"\s*{_TERM}\s*{_TERM}\s*{_TERM}\s*{_TERM}?\s*\.\s*(?:#.*)?")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_PLAIN = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f", '"': '"', "'": "'", "\\": "\\"}


def parse(text: str) -> list[Quad]:
    """The quads of an N-Quads document."""
    found = []
    for line in text.split("\n"):
        if line.strip() and not line.strip().startswith("#"):
            match = _LINE.fullmatch(line)
            assert match is not None, line
            found.append(Quad(*map(_read_term, match.groups(""))))
    return found


def _read_term(term: str) -> str:
    if not term.startswith('"'):
        return _unescape(term) if term.startswith("<") else term
    end = term.rindex('"')
    value, suffix = _unescape(term[1:end]), term[end + 1 :]
    if suffix.startswith("@"):
        return encode_literal(value, language=suffix[1:])
    return encode_literal(value, _unescape(suffix[3:-1]) if suffix else XSD_STRING)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else _PLAIN[m[3]], text)
