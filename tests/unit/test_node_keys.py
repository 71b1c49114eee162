"""Key files: never overwritten, never readable by others, never decrypted by a wrong passphrase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ledger.errors import InvalidInputError, UsageError
from node.keys import generate_key, is_encrypted, load_key, save_key


def test_a_plain_key_file_reads_back_and_is_private(tmp_path: Path) -> None:
    key = generate_key()
    path = tmp_path / "k.json"
    save_key(path, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not is_encrypted(path)
    assert load_key(path) == key


@pytest.mark.slow
def test_an_encrypted_key_file_needs_its_passphrase(tmp_path: Path) -> None:
    key = generate_key()
    path = tmp_path / "k.json"
    save_key(path, key, "correct horse")
    assert is_encrypted(path)
    assert key.seed.hex() not in path.read_text()
    assert load_key(path, "correct horse") == key
    with pytest.raises(UsageError, match="encrypted"):
        load_key(path)
    with pytest.raises(UsageError, match="wrong"):
        load_key(path, "battery staple")


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    save_key(path, generate_key())
    before = path.read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        save_key(path, generate_key())
    assert path.read_bytes() == before


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    save_key(path, generate_key())
    path.chmod(0o644)
    with pytest.raises(UsageError, match="0600"):
        load_key(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "nul", '{"version": 1}', "[" * 10_000])
def test_what_is_no_key_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "k.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(InvalidInputError):
        load_key(path)


def test_a_key_file_whose_parts_disagree_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    save_key(path, generate_key())
    document = json.loads(path.read_text())
    document["public_key"] = "00" * 32
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidInputError, match="damaged"):
        load_key(path)
