"""Leaves, multihashes and stream ids."""

from __future__ import annotations

import hashlib

import multihash as py_multihash
import pytest

from audit.leaf import (
    CHUNK_BYTES,
    Leaf,
    compute_commitment,
    decode_stream_text,
    encode_leaves,
    encode_multihash,
    encode_stream_text,
    hash_chunks,
    verify_multihash,
)
from ledger import codec
from ledger.errors import InvalidInputError, UsageError

STREAM = hashlib.sha256(b"stream").digest()
MULTIHASH = b"\x12\x20" + hashlib.sha256(b"content").digest()


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("sha2-256", hashlib.sha256(b"x").digest()),
        ("sha2-512", hashlib.sha512(b"x").digest()),
        ("sha3-256", hashlib.sha3_256(b"x").digest()),
    ],
)
def test_allowed_multihashes_are_those_of_py_multihash(name: str, digest: bytes) -> None:
    ours = encode_multihash(name, digest)
    assert ours == py_multihash.encode(digest, name)
    assert verify_multihash(ours) == name
    assert py_multihash.decode(ours).digest == digest
    assert hash_chunks([b"x"], name) == ours


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x12",
        b"\x12\x20",
        MULTIHASH[:-1],
        MULTIHASH + b"\0",
        py_multihash.encode(hashlib.sha1(b"x").digest(), "sha1"),
        py_multihash.encode(hashlib.sha3_512(b"x").digest(), "sha3-512"),
        b"\x12\x10" + bytes(16),
        b"\x92\x00\x20" + bytes(32),  # an over-long varint of 0x12
        b"\x00\x04abcd",  # identity: content in the log
    ],
)
def test_other_multihashes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        verify_multihash(data)
    with pytest.raises(InvalidInputError):
        Leaf(stream=STREAM, multihash=data).encode()
    with pytest.raises(InvalidInputError):
        Leaf.decode(codec.encode(["audit-leaf/1", STREAM, data]))


def test_leaf_bytes_are_canonical_and_come_back() -> None:
    leaf = Leaf(stream=STREAM, multihash=MULTIHASH)
    assert leaf.encode() == codec.encode(["audit-leaf/1", STREAM, MULTIHASH])
    assert Leaf.decode(leaf.encode()) == leaf
    assert leaf.hash == hashlib.sha256(b"\0" + leaf.encode()).digest()
    assert encode_leaves(STREAM, [MULTIHASH]) == [leaf.encode()]


def test_salted_leaf_reveals_nothing_of_the_content() -> None:
    salt = b"s" * 32
    commitment = compute_commitment(salt, MULTIHASH)
    assert commitment == hashlib.sha256(salt + MULTIHASH[2:]).digest()
    leaf = Leaf(stream=STREAM, commitment=commitment)
    assert Leaf.decode(leaf.encode()) == leaf
    assert MULTIHASH[2:] not in leaf.encode()
    with pytest.raises(InvalidInputError):
        Leaf(stream=STREAM, multihash=MULTIHASH, commitment=commitment).encode()
    with pytest.raises(InvalidInputError):
        Leaf.decode(codec.encode(["audit-leaf/1", STREAM, MULTIHASH, commitment]))
    with pytest.raises(InvalidInputError):
        compute_commitment(b"short", MULTIHASH)


@pytest.mark.parametrize(
    "value",
    [
        ["audit-leaf/2", STREAM, MULTIHASH],
        ["audit-leaf/1", STREAM[:-1], MULTIHASH],
        ["audit-leaf/1", STREAM],
        ["audit-leaf/1", STREAM, MULTIHASH, None],
        ["audit-leaf/1", STREAM, b"", STREAM, b""],
        ["audit-leaf/1", STREAM, b"", STREAM[:-1]],
        ["audit-leaf/1", "text", MULTIHASH],
        [["audit-leaf/1"], STREAM, MULTIHASH],
        b"audit-leaf/1",
        None,
    ],
)
def test_malformed_leaves_are_refused(value: codec.Value) -> None:
    with pytest.raises(InvalidInputError):
        Leaf.decode(codec.encode(value))


def test_every_truncation_and_a_trailing_byte_are_refused() -> None:
    data = Leaf(stream=STREAM, multihash=MULTIHASH).encode()
    for bad in [*(data[:i] for i in range(len(data))), data + b"\0", data + bytes(200)]:
        with pytest.raises(InvalidInputError):
            Leaf.decode(bad)


def test_content_is_hashed_in_chunks_of_any_size() -> None:
    content = bytes(range(256)) * 10_000
    chunks = [content[i : i + CHUNK_BYTES] for i in range(0, len(content), CHUNK_BYTES)]
    assert len(chunks) == 3
    assert hash_chunks(chunks) == b"\x12\x20" + hashlib.sha256(content).digest()
    assert hash_chunks([]) == b"\x12\x20" + hashlib.sha256(b"").digest()
    with pytest.raises(UsageError):
        hash_chunks([b""], "sha1")


def test_stream_text_comes_back_and_has_one_form() -> None:
    text = encode_stream_text(STREAM)
    assert text.startswith("z")
    assert decode_stream_text(text) == STREAM
    assert decode_stream_text(encode_stream_text(bytes(32))) == bytes(32)
    for bad in ("", "z", text[1:], text + "1", "z1" + text[1:], "z" + "0" * 43, "zé"):
        with pytest.raises(InvalidInputError):
            decode_stream_text(bad)
