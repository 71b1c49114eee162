"""Parameters: each kind takes its own form and nothing else, and says what it wanted."""

from __future__ import annotations

import pytest

from rpc.errors import RpcCode, RpcError
from rpc.params import (
    BLOCK_REF,
    HEX32,
    Param,
    ParamKind,
    blob,
    bytes_of_text,
    choice,
    decode_params,
    integer,
    list_of,
    text,
    text_of_bytes,
)

H = "0a" * 32
SPEC = (
    Param(name="did", kind=text(8), description="", required=True),
    Param(name="limit", kind=integer(1, 9), description="", default=5),
)
INDEX = {"did": 0, "limit": 1}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (integer(1, 9), 9, 9),
        (text(3), "abc", "abc"),
        (text(9, pattern="[a-z]+"), "abc", "abc"),
        (choice("a", "b"), "b", "b"),
        (HEX32, H, b"\x0a" * 32),
        (HEX32, H.upper(), b"\x0a" * 32),
        (blob(3), "AAEC", b"\x00\x01\x02"),
        (blob(3), "_-8", b"\xff\xef"),
        (list_of(blob(3), 2), ["AA", "AQ"], [b"\0", b"\1"]),
        (BLOCK_REF, 0, 0),
        (BLOCK_REF, H, b"\x0a" * 32),
    ],
)
def test_a_right_value_is_decoded(kind: ParamKind, value: object, expected: object) -> None:
    assert decode_params([value], [Param(name="p", kind=kind, description="")], {"p": 0}) == [
        expected
    ]


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (integer(1, 9), 0, "1..9"),
        (integer(1, 9), 10**40, "1..9"),
        (integer(1, 9), True, "1..9"),
        (integer(1, 9), 1.0, "1..9"),
        (integer(1, 9), "1", "1..9"),
        (text(3), "", "1..3"),
        (text(3), "abcd", "1..3"),
        (text(3), 1, "1..3"),
        (text(9, pattern="[a-z]+"), "abc\n", "[a-z]+"),
        (choice("a", "b"), "c", "one of a, b"),
        (choice("a", "b"), [], "one of a, b"),
        (HEX32, H[:-1], "64 hex"),
        (HEX32, H + "\n", "64 hex"),
        (HEX32, "0x" + H[2:], "64 hex"),
        (HEX32, 7, "64 hex"),
        (blob(3), "AAECAw", "base64url"),
        (blob(3), "A", "base64url"),
        (blob(3), "AA==", "base64url"),
        (blob(3), "+/8", "base64url"),
        (blob(3), "A A", "base64url"),
        (blob(3), "A\u00e9", "base64url"),
        (blob(3), "", "base64url"),
        (blob(3), "AA!", "base64url"),
        (blob(3), [1], "base64url"),
        (list_of(blob(3), 2), [], "array of 1..2"),
        (list_of(blob(3), 2), ["AA"] * 3, "array of 1..2"),
        (list_of(blob(3), 2), ["AA", 5], "at index 1"),
        (list_of(blob(3), 2), {"0": "AA"}, "array of 1..2"),
        (BLOCK_REF, -1, "a height or a block hash"),
        (BLOCK_REF, "head", "a height or a block hash"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(
    kind: ParamKind, value: object, wanted: str
) -> None:
    with pytest.raises(RpcError) as caught:
        decode_params({"p": value}, [Param(name="p", kind=kind, description="")], {"p": 0})
    assert caught.value.code == RpcCode.INVALID_PARAMS
    assert "'p'" in caught.value.message
    assert wanted in caught.value.expected
    assert caught.value.got


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"did": "x"}, ["x", 5]),
        ({"limit": 2, "did": "x"}, ["x", 2]),
        ({"did": "x", "limit": None}, ["x", 5]),
        (["x"], ["x", 5]),
        (["x", 2], ["x", 2]),
    ],
)
def test_params_bind_by_name_and_by_position(params: object, expected: list[object]) -> None:
    assert decode_params(params, SPEC, INDEX) == expected


@pytest.mark.parametrize(
    ("params", "code", "message"),
    [
        (None, RpcCode.INVALID_PARAMS, "'did' is missing"),
        ({}, RpcCode.INVALID_PARAMS, "'did' is missing"),
        ({"did": None}, RpcCode.INVALID_PARAMS, "'did' is missing"),
        ({"did": "x", "limits": 2}, RpcCode.INVALID_PARAMS, "did you mean 'limit'"),
        ({"did": "x", "\ud800" * 100: 2}, RpcCode.INVALID_PARAMS, "unknown parameter"),
        (["x", 2, 3], RpcCode.INVALID_PARAMS, "too many positional"),
        ("x", RpcCode.INVALID_REQUEST, "neither an array nor an object"),
        (0, RpcCode.INVALID_REQUEST, "neither an array nor an object"),
    ],
)
def test_params_that_do_not_bind_are_refused(params: object, code: RpcCode, message: str) -> None:
    with pytest.raises(RpcError, match=message) as caught:
        decode_params(params, SPEC, INDEX)
    assert caught.value.code == code


@pytest.mark.parametrize("count", range(10))
def test_text_of_bytes_round_trips_without_padding(count: int) -> None:
    data = bytes(range(250, 250 + min(count, 6))) + b"\0" * max(0, count - 6)
    assert "=" not in text_of_bytes(data)
    assert bytes_of_text(text_of_bytes(data)) == data
