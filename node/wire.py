"""What nodes say to each other besides consensus messages: compact proposals, txs, block sync.

Each payload is one tag byte and a canonical array. Channels are those of `p2p.link`:

channel 0 (consensus)  0x00 consensus message | 0x01 compact proposal | 0x02 block-tx request |
                       0x03 block txs | 0x04 evidence
channel 1 (tx)         0x10 offer (ids held) | 0x11 want (ids) | 0x12 txs
channel 2 (sync)       0x20 range request
channel 3 (sync)       0x21 range of final blocks
channel 4 (audit)      0x30 signed heads of the audit log (audit/cosignatures.py)
                       0x40 leaf list to keep | 0x41 kept (batch roots) |
                       0x42 want (batch roots) | 0x43 leaf list that was wanted
gossip tx/<chain>      0x12 txs

A compact proposal is a proposal whose block names its txs by id; txs that the receiver can not
have yet are sent along, the rest it takes from its mempool or asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consensus.messages import JUSTIFY_MAX, Propose
from ledger import codec
from ledger.block import (
    BLOCK_BYTES_MAX,
    BLOCK_TXS_MAX,
    EVIDENCE_BYTES_MAX,
    EVIDENCE_MAX,
    LATE_VOTES_MAX,
    Block,
    Header,
    compute_body_hash,
)
from ledger.certificate import VIEW_MAX, Certificate
from ledger.errors import InvalidInputError
from ledger.tx import TX_BYTES_MAX
from p2p.config import FRAME_BYTES_MAX

CHANNEL_CONSENSUS = 0
CHANNEL_TX = 1
CHANNEL_SYNC_REQUEST = 2
CHANNEL_SYNC_RESPONSE = 3
CHANNEL_LOG = 4

TAG_CONSENSUS = 0x00
TAG_COMPACT = 0x01
TAG_BLOCK_TX_REQUEST = 0x02
TAG_BLOCK_TXS = 0x03
TAG_EVIDENCE = 0x04
TAG_OFFER = 0x10
TAG_WANT = 0x11
TAG_TXS = 0x12
TAG_RANGE_REQUEST = 0x20
TAG_RANGE = 0x21
TAG_HEADS = 0x30
TAG_KEEP = 0x40
TAG_KEPT = 0x41
TAG_WANT_LISTS = 0x42
TAG_LIST = 0x43

IDS_MAX = 4096
TXS_BYTES_MAX = 1024 * 1024
RANGE_BLOCKS_MAX = 64
RANGE_BYTES_MAX = BLOCK_BYTES_MAX + 1024 * 1024
SMALL_BYTES_MAX = 256 * 1024
MESSAGE_BYTES_MAX = FRAME_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactProposal:
    """A proposal without the bodies of its txs; `prefilled` maps a tx's index to its bytes."""

    height: int
    view: int
    header: Header
    tx_ids: tuple[bytes, ...]
    prefilled: Mapping[int, bytes]
    parent_certificate: Certificate | None
    late_votes: tuple[bytes, ...]
    evidence: tuple[bytes, ...]
    justify: tuple[Certificate, ...]
    signer: bytes
    signature: bytes

    @classmethod
    def of(cls, propose: Propose, is_known: Callable[[bytes], bool]) -> CompactProposal:
        """Shorten `propose`; txs for which `is_known(tx id)` is False go along in full."""
        block = propose.block
        return cls(
            height=propose.height,
            view=propose.view,
            header=block.header,
            tx_ids=block.tx_ids,
            prefilled={
                index: tx
                for index, (tx, tx_id) in enumerate(zip(block.txs, block.tx_ids, strict=True))
                if not is_known(tx_id)
            },
            parent_certificate=block.parent_certificate,
            late_votes=block.late_votes,
            evidence=block.evidence,
            justify=propose.justify,
            signer=propose.signer,
            signature=propose.signature,
        )

    def encode(self) -> bytes:
        parent = self.parent_certificate
        return bytes([TAG_COMPACT]) + codec.encode(
            [
                self.height,
                self.view,
                self.header.to_value(),
                list(self.tx_ids),
                [[index, tx] for index, tx in self.prefilled.items()],
                None if parent is None else parent.to_value(),
                list(self.late_votes),
                list(self.evidence),
                [certificate.to_value() for certificate in self.justify],
                self.signer,
                self.signature,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> CompactProposal:
        """Read the bytes after the tag. Raises InvalidInputError, also when the ids and small
        parts do not give the header's body hash."""
        v = codec.read_array(codec.decode(data, bytes_max=MESSAGE_BYTES_MAX), 11, "proposal")
        ids = _read_ids(v[3], BLOCK_TXS_MAX)
        result = cls(
            height=codec.read_int(v[0], "proposal height"),
            view=codec.read_int(v[1], "proposal view", VIEW_MAX),
            header=Header.from_value(v[2]),
            tx_ids=ids,
            prefilled=_read_prefilled(v[4], len(ids)),
            parent_certificate=None if v[5] is None else Certificate.from_value(v[5]),
            late_votes=tuple(
                codec.read_bytes(x, "late vote", maximum=256)
                for x in codec.read_list(v[6], LATE_VOTES_MAX, "late votes")
            ),
            evidence=tuple(
                codec.read_bytes(x, "evidence", maximum=EVIDENCE_BYTES_MAX)
                for x in codec.read_list(v[7], EVIDENCE_MAX, "evidence")
            ),
            justify=tuple(
                Certificate.from_value(x) for x in codec.read_list(v[8], JUSTIFY_MAX, "justify")
            ),
            signer=codec.read_bytes(v[9], "proposal signer", length=32),
            signature=codec.read_bytes(v[10], "proposal signature", length=64),
        )
        body_hash = compute_body_hash(
            ids, result.parent_certificate, result.late_votes, result.evidence
        )
        if body_hash != result.header.body_hash:
            raise InvalidInputError("proposal's tx ids do not match its header")
        return result

    def missing(self, find: Callable[[bytes], bytes | None]) -> list[bytes]:
        """Ids of the txs that are neither prefilled nor found."""
        return [
            tx_id
            for index, tx_id in enumerate(self.tx_ids)
            if index not in self.prefilled and find(tx_id) is None
        ]

    def complete(self, find: Callable[[bytes], bytes | None]) -> Propose:
        """The full proposal. Raises InvalidInputError if a tx is missing or is not the one that
        its id names."""
        txs = []
        for index, tx_id in enumerate(self.tx_ids):
            tx = self.prefilled.get(index)
            if tx is not None and codec.hash_tagged("tx", tx) != tx_id:
                raise InvalidInputError("prefilled tx is not the one its id names")
            if tx is None:
                tx = find(tx_id)
            if tx is None:
                raise InvalidInputError("tx of a proposal is missing", got=tx_id.hex(), retry=True)
            txs.append(tx)
        block = Block(
            self.header, tuple(txs), self.parent_certificate, self.late_votes, self.evidence
        )
        return Propose(
            height=self.height,
            view=self.view,
            block=block,
            justify=self.justify,
            signer=self.signer,
            signature=self.signature,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTxRequest:
    """Asks the sender of a compact proposal for txs by id."""

    block_hash: bytes
    tx_ids: tuple[bytes, ...]

    def encode(self) -> bytes:
        return bytes([TAG_BLOCK_TX_REQUEST]) + codec.encode([self.block_hash, list(self.tx_ids)])

    @classmethod
    def decode(cls, data: bytes) -> BlockTxRequest:
        """Read the bytes after the tag. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=SMALL_BYTES_MAX), 2, "block-tx request")
        return cls(
            block_hash=codec.read_bytes(v[0], "block hash", length=32),
            tx_ids=_read_ids(v[1], BLOCK_TXS_MAX),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTxs:
    """Answers a BlockTxRequest."""

    block_hash: bytes
    txs: tuple[bytes, ...]

    def encode(self) -> bytes:
        return bytes([TAG_BLOCK_TXS]) + codec.encode([self.block_hash, list(self.txs)])

    @classmethod
    def decode(cls, data: bytes) -> BlockTxs:
        """Read the bytes after the tag. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=MESSAGE_BYTES_MAX), 2, "block txs")
        return cls(
            block_hash=codec.read_bytes(v[0], "block hash", length=32),
            txs=_read_txs(v[1], BLOCK_TXS_MAX),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRequest:
    """Asks for final blocks `height_from` .. `height_from + count - 1`."""

    height_from: int
    count: int

    def encode(self) -> bytes:
        return bytes([TAG_RANGE_REQUEST]) + codec.encode([self.height_from, self.count])

    @classmethod
    def decode(cls, data: bytes) -> RangeRequest:
        """Read the bytes after the tag. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=64), 2, "range request")
        return cls(
            height_from=codec.read_int(v[0], "height"),
            count=codec.read_int(v[1], "count", RANGE_BLOCKS_MAX),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Consecutive final blocks, each with its finalization certificate, and the sender's height.
    Blocks are left encoded, so that a receiver decodes them one at a time."""

    tip_height: int
    items: tuple[tuple[bytes, bytes], ...]

    def encode(self) -> bytes:
        return bytes([TAG_RANGE]) + codec.encode(
            [self.tip_height, [[block, certificate] for block, certificate in self.items]]
        )

    @classmethod
    def decode(cls, data: bytes) -> Range:
        """Read the bytes after the tag. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=RANGE_BYTES_MAX), 2, "range")
        items = []
        for item in codec.read_list(v[1], RANGE_BLOCKS_MAX, "range blocks"):
            block, certificate = codec.read_array(item, 2, "range block")
            items.append(
                (
                    codec.read_bytes(block, "block", maximum=BLOCK_BYTES_MAX),
                    codec.read_bytes(certificate, "certificate", maximum=64 * 1024),
                )
            )
        return cls(tip_height=codec.read_int(v[0], "tip height"), items=tuple(items))


def encode_ids(tag: int, ids: Sequence[bytes]) -> bytes:
    """An offer or a want, or batch roots: [id bin32, ...]."""
    return bytes([tag]) + codec.encode(list(ids))


def decode_ids(data: bytes) -> tuple[bytes, ...]:
    """Read the bytes after the tag of `encode_ids`. Raises InvalidInputError."""
    return _read_ids(codec.decode(data, bytes_max=SMALL_BYTES_MAX), IDS_MAX)


def encode_txs(txs: Sequence[bytes]) -> bytes:
    """A batch of txs, for gossip and for answers to a want."""
    return bytes([TAG_TXS]) + codec.encode(list(txs))


def decode_txs(data: bytes) -> tuple[bytes, ...]:
    """Read the bytes after the tag of a tx batch. Raises InvalidInputError."""
    return _read_txs(codec.decode(data, bytes_max=TXS_BYTES_MAX), IDS_MAX)


def _read_ids(value: Any, count_max: int) -> tuple[bytes, ...]:
    return tuple(
        codec.read_bytes(item, "tx id", length=32)
        for item in codec.read_list(value, count_max, "tx ids")
    )


def _read_txs(value: Any, count_max: int) -> tuple[bytes, ...]:
    return tuple(
        codec.read_bytes(item, "tx", maximum=TX_BYTES_MAX)
        for item in codec.read_list(value, count_max, "txs")
    )


def _read_prefilled(value: Any, count: int) -> dict[int, bytes]:
    result: dict[int, bytes] = {}
    for item in codec.read_list(value, count, "prefilled txs"):
        index, tx = codec.read_array(item, 2, "prefilled tx")
        index = codec.read_int(index, "prefilled index", max(count - 1, 0))
        if index in result:
            raise InvalidInputError("prefilled tx is given twice", got=str(index))
        result[index] = codec.read_bytes(tx, "prefilled tx", maximum=TX_BYTES_MAX)
    return result
