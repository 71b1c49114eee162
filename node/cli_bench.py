"""`zynk bench finality|throughput|resolve`: load on a running network."""

from __future__ import annotations

import platform
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from ledger.errors import UsageError
from node.bench import Network, measure_finality, measure_throughput
from node.bench_resolve import Target, measure_resolve
from node.cli_output import json_option, rpc_option, run_async, show
from node.cli_trust import load_trust, trust_option
from node.key_options import ask_passphrase
from node.keys import load_key

urls_option = click.option(
    "--rpc",
    "urls",
    multiple=True,
    envvar="ZYNK_RPC",
    default=["http://127.0.0.1:26657"],
    show_default=True,
    help="A node's RPC address; once for each node to use.",
)
key_option = click.option(
    "--key",
    "key_path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Key file of a funded account (a devnet's node0/keys/faucet.json).",
)


@click.group()
def bench() -> None:
    """Measure a running network as a client sees it."""


@bench.command()
@urls_option
@key_option
@click.option("--rate", default=20.0, show_default=True, type=click.FloatRange(0.1, 5000))
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(1, 3600))
@json_option
def finality(
    urls: tuple[str, ...], key_path: Path, rate: float, seconds: float, as_json: bool
) -> None:
    """Milliseconds from submission to finality at a steady rate (txs a second)."""
    network = _network(urls, key_path)
    result = _run(
        f"{rate:g} tx/s for {seconds:g} s",
        as_json,
        lambda progress: measure_finality(
            network, rate_tx_s=rate, seconds=seconds, progress=progress
        ),
    )
    show(as_json, {"finality": result, "machine": machine()}, list(result.items()))


@bench.command()
@urls_option
@key_option
@click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(1, 3600))
@click.option("--payload-bytes", default=300, show_default=True, type=click.IntRange(0, 1024))
@click.option("--accounts", default=1000, show_default=True, type=click.IntRange(4, 100_000))
@json_option
def throughput(
    urls: tuple[str, ...],
    key_path: Path,
    seconds: float,
    payload_bytes: int,
    accounts: int,
    as_json: bool,
) -> None:
    """Signed transfers a second that are final on all given nodes."""
    network = _network(urls, key_path)
    result = _run(
        f"full load for {seconds:g} s",
        as_json,
        lambda progress: measure_throughput(
            network,
            seconds=seconds,
            payload_bytes=payload_bytes,
            accounts=accounts,
            progress=progress,
        ),
    )
    show(as_json, {"throughput": result, "machine": machine()}, list(result.items()))


@bench.command()
@rpc_option
@trust_option(required=True)
@click.option(
    "--dids",
    "dids_path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of the DIDs to ask for, one a line.",
)
@click.option("--seconds", default=15.0, show_default=True, type=click.FloatRange(1, 3600))
@json_option
def resolve(rpc_url: str, trust_path: Path, dids_path: Path, seconds: float, as_json: bool) -> None:
    """DID resolves a second over HTTP, plain and with proof, and the latency at half of that."""
    trust = load_trust(trust_path, rpc_url)
    dids = dids_path.read_text().split()
    if not dids:
        raise UsageError("no DID to ask for", expected="one a line", got=str(dids_path))
    trusted = trust.point.validators
    target = Target(url=rpc_url, dids=dids, chain_id=trust.chain_id, trusted=trusted)
    result = _run(
        f"three loads of {seconds:g} s",
        as_json,
        lambda progress: measure_resolve(target, seconds=seconds, progress=progress),
    )
    show(as_json, {"resolve": result, "machine": machine()}, list(result.items()))


def machine() -> str:
    """The machine in one line, for whoever reads a figure."""
    model, cores = platform.processor() or platform.machine(), 0
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                cores += 1
    except OSError:
        pass
    return f"{model}, {cores} cores, Python {platform.python_version()}, {platform.system()}"


def _network(urls: tuple[str, ...], key_path: Path) -> Network:
    return Network(urls=urls, key=load_key(key_path, ask_passphrase(key_path)))


def _run(
    title: str,
    as_json: bool,
    work: Callable[[Callable[[float], None]], Coroutine[Any, Any, dict[str, Any]]],
) -> dict[str, Any]:
    if as_json:
        return run_async(work(lambda share: None))
    terminal = Console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as bars:
        task = bars.add_task(title, total=1.0)
        return run_async(work(lambda share: bars.update(task, completed=share)))
