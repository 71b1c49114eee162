"""Every consensus decoder: round trip, and InvalidInputError alone for any other bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.evidence import Evidence
from consensus.fork_proof import ForkProof
from consensus.guard import decode_guard, encode_floor, encode_header, encode_record
from consensus.messages import (
    MESSAGE_BYTES_MAX,
    NEED_MAX,
    Body,
    BodyRequest,
    CertificateMessage,
    ConsensusMessage,
    Final,
    Propose,
    Status,
    Vote,
    decode_message,
)
from consensus.statement import Statement, StatementKind
from ledger import codec
from ledger.block import Block, Header, compute_body_hash
from ledger.certificate import Certificate, VoteKind
from ledger.errors import InvalidInputError
from ledger.finality import Handoff
from ledger.validator_set import Validator, ValidatorSet

CASES = 10_000 if os.environ.get("ZYNK_SOAK") == "1" else 150
KEY, SIGNATURE, HASH = b"\x01" * 32, b"\x02" * 64, b"\x03" * 32


def block() -> Block:
    txs = (b"one", b"two")
    certificate = Certificate(VoteKind.FINALIZE, 6, 1, HASH, b"\xe0", (SIGNATURE,) * 3)
    bare = Block(_header(HASH), txs, certificate)
    return Block(_header(compute_body_hash(bare.tx_ids, certificate)), txs, certificate)


def _header(body_hash: bytes) -> Header:
    return Header(
        1, "zynk-x", 7, 1000, HASH, 2, KEY, b"", body_hash, HASH, 0, HASH, HASH, HASH, HASH
    )


BLOCK = block()
NULLIFICATION = Certificate(VoteKind.NULLIFY, 7, 1, b"", b"\xe0", (SIGNATURE,) * 3)
FINALIZATION = Certificate(VoteKind.FINALIZE, 7, 2, BLOCK.hash, b"\xe0", (SIGNATURE,) * 3)
MESSAGES: tuple[ConsensusMessage, ...] = (
    Propose(
        height=7, view=2, block=BLOCK, justify=(NULLIFICATION,), signer=KEY, signature=SIGNATURE
    ),
    *(
        Vote(
            kind=kind,
            height=7,
            view=2,
            block_hash=b"" if kind is VoteKind.NULLIFY else HASH,
            signer=KEY,
            signature=SIGNATURE,
        )
        for kind in VoteKind
    ),
    CertificateMessage(certificate=NULLIFICATION),
    Status(height=7, view=4, need=(3, 2), signer=KEY, signature=SIGNATURE),
    Status(height=7, view=1, need=()),
    BodyRequest(height=7, block_hash=HASH),
    Body(block=BLOCK),
    Final(block=BLOCK, certificate=FINALIZATION),
)
EVIDENCE = Evidence.of(
    KEY,
    (Statement(kind=StatementKind.FINALIZE, height=7, view=2, block_hash=HASH), SIGNATURE),
    (Statement(kind=StatementKind.NULLIFY, height=7, view=2, block_hash=b""), SIGNATURE),
)


def guard_bytes() -> bytes:
    slots = [encode_header("zynk-x", KEY)]
    slots.append(encode_floor(slots[-1], (3, 1)))
    for kind, view in ((StatementKind.NOTARIZE, 1), (StatementKind.NULLIFY, 2)):
        block_hash = b"" if kind is StatementKind.NULLIFY else HASH
        record = Statement(kind=kind, height=7, view=view, block_hash=block_hash)
        slots.append(encode_record(slots[-1], record))
    return b"".join(slots)


def fork_proofs() -> list[ForkProof]:
    header = _header(HASH)
    first = Certificate(VoteKind.FINALIZE, 7, 1, header.hash, b"\xe0", (SIGNATURE,) * 3)
    second = Certificate(VoteKind.FINALIZE, 7, 3, HASH, b"\xe0", (SIGNATURE,) * 3)
    nullified = Certificate(VoteKind.NULLIFY, 7, 1, b"", b"\xe0", (SIGNATURE,) * 3)
    plain = ForkProof.of(header, first, second, [nullified])
    validators = ValidatorSet.of([Validator(public_key=KEY, power=3)])
    handoff = Handoff(header=header, certificate=first, next_validators=validators)
    return [plain, replace(plain, between=(), handoffs=(handoff,))]


FORK_PROOFS = fork_proofs()
DECODERS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "message": (decode_message, [m.encode() for m in MESSAGES]),
    "evidence": (Evidence.decode, [EVIDENCE.encode()]),
    "fork proof": (ForkProof.decode, [p.encode() for p in FORK_PROOFS]),
    "guard": (lambda data: decode_guard(data, "zynk-x", KEY), [guard_bytes()]),
}


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_was(message: ConsensusMessage) -> None:
    assert decode_message(message.encode()) == message


def test_a_fork_proof_comes_back_as_it_was() -> None:
    for proof in FORK_PROOFS:
        assert ForkProof.decode(proof.encode()) == proof


def test_evidence_comes_back_as_it_was() -> None:
    assert Evidence.decode(EVIDENCE.encode()) == EVIDENCE


@pytest.mark.parametrize("name", DECODERS)
def test_each_truncation_and_a_trailing_byte_is_refused(name: str) -> None:
    decode, samples = DECODERS[name]
    for sample in samples:
        ends = [e for e in range(len(sample)) if name != "guard" or e % 64 or e == 0]
        for end in ends:
            with pytest.raises(InvalidInputError):
                decode(sample[:end])
        with pytest.raises(InvalidInputError):
            decode(sample + b"\0")


@pytest.mark.parametrize("name", DECODERS)
def test_random_and_changed_bytes_raise_invalid_input_and_nothing_else(name: str) -> None:
    decode, samples = DECODERS[name]

    @settings(max_examples=CASES, deadline=None, database=None)
    @given(
        st.one_of(
            st.binary(max_size=300),
            st.builds(
                _changed,
                st.sampled_from(samples),
                st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
            ),
        )
    )
    def check(data: bytes) -> None:
        try:
            decode(data)
        except InvalidInputError:
            return
        assert name != "guard" or data in samples

    check()


def _changed(sample: bytes, changes: list[tuple[int, int]]) -> bytes:
    data = bytearray(sample)
    for position, value in changes:
        data[position % len(data)] = value
    return bytes(data)


SCALARS = st.one_of(
    st.sampled_from([None, True, 0, 1, 2, 7, 2**64 - 1, b"", HASH, SIGNATURE, "text"]),
    st.binary(max_size=70),
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=6))


@settings(max_examples=CASES, deadline=None, database=None)
@given(st.integers(0, 9), st.lists(VALUES, max_size=9))
def test_well_formed_arrays_of_wrong_fields_raise_invalid_input_and_nothing_else(
    kind: int, fields: list[codec.Value]
) -> None:
    data = codec.encode([kind, *fields])
    try:
        message = decode_message(data)
    except InvalidInputError:
        return
    assert message.encode() == data


def test_an_oversize_message_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidInputError, match="too long"):
        decode_message(b"\x91" + b"\0" * MESSAGE_BYTES_MAX)


@pytest.mark.parametrize(
    "fields",
    [
        [2, 0, 7, 1, HASH, KEY, SIGNATURE],  # unknown vote kind
        [2, 1, 0, 1, HASH, KEY, SIGNATURE],  # height 0
        [2, 1, 7, 0, HASH, KEY, SIGNATURE],  # view 0
        [2, 1, 7, 1, b"", KEY, SIGNATURE],  # notarize without a hash
        [2, 2, 7, 1, HASH, KEY, SIGNATURE],  # nullify with one
        [2, 1, 7, 1, HASH, KEY[1:], SIGNATURE],
        [2, 1, 7, 1, HASH, KEY, SIGNATURE[1:]],
        [4, 7, 1, list(range(1, NEED_MAX + 2)), b"", b""],
        [4, 7, 1, [], KEY, b""],
        [1, 8, 2, BLOCK.encoded, [], KEY, SIGNATURE],  # another height than the block's
        [7, BLOCK.encoded, NULLIFICATION.to_value()],
        [7, BLOCK.encoded, [3, 7, 1, HASH, b"\xe0", [SIGNATURE]]],  # for another block
        [8, b""],
        [True, b""],
        [],
    ],
)
def test_a_message_out_of_form_is_refused(fields: list[codec.Value]) -> None:
    with pytest.raises(InvalidInputError):
        decode_message(codec.encode(fields))
