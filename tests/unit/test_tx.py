"""The tx envelope."""

from __future__ import annotations

import dataclasses

import pytest

from ledger import codec
from ledger.ed25519 import KeyPair, is_valid_signature
from ledger.errors import InvalidInputError
from ledger.tx import CHAIN_ID_MAX, MESSAGES_MAX, TX_BYTES_MAX, Message, Tx

KEY = KeyPair.from_seed(bytes(range(32)))
TX = Tx.sign(
    KEY,
    chain_id="test-1",
    nonce=1,
    fee=2,
    valid_until=3,
    messages=[Message("a/b", b"body"), Message("c/d", b"")],
)

# Frozen: the wire format, and what an id and a signature cover.
TX_ID_HEX = "ffe1b1fab74953216c9ccacc623da07373a31bebe6173bf9bab7708e39d6dbb9"
WIRE_HEX = (
    "97a6746573742d31c42003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc86641255"
    "31b80102039292a3612f62c404626f647992a3632f64c400c440a1ee264e18ba66480a1089e2ee98"
    "ef92fcd0143ae06a0abcae8fe28dba9e55f0ff95c9702e88b0f9faf7bfea8a8c2627ab332e948a76"
    "743df11627cd1859ea0e"
)


def test_wire_bytes_and_id_are_frozen() -> None:
    assert TX.encoded.hex() == WIRE_HEX
    assert TX.id.hex() == TX_ID_HEX
    assert Tx.decode(bytes.fromhex(WIRE_HEX)) == TX


def test_the_signature_covers_every_field_but_itself() -> None:
    assert is_valid_signature(KEY.public_key, TX.sign_bytes(), TX.signature)
    for changes in (
        {"chain_id": "test-2"},
        {"nonce": 9},
        {"fee": 9},
        {"valid_until": 9},
        {"payer": bytes(32)},
        {"messages": TX.messages[:1]},
        {"messages": TX.messages[::-1]},
    ):
        other = dataclasses.replace(TX, **changes)
        assert not is_valid_signature(KEY.public_key, other.sign_bytes(), TX.signature)
    assert dataclasses.replace(TX, signature=bytes(64)).sign_bytes() == TX.sign_bytes()


def test_the_id_covers_the_signature() -> None:
    value = codec.decode(TX.encoded, bytes_max=999)
    other = Tx.decode(codec.encode([*value[:-1], bytes(64)]))
    assert other.id != TX.id


def value_with(index: int, field: codec.Value) -> bytes:
    value = codec.decode(TX.encoded, bytes_max=999)
    value[index] = field
    return codec.encode(value)


@pytest.mark.parametrize(
    ("index", "field"),
    [
        (0, "a" * (CHAIN_ID_MAX + 1)),
        (0, b"test-1"),
        (1, bytes(31)),
        (1, bytes(33)),
        (1, "a" * 32),
        (2, True),
        (3, b"2"),
        (4, None),
        (5, []),
        (5, [["a/b", b""]] * (MESSAGES_MAX + 1)),
        (5, [["a/b"]]),
        (5, [["a/b", b"", b""]]),
        (5, [["a" * 33, b""]]),
        (5, [[b"a/b", b""]]),
        (5, [["a/b", "body"]]),
        (5, b""),
        (6, bytes(63)),
        (6, bytes(65)),
    ],
)
def test_a_malformed_field_is_refused(index: int, field: codec.Value) -> None:
    with pytest.raises(InvalidInputError):
        Tx.decode(value_with(index, field))


def test_a_tx_may_be_64_kib_and_not_a_byte_longer() -> None:
    room = TX_BYTES_MAX - len(value_with(5, [["a/b", bytes(60_000)]])) + 60_000
    assert len(Tx.decode(value_with(5, [["a/b", bytes(room)]])).encoded) == TX_BYTES_MAX
    with pytest.raises(InvalidInputError, match="too long"):
        Tx.decode(value_with(5, [["a/b", bytes(room + 1)]]))


def test_as_many_messages_as_allowed_are_taken() -> None:
    tx = Tx.decode(value_with(5, [["a/b", b""]] * MESSAGES_MAX))
    assert len(tx.messages) == MESSAGES_MAX
