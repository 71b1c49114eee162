"""The log guard: the size and root of the log that this node signed last, durable before it signs.

A checkpoint says "this is the log, and it has only grown". Log key and cosign key sign nothing but
what the guard has let through: never a second root for a size, never a smaller size, and nothing
before size and root are synced. So a node that is given another chain's store, or an older one,
falls silent instead of showing two logs.

File: canonical ["log-guard/1", origin, size, root bin32], replaced whole. It is made together with
the log key, once; a guard that is missing beside a key is lost, and is never replaced silently.
"""

from __future__ import annotations

from pathlib import Path

from audit.checkpoint import compute_origin
from ledger import codec
from ledger.codec import HASH_BYTES
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from ledger.merkle import EMPTY_ROOT
from node import config as cfg
from node.files import read_small, replace_file
from node.keys import generate_key, load_key, save_key

TAG = "log-guard/1"
GUARD_BYTES_MAX = 1024


class ContradictionError(UsageError):
    """Signing this would contradict what was signed before. Nothing is written."""


class LogGuard:
    """Build with `create` or `open`."""

    def __init__(self, path: Path, origin: str, size: int, root: bytes) -> None:
        self._path = path
        self._origin = origin
        self.size = size
        self.root = root

    @classmethod
    def create(cls, path: Path, origin: str) -> LogGuard:
        """A new guard, durable: nothing was signed but the empty log. Raises UsageError if there is
        one, DurabilityError."""
        if path.exists():
            raise UsageError("there is a log guard already", got=str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        guard = cls(path, origin, 0, EMPTY_ROOT)
        guard._write(0, EMPTY_ROOT)
        return guard

    @classmethod
    def open(cls, path: Path, origin: str) -> LogGuard:
        """Raises UsageError if it is missing, InvalidInputError if it is damaged or another
        log's."""
        data = read_small(path, "log guard", GUARD_BYTES_MAX)
        fields = codec.read_array(codec.decode(data, bytes_max=GUARD_BYTES_MAX), 4, "log guard")
        if fields[:2] != [TAG, origin]:
            raise InvalidInputError(
                "log guard is of another log", expected=f"{TAG} {origin}", got=str(fields[:2])[:80]
            )
        size = codec.read_int(fields[2], "log guard's size")
        return cls(path, origin, size, codec.read_bytes(fields[3], "root", length=HASH_BYTES))

    def advance(self, size: int, root: bytes) -> None:
        """Let (size, root) be signed, durably. Raises ContradictionError, DurabilityError."""
        if size < self.size or (size == self.size and root != self.root):
            raise ContradictionError(
                "the log contradicts what this node signed",
                expected=f"size {self.size} with root {self.root.hex()}, or larger",
                got=f"size {size} with root {root.hex()}",
            )
        if size != self.size:
            self._write(size, root)
            self.size, self.root = size, root

    def _write(self, size: int, root: bytes) -> None:
        replace_file(self._path, codec.encode([TAG, self._origin, size, root]), 0o600)


def create_log_signer(home: Path, chain_id: str, passphrase: str | None) -> None:
    """The log key and its guard in a home that has neither. Raises UsageError, DurabilityError."""
    # The guard first: a key without one would never sign.
    LogGuard.create(home / cfg.LOG_GUARD_FILE, compute_origin(chain_id))
    save_key(home / cfg.LOG_KEY_FILE, generate_key(), passphrase)


def open_log_signer(
    home: Path, chain_id: str, passphrase: str | None
) -> tuple[KeyPair, LogGuard | None, str]:
    """The log key, its guard, and why there is none. A home from before log keys gets both: it has
    never signed. Raises UsageError for a key file that can not be read, DurabilityError."""
    key_path, guard_path = home / cfg.LOG_KEY_FILE, home / cfg.LOG_GUARD_FILE
    if not key_path.exists() and not guard_path.exists():
        create_log_signer(home, chain_id, passphrase)
    if not key_path.exists():  # cut short when it was made, or taken away: a new key binds nobody
        save_key(key_path, generate_key(), passphrase)
    key = load_key(key_path, passphrase)
    try:
        return key, LogGuard.open(guard_path, compute_origin(chain_id)), ""
    except (UsageError, InvalidInputError) as error:
        return key, None, f"no checkpoints are signed: {error}. Put the guard back from this disk"
