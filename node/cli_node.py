"""`zynk init`, `start`, `status`, `inspect`, `guard`: one node."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from genesis.document import GenesisDocument
from ledger.errors import UsageError
from ledger.staking_invariants import check_staking
from ledger.state.check import check_state
from ledger.store import LevelStore
from node import config as cfg
from node.cli_fork import inspect_fork
from node.cli_output import json_option, rpc_option, run_async, show
from node.config import NodeConfig, load_config
from node.daemon import STORE_FOLDER, run_node
from node.handlers import open_chain
from node.home import create_guard, create_home
from node.key_options import ask_passphrase, home_option
from node.keys import generate_key, load_key
from node.log import configure_logging
from rpc.client import RpcClient


@click.command()
@home_option
@click.option("--moniker", default="node", show_default=True, help="A name for people.")
@click.option(
    "--genesis",
    "genesis_path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The network's genesis file.",
)
@click.option("--peer", "peers", multiple=True, help="A peer's multiaddr with /p2p/<peer id>.")
@click.option("--encrypt", is_flag=True, help="Encrypt the keys with a passphrase.")
@json_option
def init(
    home: Path,
    moniker: str,
    genesis_path: Path,
    peers: tuple[str, ...],
    encrypt: bool,
    as_json: bool,
) -> None:
    """Make a home: keys, sign guard, configuration. A draft of a genesis will do; put the final
    one in with `zynk genesis use`."""
    document = GenesisDocument.parse_draft(genesis_path.read_bytes())
    passphrase = None
    if encrypt:
        passphrase = os.environ.get("ZYNK_PASSPHRASE") or click.prompt(
            "Passphrase", hide_input=True, confirmation_prompt=True
        )
    validator, anchor = generate_key(), generate_key()
    config = NodeConfig(home=home, moniker=moniker, p2p=cfg.P2PSettings(peers=peers))
    create_home(
        config,
        document,
        validator_key=validator,
        vrf_key=generate_key(),
        cosign_key=generate_key(),
        p2p_key=generate_key(),
        anchor_key=anchor,
        passphrase=passphrase,
    )
    data = {
        "home": str(home),
        "chain_id": document.chain_id,
        "validator_key": validator.public_key.hex(),
        "anchor_account": anchor.public_key.hex(),
    }
    show(as_json, data, [*data.items(), ("next", f"zynk start --home {home}")])


@click.command()
@home_option
@json_option
def start(home: Path, as_json: bool) -> None:
    """Run a node until Ctrl-C or SIGTERM.

    With --json the object says where it listens, once it does, and the log is JSON lines on
    standard error.
    """
    config = load_config(home)
    configure_logging(replace(config.log, format="json") if as_json else config.log)
    passphrase = ask_passphrase(
        *(home / name for name in (cfg.VALIDATOR_KEY_FILE, cfg.P2P_KEY_FILE, cfg.ANCHOR_KEY_FILE))
    )
    on_ready = (lambda info: click.echo(json.dumps(info))) if as_json else None
    run_async(run_node(config, passphrase=passphrase, on_ready=on_ready))


@click.command()
@rpc_option
@json_option
def status(rpc_url: str, as_json: bool) -> None:
    """What a node is doing, how far it is, and why it does not vote if it does not."""

    async def ask() -> dict[str, Any]:
        async with RpcClient(rpc_url) as client:
            answer: dict[str, Any] = await client.call("node_status")
            return answer

    found = run_async(ask())
    age_s = max(0.0, time.time() - found["time_ms"] / 1000)
    sync, validator = found["sync"], found["validator"]
    rows: list[tuple[str, object]] = [
        ("node", f"{found['moniker']} (version {found['version']}), up {found['uptime_s']} s"),
        ("chain", found["chain_id"]),
        ("height", f"{found['height']} (block time {age_s:.1f} s ago)"),
        ("ready", "yes" if found["ready"] else "no: " + "; ".join(found["reasons"])),
        ("voting", "yes" if validator["voting"] else f"no: {validator['reason']}"),
        ("peers", found["peers"]),
        ("mempool", f"{found['mempool']['count']} txs, {found['mempool']['bytes']} bytes"),
    ]
    if sync["syncing"]:
        left = sync["target_height"] - found["height"]
        rows.insert(3, ("sync", f"{left} blocks to go at {sync['blocks_per_s']} blocks/s"))
    show(as_json, found, rows)


@click.group(invoke_without_command=True)
@home_option
@json_option
@click.pass_context
def inspect(context: click.Context, home: Path, as_json: bool) -> None:
    """Check the store of a stopped node: heights, roots, supply, stakes, the whole state tree."""
    if context.invoked_subcommand is not None:
        return
    config = load_config(home)
    document = GenesisDocument.parse((config.home / cfg.GENESIS_FILE).read_bytes())
    store = LevelStore.open(home / cfg.DATA_FOLDER / STORE_FOLDER)
    try:
        chain = open_chain(store, document.to_state())
        report = check_staking(chain.tree)
        check_state(store)
        data = {
            "chain_id": chain.chain_id,
            "height": chain.height,
            "block_hash": chain.head_hash.hex(),
            "state_root": chain.tree.root.hex(),
            "store_bytes": store.size_bytes(),
            **{name: str(amount) for name, amount in dataclasses.asdict(report).items()},
            "checks": ["state root", "whole state tree", "supply", "stakes"],
        }
    finally:
        store.close()
    show(as_json, data, list(data.items()))


inspect.add_command(inspect_fork)


@click.group()
def guard() -> None:
    """The sign guard: what this validator has signed."""


@guard.command("create")
@home_option
@click.option(
    "--floor",
    type=click.IntRange(1, 2**53 - 1),
    help="Sign nothing up to this height: at or above all that the key may have signed.",
)
@click.option(
    "--i-know-this-key-signed-nothing",
    "is_sure",
    is_flag=True,
    help="Instead of --floor, for a key that has never voted.",
)
@json_option
def guard_create(home: Path, floor: int | None, is_sure: bool, as_json: bool) -> None:
    """Make a guard where there is none."""
    if is_sure == (floor is not None):
        raise UsageError(
            "a new guard forgets what the key has signed, and signing twice is slashed",
            expected="--floor HEIGHT, at or above every height that the key may have signed (or, "
            "for a new key, --i-know-this-key-signed-nothing)",
            got="both" if is_sure else "neither",
        )
    load_config(home)
    document = GenesisDocument.parse((home / cfg.GENESIS_FILE).read_bytes())
    path = home / cfg.VALIDATOR_KEY_FILE
    key = load_key(path, ask_passphrase(path))
    create_guard(home, document.chain_id, key.public_key, floor or 0)
    data = {"guard": str(home / cfg.GUARD_FILE), "floor_height": floor or 0}
    show(as_json, data, [("guard", data["guard"]), ("signs above height", floor or 0)])
