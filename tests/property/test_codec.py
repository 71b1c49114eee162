"""Canonical bytes: one value, one encoding, and nothing but InvalidInputError for the rest."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import codec
from ledger.errors import InvalidInputError, UsageError
from tests.property.campaign import examples

BYTES_MAX = 4096
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(0, codec.U64_MAX)
    | st.binary(max_size=70)
    | st.text(max_size=40)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=6), max_leaves=20)


def decode_or_none(data: bytes, bytes_max: int = BYTES_MAX) -> tuple[object] | None:
    try:
        return (codec.decode(data, bytes_max=bytes_max),)
    except InvalidInputError:
        return None


@settings(max_examples=examples(200), deadline=None)
@given(VALUES)
def test_a_value_comes_back_from_its_bytes(value: codec.Value) -> None:
    data = codec.encode(value)
    assert codec.decode(data, bytes_max=max(len(data), BYTES_MAX)) == value


@settings(max_examples=examples(80), deadline=None)
@given(VALUES)
def test_truncated_trailing_and_oversize_bytes_are_refused(value: codec.Value) -> None:
    data = codec.encode(value)
    for length in range(len(data)):
        assert decode_or_none(data[:length]) is None
    for byte in (b"\0", b"\xc0", b"\xff"):
        assert decode_or_none(data + byte) is None
    assert decode_or_none(data, bytes_max=len(data) - 1) is None


@settings(max_examples=examples(400), deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_are_the_encoding_of_their_value(data: bytes) -> None:
    found = decode_or_none(data)
    if found is not None:
        assert codec.encode(found[0]) == data  # type: ignore[arg-type]  # decoded, so encodable


@settings(max_examples=examples(150), deadline=None)
@given(VALUES, st.data())
def test_a_changed_byte_is_refused_or_is_another_value(
    value: codec.Value, data: st.DataObject
) -> None:
    encoded = bytearray(codec.encode(value))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    found = decode_or_none(bytes(encoded))
    if found is not None:
        assert codec.encode(found[0]) == bytes(encoded)  # type: ignore[arg-type]  # as above


NOT_CANONICAL = {
    "u8 for a fixint": "cc05",
    "u16 for a u8": "cd00ff",
    "u32 for a u16": "ce0000ffff",
    "u64 for a u32": "cf00000000ffffffff",
    "a signed positive": "d005",
    "a negative": "ff",
    "int8 -128": "d080",
    "str8 for a fixstr": "d90161",
    "str16 for a str8": "da000161",
    "bin16 for a bin8": "c5000161",
    "array16 for a fixarray": "dc000101",
    "array32 for a fixarray": "dd0000000101",
    "a float": "ca3f800000",
    "a double": "cb3ff0000000000000",
    "an empty map": "80",
    "a map": "810101",
    "an ext": "d40100",
    "a timestamp": "d6ff00000000",
    "a byte that is nothing": "c1",
    "no UTF-8": "a1ff",
    "a surrogate": "a3eda080",
    "an array of 2^32-1": "ddffffffff",
    "bytes of 2^32-1": "c6ffffffff",
    "text of 2^32-1": "dbffffffff",
    "a negative inside": "91ff",
    "a float inside": "91ca3f800000",
    "nothing": "",
}


@pytest.mark.parametrize("why", NOT_CANONICAL)
def test_what_is_not_canonical_is_refused(why: str) -> None:
    assert decode_or_none(bytes.fromhex(NOT_CANONICAL[why])) is None


def test_nesting_is_bounded_at_exactly_the_limit() -> None:
    deepest: list[object] = []
    for _ in range(codec.DEPTH_MAX - 1):
        deepest = [deepest]
    assert decode_or_none(msgpack.packb(deepest)) is not None
    assert decode_or_none(msgpack.packb([deepest])) is None
    assert decode_or_none(b"\x91" * 4000 + b"\xc0", bytes_max=5000) is None
    assert decode_or_none(b"\x91" * 1_000_000, bytes_max=2**20) is None


@pytest.mark.parametrize("value", [-1, 1.5, {}, {"a": 1}, [-1], [1.5]])
def test_what_slips_through_encoding_is_refused_by_every_decoder(value: object) -> None:
    data = codec.encode(value)  # type: ignore[arg-type]  # wrong on purpose
    assert decode_or_none(data) is None


@pytest.mark.parametrize("value", [2**64, object(), {1}, "\ud800", [object()]])
def test_what_has_no_encoding_is_our_own_mistake(value: object) -> None:
    with pytest.raises(UsageError):
        codec.encode(value)  # type: ignore[arg-type]  # wrong on purpose
    assert codec.encode([1, "a"]) == bytes.fromhex("9201a161"), "a failed encode leaves nothing"


def test_tags_and_kinds_separate_domains() -> None:
    hashes = {codec.hash_tagged(tag, data) for tag in ("a", "ab") for data in (b"", b"b")}
    assert len(hashes) == 4
    signed = {codec.sign_bytes(k, c, [1]) for k in ("vote", "tx") for c in ("one", "two")}
    assert len(signed) == 4


Reader = Callable[[object], object]
READERS: dict[str, tuple[Reader, list[object], list[object]]] = {
    "array": (lambda v: codec.read_array(v, 2, "x"), [[1, 2]], [[1], [1, 2, 3], (1, 2), None, 5]),
    "list": (lambda v: codec.read_list(v, 2, "x"), [[], [1, 2]], [[1, 2, 3], None, "ab", b"ab"]),
    "int": (lambda v: codec.read_int(v, "x", 9), [0, 9], [-1, 10, True, "1", None, 1.0]),
    "bytes": (lambda v: codec.read_bytes(v, "x", length=2), [b"ab"], [b"", b"abc", "ab", None]),
    "short": (lambda v: codec.read_bytes(v, "x", maximum=2), [b"", b"ab"], [b"abc", "", None]),
    "str": (lambda v: codec.read_str(v, "x", 2), ["", "ab"], ["abc", b"ab", None, 1]),
}


@pytest.mark.parametrize("name", READERS)
def test_field_readers_take_what_fits_and_name_what_does_not(name: str) -> None:
    read, good, bad = READERS[name]
    for value in good:
        assert read(value) == value
    for value in bad:
        with pytest.raises(InvalidInputError, match="x "):
            read(value)
