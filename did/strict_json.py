"""JSON that every node reads alike, and its one canonical form (RFC 8785, JCS).

Whatever execution reads must not depend on the call stack or on a library's mood, so size and
nesting are measured before the parser runs, and these are refused: duplicate names in an object,
floats and exponents, integers past +-(2^53-1), lone surrogates, NaN and Infinity, bytes that are
not UTF-8, anything after the value. `decode_canonical` also refuses bytes that are not the JCS
form of what they say, so that one value has one encoding.
"""

from __future__ import annotations

import json
from typing import Any

import rfc8785

from ledger.errors import InvalidInputError, UsageError

DEPTH_MAX = 16
INTEGER_MAX = 2**53 - 1
_INTEGER_DIGITS_MAX = 17  # a sign and 16 digits hold 2^53-1
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def decode(data: bytes, *, bytes_max: int) -> Any:
    """Parse UTF-8 JSON under the rules above, in any layout. Raises InvalidInputError."""
    if len(data) > bytes_max:
        raise InvalidInputError(
            "JSON is too long", expected=f"at most {bytes_max} B", got=f"{len(data)} B"
        )
    _check_depth(data)
    try:
        text = data.decode("utf-8")
        value = _decoder.decode(text)
        if "\\u" in text:  # only an escape can bring a surrogate past the UTF-8 decoder
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except InvalidInputError:
        raise
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, UnicodeEncodeError
        raise InvalidInputError("not JSON", got=f"{type(error).__name__}: {error}"[:120]) from error
    return value


def decode_canonical(data: bytes, *, bytes_max: int) -> Any:
    """Parse JSON that is exactly in JCS form. Raises InvalidInputError."""
    value = decode(data, bytes_max=bytes_max)
    if encode(value) != data:
        raise InvalidInputError("JSON is not canonical", expected="RFC 8785 form")
    return value


def encode(value: Any) -> bytes:
    """The JCS bytes of a value of dicts, lists, text, integers, bools and None.

    Raises UsageError for anything else.
    """
    try:
        text: str = _encode_text(value)
        if not text.isascii():
            # JCS orders names by UTF-16 code units, Python by code points: they part only
            # outside of ASCII, so only such values pay for the slower encoder.
            return bytes(rfc8785.dumps(value))
        return text.encode("ascii")
    except (TypeError, ValueError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise UsageError("value has no JCS form", got=type(error).__name__) from error


def _check_depth(data: bytes) -> None:
    """Count brackets outside of strings. A backslash outside of a string ends the parse at that
    place, so what this scan makes of the rest does not matter."""
    structure = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    depth = 0
    for byte in b"".join(structure).translate(None, _NOT_BRACKETS):
        if byte in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise InvalidInputError("JSON is nested too deep", expected=f"at most {DEPTH_MAX}")
        else:
            depth -= 1


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise InvalidInputError("JSON object repeats a name")
    return result


def _read_integer(text: str) -> int:
    if len(text) > _INTEGER_DIGITS_MAX or abs(value := int(text)) > INTEGER_MAX:
        raise InvalidInputError("JSON integer is too large", expected="at most 2^53-1")
    return value


def _refuse_number(text: str) -> Any:
    raise InvalidInputError("JSON number is not an integer", got=text[:20])


def _encode_text(value: Any) -> str:
    return _encoder.encode(value)


_decoder = json.JSONDecoder(
    object_pairs_hook=_read_object,
    parse_int=_read_integer,
    parse_float=_refuse_number,
    parse_constant=_refuse_number,
)
_encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
)
