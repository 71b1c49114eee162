"""RPC answers and checkpoints."""

from __future__ import annotations

import base64
import hashlib

import pytest

from audit.anchor import Anchor
from audit.answers import (
    checkpoint_of,
    consistency_json,
    inclusion_json,
    list_anchors,
    list_streams,
    stream_json,
)
from audit.checkpoint import Checkpoint, compute_key_id, compute_origin, sign_note, verify_note
from audit.tiles import format_tile_path
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from ledger.merkle import compute_root, verify_inclusion_proof
from tests.vectors.audit_chain import CHAIN_ID, Chain, create_stream, make_tx

KEY = KeyPair.from_seed(b"l" * 32)


def chain_with_anchors(count: int) -> tuple[Chain, bytes]:
    chain = Chain()
    stream = create_stream(chain)
    for seq in range(count):
        body = Anchor(stream=stream, seq=seq, count=1, batch_root=b"r" * 32).encode()
        assert set(chain.add_block([make_tx("audit/anchor", body, nonce=seq)]).values()) == {""}
    return chain, stream


def test_inclusion_answer_leads_to_the_header_root() -> None:
    chain, _ = chain_with_anchors(7)
    header = chain.view.finality.header
    for index in range(7):
        answer = inclusion_json(chain.view, chain.tree, index)
        assert answer["root_hash"] == header.audit_root.hex()
        assert answer["anchor"]["seq"] == index
        verify_inclusion_proof(
            header.audit_root,
            header.audit_size,
            index,
            hashlib.sha256(b"\0" + bytes.fromhex(answer["entry"])).digest(),
            [bytes.fromhex(item) for item in answer["path"]],
        )


def test_consistency_answer_names_both_roots() -> None:
    chain, _ = chain_with_anchors(7)
    answer = consistency_json(chain.view, chain.tree, 3)
    assert answer["old_root_hash"] == chain.tree.root(3).hex()
    assert answer["new_root_hash"] == chain.view.finality.header.audit_root.hex()
    assert len(answer["path"]) == 4


@pytest.mark.parametrize(("index", "size"), [(7, None), (0, 8), (5, 5), (-1, None)])
def test_questions_beyond_the_log_are_refused(index: int, size: int | None) -> None:
    chain, _ = chain_with_anchors(7)
    with pytest.raises(InvalidInputError):
        inclusion_json(chain.view, chain.tree, index, size)


def test_consistency_of_impossible_sizes_is_refused() -> None:
    chain, _ = chain_with_anchors(7)
    for old, new in ((0, 7), (8, None), (5, 4), (1, 8)):
        with pytest.raises(InvalidInputError):
            consistency_json(chain.view, chain.tree, old, new)


def test_anchors_and_streams_are_paged() -> None:
    chain, stream = chain_with_anchors(7)
    first = list_anchors(chain.store, chain.tree, stream, limit=5)
    rest = list_anchors(chain.store, chain.tree, stream, start=first[-1]["leaf_index"] + 1)
    assert [row["seq"] for row in first + rest] == list(range(7))
    other = create_stream(chain, b"o" * 16)
    assert list_streams(chain.store) == sorted([stream, other])
    assert list_streams(chain.store, limit=1) == [min(stream, other)]
    assert list_streams(chain.store, after=min(stream, other)) == [max(stream, other)]
    assert stream_json(chain.view, stream)["anchors_total"] == 7
    with pytest.raises(InvalidInputError):
        stream_json(chain.view, b"?" * 32)


def test_checkpoint_has_three_lines_and_comes_back() -> None:
    chain, _ = chain_with_anchors(3)
    checkpoint = checkpoint_of(chain.view)
    body = checkpoint.body()
    root = compute_root(
        [hashlib.sha256(b"\0" + (chain.tree.entry(i) or b"")).digest() for i in range(3)]
    )
    assert body == f"zynk.log/{CHAIN_ID}\n3\n{base64.b64encode(root).decode()}\n"
    assert Checkpoint.decode(body) == checkpoint
    for bad in (body[:-1], body + "x\n", body.replace("\n3\n", "\n03\n"), "", body.upper()):
        with pytest.raises(InvalidInputError):
            Checkpoint.decode(bad)
    with pytest.raises(UsageError):
        Checkpoint(origin="a b", tree_size=0, root_hash=bytes(32)).body()


def test_signed_note_verifies_under_its_key_alone() -> None:
    name = compute_origin(CHAIN_ID)
    checkpoint = Checkpoint(origin=name, tree_size=5, root_hash=b"r" * 32)
    note = sign_note(checkpoint.body(), name, KEY)
    assert verify_note(note, name, KEY.public_key) == checkpoint
    other = KeyPair.from_seed(b"m" * 32)
    for args in (
        (note, name, other.public_key),
        (note, "another", KEY.public_key),
        (note.replace("\n5\n", "\n6\n"), name, KEY.public_key),
        (checkpoint.body(), name, KEY.public_key),
    ):
        with pytest.raises(InvalidInputError):
            verify_note(*args)
    witnessed = note + "— w AAAAAAA=\n"
    assert verify_note(witnessed, name, KEY.public_key) == checkpoint
    assert len(compute_key_id(name, KEY.public_key)) == 4


@pytest.mark.parametrize(
    ("level", "number", "width", "path"),
    [
        (0, 0, 256, "tile/0/000"),
        (0, 1234067, 256, "tile/0/x001/x234/067"),
        (1, 17, 3, "tile/1/017.p/3"),
        ("entries", 1000, 256, "tile/entries/x001/000"),
    ],
)
def test_tile_paths_are_those_of_c2sp(level: int | str, number: int, width: int, path: str) -> None:
    assert format_tile_path(level, number, width) == path
