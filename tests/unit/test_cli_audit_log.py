"""`zynk audit checkpoint` and `zynk audit fsck`: what they say, and how they exit."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from audit.checkpoint import log_note_key
from audit.tree_store import entry_key
from genesis.document import GenesisDocument
from ledger.ed25519 import KeyPair
from ledger.errors import DamagedStoreError, InvalidInputError, UsageError
from ledger.store import Batch, LevelStore
from node import config as cfg
from node.api_log import checkpoint_json
from node.cli_audit import audit
from node.config import NodeConfig
from node.handlers import open_chain
from node.home import create_network_homes
from tests.unit.chain_fixture import CHAIN_ID, NETWORK
from tests.unit.cosigning_world import CosigningWorld
from tests.unit.little_witness import LittleWitness
from tests.unit.virtual_time import run_virtual


def run(*arguments: str) -> Result:
    return CliRunner().invoke(audit, list(arguments))


def answer_of(folder: Path, names: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def body() -> None:
        world = CosigningWorld(folder)
        node = world.start(names)[0]
        world.commit(3)
        await asyncio.sleep(2)
        proof = node.chain.finality(node.chain.height)
        found.append(checkpoint_json(node.chain, node.cosigning, proof, 0))
        await world.stop()

    run_virtual(body())
    return found[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return answer_of(tmp_path_factory.mktemp("whole"), "abcd")


@pytest.fixture
def trust(tmp_path: Path) -> str:
    path = tmp_path / "genesis.json"
    path.write_bytes(NETWORK.document.encode())
    return str(path)


def save(folder: Path, answer: object) -> str:
    path = folder / "answer.json"
    path.write_text(json.dumps(answer))
    return str(path)


def test_checkpoint_says_who_cosigned(tmp_path: Path, whole: dict[str, Any]) -> None:
    result = run("checkpoint", save(tmp_path, whole))
    assert result.exit_code == 0
    assert "4 of 4 validators, power 4000000 of 4000000" in result.output
    assert "checked" in result.output
    assert json.loads(run("checkpoint", save(tmp_path, whole), "--json").output) == whole
    assert run("checkpoint", save(tmp_path, whole), "--note").output == whole["published"]["note"]


def test_checkpoint_verifies_step_by_step(
    tmp_path: Path, trust: str, whole: dict[str, Any]
) -> None:
    path = save(tmp_path, whole)
    key = whole["published"]["log_key"]
    result = run("checkpoint", path, "--verify", "--trust", trust, "--log-key", key)
    assert result.exit_code == 0
    assert result.output.count("ok  ") == 6
    assert (
        "4 of 4 validators cosigned it, with power 4000000 of 4000000: more than" in result.output
    )
    assert result.output.endswith("\nVERIFIED\n")
    told = json.loads(run("checkpoint", path, "--verify", "--trust", trust, "--json").output)
    assert told["verified"] is True
    assert all(step["ok"] for step in told["steps"])


def test_too_few_cosignatures_exit_with_1(tmp_path: Path, trust: str) -> None:
    path = save(tmp_path, answer_of(tmp_path, "ab"))
    assert "no quorum" in run("checkpoint", path).output
    result = run("checkpoint", path, "--verify", "--trust", trust)
    assert result.exit_code == 1
    assert "2 of 4 validators cosigned it, with power 2000000 of 4000000: not 2/3" in result.output
    assert "NOT VERIFIED" in result.output


def test_what_does_not_hold_exits_with_1(tmp_path: Path, trust: str, whole: dict[str, Any]) -> None:
    published = whole["published"]
    other_key = log_note_key(CHAIN_ID, KeyPair.from_seed(b"k" * 32).public_key).vkey
    witness = LittleWitness("w", "o", bytes(32)).vkey
    lie = {**whole, "published": {**published, "note": published["note"].replace("\n3\n", "\n4\n")}}
    for answer, more, reason in (
        (whole, ("--log-key", other_key), "signed with the given log key"),
        (whole, ("--log-key", witness), "signed with the given log key"),
        (whole, ("--witness", witness), "Witness w has not cosigned it"),
        (lie, (), "cosignature is not valid"),
    ):
        result = run("checkpoint", save(tmp_path, answer), "--verify", "--trust", trust, *more)
        assert result.exit_code == 1
        failed = [line for line in result.output.splitlines() if line.startswith("FAILED")]
        assert len(failed) == 1
        assert reason in failed[0]


def test_wrong_use_of_checkpoint_is_told(tmp_path: Path, trust: str, whole: dict[str, Any]) -> None:
    path = save(tmp_path, whole)
    assert isinstance(run("checkpoint", path, "--verify").exception, UsageError)
    bad_key = run("checkpoint", path, "--verify", "--trust", trust, "--log-key", "x")
    assert isinstance(bad_key.exception, UsageError)
    for answer in (7, {}, {"published": None, "reason": "why"}, {**whole, "published": {}}):
        result = run("checkpoint", save(tmp_path, answer))
        assert isinstance(result.exception, InvalidInputError)
    (tmp_path / "answer.json").write_text("{")
    assert isinstance(run("checkpoint", path).exception, InvalidInputError)


# --- fsck ---


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's home with a store of height 0."""
    (found,) = create_network_homes(
        tmp_path,
        validators=1,
        chain_id="zynk-fsck",
        entropy=b"e" * 32,
        genesis_time_ms=1_700_000_000_000,
        config=lambda index, home, seeds: NodeConfig(home=home),
    )
    (found / cfg.CHAIN_FOLDER).parent.mkdir(exist_ok=True)
    store = LevelStore.open(found / cfg.CHAIN_FOLDER)
    open_chain(store, GenesisDocument.parse((found / cfg.GENESIS_FILE).read_bytes()).to_state())
    store.close()
    return found


def test_fsck_of_a_whole_log_says_each_check(home: Path) -> None:
    result = run("fsck", "--home", str(home))
    assert result.exit_code == 0, result.exception
    assert result.output.count("ok  ") == 7
    assert "log of 0 entries" in result.output
    told = json.loads(run("fsck", "--home", str(home), "--json").output)
    assert told["ok"] is True
    assert [check["name"] for check in told["checks"]] == [
        "entries", "tiles", "headers", "frontier", "anchors", "index", "signed",
    ]  # fmt: skip


def test_fsck_of_a_damaged_log_says_what_and_ends_as_a_damaged_store(home: Path) -> None:
    store = LevelStore.open(home / cfg.CHAIN_FOLDER)
    batch = Batch()
    batch.put(entry_key(0), b"an entry that no block has")
    store.write(batch, sync=True)
    store.close()
    result = run("fsck", "--home", str(home))
    assert isinstance(result.exception, DamagedStoreError)  # exit code 4
    assert "FAILED  Entries are there" in result.output
    assert "DAMAGED" in result.output
    told = json.loads(run("fsck", "--home", str(home), "--json").output)
    assert told["ok"] is False


def test_fsck_needs_the_store_of_a_stopped_node(home: Path, tmp_path: Path) -> None:
    store = LevelStore.open(home / cfg.CHAIN_FOLDER)
    try:
        assert isinstance(run("fsck", "--home", str(home)).exception, UsageError)
    finally:
        store.close()
    assert isinstance(run("fsck", "--home", str(tmp_path / "none")).exception, UsageError)
