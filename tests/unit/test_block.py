"""Header and block bytes, and what their hashes commit to."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ledger.block import (
    BLOCK_BYTES_MAX,
    HEADER_BYTES_MAX,
    PROTOCOL_VERSION,
    Block,
    Header,
    compute_body_hash,
)
from ledger.certificate import VIEW_MAX, Certificate, VoteKind
from ledger.codec import U64_MAX, encode, hash_tagged
from ledger.errors import InvalidInputError
from ledger.tx import CHAIN_ID_MAX

CERTIFICATE = Certificate(VoteKind.FINALIZE, 6, 1, b"\6" * 32, b"\xe0", (b"\1" * 64,) * 3)
TXS = (b"one", b"two", b"three")
HEADER = Header(
    protocol_version=PROTOCOL_VERSION,
    chain_id="test-1",
    height=7,
    time_ms=1_700_000_000_000,
    parent_hash=b"\6" * 32,
    origin_view=2,
    proposer=b"\2" * 32,
    vrf_proof=b"",
    body_hash=compute_body_hash([hash_tagged("tx", tx) for tx in TXS], CERTIFICATE),
    state_root=b"\3" * 32,
    audit_size=9,
    audit_root=b"\4" * 32,
    results_root=b"\5" * 32,
    validators_hash=b"\7" * 32,
    next_validators_hash=b"\7" * 32,
)
BLOCK = Block(HEADER, TXS, CERTIFICATE)

CHANGES: dict[str, Any] = {
    "protocol_version": PROTOCOL_VERSION + 1,
    "chain_id": "test-2",
    "vrf_proof": b"x",
    **dict.fromkeys(("height", "time_ms", "origin_view", "audit_size"), 1),
    **dict.fromkeys(("parent_hash", "proposer", "body_hash", "state_root"), b"\x09" * 32),
    **dict.fromkeys(("audit_root", "results_root"), b"\x09" * 32),
    **dict.fromkeys(("validators_hash", "next_validators_hash"), b"\x09" * 32),
}


def test_header_and_block_hash_are_frozen() -> None:
    assert HEADER.hash.hex() == "b8e68f3fdc765ee1b87f131a39e31622a6f1ac6a108882f47a4294df539b5acf"
    assert BLOCK.hash == HEADER.hash


def test_header_and_block_round_trip() -> None:
    assert Header.decode(HEADER.encoded) == HEADER
    assert Block.decode(BLOCK.encoded) == BLOCK
    first = dataclasses.replace(HEADER, body_hash=compute_body_hash([], None), height=1)
    assert Block.decode(Block(first, (), None).encoded).parent_certificate is None


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Header)])
def test_the_hash_commits_to_every_header_field(name: str) -> None:
    other = dataclasses.replace(HEADER, **{name: CHANGES[name]})
    assert other.hash != HEADER.hash
    assert Header.decode(other.encoded) == other


def test_the_body_hash_commits_to_every_part_of_the_body_and_its_order() -> None:
    ids = list(BLOCK.tx_ids)
    hashes = {
        compute_body_hash(ids, CERTIFICATE),
        compute_body_hash(ids[::-1], CERTIFICATE),
        compute_body_hash(ids[:2], CERTIFICATE),
        compute_body_hash(ids, None),
        compute_body_hash(ids, dataclasses.replace(CERTIFICATE, view=2)),
        compute_body_hash(ids, CERTIFICATE, [b"vote"]),
        compute_body_hash(ids, CERTIFICATE, [], [b"vote"]),
    }
    assert len(hashes) == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"txs": TXS[:2]},
        {"txs": (b"two", b"one", b"three")},
        {"parent_certificate": None},
        {"late_votes": (b"v",)},
        {"evidence": (b"e",)},
    ],
)
def test_a_body_that_is_not_the_headers_is_refused(changes: dict[str, Any]) -> None:
    bad = dataclasses.replace(BLOCK, **changes)
    with pytest.raises(InvalidInputError, match="does not match its header"):
        Block.decode(bad.encoded)


@pytest.mark.parametrize(
    "changes",
    [
        {"txs": (bytes(64 * 1024 + 1),)},
        {"txs": (b"x",) * 4097},
        {"late_votes": (bytes(257),)},
        {"evidence": (b"x",) * 65},
    ],
)
def test_a_body_over_its_limits_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        Block.decode(dataclasses.replace(BLOCK, **changes).encoded)


def test_a_block_longer_than_the_wire_allows_is_refused() -> None:
    txs = (bytes(64 * 1024),) * (BLOCK_BYTES_MAX // (64 * 1024))
    with pytest.raises(InvalidInputError, match="too long"):
        Block.decode(dataclasses.replace(BLOCK, txs=txs).encoded)


@pytest.mark.parametrize("changes", [{"origin_view": VIEW_MAX + 1}, {"vrf_proof": bytes(81)}])
def test_a_header_field_over_its_limit_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        Header.decode(dataclasses.replace(HEADER, **changes).encoded)


def test_the_largest_header_fits_its_bound() -> None:
    largest = dataclasses.replace(
        HEADER,
        protocol_version=2**16,
        chain_id="é" * CHAIN_ID_MAX,
        height=U64_MAX,
        time_ms=U64_MAX,
        origin_view=VIEW_MAX,
        vrf_proof=bytes(80),
        audit_size=U64_MAX,
    )
    assert len(largest.encoded) <= HEADER_BYTES_MAX
    assert Header.decode(largest.encoded) == largest


def test_a_header_of_fourteen_or_sixteen_fields_is_refused() -> None:
    value = HEADER.to_value()
    for other in (value[:-1], [*value, 1]):
        with pytest.raises(InvalidInputError, match="15 fields"):
            Header.decode(encode(other))
