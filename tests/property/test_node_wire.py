"""The node's own messages: inverses, and nothing but InvalidInputError for any other bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.messages import Propose
from ledger import codec
from ledger.block import Block
from ledger.errors import InvalidInputError
from ledger.store import MemoryStore
from node import wire
from tests.property.campaign import examples
from tests.unit.chain_fixture import (
    FAUCET,
    GENESIS_TIME_MS,
    PROPOSER,
    open_chain,
    transfer,
)

Decoder = Callable[[bytes], object]

HASH = bytes(range(32))
DECODERS: dict[str, Decoder] = {
    "compact proposal": wire.CompactProposal.decode,
    "block-tx request": wire.BlockTxRequest.decode,
    "block txs": wire.BlockTxs.decode,
    "range request": wire.RangeRequest.decode,
    "range": wire.Range.decode,
    "ids": wire.decode_ids,
    "txs": wire.decode_txs,
}


def _propose() -> tuple[Propose, Block]:
    chain = open_chain(MemoryStore())
    block = chain.build(
        view=1,
        facts=chain.plain_facts(PROPOSER),
        time_ms=GENESIS_TIME_MS + 1000,
        candidates=[transfer(FAUCET, i, HASH, 1) for i in range(5)],
    )
    return (
        Propose(height=1, view=1, block=block, justify=(), signer=HASH, signature=bytes(64)),
        block,
    )


PROPOSE, BLOCK = _propose()
GOOD: dict[str, bytes] = {
    "compact proposal": wire.CompactProposal.of(PROPOSE, lambda i: i == BLOCK.tx_ids[2]).encode(),
    "block-tx request": wire.BlockTxRequest(block_hash=HASH, tx_ids=(HASH, HASH)).encode(),
    "block txs": wire.BlockTxs(block_hash=HASH, txs=(b"a", b"bc")).encode(),
    "range request": wire.RangeRequest(height_from=7, count=32).encode(),
    "range": wire.Range(tip_height=9, items=((BLOCK.encoded, b"certificate"),)).encode(),
    "ids": wire.encode_ids(wire.TAG_OFFER, [HASH]),
    "txs": wire.encode_txs([b"tx"]),
}


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_every_message_reads_back_as_it_was_written(name: str) -> None:
    decoded = DECODERS[name](GOOD[name][1:])
    match decoded:
        case tuple():
            again = (wire.encode_ids if name == "ids" else _encode_txs)(GOOD[name][0], decoded)
        case _:
            again = decoded.encode()  # type: ignore[attr-defined]  # all but the two lists
    assert again == GOOD[name]


def _encode_txs(_: int, txs: tuple[bytes, ...]) -> bytes:
    return wire.encode_txs(txs)


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_every_truncation_and_trailing_byte_is_refused(name: str) -> None:
    good = GOOD[name][1:]
    for end in range(len(good)):
        with pytest.raises(InvalidInputError):
            DECODERS[name](good[:end])
    with pytest.raises(InvalidInputError):
        DECODERS[name](good + b"\0")


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_oversize_is_refused_before_it_is_read(name: str) -> None:
    with pytest.raises(InvalidInputError, match="too long"):
        DECODERS[name](b"\xc6" + bytes(8 * 1024 * 1024))


@pytest.mark.parametrize("name", sorted(DECODERS))
@given(data=st.binary(max_size=300))
@settings(max_examples=examples(100), deadline=None)
def test_random_bytes_are_refused_and_raise_nothing_else(name: str, data: bytes) -> None:
    _decode_or_refuse(DECODERS[name], data)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 2**64 - 1)
    | st.binary(max_size=80)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=12),
    max_leaves=40,
)


@pytest.mark.parametrize("name", sorted(DECODERS))
@given(value=VALUES)
@settings(max_examples=examples(100), deadline=None)
def test_well_formed_values_of_wrong_shape_raise_nothing_else(
    name: str, value: codec.Value
) -> None:
    _decode_or_refuse(DECODERS[name], codec.encode(value))


@pytest.mark.parametrize("name", sorted(DECODERS))
@given(place=st.integers(0, 10**9), flip=st.integers(1, 255))
@settings(max_examples=examples(100), deadline=None)
def test_a_flipped_byte_raises_nothing_else(name: str, place: int, flip: int) -> None:
    data = bytearray(GOOD[name][1:])
    data[place % len(data)] ^= flip
    _decode_or_refuse(DECODERS[name], bytes(data))


def _decode_or_refuse(decode: Decoder, data: bytes) -> None:
    try:
        decode(data)
    except InvalidInputError:
        return


def test_a_compact_proposal_completes_to_the_same_block() -> None:
    missing = BLOCK.tx_ids[2]
    compact = wire.CompactProposal.decode(GOOD["compact proposal"][1:])
    assert compact.missing(lambda _: None) == [missing]
    held = {missing: BLOCK.txs[2]}
    assert compact.complete(held.get) == PROPOSE
    with pytest.raises(InvalidInputError, match="missing"):
        compact.complete(lambda _: None)


def test_a_prefilled_tx_that_its_id_does_not_name_is_refused() -> None:
    compact = wire.CompactProposal.of(PROPOSE, lambda _: False)
    forged = wire.CompactProposal.decode(
        wire.CompactProposal(
            **{
                **{name: getattr(compact, name) for name in compact.__dataclass_fields__},
                "prefilled": {**compact.prefilled, 1: b"another tx"},
            }
        ).encode()[1:]
    )
    with pytest.raises(InvalidInputError, match="not the one"):
        forged.complete(lambda _: None)
