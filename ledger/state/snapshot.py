"""Snapshots: the whole state at one height, as chunks that prove themselves.

The keys are split by their first `bits` bits. The manifest names the hash of each part; folded
together they are the state root, so a manifest is checked against a certified header before any
chunk is asked for, and each chunk against the manifest before it is written.

Manifest: canonical msgpack [version, height, time_ms, root, bits, keys, hashes, singles]
    hashes   2^bits * 32 bytes, the subtree hash of each part (zeros: empty)
    singles  bitmap, most significant bit first: 1 if the part has exactly one key (without it the
             fold could not tell one leaf from a node); each chunk is checked against it
Chunk: canonical msgpack [version, height, part, [[raw key, value], ...]], ascending by sha256(key)

A part over CHUNK_BYTES_MAX cannot be encoded: choose more bits (`choose_bits`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ledger import codec
from ledger.errors import InvalidInputError, UsageError
from ledger.state import rows
from ledger.state.bucket import fold, leaf_hash
from ledger.state.bulk import BulkLoader
from ledger.state.proof import EMPTY, KEY_BYTES_MAX
from ledger.state.top import build_heap
from ledger.state.tree import VALUE_BYTES_MAX, StateTree
from ledger.store import Store, View

VERSION = 1
BITS_MAX = 16
CHUNK_BYTES_MAX = 2**25
CHUNK_ROWS_MAX = 2**20
CHUNK_KEYS_TARGET = 1024
GROUP_BYTES_MAX = 2**27
ROW_BYTES_IN_RAM = 260  # of Python objects, beside the bytes themselves
MANIFEST_BYTES_MAX = (32 + 1) * 2**BITS_MAX + 1024

Row = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a snapshot consists of; `verify_manifest` before use."""

    height: int
    time_ms: int
    root: bytes
    bits: int
    keys: int
    hashes: bytes
    singles: bytes

    def part_hash(self, part: int) -> bytes:
        """The subtree hash of `part`."""
        return self.hashes[32 * part : 32 * part + 32]

    def is_single(self, part: int) -> bool:
        """Whether `part` has exactly one key."""
        return bool(self.singles[part >> 3] & 0x80 >> (part & 7))

    def encode(self) -> bytes:
        """Canonical bytes."""
        return codec.encode(
            [
                VERSION,
                self.height,
                self.time_ms,
                self.root,
                self.bits,
                self.keys,
                self.hashes,
                self.singles,
            ]
        )


