"""Blocks: a header that commits to its own result, and a body.

Header, in order (docs/protocol.md, "Header"): protocol version, chain id, height, time_ms, parent
hash, origin view, proposer, VRF proof, body hash, state root, audit size, audit root, results
root, validators hash, next validators hash. The block hash is the header's hash.

Body: txs, the parent's finalization certificate (absent in block 1), late finalize votes,
evidence. `body_hash` commits to all of it through the tx ids, so that a compact block (header, ids
and the small parts) can be checked before the txs are here.

All roots are those AFTER the block. Heights start at 1; height 0 is the genesis, whose "block
hash" is the genesis hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

from ledger import codec
from ledger.certificate import VIEW_MAX, Certificate
from ledger.errors import InvalidInputError
from ledger.tx import CHAIN_ID_MAX, TX_BYTES_MAX

PROTOCOL_VERSION = 4
"""What headers carry from block 1 on, until an upgrade (`ledger.upgrade`)."""
PROTOCOL_VERSIONS = frozenset({PROTOCOL_VERSION})
"""Those that this software builds, judges and verifies."""
PROTOCOL_VERSION_MAX = 2**16
HEADER_BYTES_MAX = 1024
BLOCK_BYTES_MAX = 2 * 1024 * 1024
BLOCK_TXS_MAX = 4096
LATE_VOTES_MAX = 4096
EVIDENCE_MAX = 64
EVIDENCE_BYTES_MAX = 64 * 1024
VRF_PROOF_BYTES_MAX = 80


@dataclass(frozen=True)
class Header:
    """See the module docstring; hashes and keys are 32 B, time is Unix milliseconds."""

    protocol_version: int
    chain_id: str
    height: int
    time_ms: int
    parent_hash: bytes
    origin_view: int
    proposer: bytes
    vrf_proof: bytes
    body_hash: bytes
    state_root: bytes
    audit_size: int
    audit_root: bytes
    results_root: bytes
    validators_hash: bytes
    next_validators_hash: bytes

    @classmethod
    def from_value(cls, value: object) -> Header:
        """Read the decoded array form. Raises InvalidInputError."""
        v = codec.read_array(value, 15, "header")
        hashes = {
            i: codec.read_bytes(v[i], f"header {_HEADER_FIELDS[i]}", length=32)
            for i in (4, 6, 8, 9, 11, 12, 13, 14)
        }
        return cls(
            codec.read_int(v[0], "header protocol version", PROTOCOL_VERSION_MAX),
            codec.read_str(v[1], "header chain id", CHAIN_ID_MAX),
            codec.read_int(v[2], "header height"),
            codec.read_int(v[3], "header time"),
            hashes[4],
            codec.read_int(v[5], "header origin view", VIEW_MAX),
            hashes[6],
            codec.read_bytes(v[7], "header VRF proof", maximum=VRF_PROOF_BYTES_MAX),
            hashes[8],
            hashes[9],
            codec.read_int(v[10], "header audit size"),
            hashes[11],
            hashes[12],
            hashes[13],
            hashes[14],
        )

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Inverse of `encoded`. Raises InvalidInputError."""
        return cls.from_value(codec.decode(data, bytes_max=HEADER_BYTES_MAX))

    def to_value(self) -> list[codec.Value]:
        return [getattr(self, name) for name in _HEADER_FIELDS]

    @cached_property
    def encoded(self) -> bytes:
        return codec.encode(self.to_value())

    @cached_property
    def hash(self) -> bytes:
        """The block hash, 32 B."""
        return codec.hash_tagged("block", self.encoded)


_HEADER_FIELDS = tuple(f.name for f in fields(Header))


@dataclass(frozen=True)
class Block:
    """A header and its body. `txs` are wire bytes, not yet parsed."""

    header: Header
    txs: tuple[bytes, ...]
    parent_certificate: Certificate | None
    late_votes: tuple[bytes, ...] = ()
    evidence: tuple[bytes, ...] = ()

    @classmethod
    def decode(cls, data: bytes) -> Block:
        """Inverse of `encoded`; checks the form and that the body matches the header's
        `body_hash`, nothing else. Raises InvalidInputError."""
        header, txs, certificate, late, evidence = codec.read_array(
            codec.decode(data, bytes_max=BLOCK_BYTES_MAX), 5, "block"
        )
        return cls.from_values(Header.from_value(header), txs, certificate, late, evidence)

    @classmethod
    def from_values(
        cls, header: Header, txs: object, certificate: object, late: object, evidence: object
    ) -> Block:
        """A header and the decoded parts of a body; checked as by `decode`."""
        block = cls(
            header,
            tuple(
                codec.read_bytes(tx, "block tx", maximum=TX_BYTES_MAX)
                for tx in codec.read_list(txs, BLOCK_TXS_MAX, "block txs")
            ),
            None if certificate is None else Certificate.from_value(certificate),
            tuple(
                codec.read_bytes(vote, "late vote", maximum=256)
                for vote in codec.read_list(late, LATE_VOTES_MAX, "late votes")
            ),
            tuple(
                codec.read_bytes(item, "evidence", maximum=EVIDENCE_BYTES_MAX)
                for item in codec.read_list(evidence, EVIDENCE_MAX, "evidence")
            ),
        )
        if block.computed_body_hash != block.header.body_hash:
            raise InvalidInputError(
                "block body does not match its header",
                expected=block.header.body_hash.hex(),
                got=block.computed_body_hash.hex(),
            )
        return block

    @property
    def hash(self) -> bytes:
        return self.header.hash

    @property
    def height(self) -> int:
        return self.header.height

    @cached_property
    def tx_ids(self) -> tuple[bytes, ...]:
        return tuple(codec.hash_tagged("tx", tx) for tx in self.txs)

    @cached_property
    def computed_body_hash(self) -> bytes:
        return compute_body_hash(
            self.tx_ids, self.parent_certificate, self.late_votes, self.evidence
        )

    @cached_property
    def encoded(self) -> bytes:
        return codec.encode(
            [
                self.header.to_value(),
                list(self.txs),
                _certificate_value(self.parent_certificate),
                list(self.late_votes),
                list(self.evidence),
            ]
        )


def compute_body_hash(
    tx_ids: Sequence[bytes],
    parent_certificate: Certificate | None,
    late_votes: Sequence[bytes] = (),
    evidence: Sequence[bytes] = (),
) -> bytes:
    """H("body", [[tx id...], parent certificate or nil, [late votes], [evidence]])."""
    return codec.hash_tagged(
        "body",
        codec.encode(
            [
                list(tx_ids),
                _certificate_value(parent_certificate),
                list(late_votes),
                list(evidence),
            ]
        ),
    )


def _certificate_value(certificate: Certificate | None) -> codec.Value:
    return None if certificate is None else certificate.to_value()
