"""`zynk keys rotate --finish`: the old voting key goes only once the new one is in force."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ledger.ed25519 import KeyPair
from ledger.store import LevelStore
from node import config as cfg
from node.cli import cli
from node.daemon import STORE_FOLDER
from node.guard import GuardFile
from node.handlers import open_chain
from node.home import create_guard
from node.keys import read_public_key, save_key
from tests.unit.chain_fixture import CHAIN_ID, GENESIS, NETWORK, VALIDATOR_KEYS

OLD, IN_FORCE = list(VALIDATOR_KEYS.values())[:2]
UNKNOWN = KeyPair.from_seed(b"n" * 32)


def make_home(home: Path, next_key: KeyPair, *, has_store: bool = True) -> None:
    """A stopped node whose chain is at height 0, with a rotation under way."""
    for name in ("keys", "data"):
        (home / name).mkdir(exist_ok=True)
    (home / cfg.GENESIS_FILE).write_bytes(NETWORK.document.encode())
    save_key(home / cfg.VALIDATOR_KEY_FILE, OLD)
    create_guard(home, CHAIN_ID, OLD.public_key)
    save_key(home / cfg.VALIDATOR_NEXT_KEY_FILE, next_key)
    GuardFile.create(home / cfg.GUARD_NEXT_FILE, CHAIN_ID, next_key.public_key).close()
    if has_store:
        store = LevelStore.open(home / cfg.DATA_FOLDER / STORE_FOLDER)
        open_chain(store, GENESIS)
        store.close()


def finish(home: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["keys", "rotate", "--home", str(home), "--finish", *options])


def files_in(home: Path) -> dict[str, bytes]:
    folders = (home / "keys", home / cfg.GUARD_FILE)
    paths = [p for f in folders for p in (f.iterdir() if f.is_dir() else f.parent.iterdir())]
    return {str(p): p.read_bytes() for p in paths if p.suffix != ".lock"}


@pytest.mark.parametrize("options", [(), ("--height", "1")])
def test_a_key_that_the_chain_does_not_know_takes_no_place(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The operator's word is not believed about a height that the store has."""
    make_home(tmp_path, UNKNOWN)
    before = files_in(tmp_path)
    result = finish(tmp_path, *options)
    assert result.exit_code != 0
    assert files_in(tmp_path) == before


def test_a_key_in_force_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    make_home(tmp_path, IN_FORCE)
    assert finish(tmp_path).exit_code == 0
    assert read_public_key(tmp_path / cfg.VALIDATOR_KEY_FILE) == IN_FORCE.public_key
    assert not (tmp_path / cfg.VALIDATOR_NEXT_KEY_FILE).exists()
    GuardFile.open(tmp_path / cfg.GUARD_FILE, CHAIN_ID, IN_FORCE.public_key).close()


def test_a_call_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    """The guard and the voting key had moved, the VRF key had not."""
    make_home(tmp_path, IN_FORCE)
    assert finish(tmp_path).exit_code == 0
    save_key(tmp_path / cfg.VRF_NEXT_KEY_FILE, UNKNOWN)
    assert finish(tmp_path).exit_code == 0
    assert read_public_key(tmp_path / cfg.VRF_KEY_FILE) == UNKNOWN.public_key


@pytest.mark.parametrize(("has_store", "height"), [(True, "9"), (False, "1")])
def test_a_store_that_has_not_got_there_needs_the_operators_word(
    tmp_path: Path, has_store: bool, height: str
) -> None:
    make_home(tmp_path, UNKNOWN, has_store=has_store)
    before = files_in(tmp_path)
    assert finish(tmp_path).exit_code != 0
    assert files_in(tmp_path) == before
    assert finish(tmp_path, "--height", height).exit_code == 0
    assert read_public_key(tmp_path / cfg.VALIDATOR_KEY_FILE) == UNKNOWN.public_key


def test_a_height_without_finish_is_misuse(tmp_path: Path) -> None:
    options = ["keys", "rotate", "--home", str(tmp_path), "--height", "5"]
    assert CliRunner().invoke(cli, options).exit_code != 0
