"""`zynk keys`, and what a person may type where an account is wanted."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ledger.accounts import encode_account_id
from ledger.errors import UsageError
from node.cli_keys import keys, read_account_text
from node.keys import load_key


def run(*args: str | Path, passphrase: str | None = None, typed: str | None = None) -> Result:
    env = {"ZYNK_PASSPHRASE": passphrase}
    return CliRunner().invoke(keys, [str(arg) for arg in args], env=env, input=typed)


def test_a_new_key_file_is_private_and_shown_in_json(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key.json"
    result = run("new", path, "--json")
    assert result.exit_code == 0
    shown = json.loads(result.stdout.splitlines()[-1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert shown["account"] == encode_account_id(load_key(path).public_key)
    assert shown["encrypted"] is False


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    run("new", path)
    before = path.read_bytes()
    assert isinstance(run("new", path).exception, UsageError)
    assert path.read_bytes() == before


def test_the_secret_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    run("new", path)
    seed = load_key(path).seed.hex()
    for command in ("show", "address"):
        result = run(command, path)
        assert result.exit_code == 0
        assert seed not in result.output


@pytest.mark.slow
def test_encrypt_and_decrypt_keep_the_key(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    run("new", path)
    key = load_key(path)
    assert run("encrypt", path, passphrase="one").exit_code == 0
    assert load_key(path, "one").seed == key.seed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.seed.hex() not in path.read_text()
    assert isinstance(run("decrypt", path, passphrase="two").exception, UsageError)
    assert load_key(path, "one").seed == key.seed
    assert run("decrypt", path, passphrase="one").exit_code == 0
    assert load_key(path).seed == key.seed
    assert os.listdir(tmp_path) == ["key.json"]


def test_encrypting_twice_and_decrypting_a_plain_key_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    run("new", path)
    assert isinstance(run("decrypt", path).exception, UsageError)


@pytest.mark.slow
def test_a_passphrase_is_asked_for_twice(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    assert run("new", path, "--encrypt", typed="one\none\n").exit_code == 0
    assert isinstance(run("encrypt", path).exception, UsageError)
    assert load_key(path, "one").public_key == read_account_text(str(path))


def test_without_a_terminal_a_missing_passphrase_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    result = run("new", path, "--encrypt", typed="")
    assert isinstance(result.exception, UsageError)
    assert not path.exists()


def test_an_account_is_multikey_hex_or_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    run("new", path)
    public_key = load_key(path).public_key
    for text in (str(path), public_key.hex(), encode_account_id(public_key)):
        assert read_account_text(text) == public_key


@pytest.mark.parametrize("text", ["", "nobody", "z6Mkfoo", "g" * 64, "/nowhere/key.json", "a\0b"])
def test_anything_else_for_an_account_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        read_account_text(text)