def decode_manifest(data: bytes) -> Manifest:
    """A manifest from its bytes, not yet verified. Raises InvalidInputError."""
    what = "snapshot manifest"
    fields = codec.read_array(codec.decode(data, bytes_max=MANIFEST_BYTES_MAX), 8, what)
    _check_version(fields[0], what)
    bits = codec.read_int(fields[4], "bits", BITS_MAX)
    parts = 1 << bits
    return Manifest(
        height=codec.read_int(fields[1], "height"),
        time_ms=codec.read_int(fields[2], "time_ms"),
        root=codec.read_bytes(fields[3], "root", length=32),
        bits=bits,
        keys=codec.read_int(fields[5], "keys"),
        hashes=codec.read_bytes(fields[6], "hashes", length=32 * parts),
        singles=codec.read_bytes(fields[7], "singles", length=(parts + 7) // 8),
    )


def verify_manifest(manifest: Manifest, *, height: int, root: bytes) -> None:
    """Check that the parts fold to `root` (of a certified header). Raises InvalidInputError.

    `keys` is a claim until the last chunk; `restore` checks it.
    """
    parts = 1 << manifest.bits
    singles = bytearray(manifest.is_single(part) for part in range(parts))
    if any(singles[part] and manifest.part_hash(part) == EMPTY for part in range(parts)):
        raise InvalidInputError("snapshot manifest has an empty part with one key")
    if parts < 8 and manifest.singles[0] & 0xFF >> parts:
        raise InvalidInputError("snapshot manifest has stray bits")
    folded = bytes(build_heap(bytearray(manifest.hashes), singles)[32:64])
    if (manifest.height, manifest.root) != (height, root) or folded != root:
        raise InvalidInputError(
            "snapshot manifest does not lead to the root",
            expected=f"height {height}, {root.hex()}",
            got=f"height {manifest.height}, {folded.hex()}",
        )


def encode_chunk(manifest: Manifest, part: int, chunk: Sequence[Row]) -> bytes:
    """The bytes of one part; rows ascend by sha256 of the key. UsageError if it is too large."""
    data = codec.encode([VERSION, manifest.height, part, [list(row) for row in chunk]])
    if len(data) > CHUNK_BYTES_MAX:
        raise UsageError("a snapshot part is too large; use more bits", got=f"{len(data)} B")
    return data


def decode_chunk(manifest: Manifest, part: int, data: bytes) -> list[Row]:
    """The rows of `part`, checked against a verified manifest. Raises InvalidInputError."""
    what = "snapshot chunk"
    fields = codec.read_array(codec.decode(data, bytes_max=CHUNK_BYTES_MAX), 4, what)
    _check_version(fields[0], what)
    if fields[1] != manifest.height or fields[2] != part or type(fields[2]) is not int:
        raise InvalidInputError("snapshot chunk is not the one asked for")
    shift = 256 - manifest.bits
    bucket: list[bytes] = []
    chunk: list[Row] = []
    last = b""
    for item in codec.read_list(fields[3], CHUNK_ROWS_MAX, what):
        pair = codec.read_array(item, 2, what)
        key = codec.read_bytes(pair[0], "key", maximum=KEY_BYTES_MAX + 64)
        value = codec.read_bytes(pair[1], "value", maximum=VALUE_BYTES_MAX)
        tree_key = sha256(key).digest()
        if tree_key <= last or int.from_bytes(tree_key, "big") >> shift != part:
            raise InvalidInputError("snapshot chunk is out of order or not of this part")
        last = tree_key
        bucket += (tree_key, leaf_hash(tree_key, sha256(value).digest()))
        chunk.append((key, value))
    found = fold(b"".join(bucket), manifest.bits)
    if found != manifest.part_hash(part) or (len(chunk) == 1) != manifest.is_single(part):
        raise InvalidInputError(
            "snapshot chunk does not match the manifest",
            expected=manifest.part_hash(part).hex(),
            got=found.hex(),
        )
    return chunk


class SnapshotExport:
    """A snapshot being made: it goes on seeing its height while the tree moves on. Close it."""

    def __init__(self, manifest: Manifest, view: View) -> None:
        """Use `open_export`."""
        self.manifest = manifest
        self._view = view

    def chunks(self, *, group_bytes_max: int = GROUP_BYTES_MAX) -> Iterator[tuple[int, bytes]]:
        """(part, chunk bytes) of all non-empty parts, ascending.

        Rows are kept by raw key, so each pass over all values collects as many parts as fit in
        about `group_bytes_max` of RAM: a pass takes some 2 s per 1e6 keys.
        """
        low = 0
        parts = 1 << self.manifest.bits
        while low < parts:
            high, found = self._collect(low, parts, group_bytes_max)
            for part in sorted(found):
                chunk = sorted(found.pop(part))
                yield part, encode_chunk(self.manifest, part, [(k, v) for _, k, v in chunk])
            low = high

    def _collect(
        self, low: int, high: int, bytes_max: int
    ) -> tuple[int, dict[int, list[tuple[bytes, bytes, bytes]]]]:
        """The rows of parts low .. high - 1, for a high that had to be lowered to fit."""
        found: dict[int, list[tuple[bytes, bytes, bytes]]] = {}
        cut = len(rows.VALUE)
        shift = 32 - self.manifest.bits
        size = 0
        for row_key, value in self._view.iterate(prefix=rows.VALUE):
            key = row_key[cut:]
            tree_key = sha256(key).digest()
            part = int.from_bytes(tree_key[:4], "big") >> shift
            if not low <= part < high:
                continue
            found.setdefault(part, []).append((tree_key, key, value))
            size += len(key) + len(value) + ROW_BYTES_IN_RAM
            while size > bytes_max and high - low > 1:
                high = (low + high + 1) // 2
                for dropped in [part for part in found if part >= high]:
                    size -= sum(
                        len(k) + len(v) + ROW_BYTES_IN_RAM for _, k, v in found.pop(dropped)
                    )
        return high, found

    def close(self) -> None:
        """Let go of the view of the store."""
        self._view.close()


def choose_bits(keys: int, levels: int) -> int:
    """Bits for about CHUNK_KEYS_TARGET keys a part, and no more than the tree's levels."""
    return min((keys // CHUNK_KEYS_TARGET).bit_length(), levels, BITS_MAX)


def open_export(tree: StateTree, *, bits: int | None = None) -> SnapshotExport:
    """Begin a snapshot of the tip. UsageError for more bits than levels, or amid a commit."""
    if bits is None:
        bits = choose_bits(tree.keys, tree.levels)
    if not 0 <= bits <= min(tree.levels, BITS_MAX):
        raise UsageError("too many bits for a snapshot", expected=f"0..{tree.levels}")
    parts = tree.subtrees(bits)
    flags = "".join("1" if single else "0" for _, single in parts)
    flags += "0" * (-len(flags) % 8)
    manifest = Manifest(
        height=tree.height,
        time_ms=tree.time_ms,
        root=tree.root,
        bits=bits,
        keys=tree.keys,
        hashes=b"".join([part for part, _ in parts]),
        singles=int(flags, 2).to_bytes(len(flags) // 8, "big"),
    )
    return SnapshotExport(manifest, tree.view())


def restore(store: Store, manifest: Manifest, chunks: Iterable[tuple[int, bytes]]) -> Iterator[int]:
    """Write a verified manifest's chunks to a store without a state.

    `chunks` are (part, bytes), each non-empty part once, best ascending. Yields the number of
    keys so far after each chunk; once it ends the state is durable: open it. A bad or missing
    chunk raises InvalidInputError; then, or if it is left early, the store has no state.
    """
    loader = BulkLoader(store)
    for part, data in chunks:
        loader.add(decode_chunk(manifest, part, data))
        yield loader.keys
    loader.finish(
        height=manifest.height, time_ms=manifest.time_ms, root=manifest.root, keys=manifest.keys
    )


def _check_version(value: object, what: str) -> None:
    if type(value) is not int or value != VERSION:
        raise InvalidInputError(f"{what} is of another version", expected=str(VERSION))
