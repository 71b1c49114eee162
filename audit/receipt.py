"""Audit receipts: all that shows one leaf to be in the log, without asking anyone.

    receipt = ["audit-receipt/1", leaf bin, [batch_index, [hash, ...]], anchor record bin,
               [log_index, [hash, ...]], finality proof]

The leaf is at `batch_index` under the anchor record's batch root; the record is entry `log_index`
of the log whose size and root the final header names; the header carries its certificate and the
handoffs from a validator set that the reader trusts. File ending: `.zreceipt`.

All leaves of a batch share everything after the batch path: that part is stored once a batch, and
a receipt is put together around it. Once issued, it never changes.

The JSON twin has the same content for people and web pages: hashes in lower-case hex, the stream
in its text form, integers as numbers (at most 2^53 - 1), an empty or absent thing as the wire has
it. White space and the order of members are free; anything else that would not come out the same
when written again is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from audit.anchor import ANCHOR_BYTES_MAX, BATCH_LEAVES_MAX, AnchorRecord
from audit.leaf import LEAF_BYTES_MAX, Leaf, decode_stream_text, encode_stream_text
from ledger import codec
from ledger.block import Header
from ledger.certificate import Certificate
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import FINALITY_PROOF_BYTES_MAX, FinalityProof
from ledger.merkle import PATH_HASHES_MAX

RECEIPT_TAG = "audit-receipt/1"
RECEIPT_BYTES_MAX = FINALITY_PROOF_BYTES_MAX + 16 * 1024
JSON_BYTES_MAX = 3 * RECEIPT_BYTES_MAX
JSON_DEPTH_MAX = 8
JSON_INT_MAX = 2**53 - 1
RECEIPT_SUFFIX = ".zreceipt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A receipt's parts, well-formed and not yet verified. `leaf` and `anchor` keep their bytes
    next to what they mean, because the bytes are what is hashed."""

    leaf_bytes: bytes
    leaf: Leaf
    batch_index: int
    batch_path: tuple[bytes, ...]
    anchor_bytes: bytes
    anchor: AnchorRecord
    log_index: int
    log_path: tuple[bytes, ...]
    finality: FinalityProof

    @classmethod
    def decode(cls, data: bytes) -> Receipt:
        """Inverse of `encode`. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=RECEIPT_BYTES_MAX), 6, "receipt")
        if v[0] != RECEIPT_TAG:
            raise InvalidInputError(
                "receipt has another tag", expected=RECEIPT_TAG, got=repr(v[0])[:40]
            )
        leaf_bytes = codec.read_bytes(v[1], "receipt leaf", maximum=LEAF_BYTES_MAX)
        batch_index, batch_path = _read_path(v[2], "batch path", BATCH_LEAVES_MAX - 1)
        anchor_bytes = codec.read_bytes(v[3], "anchor record", maximum=ANCHOR_BYTES_MAX)
        log_index, log_path = _read_path(v[4], "log path", codec.U64_MAX)
        return cls(
            leaf_bytes=leaf_bytes,
            leaf=Leaf.decode(leaf_bytes),
            batch_index=batch_index,
            batch_path=batch_path,
            anchor_bytes=anchor_bytes,
            anchor=AnchorRecord.decode(anchor_bytes),
            log_index=log_index,
            log_path=log_path,
            finality=FinalityProof.from_value(v[5]),
        )

    def encode(self) -> bytes:
        return assemble_receipt(
            self.leaf_bytes,
            self.batch_index,
            self.batch_path,
            encode_shared(self.anchor_bytes, self.log_index, self.log_path, self.finality),
        )


def _read_path(value: object, what: str, index_max: int) -> tuple[int, tuple[bytes, ...]]:
    index, path = codec.read_array(value, 2, what)
    hashes = codec.read_list(path, PATH_HASHES_MAX, what)
    return codec.read_int(index, f"{what} index", index_max), tuple(
        codec.read_bytes(item, f"{what} hash", length=32) for item in hashes
    )


def encode_shared(
    anchor: bytes, log_index: int, log_path: Sequence[bytes], finality: FinalityProof
) -> bytes:
    """What all receipts of a batch share: [anchor record, [log_index, path], finality proof]."""
    return codec.encode([anchor, [log_index, log_path], finality.to_value()])


def assemble_receipt(
    leaf: bytes, batch_index: int, batch_path: Sequence[bytes], shared: bytes
) -> bytes:
    """The receipt's wire bytes. An array of n < 16 items is 0x90 + n and the items, so the shared
    part's items are taken over as they are."""
    head = codec.encode([RECEIPT_TAG, leaf, [batch_index, batch_path]])
    return b"\x96" + head[1:] + shared[1:]


# --- the JSON twin ---


def encode_receipt_json(receipt: Receipt) -> str:
    """The JSON twin on one line. Raises UsageError if an integer is too large for JSON."""
    return json.dumps(receipt_value(receipt), separators=(",", ":"))


