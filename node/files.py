"""Reading files in constant memory, and writing them whole or not at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger.errors import DurabilityError, UsageError

CHUNK_BYTES = 1024 * 1024


def read_chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes in chunks of 1 MiB. Raises OSError."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def read_small(path: Path, what: str, bytes_max: int) -> bytes:
    """A file that must fit in memory; `what` names it in errors. Raises UsageError."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except FileNotFoundError as error:
        raise UsageError(f"no such {what}", got=str(path)) from error
    except OSError as error:
        raise UsageError(f"{what} can not be read", got=f"{path}: {error.strerror}") from error
    if len(data) > bytes_max:
        raise UsageError(f"{what} is too long", expected=f"at most {bytes_max} B", got=str(path))
    return data


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `path` so that a crash leaves the old content or the new, synced. Raises
    DurabilityError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DurabilityError(
            "file could not be written", got=f"{path}: {error.strerror}"
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, so that of several processes one at a time reads, changes and
    replaces what it guards; the others wait. Raises UsageError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError("lock file can not be made", got=f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
