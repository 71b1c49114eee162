"""The ordered key-value store under everything a node keeps, and its twins for tests.

`LevelStore` is LevelDB (through plyvel) and the only place that opens it. `MemoryStore` has the
same meaning in RAM. `CrashStore` is a `MemoryStore` that can lose what was not synced, fail like a
full disk, or stop the process around any write.

Meaning, the same for all:
- A `Batch` is applied whole or not at all, its operations in order.
- `write(sync=True)` returns once the batch **and each batch written before it** is durable
  (LevelDB has one log file, and syncs it). Without sync a crash may lose a suffix of the writes
  since the last sync, never one from the middle.
- `iterate` sees the store as it was when it was called; writes made meanwhile don't show.
- After a `DurabilityError` the store refuses all further writes: the only safe reaction is to stop.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from typing import Protocol, TypeVar

import plyvel

from ledger.errors import DamagedStoreError, DurabilityError, InvalidInputError, UsageError

WRITE_BUFFER_BYTES = 32 * 2**20  # at 16 MB compaction costs some 13% more CPU a block
CACHE_BYTES = 64 * 2**20
BLOCK_BYTES = 2048
BLOOM_BITS = 10
OPEN_FILES_MAX = 500


T = TypeVar("T")


def decode_row(what: str, decode: Callable[[bytes], T], row: bytes) -> T:
    """`decode(row)` for a row of our own store: bytes that we wrote and that do not decode are
    damage, not somebody's wrong input. Raises DamagedStoreError."""
    try:
        return decode(row)
    except InvalidInputError as error:
        raise DamagedStoreError(f"the stored {what} is damaged", got=str(error)) from error


class Batch:
    """Operations to be applied together; iterates as (key, value or None for a delete)."""

    __slots__ = ("_operations",)

    def __init__(self) -> None:
        self._operations: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        """Set `key` to `value`."""
        self._operations.append((key, value))

    def delete(self, key: bytes) -> None:
        """Remove `key`; no error if it is absent."""
        self._operations.append((key, None))

    def __iter__(self) -> Iterator[tuple[bytes, bytes | None]]:
        return iter(self._operations)

    def __len__(self) -> int:
        return len(self._operations)


class Reader(Protocol):
    """What can be read from a store or from a frozen view of one."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""

    def iterate(
        self, *, prefix: bytes, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key begins with `prefix`, in key order (descending if `reverse`).

        `start` (inclusive, a whole key) leaves out rows before it; in reverse, rows after it.
        """


class Store(Reader, Protocol):
    """The store that the node writes to."""

    def write(self, batch: Batch, *, sync: bool) -> None:
        """Apply `batch` atomically. Raises DurabilityError if that, or the sync, failed."""

    def view(self) -> View:
        """A frozen view of the store as it is now; close it when done."""

    def close(self) -> None:
        """Release the store; further use is a UsageError."""

    def size_bytes(self) -> int:
        """Bytes on disk (for the memory twins: of all keys and values)."""


class View(Reader, Protocol):
    """A store as it was at one moment."""

    def close(self) -> None:
        """Let go of the view, so that the store can drop what only it still sees."""


# --- LevelDB ---


