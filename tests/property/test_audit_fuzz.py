"""Every decoder of the audit part, fed damage: InvalidInputError or a value, nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.anchor import Anchor, AnchorRecord
from audit.batch import Batch, InFlight
from audit.checkpoint import Checkpoint, verify_note
from audit.copies import LeafList
from audit.cosignatures import SignedHead, decode_heads, encode_heads
from audit.leaf import Leaf, decode_stream_text, verify_multihash
from audit.note import Note, NoteKey, decode_signatures
from audit.receipt import Receipt, decode_receipt_json, encode_receipt_json
from audit.stream import StreamRecord, decode_stream_body, encode_stream_body
from audit.verify import verify_receipt
from audit.witness import Witness, WitnessAnswer, read_answer
from ledger import codec
from ledger.errors import InvalidInputError
from tests.unit.test_audit_receipt import CHAIN, RECEIPT, STREAM
from tests.vectors.audit_chain import CHAIN_ID, multihash_of, signed_create

CASES = 10_000 if os.environ.get("ZYNK_SOAK") == "1" else 100

BATCH = Batch(stream=STREAM, groups=((1, 2), (3, 4)), root=b"r" * 32)
FLYING = InFlight(tx=b"tx", tx_id=b"i" * 32, valid_until=9, anchors=((1, 0), (2, 1)))
RECORD = StreamRecord(
    owner="did:zynk:z1",
    sequence=3,
    submitters=(b"a" * 32,),
    quota=5,
    description_hash=b"d" * 32,
    created_ms=1,
    updated_ms=2,
)
TEXT = encode_receipt_json(Receipt.decode(RECEIPT))
HEAD = SignedHead(
    operator=b"o" * 32, tree_size=7, root_hash=b"r" * 32, time_s=9, signature=b"s" * 64
)
VKEY = "w.example+fd0a1844+BAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH"
LINES = "— w.example AAAAAAAA\n— x AAAAAAAB\n"
NOTE = Checkpoint(origin="zynk.log/x", tree_size=12, root_hash=b"r" * 32).body()


def as_text(decode: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: decode(data.decode("latin-1"))


def as_utf8(decode: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: decode(data.decode("utf-8", "surrogateescape"))


def answer_of(status: int) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        answer = WitnessAnswer(status=status, content_type="text/x.tlog.size", body=data)
        return read_answer(answer, NOTE, NoteKey.decode(VKEY))

    return read


DECODERS: list[tuple[str, Callable[[bytes], object], bytes]] = [
    (
        "leaf list",
        LeafList.decode,
        LeafList(stream=STREAM, submitter=b"s" * 32, leaves=(b"l",), signature=b"x" * 64).encode(),
    ),
    ("leaf", Leaf.decode, Receipt.decode(RECEIPT).leaf_bytes),
    ("multihash", verify_multihash, multihash_of(1)),
    ("stream id", as_text(decode_stream_text), b"z1111"),
    (
        "anchor",
        Anchor.decode,
        Anchor(stream=STREAM, seq=1, count=2, batch_root=b"r" * 32).encode(),
    ),
    ("anchor record", AnchorRecord.decode, Receipt.decode(RECEIPT).anchor_bytes),
    ("stream body", decode_stream_body, encode_stream_body(signed_create())),
    ("stream record", StreamRecord.decode, RECORD.encode()),
    ("batch", Batch.decode, BATCH.encode()),
    ("in flight", InFlight.decode, FLYING.encode()),
    ("receipt", Receipt.decode, RECEIPT),
    ("receipt json", as_text(decode_receipt_json), TEXT.encode()),
    ("checkpoint", as_text(Checkpoint.decode), NOTE.encode()),
    ("signed heads", decode_heads, encode_heads([HEAD])),
    ("signed note", as_utf8(Note.decode), f"{NOTE}\n{LINES}".encode()),
    ("note lines", as_utf8(decode_signatures), LINES.encode()),
    ("vkey", as_utf8(NoteKey.decode), VKEY.encode()),
    ("witness", as_utf8(Witness.parse), f"https://w.example {VKEY}".encode()),
    ("witness's size", answer_of(409), b"70000\n"),
    ("witness's lines", answer_of(200), LINES.encode()),
    ("note", as_text(lambda t: verify_note(t, "zynk.log/x", b"k" * 32)), NOTE.encode()),
]
IDS = [name for name, _, _ in DECODERS]

values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.binary(max_size=70) | st.text(),
    lambda children: st.lists(children, max_size=16),
    max_leaves=30,
)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["flip", "cut", "insert", "repeat"])):
            case "flip":
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=12))
            case _:
                data[at:at] = data[at : at + 33]
    return bytes(data)


def decodes_or_refuses(decode: Callable[[bytes], object], data: bytes) -> None:
    try:
        decode(data)
    except InvalidInputError:
        return


@pytest.mark.slow
@pytest.mark.parametrize(("name", "decode", "good"), DECODERS, ids=IDS)
@settings(deadline=None, max_examples=CASES)
@given(data=st.data())
def test_any_bytes_are_decoded_or_invalid_input(
    name: str, decode: Callable[[bytes], object], good: bytes, data: st.DataObject
) -> None:
    anything = st.binary(max_size=400) | values.map(codec.encode) | damaged(good)
    decodes_or_refuses(decode, data.draw(anything))


@pytest.mark.parametrize(("name", "decode", "good"), DECODERS, ids=IDS)
def test_truncated_and_prolonged_bytes_are_never_a_crash(
    name: str, decode: Callable[[bytes], object], good: bytes
) -> None:
    step = max(1, len(good) // 300)
    for end in range(0, len(good), step):
        decodes_or_refuses(decode, good[:end])
    for tail in (b"\0", b"\xc0", bytes(200)):
        with pytest.raises(InvalidInputError):
            decode(good + tail)


@pytest.mark.slow
@settings(deadline=None, max_examples=CASES)
@given(data=damaged(RECEIPT) | damaged(TEXT.encode()) | st.binary(max_size=300))
def test_damaged_receipts_get_a_bad_verdict_and_no_exception(data: bytes) -> None:
    verdict = verify_receipt(
        data, multihash=multihash_of(1), trusted=CHAIN.validators, chain_id=CHAIN_ID
    )
    assert verdict.is_ok == says_what_the_receipt_says(data)


def says_what_the_receipt_says(data: bytes) -> bool:
    """White space and the order of members of the JSON twin are free; nothing else is."""
    try:
        return data == RECEIPT or decode_receipt_json(data).encode() == RECEIPT
    except InvalidInputError:
        return False
