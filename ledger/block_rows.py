"""The rows of final blocks in the store.

    h/ height8               header
    b/ height8               body: [[tx...], parent certificate or nil, [late votes], [evidence]]
    c/ height8               the finalization certificate this node holds
    r/ height8               results: [[leaf fields..., message], ...]
    w/ height8               keys of the side rows that the block wrote, in order; only if any
    t/ tx id 32              [height, index]
    i/ block hash 32         height8
    m/genesis                genesis hash 32
    m/height                 height8 of the last final block

height8 is 8 bytes, big-endian. Everything but `c/` is the same on every node. Reading
a row that does not decode raises DamagedStoreError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ledger import codec
from ledger.block import BLOCK_BYTES_MAX, Block, Header
from ledger.certificate import Certificate
from ledger.errors import InvalidInputError
from ledger.store import Batch, Reader, decode_row
from ledger.tx_result import TxResult

HEADER = b"h/"
BODY = b"b/"
CERTIFICATE = b"c/"
RESULTS = b"r/"
SIDE_KEYS = b"w/"
TX = b"t/"
BLOCK_HASH = b"i/"
META_GENESIS = b"m/genesis"
META_HEIGHT = b"m/height"
RESULTS_BYTES_MAX = 64 * 1024 * 1024
SIDE_KEYS_BYTES_MAX = 64 * 1024 * 1024
SIDE_KEY_BYTES_MAX = 1024


def height_key(prefix: bytes, height: int) -> bytes:
    """prefix || 8-byte big-endian height."""
    return prefix + height.to_bytes(8, "big")


def add_block_rows(
    batch: Batch, block: Block, certificate: Certificate, results: Sequence[TxResult]
) -> None:
    """Add all rows of a final block to `batch`, the height marker included."""
    height = block.height
    batch.put(height_key(HEADER, height), block.header.encoded)
    batch.put(height_key(BODY, height), _encode_body(block))
    batch.put(height_key(CERTIFICATE, height), certificate.encode())
    batch.put(height_key(RESULTS, height), codec.encode([r.to_value() for r in results]))
    for index, tx_id in enumerate(block.tx_ids):
        batch.put(TX + tx_id, codec.encode([height, index]))
    batch.put(BLOCK_HASH + block.hash, height.to_bytes(8, "big"))
    batch.put(META_HEIGHT, height.to_bytes(8, "big"))


def add_side_rows(batch: Batch, height: int, rows: Mapping[bytes, bytes]) -> None:
    """Add what the block's txs wrote beside the state, and the list of it."""
    for key, value in rows.items():
        batch.put(key, value)
    if rows:
        batch.put(height_key(SIDE_KEYS, height), codec.encode(list(rows)))


def read_side_keys(store: Reader, first: int) -> Iterator[tuple[int, list[bytes]]]:
    """(height, keys in order) of each block from `first` on that wrote side rows."""
    for key, row in store.iterate(prefix=SIDE_KEYS, start=height_key(SIDE_KEYS, first)):
        keys = decode_row("side keys", _decode_keys, row)
        yield int.from_bytes(key[len(SIDE_KEYS) :], "big"), keys


def read_height(store: Reader) -> int | None:
    """Height of the last final block, 0 after genesis; None for an empty store."""
    marker = store.get(META_HEIGHT)
    return None if marker is None else int.from_bytes(marker, "big")


def read_height_of(store: Reader, block_hash: bytes) -> int | None:
    """Height of the final block with this hash; None if there is none."""
    row = store.get(BLOCK_HASH + block_hash)
    return None if row is None else int.from_bytes(row, "big")


def read_header(store: Reader, height: int) -> Header:
    """Raises InvalidInputError if the store has no such block."""
    return decode_row("header", Header.decode, _read(store, HEADER, height, "header"))


def read_certificate(store: Reader, height: int) -> Certificate:
    """Raises InvalidInputError if the store has no such block."""
    row = _read(store, CERTIFICATE, height, "certificate")
    return decode_row("certificate", Certificate.decode, row)


def read_block(store: Reader, height: int) -> Block:
    """Raises InvalidInputError if the store has no such block."""
    header = read_header(store, height)

    def decode(row: bytes) -> Block:
        body = codec.decode(row, bytes_max=BLOCK_BYTES_MAX)
        return Block.from_values(header, *codec.read_array(body, 4, "block body"))

    return decode_row("block", decode, _read(store, BODY, height, "block"))


def read_results(store: Reader, height: int) -> list[TxResult]:
    """Results in tx order. Raises InvalidInputError if the store has no such block."""
    return decode_row("results", _decode_results, _read(store, RESULTS, height, "results"))


def read_tx_location(store: Reader, tx_id: bytes) -> tuple[int, int] | None:
    """(height, index in the block), or None."""
    row = store.get(TX + tx_id)
    if row is None:
        return None
    return decode_row("tx location", _decode_location, row)


def _decode_results(row: bytes) -> list[TxResult]:
    items = codec.read_list(codec.decode(row, bytes_max=RESULTS_BYTES_MAX), 2**32, "results")
    return [TxResult.from_value(item) for item in items]


def _decode_keys(row: bytes) -> list[bytes]:
    items = codec.read_list(codec.decode(row, bytes_max=SIDE_KEYS_BYTES_MAX), 2**32, "side keys")
    return [codec.read_bytes(item, "side key", maximum=SIDE_KEY_BYTES_MAX) for item in items]


def _decode_location(row: bytes) -> tuple[int, int]:
    height, index = codec.read_array(codec.decode(row, bytes_max=32), 2, "tx location")
    return codec.read_int(height, "height"), codec.read_int(index, "index")


def _encode_body(block: Block) -> bytes:
    certificate = block.parent_certificate
    return codec.encode(
        [
            list(block.txs),
            None if certificate is None else certificate.to_value(),
            list(block.late_votes),
            list(block.evidence),
        ]
    )


def _read(store: Reader, prefix: bytes, height: int, what: str) -> bytes:
    row = store.get(height_key(prefix, height)) if 0 <= height < 2**64 else None
    if row is None:
        raise InvalidInputError(f"no {what} at this height", got=str(height))
    return row
