"""Canonical msgpack, domain-tagged hashing and sign bytes.

Rules (docs/protocol.md, "Bytes"):
- values are None, bool, int (0 .. 2^64-1), bytes, str and arrays of those, nested at most 16 deep;
- integers take the shortest form, bytes are `bin`, text is `str` (UTF-8);
- structures are positional arrays, so there are no maps and no field names in the bytes;
- a decoder caps sizes before it allocates, then encodes the result again and compares, which
  refuses each non-canonical form and each trailing byte.

Hashes are `sha256("zynk/<tag>/1" 0x00 || bytes)`. Sign bytes are
`"zynk/sign/<kind>/1" 0x00 || encode([chain_id, ...fields])`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgpack

from ledger.errors import InvalidInputError, UsageError

DEPTH_MAX = 16
U64_MAX = 2**64 - 1
HASH_BYTES = 32

Value = None | bool | int | bytes | str | Sequence["Value"]

_packer = msgpack.Packer(use_bin_type=True, autoreset=True)


def encode(value: Value) -> bytes:
    """Return the canonical bytes of `value`. Raises UsageError for what msgpack can't write.

    What msgpack can but `Value` does not have (floats, maps, negative integers) is not looked for,
    since this is on every hot path: types keep it out, and each decoder refuses the bytes.
    """
    try:
        packed: bytes = _packer.pack(value)
    except (TypeError, ValueError, OverflowError) as error:
        _packer.reset()
        raise UsageError("value has no canonical encoding", got=str(error)) from error
    return packed


def decode(data: bytes, *, bytes_max: int) -> Any:
    """Return the value whose canonical bytes are exactly `data` (arrays as lists).

    Raises InvalidInputError for anything else: too long, truncated, trailing, not canonical,
    a type outside the rules, a negative integer, nested too deep.
    """
    if len(data) > bytes_max:
        raise InvalidInputError(
            "encoded value is too long", expected=f"at most {bytes_max} B", got=f"{len(data)} B"
        )
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=bytes_max,
            max_bin_len=bytes_max,
            max_array_len=bytes_max,
            max_map_len=0,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises ValueError, UnpackException, RecursionError, ...
        raise InvalidInputError("bytes are not canonical msgpack", got=type(error).__name__) from (
            error
        )
    _check_types(value, DEPTH_MAX)
    if _packer.pack(value) != data:
        raise InvalidInputError("bytes are not canonical msgpack", got="another encoding")
    return value


def _check_types(value: object, depth: int) -> None:
    kind = type(value)
    if kind is list:
        if depth == 0:
            raise InvalidInputError("value is nested too deep", expected=f"at most {DEPTH_MAX}")
        for item in value:  # type: ignore[attr-defined]  # narrowed by the identity test above
            _check_types(item, depth - 1)
    elif kind is int:
        if not 0 <= value <= U64_MAX:  # type: ignore[operator]  # narrowed above
            raise InvalidInputError("integer out of range", expected="u64", got=str(value))
    elif kind not in (bytes, str, bool) and value is not None:
        raise InvalidInputError("type has no place in canonical bytes", got=kind.__name__)


@lru_cache(maxsize=256)
def _tag_prefix(tag: str) -> bytes:
    return f"zynk/{tag}/1".encode() + b"\0"


def hash_tagged(tag: str, data: bytes) -> bytes:
    """sha256 of `data` under domain `tag`; 32 bytes."""
    return hashlib.sha256(_tag_prefix(tag) + data).digest()


def sign_bytes(kind: str, chain_id: str, fields: Sequence[Value]) -> bytes:
    """The bytes that a signature of `kind` covers: domain, kind, chain id, then `fields`."""
    return _tag_prefix("sign/" + kind) + encode([chain_id, *fields])


# --- field readers: a decoded array to typed fields, with an error that names the field ---


def read_array(value: object, length: int, what: str) -> list[Any]:
    """Check that `value` is an array of exactly `length` fields."""
    if type(value) is not list or len(value) != length:
        got = f"{len(value)} fields" if isinstance(value, list) else type(value).__name__
        raise InvalidInputError(f"{what} is malformed", expected=f"{length} fields", got=got)
    return value


def read_list(value: object, count_max: int, what: str) -> list[Any]:
    """Check that `value` is an array of at most `count_max` items."""
    if type(value) is not list or len(value) > count_max:
        got = f"{len(value)} items" if isinstance(value, list) else type(value).__name__
        raise InvalidInputError(f"{what} is malformed", expected=f"<= {count_max} items", got=got)
    return value


def read_int(value: object, what: str, maximum: int = U64_MAX) -> int:
    """Check that `value` is an integer in 0 .. maximum (a bool is not one)."""
    if type(value) is not int or not 0 <= value <= maximum:
        raise InvalidInputError(f"{what} is malformed", expected=f"0..{maximum}", got=repr(value))
    return value


def read_bytes(value: object, what: str, *, length: int | None = None, maximum: int = 0) -> bytes:
    """Check that `value` is bytes of exactly `length`, or of at most `maximum`."""
    if type(value) is not bytes:
        raise InvalidInputError(f"{what} is malformed", expected="bytes", got=type(value).__name__)
    if length is not None and len(value) != length:
        raise InvalidInputError(
            f"{what} has a wrong length", expected=f"{length} B", got=f"{len(value)} B"
        )
    if length is None and len(value) > maximum:
        raise InvalidInputError(
            f"{what} is too long", expected=f"at most {maximum} B", got=f"{len(value)} B"
        )
    return value


def read_str(value: object, what: str, maximum: int) -> str:
    """Check that `value` is text of at most `maximum` characters."""
    if type(value) is not str or len(value) > maximum:
        raise InvalidInputError(
            f"{what} is malformed", expected=f"text of at most {maximum}", got=repr(value)[:80]
        )
    return value
