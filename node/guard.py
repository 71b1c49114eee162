"""The sign guard's file: append, sync, compact (rule 3; bytes in `consensus/guard.py`).

The file is the sole truth about what this validator signed. It is made only by `GuardFile.create`
(`zynk init` or an explicit command); a missing or damaged guard is never replaced silently, since
a validator that forgets what it signed can be made to sign against it, and is slashed.

A `.lock` file beside it keeps two processes from voting under one guard. Compaction writes a new
file, syncs it, renames it over the old one and syncs the folder; a crash leaves one or the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from consensus.guard import (
    SLOT_BYTES,
    VIEW_END,
    Floor,
    GuardRecord,
    GuardUnusableError,
    GuardWindow,
    decode_guard,
    encode_floor,
    encode_header,
    encode_record,
)
from ledger.errors import DurabilityError, InvalidInputError, UsageError

COMPACT_SLOTS_MIN = 4096
"""Smaller files are not worth rewriting (256 KiB)."""

Sync = Callable[[int], None]


class GuardFile:
    """An open, locked sign guard. Use `create` or `open`; close it when done."""

    def __init__(
        self, path: Path, header: bytes, lock: int, window: GuardWindow, last: bytes, sync: Sync
    ) -> None:
        self._path = path
        self._header = header
        self._lock = lock
        self._window = window
        self._last = last
        self._sync = sync
        self._broken = ""
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._size = os.fstat(self._fd).st_size

    @classmethod
    def create(
        cls,
        path: Path,
        chain_id: str,
        public_key: bytes,
        *,
        floor: Floor = (0, 0),
        sync: Sync = os.fdatasync,
    ) -> GuardFile:
        """Make a new guard and open it. With `floor`, nothing at or below it is ever signed.

        Raises GuardUnusableError if there is one already, DurabilityError if it can't be written.
        """
        lock = _lock(path)
        try:
            if path.exists():
                raise GuardUnusableError(
                    f"there is a sign guard at {path} already; a new one would forget what this "
                    "key signed"
                )
            header = encode_header(chain_id, public_key)
            slots = header + (encode_floor(header, floor) if floor > (0, 0) else b"")
            _replace_file(path, slots)
        except BaseException:
            os.close(lock)
            raise
        return cls._load(path, chain_id, public_key, lock, sync)

    @classmethod
    def open(
        cls, path: Path, chain_id: str, public_key: bytes, *, sync: Sync = os.fdatasync
    ) -> GuardFile:
        """Open an existing guard.

        Raises GuardUnusableError, saying what to do, if it is missing, torn, of another chain or
        key, or in use by another process.
        """
        if not path.exists():
            raise GuardUnusableError(
                f"there is no sign guard at {path}, so this node does not vote. Put the file back "
                "from this machine's own disk (an older copy is not safe: it forgets votes)",
                is_lost=True,
            )
        return cls._load(path, chain_id, public_key, _lock(path), sync)

    @classmethod
    def _load(
        cls, path: Path, chain_id: str, public_key: bytes, lock: int, sync: Sync
    ) -> GuardFile:
        try:
            window, last = decode_guard(path.read_bytes(), chain_id, public_key)
            return cls(path, encode_header(chain_id, public_key), lock, window, last, sync)
        except InvalidInputError as error:
            os.close(lock)
            raise GuardUnusableError(
                f"the sign guard at {path} can't be used, so this node does not vote ({error}). "
                "Move the file away, keep it for inspection, and check the disk",
                is_lost=True,
            ) from error
        except OSError as error:
            os.close(lock)
            raise GuardUnusableError(
                f"the sign guard at {path} can't be read: {error.strerror}"
            ) from error

    # --- reading ---

    @property
    def floor(self) -> Floor:
        """Nothing is signed at or below this (height, view); give it to the core."""
        return self._window.floor

    def records_at(self, height: int) -> tuple[GuardRecord, ...]:
        """What was signed at `height`, by view, in the order of signing."""
        return self._window.records_at(height)

    def highest(self) -> Floor:
        """The highest (height, view) signed or shut; (0, 0) for a new guard."""
        return self._window.highest()

    # --- writing ---

    def append(self, records: Sequence[GuardRecord]) -> None:
        """Make records durable; on return they are. What is on record already is not repeated.

        Raises UsageError for a contradiction (nothing is written), DurabilityError if the disk
        refuses: then nothing of this may be sent, and this guard writes no more.
        """
        fresh = self._window.check(records)
        if not fresh:
            self._raise_if_broken()
            return
        slots, last = [], self._last
        for record in fresh:
            last = encode_record(last, record)
            slots.append(last)
        self._write(b"".join(slots), last)
        self._window.add(fresh)

    def set_floor(self, floor: Floor) -> None:
        """Shut (height, view) and all below, durably. A lower floor changes nothing."""
        if floor > self._window.floor:
            slot = encode_floor(self._last, floor)
            self._write(slot, slot)
            self._window.raise_floor(floor)

    def prune_below(self, height: int) -> None:
        """Shut all heights below `height`, and rewrite the file when it has grown large.

        Cheap to call after each commit. Raises DurabilityError.
        """
        if self._size < COMPACT_SLOTS_MIN * SLOT_BYTES:
            return
        self.compact_below(height)

    def compact_below(self, height: int) -> None:
        """Rewrite the file with the records of `height` and above only. Raises DurabilityError."""
        self._raise_if_broken()
        window = GuardWindow()
        window.raise_floor(max(self._window.floor, (height - 1, VIEW_END)))
        kept = [r for r in self._window.records() if (r.height, r.view) > window.floor]
        window.add(kept)
        slots = [self._header, encode_floor(self._header, window.floor)]
        for record in kept:
            slots.append(encode_record(slots[-1], record))
        try:
            _replace_file(self._path, b"".join(slots))
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except (OSError, DurabilityError) as error:
            # The old file may or may not have been replaced: never write to either again.
            self._broken = f"compaction failed: {error}"
            raise DurabilityError("the sign guard can't be compacted", got=str(error)) from error
        os.close(self._fd)
        self._fd, self._size = fd, len(slots) * SLOT_BYTES
        self._window, self._last = window, slots[-1]

    def _write(self, data: bytes, last: bytes) -> None:
        self._raise_if_broken()
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, data[written:])
            self._sync(self._fd)
        except OSError as error:
            self._broken = error.strerror or str(error)
            # Nothing of this was sent, so it may be taken back; if it can't be, the torn tail
            # keeps the next start from voting, which is safe too.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
                os.fsync(self._fd)
            self._raise_if_broken()
        self._size += len(data)
        self._last = last

    def _raise_if_broken(self) -> None:
        if self._broken:
            raise DurabilityError(
                f"the sign guard at {self._path} can't be written, so this node does not vote; "
                "free the disk and start the node again",
                got=self._broken,
                retry=False,
            )

    def close(self) -> None:
        """Release the file and the lock; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            os.close(self._lock)
            self._fd = -1
            self._broken = "the guard is closed"

    def __enter__(self) -> GuardFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _lock(path: Path) -> int:
    try:
        fd = os.open(
            path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise UsageError(
            f"the sign guard's folder {path.parent} can't be used", got=str(error.strerror)
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise GuardUnusableError(
            f"another process votes under the sign guard at {path}; stop it first"
        ) from error
    return fd


def _replace_file(path: Path, data: bytes) -> None:
    """Write, sync, rename, sync the folder. Raises DurabilityError; the old file is whole."""
    fresh = path.with_name(path.name + ".new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            written = 0
            while written < len(data):
                written += os.write(fd, data[written:])
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(fresh, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise DurabilityError(
            f"the sign guard at {path} can't be written", got=str(error.strerror)
        ) from error