def receipt_value(receipt: Receipt) -> dict[str, Any]:
    """The JSON twin as a value."""
    finality = receipt.finality
    return {
        "type": RECEIPT_TAG,
        "leaf": {
            "stream": encode_stream_text(receipt.leaf.stream),
            "multihash": receipt.leaf.multihash.hex(),
            "commitment": None
            if receipt.leaf.commitment is None
            else receipt.leaf.commitment.hex(),
        },
        "batch": _path_json(receipt.batch_index, receipt.batch_path),
        "anchor": {
            "stream": encode_stream_text(receipt.anchor.stream),
            "submitter": receipt.anchor.submitter.hex(),
            "seq": _int_json(receipt.anchor.seq),
            "count": receipt.anchor.count,
            "batch_root": receipt.anchor.batch_root.hex(),
            "height": _int_json(receipt.anchor.height),
            "time_ms": _int_json(receipt.anchor.time_ms),
        },
        "log": _path_json(receipt.log_index, receipt.log_path),
        "header": _header_json(finality.header),
        "certificate": _certificate_json(finality.certificate),
        "handoffs": [
            {
                "header": _header_json(handoff.header),
                "certificate": _certificate_json(handoff.certificate),
                "next_validators": handoff.next_validators.encoded.hex(),
            }
            for handoff in finality.handoffs
        ],
    }


def decode_receipt_json(text: str | bytes) -> Receipt:
    """Inverse of `encode_receipt_json`. Raises InvalidInputError."""
    value = _load_json(text)
    try:
        wire = codec.encode(_wire_value(value))
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise InvalidInputError(
            "receipt JSON is malformed", got=f"{type(error).__name__} {error}"[:120]
        ) from error
    receipt = Receipt.decode(wire)
    # Numbers compare equal across types in Python (True == 1 == 1.0); their JSON text does not.
    try:
        is_same = _dump_sorted(receipt_value(receipt)) == _dump_sorted(value)
    except UsageError as error:
        raise InvalidInputError("receipt JSON has an integer that is too large") from error
    if not is_same:
        raise InvalidInputError("receipt JSON is not in its one form")
    return receipt


def _dump_sorted(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _load_json(text: str | bytes) -> Any:
    if len(text) > JSON_BYTES_MAX:
        raise InvalidInputError("receipt JSON is too long", expected=f"<= {JSON_BYTES_MAX} B")
    try:
        decoded = text.decode("ascii") if isinstance(text, bytes) else text
        decoded.encode("ascii")
        depth = deepest = 0
        for character in decoded:
            if character in "[{":
                depth += 1
                deepest = max(deepest, depth)
            elif character in "]}":
                depth -= 1
        if deepest > JSON_DEPTH_MAX:
            raise InvalidInputError("receipt JSON is nested too deep")
        return json.loads(decoded, object_pairs_hook=_unique_members)
    except ValueError as error:
        raise InvalidInputError("receipt JSON does not parse", got=str(error)[:80]) from error


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidInputError("receipt JSON names a member twice")
    return found


def _wire_value(value: Any) -> codec.Value:
    leaf, anchor = value["leaf"], value["anchor"]
    commitment = leaf["commitment"]
    multihash = bytes.fromhex(leaf["multihash"])
    leaf_bytes = Leaf(
        stream=decode_stream_text(leaf["stream"]),
        multihash=multihash,
        commitment=None if commitment is None else bytes.fromhex(commitment),
    ).encode()
    anchor_bytes = AnchorRecord(
        stream=decode_stream_text(anchor["stream"]),
        submitter=bytes.fromhex(anchor["submitter"]),
        seq=anchor["seq"],
        count=anchor["count"],
        batch_root=bytes.fromhex(anchor["batch_root"]),
        height=anchor["height"],
        time_ms=anchor["time_ms"],
    ).encode()
    return [
        value["type"],
        leaf_bytes,
        _path_wire(value["batch"]),
        anchor_bytes,
        _path_wire(value["log"]),
        [
            _header_wire(value["header"]),
            _certificate_wire(value["certificate"]),
            [
                [
                    _header_wire(item["header"]),
                    _certificate_wire(item["certificate"]),
                    bytes.fromhex(item["next_validators"]),
                ]
                for item in value["handoffs"]
            ],
        ],
    ]


def _int_json(number: int) -> int:
    if number > JSON_INT_MAX:
        raise UsageError("integer is too large for JSON", got=str(number))
    return number


def _path_json(index: int, path: Sequence[bytes]) -> dict[str, Any]:
    return {"index": _int_json(index), "path": [item.hex() for item in path]}


def _path_wire(value: Any) -> codec.Value:
    return [value["index"], [bytes.fromhex(item) for item in value["path"]]]


_HEADER_FIELDS = tuple((f.name, f.type) for f in fields(Header))


def _header_json(header: Header) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, _ in _HEADER_FIELDS:
        item = getattr(header, name)
        if isinstance(item, bytes):
            found[name] = item.hex()
        else:
            found[name] = item if isinstance(item, str) else _int_json(item)
    return found


def _header_wire(value: Any) -> codec.Value:
    return [
        bytes.fromhex(value[name]) if kind == "bytes" else value[name]
        for name, kind in _HEADER_FIELDS
    ]


def _certificate_json(certificate: Certificate) -> dict[str, Any]:
    return {
        "kind": int(certificate.kind),
        "height": _int_json(certificate.height),
        "view": certificate.view,
        "block_hash": certificate.block_hash.hex(),
        "bitmap": certificate.bitmap.hex(),
        "signatures": [item.hex() for item in certificate.signatures],
    }


def _certificate_wire(value: Any) -> codec.Value:
    return [
        value["kind"],
        value["height"],
        value["view"],
        bytes.fromhex(value["block_hash"]),
        bytes.fromhex(value["bitmap"]),
        [bytes.fromhex(item) for item in value["signatures"]],
    ]
