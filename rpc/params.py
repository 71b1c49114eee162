"""Parameters of methods: their text forms, checked once and turned into domain values.

A `ParamKind` pairs a JSON schema (for OpenRPC) with a decoder compiled from the same bounds, so
that no schema is interpreted while requests are served. Text forms: 32-byte hashes, ids and keys
are 64 lower- or upper-case hex digits; other bytes are base64url without padding (RFC 4648
section 5).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from rpc.errors import RpcCode, RpcError

Schema = dict[str, object]

HEIGHT_MAX = 2**53 - 1
"""Past this JavaScript's JSON loses digits; no chain gets there."""
_NAME_CHARS_MAX = 64
_HEX32 = re.compile(r"[0-9a-fA-F]{64}")
# '-' and '_' become the standard alphabet; its own '+', '/' and '=' become an invalid byte.
_BASE64URL_TO_STANDARD = bytes(
    {ord("-"): ord("+"), ord("_"): ord("/"), ord("+"): 0, ord("/"): 0, ord("="): 0}.get(i, i)
    for i in range(256)
)
_PADDING = (b"", b"", b"==", b"=")


class _WrongValueError(Exception):
    """A value has not the expected form; args are (expected, got)."""


@dataclass(frozen=True, slots=True)
class ParamKind:
    """`decode` takes any JSON value and returns the domain value or raises _WrongValueError."""

    schema: Schema
    decode: Callable[[object], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """A named parameter. `default` holds when it is absent; null is the same as absent, unless
    it is required."""

    name: str
    kind: ParamKind
    description: str
    required: bool = False
    default: object = None


def text_of_bytes(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def bytes_of_text(text: str) -> bytes:
    """Inverse of `text_of_bytes`; raises ValueError for anything else than base64url."""
    raw = text.encode("ascii").translate(_BASE64URL_TO_STANDARD)
    if len(raw) % 4 == 1:
        raise ValueError("base64url text has a wrong length")
    return binascii.a2b_base64(raw + _PADDING[len(raw) % 4], strict_mode=True)


def describe(value: object) -> str:
    """What came, in a few words; never the value of something large."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return f"text {value[:40]!r}" + ("..." if len(value) > 40 else "")
        case int():
            return str(value) if value.bit_length() <= 128 else "a number of over 128 bits"
        case float():
            return repr(value)
        case list():
            return f"an array of {len(value)}"
        case _:
            return "an object"


def integer(minimum: int, maximum: int) -> ParamKind:
    """A whole number in [minimum, maximum]."""
    expected = f"an integer in {minimum}..{maximum}"

    def decode(value: object) -> int:
        if type(value) is int and minimum <= value <= maximum:
            return value
        raise _WrongValueError(expected, describe(value))

    return ParamKind({"type": "integer", "minimum": minimum, "maximum": maximum}, decode)


def text(chars_max: int, *, pattern: str | None = None, what: str = "text") -> ParamKind:
    """1..chars_max characters, optionally of a form given as a regular expression."""
    expected = f"{what} of 1..{chars_max} characters"
    schema: Schema = {"type": "string", "minLength": 1, "maxLength": chars_max}
    form = None
    if pattern is not None:
        form = re.compile(pattern)
        expected += f" like {pattern}"
        schema["pattern"] = f"^{pattern}$"

    def decode(value: object) -> str:
        if (
            isinstance(value, str)
            and 1 <= len(value) <= chars_max
            and (form is None or form.fullmatch(value))
        ):
            return value
        raise _WrongValueError(expected, describe(value))

    return ParamKind(schema, decode)


def _decode_boolean(value: object) -> bool:
    if type(value) is bool:
        return value
    raise _WrongValueError("true or false", describe(value))


BOOLEAN = ParamKind({"type": "boolean"}, _decode_boolean)


def choice(*words: str) -> ParamKind:
    """One of the given words."""
    allowed = frozenset(words)
    expected = "one of " + ", ".join(words)

    def decode(value: object) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise _WrongValueError(expected, describe(value))

    return ParamKind({"type": "string", "enum": list(words)}, decode)


def _decode_hex32(value: object) -> bytes:
    if isinstance(value, str) and _HEX32.fullmatch(value):
        return bytes.fromhex(value)
    raise _WrongValueError("64 hex digits (32 bytes)", describe(value))


HEX32 = ParamKind({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}, _decode_hex32)


def blob(bytes_max: int) -> ParamKind:
    """1..bytes_max bytes in base64url without padding."""
    chars_max = (bytes_max * 4 + 2) // 3
    expected = f"base64url without padding, 1..{bytes_max} bytes"

    def decode(value: object) -> bytes:
        if not isinstance(value, str):
            raise _WrongValueError(expected, describe(value))
        if not 1 <= len(value) <= chars_max:
            raise _WrongValueError(expected, f"{len(value)} characters")
        try:
            return bytes_of_text(value)
        except ValueError:  # UnicodeEncodeError and binascii.Error are ValueErrors
            raise _WrongValueError(expected, describe(value)) from None

    schema: Schema = {
        "type": "string",
        "contentEncoding": "base64url",
        "pattern": "^[A-Za-z0-9_-]+$",
        "maxLength": chars_max,
    }
    return ParamKind(schema, decode)


def list_of(kind: ParamKind, count_max: int) -> ParamKind:
    """1..count_max values of a kind."""
    expected = f"an array of 1..{count_max}"
    decode_item = kind.decode

    def decode(value: object) -> list[object]:
        if not isinstance(value, list) or not 1 <= len(value) <= count_max:
            raise _WrongValueError(expected, describe(value))
        found: list[object] = []
        append = found.append
        try:
            for item in value:
                append(decode_item(item))
        except _WrongValueError as error:
            wanted, got = error.args
            raise _WrongValueError(f"{wanted} at index {len(found)}", got) from None
        return found

    schema: Schema = {
        "type": "array",
        "items": kind.schema,
        "minItems": 1,
        "maxItems": count_max,
    }
    return ParamKind(schema, decode)


def _decode_block_ref(value: object) -> int | bytes:
    if type(value) is int and 0 <= value <= HEIGHT_MAX:
        return value
    if isinstance(value, str) and _HEX32.fullmatch(value):
        return bytes.fromhex(value)
    raise _WrongValueError("a height or a block hash of 64 hex digits", describe(value))


BLOCK_REF = ParamKind(
    {"oneOf": [{"type": "integer", "minimum": 0, "maximum": HEIGHT_MAX}, HEX32.schema]},
    _decode_block_ref,
)
HEIGHT = integer(0, HEIGHT_MAX)


def decode_params(params: object, spec: Sequence[Param], index: Mapping[str, int]) -> list[object]:
    """Bind `params` (array, object or None) to `spec`; `index` is name -> position in it.

    Returns one value per Param. Raises RpcError INVALID_PARAMS naming the parameter.
    """
    if isinstance(params, dict):
        raw: list[object] = [None] * len(spec)
        for name, value in params.items():
            position = index.get(name)
            if position is None:
                raise _unknown_param(name, index)
            raw[position] = value
    elif isinstance(params, list):
        if len(params) > len(spec):
            raise RpcError(
                RpcCode.INVALID_PARAMS,
                "too many positional parameters",
                expected=_signature(spec),
                got=str(len(params)),
            )
        raw = params + [None] * (len(spec) - len(params))
    elif params is None:
        raw = [None] * len(spec)
    else:
        raise RpcError(
            RpcCode.INVALID_REQUEST,
            "params is neither an array nor an object",
            expected=_signature(spec),
            got=describe(params),
        )
    values: list[object] = []
    for param, value in zip(spec, raw, strict=True):
        if value is None:
            if param.required:
                raise RpcError(
                    RpcCode.INVALID_PARAMS,
                    f"parameter '{param.name}' is missing",
                    expected=_signature(spec),
                    got="nothing",
                )
            values.append(param.default)
            continue
        try:
            values.append(param.kind.decode(value))
        except _WrongValueError as error:
            expected, got = error.args
            raise RpcError(
                RpcCode.INVALID_PARAMS,
                f"parameter '{param.name}' is wrong",
                expected=expected,
                got=got,
            ) from None
    return values


def _unknown_param(name: str, index: Mapping[str, int]) -> RpcError:
    near = get_close_matches(name[:_NAME_CHARS_MAX], index, n=1)
    return RpcError(
        RpcCode.INVALID_PARAMS,
        f"unknown parameter {name[:_NAME_CHARS_MAX]!r}"
        + (f"; did you mean '{near[0]}'?" if near else ""),
        expected=", ".join(index) or "no parameters",
        got=describe(name),
    )


def _signature(spec: Sequence[Param]) -> str:
    names = (p.name if p.required else f"{p.name}?" for p in spec)
    return "(" + ", ".join(names) + ")"