class _LevelReader:
    """Reads from a plyvel DB or snapshot; both have the same two methods."""

    def __init__(self, handle: plyvel.DB) -> None:
        self._handle = handle

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._handle.get(key)
        except (plyvel.Error, OSError) as error:
            raise DurabilityError("cannot read the store", got=str(error)) from error
        except RuntimeError as error:
            raise UsageError("the store is closed") from error
        return value

    def iterate(
        self, *, prefix: bytes, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        low, high = _bounds(prefix, start, reverse)
        try:
            rows = self._handle.iterator(
                # plyvel 1.5.1 leaves out the row at `start` if a reverse iteration begins on it,
                # so in reverse the lower bound is checked here.
                start=None if reverse else low,
                stop=high,
                include_stop=False,
                reverse=reverse,
                fill_cache=False,
            )
        except RuntimeError as error:
            raise UsageError("the store is closed") from error
        return self._rows(rows, low if reverse else b"")

    @staticmethod
    def _rows(rows: plyvel.Iterator, low: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            if low:
                yield from takewhile(lambda row: row[0] >= low, rows)
            else:
                yield from rows
        except (plyvel.Error, OSError) as error:
            raise DurabilityError("cannot read the store", got=str(error)) from error
        finally:
            rows.close()


class _LevelView(_LevelReader):
    def close(self) -> None:
        self._handle.close()


class LevelStore(_LevelReader):
    """LevelDB in one folder, which it locks against other processes."""

    def __init__(self, path: str, handle: plyvel.DB) -> None:
        super().__init__(handle)
        self.path = path
        self._failed = False

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = True) -> LevelStore:
        """Open the database in folder `path`, made if missing (its parent must exist).

        Raises UsageError if the folder is missing (with create=False), is no folder, may not be
        written, or is in use by another process; InvalidInputError if its content is damaged.
        """
        folder = os.fspath(path)
        try:
            handle = plyvel.DB(
                folder,
                create_if_missing=create,
                write_buffer_size=WRITE_BUFFER_BYTES,
                lru_cache_size=CACHE_BYTES,
                block_size=BLOCK_BYTES,
                bloom_filter_bits=BLOOM_BITS,
                max_open_files=OPEN_FILES_MAX,
            )
        except plyvel.CorruptionError as error:
            raise InvalidInputError(
                f"the store in {folder} is damaged; restore a backup or sync again", got=str(error)
            ) from error
        except (plyvel.Error, OSError) as error:
            raise _open_error(folder, str(error)) from error
        return cls(folder, handle)

    def write(self, batch: Batch, *, sync: bool) -> None:
        if self._failed:
            raise DurabilityError("the store failed before and takes no more writes")
        try:
            with self._handle.write_batch(transaction=True, sync=sync) as rows:
                for key, value in batch:
                    if value is None:
                        rows.delete(key)
                    else:
                        rows.put(key, value)
        except (plyvel.Error, OSError) as error:
            self._failed = True
            raise DurabilityError("a write to the store failed", got=str(error)) from error
        except RuntimeError as error:
            raise UsageError("the store is closed") from error

    def view(self) -> View:
        try:
            return _LevelView(self._handle.snapshot())
        except RuntimeError as error:
            raise UsageError("the store is closed") from error

    def compact(self) -> None:
        """Rewrite the files without what was overwritten or deleted; slow, never needed."""
        self._handle.compact_range()

    def close(self) -> None:
        self._handle.close()

    def size_bytes(self) -> int:
        with os.scandir(self.path) as entries:
            return sum(_file_bytes(entry) for entry in entries)


def _file_bytes(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # a compaction removed it between the listing and now
        return 0


def _open_error(folder: str, text: str) -> UsageError | InvalidInputError:
    low = text.lower()
    if "lock" in low and ("unavailable" in low or "already held" in low):
        return UsageError(
            f"the store in {folder} is in use by another process; stop that node first",
            got=text,
            retry=True,
        )
    if "does not exist" in low or "create_if_missing" in low:
        return UsageError(f"there is no store in {folder}", got=text)
    if "missing" in low or "corrupt" in low or "current" in low:
        return InvalidInputError(
            f"the store in {folder} is damaged; restore a backup or sync again", got=text
        )
    return UsageError(f"the store in {folder} cannot be opened", got=text)


def _bounds(prefix: bytes, start: bytes | None, reverse: bool) -> tuple[bytes, bytes | None]:
    """The range [low, high) of keys that `iterate` gives (None: no bound)."""
    low, high = prefix, _after_prefix(prefix)
    if start is not None and not reverse:
        low = max(low, start)
    elif start is not None:
        after = start + b"\0"
        high = after if high is None else min(high, after)
    return low, high


def _after_prefix(prefix: bytes) -> bytes | None:
    """The least key above all keys with `prefix`; None if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


# --- the twins ---


class MemoryStore:
    """The same store in RAM: a dict, and its keys in order for iteration."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes] = {}
        self._order: list[bytes] | None = []
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        self._check_open()
        return self._rows.get(key)

    def iterate(
        self, *, prefix: bytes, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        self._check_open()
        if self._order is None:
            self._order = sorted(self._rows)
        order = self._order
        low, high = _bounds(prefix, start, reverse)
        first = bisect_left(order, low)
        last = len(order) if high is None else bisect_left(order, high)
        rows = [(key, self._rows[key]) for key in order[first:last]]
        return reversed(rows) if reverse else iter(rows)

    def write(self, batch: Batch, *, sync: bool) -> None:
        self._check_open()
        self._apply(batch)

    def view(self) -> View:
        self._check_open()
        frozen = MemoryStore()
        frozen._rows = dict(self._rows)
        frozen._order = None
        return frozen

    def close(self) -> None:
        self._closed = True

    def size_bytes(self) -> int:
        return sum(len(key) + len(value) for key, value in self._rows.items())

    def _apply(self, batch: Batch) -> None:
        count = len(self._rows)
        inserted = _apply_to(self._rows, batch)
        if inserted or len(self._rows) != count:
            self._order = None

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the store is closed")


_Operations = Iterable[tuple[bytes, bytes | None]]


def _apply_to(rows: dict[bytes, bytes], operations: _Operations) -> bool:
    """Apply `operations` to `rows`; whether a key was new."""
    inserted = False
    for key, value in operations:
        if value is None:
            rows.pop(key, None)
        else:
            inserted = inserted or key not in rows
            rows[key] = value
    return inserted


class SimulatedCrash(BaseException):
    """The process stops here. Not an Exception, so that no handler in the code swallows it."""


class Chooser(Protocol):
    """The one method of `random.Random` that a crash needs."""

    def randrange(self, stop: int, /) -> int:
        """A number in 0 .. stop - 1."""


class CrashStore(MemoryStore):
    """A `MemoryStore` whose disk holds only what was synced, plus whatever got there by chance.

    Writes count from 1. `crash` ends the process: use the store that it returns from then on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self._durable: dict[bytes, bytes] = {}
        self._unsynced: list[_Operations] = []
        self._fail_at: int | None = None
        self._stop_before: int | None = None
        self._stop_after: int | None = None
        self._failed = False

    def fail_after(self, count: int) -> None:
        """Let `count` more writes pass; the next one, and all after it, raise DurabilityError."""
        self._fail_at = self.writes + count + 1

    def stop_before(self, count: int) -> None:
        """Raise SimulatedCrash at the `count`-th write from now (1 = the next), not applied."""
        self._stop_before = self.writes + count

    def stop_after(self, count: int) -> None:
        """Raise SimulatedCrash right after the `count`-th write from now was applied."""
        self._stop_after = self.writes + count

    def write(self, batch: Batch, *, sync: bool) -> None:
        self._check_open()
        if self._failed:
            raise DurabilityError("the store failed before and takes no more writes")
        number = self.writes + 1
        if self._stop_before is not None and number >= self._stop_before:
            raise SimulatedCrash(f"before write {number}")
        if self._fail_at is not None and number >= self._fail_at:
            self._failed = True
            raise DurabilityError("a write to the store failed", got="no space left on device")
        self.writes = number
        self._apply(batch)
        self._unsynced.append(tuple(batch))
        if sync:
            for earlier in self._unsynced:
                _apply_to(self._durable, earlier)
            self._unsynced = []
        if self._stop_after is not None and number >= self._stop_after:
            raise SimulatedCrash(f"after write {number}")

    @property
    def unsynced(self) -> int:
        """How many writes a crash now could lose."""
        return len(self._unsynced)

    def crash(self, *, rng: Chooser | None = None, keep: int | None = None) -> CrashStore:
        """The store as found after a crash now; this object is closed.

        Of the writes since the last sync the first `keep` survive (default: a number drawn from
        `rng`; with neither, none).
        """
        if keep is None:
            keep = 0 if rng is None else rng.randrange(len(self._unsynced) + 1)
        if not 0 <= keep <= len(self._unsynced):
            raise UsageError("cannot keep so many writes", got=f"{keep} of {len(self._unsynced)}")
        found = CrashStore()
        found._rows = dict(self._durable)
        for batch in self._unsynced[:keep]:
            _apply_to(found._rows, batch)
        found._durable = dict(found._rows)
        found._order = None
        self.close()
        return found
