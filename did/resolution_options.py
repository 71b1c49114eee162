"""Options of resolution and dereferencing, and DID parameters, by the names they share.

W3C DID Resolution: "DID Resolution Options", "DID URL Dereferencing Options", "DID Parameters".
`noCache` is of its section "Caching". `asOfHeight` and `trusted_height` are this method's own: the
history as it was known at a height, and where the caller's trust begins (docs/rpc.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from did.document import RELATIONSHIPS
from did.multikey import decode_hash
from did.resolution_error import ResolutionError
from ledger.errors import InvalidInputError

HEIGHT_MAX = 2**53 - 1
TEXT_CHARACTERS_MAX = 512
_VERSION_ID = re.compile(r"(0|[1-9][0-9]{0,15})-(z[1-9A-HJ-NP-Za-km-z]+)")
_VERSION_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionQuery:
    """Which version is asked for: (seq, op hash) of `versionId`, or the one in force at a time
    (Unix s), or neither: the newest. `as_of_height` takes the history as it was known then."""

    version: tuple[int, bytes] | None = None
    time_s: int | None = None
    as_of_height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`version` is None where the newest version is asked for. `is_dereferencing`: more than a DID
    document is asked for. `no_cache`: no cache is to keep the answer."""

    version: VersionQuery | None = None
    version_id: str | None = None
    version_time: str | None = None
    as_of_height: int | None = None
    trusted_height: int = 0
    verification_relationship: str | None = None
    service: str | None = None
    service_type: str | None = None
    relative_ref: str | None = None
    no_cache: bool = False

    @property
    def selects_services(self) -> bool:
        return self.service is not None or self.service_type is not None

    @property
    def is_dereferencing(self) -> bool:
        return self.selects_services or self.verification_relationship is not None


def read_options(parameters: Mapping[str, object]) -> Options:
    """Options from names and values, text as a URL has it or typed as JSON has it.

    `expandRelativeUrls` changes nothing: documents of this method are always expanded. Raises
    ResolutionError FEATURE_NOT_SUPPORTED for a name that is not known, INVALID_OPTIONS.
    """
    unknown = next((name for name in parameters if name not in OPTION_NAMES), None)
    if unknown is not None:
        raise ResolutionError("FEATURE_NOT_SUPPORTED", f"there is no option {unknown[:64]!r} here")
    get = parameters.get
    _read_flag("expandRelativeUrls", get("expandRelativeUrls"))
    relationship = _read_text("verificationRelationship", get("verificationRelationship"))
    if relationship is not None and relationship not in RELATIONSHIPS:
        raise _invalid("verificationRelationship", f"one of {', '.join(RELATIONSHIPS)}")
    version_id = _read_text("versionId", get("versionId"))
    version_time = _read_text("versionTime", get("versionTime"))
    as_of_height = _read_height("asOfHeight", get("asOfHeight"))
    options = Options(
        version=read_version_query(version_id, version_time, as_of_height),
        version_id=version_id,
        version_time=version_time,
        as_of_height=as_of_height,
        trusted_height=_read_height("trusted_height", get("trusted_height")) or 0,
        verification_relationship=relationship,
        service=_read_text("service", get("service")),
        service_type=_read_text("serviceType", get("serviceType")),
        relative_ref=_read_text("relativeRef", get("relativeRef")),
        no_cache=_read_flag("noCache", get("noCache")),
    )
    if options.relative_ref is not None and not options.selects_services:
        raise _invalid("relativeRef", "service or serviceType beside it")
    return options


OPTION_NAMES = frozenset(
    (
        "asOfHeight",
        "expandRelativeUrls",
        "noCache",
        "relativeRef",
        "service",
        "serviceType",
        "trusted_height",
        "verificationRelationship",
        "versionId",
        "versionTime",
    )
)


def read_version_query(
    version_id: str | None, version_time: str | None, as_of_height: int | None
) -> VersionQuery | None:
    """The query that these texts mean; None for the newest version. Raises ResolutionError
    INVALID_OPTIONS."""
    if version_id is None and version_time is None and as_of_height is None:
        return None
    if version_id is not None and version_time is not None:
        raise _invalid("versionId", "no versionTime beside it")
    return VersionQuery(
        version=None if version_id is None else _read_version_id(version_id),
        time_s=None if version_time is None else _read_version_time(version_time),
        as_of_height=as_of_height,
    )


def _read_version_id(text: str) -> tuple[int, bytes]:
    match = _VERSION_ID.fullmatch(text)
    if match is not None:
        try:
            return int(match[1]), decode_hash(match[2])
        except InvalidInputError:
            pass
    raise _invalid("versionId", "<seq>-<operation hash>")


def _read_version_time(text: str) -> int:
    """Unix seconds. UTC without fractions, as the text of DID Resolution demands."""
    if _VERSION_TIME.fullmatch(text) is not None and text.isascii():
        try:
            moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            pass
        else:
            return int(moment.timestamp())
    raise _invalid("versionTime", "UTC without fractions, such as 2026-01-31T12:00:00Z")


def _read_text(name: str, value: object) -> str | None:
    if value is None:
        return None
    if type(value) is not str or not 1 <= len(value) <= TEXT_CHARACTERS_MAX:
        raise _invalid(name, f"text of 1..{TEXT_CHARACTERS_MAX} characters")
    return value


def _read_height(name: str, value: object) -> int | None:
    if value is None:
        return None
    if type(value) is str and _NUMBER.fullmatch(value) is not None:
        value = int(value)
    if type(value) is not int or not 0 <= value <= HEIGHT_MAX:
        raise _invalid(name, "a height")
    return value


def _read_flag(name: str, value: object) -> bool:
    if value is not None and type(value) is not bool and value not in ("true", "false"):
        raise _invalid(name, "true or false")
    return value in (True, "true")


def _invalid(name: str, expected: str) -> ResolutionError:
    return ResolutionError("INVALID_OPTIONS", f"option {name} is wrong; expected {expected}")
