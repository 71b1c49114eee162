"""The ceremony: operators who do not trust each other begin a network, command by command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genesis.document import GenesisDocument
from ledger.errors import InvalidInputError
from ledger.store import MemoryStore
from node.cli import cli
from node.handlers import open_chain

BOND = 5_000_000
OPERATORS = ("ada", "ben", "eve")


def zynk(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def done(*args: object) -> dict[str, Any]:
    """Run with --json; it must succeed."""
    result = zynk(*args, "--json")
    assert result.exit_code == 0, (args, result.output, result.exception)
    found: dict[str, Any] = json.loads(result.output.splitlines()[-1])
    return found


def refusal(*args: object) -> str:
    """What the command says; it must fail."""
    result = zynk(*args)
    assert result.exit_code != 0 or result.exception, args
    return f"{result.output} {result.exception}"


def draft_of(folder: Path, *names: str) -> Path:
    """A draft with an account for each operator, whose keys and homes are made."""
    path = folder / "genesis.json"
    done("genesis", "init", path, "--chain-id", "ceremony-1", "--time-ms", 7)
    for name in names:
        key = folder / f"{name}.json"
        done("keys", "new", key)
        done("genesis", "add-account", path, key, "--balance", 2 * BOND)
    for name in names:
        done("init", "--home", folder / name, "--genesis", path)
    return path


def gentx(folder: Path, path: Path, name: str, *more: object) -> Path:
    out = folder / f"{name}.gentx"
    key = ("--key", folder / f"{name}.json", "--home", folder / name)
    done("genesis", "gentx", path, *key, "--name", name, "--bond", BOND, "--out", out, *more)
    return out


def test_operators_begin_a_network_and_all_compute_the_same_hash(tmp_path: Path) -> None:
    path = draft_of(tmp_path, *OPERATORS)
    entries = [gentx(tmp_path, path, name, "--commission", 7) for name in OPERATORS]
    other = tmp_path / "other.json"
    other.write_bytes(path.read_bytes())
    one = done("genesis", "collect", path, *entries)
    done("genesis", "collect", other, entries[2], entries[0])
    two = done("genesis", "collect", other, entries[1])
    assert one["genesis_hash"] == two["genesis_hash"]
    assert path.read_bytes() == other.read_bytes()
    for name in OPERATORS:
        used = done("genesis", "use", other, "--home", tmp_path / name)
        assert used["genesis_hash"] == one["genesis_hash"]
    assert done("genesis", "validate", path)["genesis_hash"] == one["genesis_hash"]
    state = GenesisDocument.parse(path.read_bytes()).to_state()
    assert [v.power for v in state.validators.validators] == [BOND // 10**6] * 3
    assert state.supply == 3 * 2 * BOND, "a bond is part of its operator's balance"
    assert open_chain(MemoryStore(), state).height == 0


def test_each_defect_of_a_ceremony_is_named(tmp_path: Path) -> None:
    path = draft_of(tmp_path, "ada", "ben")
    ada = gentx(tmp_path, path, "ada")
    before = path.read_bytes()
    assert "already" in refusal(
        "genesis", "add-account", path, tmp_path / "ada.json", "--balance", 1
    )
    assert "exists" in refusal("genesis", "init", path, "--chain-id", "x")
    assert "exists" in refusal(
        "genesis", "gentx", path, "--key", tmp_path / "ada.json", "--home", tmp_path / "ada",
        "--name", "a", "--bond", BOND, "--out", ada,
    )  # fmt: skip
    assert "validators is empty" in refusal("genesis", "validate", path)
    altered = tmp_path / "altered.gentx"
    for field, value, says in (
        ("bond", str(BOND + 1), "signatures.operator"),
        ("name", "eve", "signatures.operator"),
        ("vrf_key", json.loads(ada.read_text())["cosign_key"], "signatures.operator"),
        ("commission_ppm", -1, "commission_ppm"),
        ("extra", 1, "extra"),
    ):
        altered.write_text(json.dumps({**json.loads(ada.read_text()), field: value}))
        said = refusal("genesis", "collect", path, altered)
        assert says in said, (field, said)
        assert "altered.gentx" in said
    rich = gentx_of_too_much(tmp_path, path)
    assert "bond" in refusal("genesis", "collect", path, rich)
    assert path.read_bytes() == before, "what is refused changes nothing"
    done("genesis", "collect", path, ada)
    assert "already" in refusal("genesis", "collect", path, ada)
    foreign = tmp_path / "foreign.json"
    done("genesis", "init", foreign, "--chain-id", "other-1")
    assert "signatures.operator" in refusal("genesis", "collect", foreign, ada)
    assert "validators is empty" in refusal("genesis", "use", foreign, "--home", tmp_path / "ben")


def gentx_of_too_much(folder: Path, path: Path) -> Path:
    out = folder / "rich.gentx"
    key = ("--key", folder / "ben.json", "--home", folder / "ben")
    done("genesis", "gentx", path, *key, "--name", "b", "--bond", 3 * BOND, "--out", out)
    return out


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("no_such=1", "no such parameter"),
        ("fee_base=x", "an integer"),
        ("fee_base=-1", "out of range"),
        ("evidence_window_ms=1814400000", "less than unbonding_ms"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, setting: str, says: str) -> None:
    path = tmp_path / "genesis.json"
    assert says in refusal("genesis", "init", path, "--chain-id", "x", "--param", setting)
    assert not path.exists()


def test_a_home_of_another_chain_or_with_a_history_is_left_alone(tmp_path: Path) -> None:
    path = draft_of(tmp_path, "ada")
    done("genesis", "collect", path, gentx(tmp_path, path, "ada"))
    before = (tmp_path / "ada" / "genesis.json").read_bytes()
    other = json.loads(path.read_text())
    other["chain_id"] = "other-1"
    foreign = tmp_path / "foreign.json"
    foreign.write_text(json.dumps(other))
    with pytest.raises(InvalidInputError, match="signatures"):
        GenesisDocument.parse(foreign.read_bytes())
    assert refusal("genesis", "use", foreign, "--home", tmp_path / "ada")
    (tmp_path / "ada" / "data").mkdir()
    assert "has run already" in refusal("genesis", "use", path, "--home", tmp_path / "ada")
    assert (tmp_path / "ada" / "genesis.json").read_bytes() == before
