"""Bitstring status lists: the bits, their encoding, and lists that lie about their size."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from did.credential import list_credential
from did.multikey import encode_base64url
from did.status_list import (
    LIST_BITS_MAX,
    LIST_BITS_MIN,
    REVOCATION,
    StatusEntry,
    decode_bits,
    encode_bits,
    is_set,
    read_bits,
    read_status_entry,
    set_bit,
)
from ledger.errors import InvalidInputError, UsageError

EMPTY = bytes(LIST_BITS_MIN // 8)
ENTRY = StatusEntry(list_id="https://i.example/1", index=7, purpose=REVOCATION)


def pack(data: bytes) -> str:
    return "u" + encode_base64url(data)


def test_bit_zero_is_the_highest_of_the_first_byte() -> None:
    bits = set_bit(set_bit(EMPTY, 0), 15)
    assert bits[:2] == b"\x80\x01"
    assert [i for i in range(20) if is_set(bits, i)] == [0, 15]
    assert set_bit(bits, 0) == bits


def test_the_empty_list_of_other_implementations_decodes() -> None:
    # as Bitstring Status List 1.0 shows it in its examples
    text = "uH4sIAAAAAAAAA-3BMQEAAADCoPVPbQwfoAAAAAAAAAAAAAAAAAAAAIC3AYbSVKsAQAAA"
    assert decode_bits(text) == EMPTY


@pytest.mark.parametrize("size", [LIST_BITS_MIN, LIST_BITS_MIN + 8, LIST_BITS_MAX])
def test_lists_of_allowed_sizes_round_trip(size: int) -> None:
    bits = set_bit(bytes(size // 8), size - 1)
    assert decode_bits(encode_bits(bits)) == bits
    assert encode_bits(bits) == encode_bits(bits)
    with pytest.raises(UsageError):
        set_bit(bits, size)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "malformed"),
        ("", "malformed"),
        (encode_bits(EMPTY)[1:], "malformed"),
        ("z" + encode_bits(EMPTY)[1:], "malformed"),
        (encode_bits(EMPTY) + "=", "malformed|canonical"),
        (pack(b""), "one gzip member"),
        (pack(zlib.compress(EMPTY)), "not gzip"),
        (pack(gzip.compress(EMPTY)[:-1]), "one gzip member"),
        (pack(gzip.compress(EMPTY) + b"x"), "one gzip member"),
        (pack(gzip.compress(EMPTY) * 2), "one gzip member"),
        (pack(gzip.compress(EMPTY[1:])), "too short"),
        (pack(gzip.compress(bytes(LIST_BITS_MAX // 8 + 1))), "one gzip member"),
        (pack(gzip.compress(bytes(100_000_000))), "one gzip member"),
        ("u" + "A" * 400_000, "malformed"),
    ],
    ids=range(14),
)
def test_what_is_no_list_of_a_bounded_size_is_refused(text: object, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        decode_bits(text)


def test_an_entry_round_trips() -> None:
    assert read_status_entry({"credentialStatus": ENTRY.to_json()}) == ENTRY
    assert read_status_entry({"credentialStatus": [ENTRY.to_json()]}) == ENTRY
    assert read_status_entry({}) is None


@pytest.mark.parametrize(
    "status",
    [
        None,
        [],
        "https://i.example/1#7",
        [ENTRY.to_json(), ENTRY.to_json()],
        *(
            {**ENTRY.to_json(), **change}
            for change in (
                {"type": "StatusList2021Entry"},
                {"statusPurpose": "suspension"},
                {"statusListIndex": 7},
                {"statusListIndex": "07"},
                {"statusListIndex": "-7"},
                {"statusListIndex": "7٣"},
                {"statusListIndex": "9" * 5000},
                {"statusListIndex": ["7"]},
                {"statusListCredential": 5},
                {"statusSize": 2},
            )
        ),
    ],
    ids=range(14),
)
def test_an_entry_that_readers_could_read_differently_is_refused(status: object) -> None:
    with pytest.raises(InvalidInputError):
        read_status_entry({"credentialStatus": status})


@pytest.mark.parametrize(
    "change",
    [
        {"id": "https://i.example/2"},
        {"type": ["VerifiableCredential"]},
        {"credentialSubject": []},
        {"credentialSubject": {"type": "BitstringStatusList", "statusPurpose": "suspension"}},
        {"credentialSubject": {"type": "BitstringStatusList", "statusPurpose": "revocation"}},
    ],
    ids=range(5),
)
def test_a_list_that_is_not_the_one_named_is_refused(change: dict[str, Any]) -> None:
    credential = list_credential(ENTRY.list_id, EMPTY)
    assert read_bits(credential, ENTRY) == EMPTY
    with pytest.raises(InvalidInputError):
        read_bits({**credential, **change}, ENTRY)


def test_an_index_past_the_end_is_refused() -> None:
    credential = list_credential(ENTRY.list_id, EMPTY)
    past = StatusEntry(list_id=ENTRY.list_id, index=LIST_BITS_MIN, purpose=REVOCATION)
    with pytest.raises(InvalidInputError, match="no such entry"):
        read_bits(credential, past)
