"""Streams and anchors as execution sees them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from audit.anchor import (
    DAY_MS,
    Anchor,
    AnchorRecord,
    read_anchor_place,
    read_next_seq,
    read_usage,
    verify_admission,
)
from audit.answers import list_anchors, list_streams, stream_json
from audit.leaf import encode_stream_text
from audit.stream import (
    CreateStream,
    StreamBody,
    UpdateStream,
    decode_stream_body,
    encode_stream_body,
    read_stream,
    stream_sign_bytes,
)
from ledger import codec
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from tests.vectors.audit_chain import (
    ANCHOR_KEY,
    CHAIN_ID,
    OWNER_KEY,
    START_MS,
    Chain,
    create_stream,
    make_tx,
    signed_create,
)

STRANGER = KeyPair.from_seed(b"x" * 32)
ROOT = b"r" * 32


def send_stream(chain: Chain, body: StreamBody) -> str:
    tx = make_tx("audit/stream", encode_stream_body(body), nonce=chain.height)
    return chain.add_block([tx])[tx.id]


def send_anchor(
    chain: Chain,
    stream: bytes,
    seq: int,
    *,
    root: bytes = ROOT,
    count: int = 1,
    key: KeyPair = ANCHOR_KEY,
) -> str:
    body = Anchor(stream=stream, seq=seq, count=count, batch_root=root).encode()
    tx = make_tx("audit/anchor", body, nonce=chain.height, key=key)
    return chain.add_block([tx])[tx.id]


def signed_update(
    stream: bytes,
    sequence: int = 1,
    *,
    chain_id: str = CHAIN_ID,
    submitters: tuple[bytes, ...] = (STRANGER.public_key,),
) -> UpdateStream:
    body = UpdateStream(
        stream=stream,
        sequence=sequence,
        submitters=submitters,
        quota=7,
        description_hash=b"d" * 32,
    )
    signature = OWNER_KEY.sign(stream_sign_bytes(chain_id, body))
    return replace(body, signatures=(("owner", signature),))


def test_created_stream_is_in_state_and_listed() -> None:
    chain = Chain()
    stream = create_stream(chain)
    record = read_stream(chain.view, stream)
    assert record is not None
    assert record.created_ms == chain.time_ms
    assert list_streams(chain.store) == [stream]
    assert list_streams(chain.store, after=stream) == []
    assert stream_json(chain.view, stream)["stream"] == encode_stream_text(stream)
    assert [event.type for event in chain.events] == ["audit.stream-created"]


def test_stream_id_does_not_depend_on_signatures_but_on_all_else() -> None:
    body = signed_create()
    stream = body.stream(CHAIN_ID)
    assert replace(body, signatures=()).stream(CHAIN_ID) == stream
    others = [
        body.stream("another-chain"),
        replace(body, owner="did:zynk:zOther").stream(CHAIN_ID),
        replace(body, submitters=()).stream(CHAIN_ID),
        replace(body, quota=1).stream(CHAIN_ID),
        replace(body, description_hash=bytes(32)).stream(CHAIN_ID),
        replace(body, salt=bytes(16)).stream(CHAIN_ID),
    ]
    assert len({stream, *others}) == 7


def test_a_create_can_not_be_replayed() -> None:
    chain = Chain()
    create_stream(chain)
    before = dict(chain.rows)
    assert send_stream(chain, signed_create()) == "audit/stream-exists"
    assert chain.rows == before


def test_only_the_owner_creates_and_updates() -> None:
    chain = Chain()
    body = signed_create()
    assert send_stream(chain, replace(body, quota=1)) == "did/not-authorised"
    assert send_stream(chain, replace(body, owner="did:zynk:zOther")) == "did/not-found"
    stream = create_stream(chain)
    forged = replace(signed_update(stream), quota=10**9)
    before = dict(chain.rows)
    assert send_stream(chain, forged) == "did/not-authorised"
    assert send_stream(chain, signed_update(stream, chain_id="other")) == "did/not-authorised"
    assert chain.rows == before


def test_update_replaces_submitters_and_comes_in_sequence() -> None:
    chain = Chain()
    stream = create_stream(chain)
    assert send_stream(chain, signed_update(stream, 2)) == "audit/bad-sequence"
    update = signed_update(stream)
    assert send_stream(chain, update) == ""
    assert send_stream(chain, update) == "audit/bad-sequence"
    record = read_stream(chain.view, stream)
    assert record is not None
    assert (record.sequence, record.quota) == (1, 7)
    assert record.updated_ms > record.created_ms
    assert send_anchor(chain, stream, 0) == "audit/not-submitter"
    assert send_anchor(chain, stream, 0, key=STRANGER) == ""
    assert send_stream(chain, signed_update(b"?" * 32)) == "audit/no-stream"


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "zynk:1"},
        {"owner": "did:x\n"},
        {"submitters": (b"b" * 32, b"a" * 32)},
        {"submitters": (b"a" * 32, b"a" * 32)},
        {"submitters": (b"a" * 31,)},
        {"submitters": tuple(bytes([i]) * 32 for i in range(65))},
        {"quota": 2**53},
        {"description_hash": b""},
        {"salt": b""},
        {"signatures": tuple(("owner", b"s" * 64) for _ in range(9))},
        {"signatures": (("owner", b"s"),)},
    ],
)
def test_malformed_stream_bodies_are_refused(change: dict[str, object]) -> None:
    body = replace(signed_create(), **change)  # type: ignore[arg-type]  # a table of bad fields
    with pytest.raises(InvalidInputError):
        decode_stream_body(encode_stream_body(body))


def test_stream_bodies_come_back_and_unsigned_ones_are_not_admitted() -> None:
    chain = Chain()
    for body in (signed_create(), signed_update(b"s" * 32)):
        assert decode_stream_body(encode_stream_body(body)) == body
        with pytest.raises(InvalidInputError):
            chain.handlers["audit/stream"].check(encode_stream_body(replace(body, signatures=())))
    assert isinstance(decode_stream_body(encode_stream_body(signed_create())), CreateStream)


def test_anchor_becomes_the_log_entry_that_state_names() -> None:
    chain = Chain()
    stream = create_stream(chain)
    assert send_anchor(chain, stream, 0, count=5) == ""
    place = read_anchor_place(chain.view, stream, ANCHOR_KEY.public_key, 0)
    assert place is not None
    entry = chain.tree.entry(place.leaf_index)
    assert entry is not None
    assert AnchorRecord.decode(entry) == AnchorRecord(
        stream=stream,
        submitter=ANCHOR_KEY.public_key,
        seq=0,
        count=5,
        batch_root=ROOT,
        height=chain.height,
        time_ms=chain.time_ms,
    )
    assert read_next_seq(chain.view, stream, ANCHOR_KEY.public_key) == 1
    assert [row["seq"] for row in list_anchors(chain.store, chain.tree, stream)] == [0]


def test_same_seq_and_root_again_succeeds_without_a_second_entry() -> None:
    chain = Chain()
    stream = create_stream(chain)
    for seq in range(3):
        assert send_anchor(chain, stream, seq, root=bytes([seq]) * 32) == ""
    before = (dict(chain.rows), chain.frontier)
    for seq in range(3):
        assert send_anchor(chain, stream, seq, root=bytes([seq]) * 32) == ""
    assert (chain.rows, chain.frontier) == before


def test_same_seq_with_another_root_or_count_is_equivocation_for_ever() -> None:
    chain = Chain()
    stream = create_stream(chain)
    for seq in range(3):
        assert send_anchor(chain, stream, seq) == ""
    before = (dict(chain.rows), chain.frontier)
    for seq in range(3):
        assert send_anchor(chain, stream, seq, root=bytes(32)) == "audit/equivocation"
        assert send_anchor(chain, stream, seq, count=2) == "audit/equivocation"
    assert (chain.rows, chain.frontier) == before


def test_seq_counts_for_each_submitter_and_stream_without_gaps() -> None:
    chain = Chain()
    both = tuple(sorted((ANCHOR_KEY.public_key, STRANGER.public_key)))
    one = create_stream(chain, b"1" * 16, submitters=both)
    two = create_stream(chain, b"2" * 16)
    assert send_anchor(chain, one, 1) == "audit/seq-gap"
    assert send_anchor(chain, one, 0) == ""
    assert send_anchor(chain, one, 2) == "audit/seq-gap"
    assert send_anchor(chain, one, 0, key=STRANGER) == ""
    assert send_anchor(chain, two, 0) == ""
    assert send_anchor(chain, two, 1, key=STRANGER) == "audit/not-submitter"
    assert send_anchor(chain, b"?" * 32, 0) == "audit/no-stream"
    assert chain.log.size_and_root(chain.frontier)[0] == 3


def test_quota_counts_leaves_of_a_utc_day() -> None:
    chain = Chain()
    stream = create_stream(chain, quota=10)
    assert send_anchor(chain, stream, 0, count=6) == ""
    assert send_anchor(chain, stream, 1, count=5) == "audit/quota"
    assert send_anchor(chain, stream, 1, count=4) == ""
    key = ANCHOR_KEY.public_key
    with pytest.raises(InvalidInputError) as caught:
        verify_admission(chain.view, stream, key, 1, chain.time_ms)
    assert caught.value.retry
    chain.height += (DAY_MS - START_MS % DAY_MS) // 1000 + 1  # past midnight
    verify_admission(chain.view, stream, key, 10, chain.time_ms)
    assert send_anchor(chain, stream, 2, count=10) == ""
    usage = read_usage(chain.view, stream)
    assert (usage.leaves_today, usage.leaves_total, usage.anchors_total) == (10, 20, 3)


def test_admission_says_who_may_not_and_what_does_not_exist() -> None:
    chain = Chain()
    stream = create_stream(chain, quota=10)
    verify_admission(chain.view, stream, ANCHOR_KEY.public_key, 10, chain.time_ms)
    for args in (
        (b"?" * 32, ANCHOR_KEY.public_key, 1),
        (stream, STRANGER.public_key, 1),
        (stream, ANCHOR_KEY.public_key, 11),
    ):
        with pytest.raises(InvalidInputError) as caught:
            verify_admission(chain.view, *args, chain.time_ms)
        assert not caught.value.retry


@pytest.mark.parametrize(
    "value",
    [
        ["audit-anchor/2", b"s" * 32, 0, 1, ROOT],
        ["audit-anchor/1", b"s" * 31, 0, 1, ROOT],
        ["audit-anchor/1", b"s" * 32, "0", 1, ROOT],
        ["audit-anchor/1", b"s" * 32, 0, 0, ROOT],
        ["audit-anchor/1", b"s" * 32, 0, 1025, ROOT],
        ["audit-anchor/1", b"s" * 32, 0, 1, b""],
        ["audit-anchor/1", b"s" * 32, 0, 1],
    ],
)
def test_malformed_anchors_are_refused(value: codec.Value) -> None:
    with pytest.raises(InvalidInputError):
        Anchor.decode(codec.encode(value))
