"""Content negotiation by the Accept header (RFC 9110 section 12.5.1).

A range's parameters have to be those of the type, but for two: `charset=utf-8`, which JSON has
anyhow, is passed over; and a `profile` is a list (RFC 6906) in which the type's has to be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

RANGES_MAX = 64
HEADER_CHARS_MAX = 1024
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_RANGE = re.compile(
    rf"\s*(?P<type>{_WORD})/(?P<subtype>{_WORD})(?P<parameters>(?:\s*;\s*"
    rf"{_WORD}\s*=\s*(?:{_WORD}|{_QUOTED}))*)\s*"
)
_PARAMETER = re.compile(rf";\s*({_WORD})\s*=\s*({_WORD}|{_QUOTED})")
# A quote that is not closed reaches to the end, so that no attempt fails: one pass, whatever comes.
_ITEM = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.?)*(?:"|$))+', re.DOTALL)
_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaType:
    """A media type that can be served; `text` is its Content-Type."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.name + "".join(f'; {name}="{v}"' for name, v in self.parameters.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRange:
    """One range of an Accept header; `quality_ppt` is q in thousandths."""

    type: str
    subtype: str
    parameters: Mapping[str, str]
    quality_ppt: int

    def match(self, media_type: MediaType) -> int:
        """0 if it does not cover the type; else the larger, the more specific it is."""
        kind, _, subtype = media_type.name.partition("/")
        if self.type == self.subtype == "*":
            return 1
        if self.type != kind or self.subtype not in ("*", subtype):
            return 0
        if not all(_fits(n, v, media_type.parameters.get(n)) for n, v in self.parameters.items()):
            return 0
        return 2 if self.subtype == "*" else 3 + len(self.parameters)


def _fits(name: str, wanted: str, offered: str | None) -> bool:
    if name == "charset" and offered is None:
        return wanted.lower() == "utf-8"
    if name == "profile":
        return offered in wanted.split()
    return wanted == offered


def parse_accept(header: str) -> tuple[MediaRange, ...]:
    """The ranges of an Accept header; everything where it is empty. What is malformed is left out,
    as is what is beyond the limits."""
    if not header.strip():
        return (MediaRange(type="*", subtype="*", parameters={}, quality_ppt=1000),)
    found = []
    for item in _ITEM.findall(header[:HEADER_CHARS_MAX])[:RANGES_MAX]:
        match = _RANGE.fullmatch(item)
        if match is not None:
            found.append(_read_range(match))
    return tuple(found)


def _read_range(match: re.Match[str]) -> MediaRange:
    parameters: dict[str, str] = {}
    quality_ppt = 1000
    for name, value in _PARAMETER.findall(match["parameters"]):
        if name.lower() == "q":
            is_quality = _QUALITY.fullmatch(value) is not None
            quality_ppt = round(float(value) * 1000) if is_quality else 0
            break  # what follows are extensions of Accept, not parameters of the type
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        parameters[name.lower()] = value
    return MediaRange(
        type=match["type"].lower(),
        subtype=match["subtype"].lower(),
        parameters=parameters,
        quality_ppt=quality_ppt,
    )


def choose(ranges: Sequence[MediaRange], offered: Sequence[MediaType]) -> MediaType | None:
    """The offered type that the ranges like best, each judged by the most specific range that
    covers it; between equals the one offered first. None if all are refused."""
    best, best_quality = None, 0
    for media_type in offered:
        matches = [(r.match(media_type), r.quality_ppt) for r in ranges]
        specificity, quality = max(matches, default=(0, 0))
        if specificity and quality > best_quality:
            best, best_quality = media_type, quality
    return best
