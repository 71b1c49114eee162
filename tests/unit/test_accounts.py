"""Account ids as text, account rows, transfers."""

from __future__ import annotations

import pytest

from ledger import codec
from ledger.accounts import (
    MEMO_BYTES_MAX,
    Account,
    TransferBody,
    TransferHandler,
    decode_account_id,
    encode_account_id,
)
from ledger.errors import InvalidInputError, UsageError

# W3C did:key v0.7, "Test vectors", Ed25519; the key as its did:key document gives it (publicKeyJwk)
DID_KEY_TEXT = "z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
DID_KEY_HEX = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"


def test_an_account_id_is_a_multikey() -> None:
    assert encode_account_id(bytes.fromhex(DID_KEY_HEX)) == DID_KEY_TEXT
    assert decode_account_id(DID_KEY_TEXT).hex() == DID_KEY_HEX


@pytest.mark.parametrize("account_id", [bytes(32), b"\xff" * 32, bytes(31) + b"\1"])
def test_account_ids_round_trip(account_id: bytes) -> None:
    text = encode_account_id(account_id)
    assert text.startswith("z6Mk")
    assert decode_account_id(text) == account_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "z",
        DID_KEY_TEXT[:-1],
        DID_KEY_TEXT + "1",
        DID_KEY_TEXT + " ",
        " " + DID_KEY_TEXT,
        "z1" + DID_KEY_TEXT[1:],
        "m" + DID_KEY_TEXT[1:],
        DID_KEY_TEXT[1:],
        DID_KEY_TEXT[:-1] + "0",
        DID_KEY_TEXT[:-1] + "é",
        "z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc",  # an X25519 key
        "z" + "1" * 10_000,
        None,
        7,
        b"z6Mk",
    ],
)
def test_any_other_text_is_no_account_id(text: object) -> None:
    with pytest.raises(InvalidInputError):
        decode_account_id(text)  # type: ignore[arg-type]  # any value must be judged


def test_an_id_of_another_length_is_our_own_mistake() -> None:
    with pytest.raises(UsageError):
        encode_account_id(bytes(31))


def test_an_account_row_round_trips_and_refuses_other_shapes() -> None:
    account = Account(codec.U64_MAX, 7)
    assert Account.decode(account.encode()) == account
    others: list[codec.Value] = [[1], [1, 2, 3], ["1", 2], [1, True], 5]
    for value in others:
        with pytest.raises(InvalidInputError):
            Account.decode(codec.encode(value))


def test_a_transfer_round_trips() -> None:
    body = TransferBody(to=bytes(32), amount=codec.U64_MAX, memo=b"m" * MEMO_BYTES_MAX)
    assert TransferBody.decode(body.encode()) == body
    TransferHandler().check(body.encode())


@pytest.mark.parametrize(
    "value",
    [
        [bytes(31), 1, b""],
        [bytes(32), 1, b"m" * (MEMO_BYTES_MAX + 1)],
        [bytes(32), "1", b""],
        [bytes(32), True, b""],
        [bytes(32), 1, "memo"],
        [bytes(32), 1],
        [bytes(32), 1, b"", 0],
        None,
    ],
)
def test_a_malformed_transfer_is_refused_before_execution(value: codec.Value) -> None:
    with pytest.raises(InvalidInputError):
        TransferHandler().check(codec.encode(value))
