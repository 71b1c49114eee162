"""Key files: JSON, mode 0600, encrypted with a passphrase on request.

Plain:      {"version": 1, "kind": "ed25519", "public_key": hex, "seed": hex}
Encrypted:  {"version": 1, "kind": "ed25519", "public_key": hex,
             "encrypted": {"kdf": "argon2id", "opslimit": n, "memlimit_bytes": n,
                           "salt": hex, "box": hex}}
The box is libsodium's secretbox (XSalsa20-Poly1305) of the seed under argon2id(passphrase, salt).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nacl.exceptions
import nacl.pwhash.argon2id as argon2id
import nacl.secret
import nacl.utils

from ledger.ed25519 import KeyPair
from ledger.errors import DurabilityError, InvalidInputError, UsageError

KEY_FILE_BYTES_MAX = 16 * 1024
OPSLIMIT_MAX = 16
MEMLIMIT_BYTES_MAX = 1024 * 1024 * 1024


def generate_key() -> KeyPair:
    """A new key from the operating system's randomness."""
    return KeyPair.from_seed(os.urandom(32))


def save_key(path: Path, key: KeyPair, passphrase: str | None = None) -> None:
    """Write a new key file, synced. Raises UsageError if the file exists."""
    _write_new(path, key_document(key, passphrase))


def key_document(key: KeyPair, passphrase: str | None) -> str:
    """A key file's text."""
    document: dict[str, Any] = {
        "version": 1,
        "kind": "ed25519",
        "public_key": key.public_key.hex(),
    }
    if passphrase:
        document["encrypted"] = _encrypt(key.seed, passphrase)
    else:
        document["seed"] = key.seed.hex()
    return json.dumps(document, indent=2)


def import_key(path: Path, text: str) -> bytes:
    """Write a key file's text to a new file, as it is. Returns its public key. Raises UsageError
    if the file exists, InvalidInputError for what is no key file."""
    document = _parse(text, "the imported key")
    _write_new(path, json.dumps(document, indent=2))
    return read_public_key(path)


def _write_new(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise UsageError(
            "key file exists and is never overwritten", expected="a new path", got=str(path)
        ) from error
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DurabilityError("key file could not be written", got=str(error)) from error


def is_encrypted(path: Path) -> bool:
    """True if the key file needs a passphrase. Raises InvalidInputError for a bad file."""
    return "encrypted" in _read(path)


def read_public_key(path: Path) -> bytes:
    """The public key (32 B) a key file names; no passphrase needed, and none checked. Raises
    UsageError or InvalidInputError as `load_key`."""
    try:
        public_key = bytes.fromhex(_read(path)["public_key"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError("not a key file", got=f"{path}: {error!r}") from error
    if len(public_key) != 32:
        raise InvalidInputError("not a key file", expected="32 bytes of public key", got=str(path))
    return public_key


def load_key(path: Path, passphrase: str | None = None) -> KeyPair:
    """Read a key file. Raises UsageError (missing, passphrase needed or wrong, mode too open) or
    InvalidInputError (not a key file)."""
    document = _read(path)
    try:
        if "encrypted" in document:
            if not passphrase:
                raise UsageError(
                    "key file is encrypted",
                    expected="a passphrase (ZYNK_PASSPHRASE or the prompt)",
                    got=f"none for {path}",
                )
            seed = _decrypt(document["encrypted"], passphrase)
        else:
            seed = bytes.fromhex(document["seed"])
        key = KeyPair.from_seed(seed)
        if key.public_key.hex() != document["public_key"]:
            raise InvalidInputError("key file is damaged", expected=document["public_key"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError("not a key file", got=f"{path}: {error!r}") from error
    return key


def _read(path: Path) -> dict[str, Any]:
    try:
        status = path.stat()
        if status.st_mode & 0o077:
            raise UsageError(
                "key file is readable by others",
                expected=f"mode 0600 (chmod 600 {path})",
                got=oct(status.st_mode & 0o777),
            )
        if status.st_size > KEY_FILE_BYTES_MAX:
            raise InvalidInputError("not a key file", got=f"{status.st_size} bytes")
        text = path.read_text()
    except FileNotFoundError as error:
        raise UsageError("no such key file", got=str(path)) from error
    except OSError as error:
        raise UsageError("key file can not be read", got=f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInputError("not a key file", got=f"{path}: {error}") from error
    return _parse(text, str(path))


def _parse(text: str, what: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("not a key file", got=f"{what}: {error}") from error
    if not isinstance(document, dict) or document.get("version") != 1:
        raise InvalidInputError("not a key file", expected='"version": 1', got=what)
    public_key, secret = document.get("public_key"), document.get("seed")
    is_whole = isinstance(document.get("encrypted"), dict) or isinstance(secret, str)
    if not isinstance(public_key, str) or not is_whole:
        raise InvalidInputError("not a key file", expected="public_key and a secret", got=what)
    return document


def _encrypt(seed: bytes, passphrase: str) -> dict[str, Any]:
    salt = nacl.utils.random(argon2id.SALTBYTES)
    opslimit, memlimit = argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE
    secret = argon2id.kdf(32, passphrase.encode(), salt, opslimit, memlimit)
    return {
        "kdf": "argon2id",
        "opslimit": opslimit,
        "memlimit_bytes": memlimit,
        "salt": salt.hex(),
        "box": bytes(nacl.secret.SecretBox(secret).encrypt(seed)).hex(),
    }


def _decrypt(box: dict[str, Any], passphrase: str) -> bytes:
    if box["kdf"] != "argon2id":
        raise InvalidInputError("key derivation is unknown", expected="argon2id", got=box["kdf"])
    opslimit, memlimit = int(box["opslimit"]), int(box["memlimit_bytes"])
    if not (1 <= opslimit <= OPSLIMIT_MAX and 8192 <= memlimit <= MEMLIMIT_BYTES_MAX):
        raise InvalidInputError("key derivation cost is out of range")
    secret = argon2id.kdf(32, passphrase.encode(), bytes.fromhex(box["salt"]), opslimit, memlimit)
    try:
        return bytes(nacl.secret.SecretBox(secret).decrypt(bytes.fromhex(box["box"])))
    except nacl.exceptions.CryptoError as error:
        raise UsageError("passphrase is wrong, or the key file is damaged") from error
