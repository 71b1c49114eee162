"""`zynk devnet`, `zynk demo`: whole networks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from ledger.errors import ZynkError
from node.cli_output import console, json_option, run_async
from node.demo import Demo, DemoReport
from node.devnet import Devnet


@click.command()
@click.option("--validators", default=4, show_default=True, type=click.IntRange(1, 16))
@click.option("--folder", type=click.Path(path_type=Path), help="Where homes are made.")
@json_option
def devnet(validators: int, folder: Path | None, as_json: bool) -> None:
    """Start a local network and keep it running until Ctrl-C."""
    run_async(_run_devnet(validators, folder, as_json))


@click.command()
@click.option("--exit", "exit_after", is_flag=True, help="Stop the network after the checks.")
@click.option(
    "--file",
    "path",
    envvar="FILE",
    type=click.Path(path_type=Path),
    help="The file to anchor (default: README.md, or FILE).",
)
@click.option("--folder", type=click.Path(path_type=Path), help="Where homes are made.")
@json_option
def demo(exit_after: bool, path: Path | None, folder: Path | None, as_json: bool) -> None:
    """Four validators, a DID, an anchored file: each step checked, in one command."""
    run_async(_run_demo(exit_after, path, folder, as_json))


async def _run_devnet(validators: int, folder: Path | None, as_json: bool) -> None:
    network = Devnet.create(
        folder or _new_folder(), validators=validators, prefer_default_ports=True
    )
    stop = _stop_event()
    try:
        await network.start()
        await network.wait_height(1)
        data = _network_json(network)
        if as_json:
            click.echo(json.dumps(data))
        else:
            _print_nodes(network)
            console.print(f"\nhomes in {network.folder}; Ctrl-C stops every process")
        await stop.wait()
    finally:
        await network.stop()


async def _run_demo(
    exit_after: bool, path: Path | None, folder: Path | None, as_json: bool
) -> None:
    path = path or Path("README.md")
    stop = _stop_event()
    began = time.perf_counter()
    network = Devnet.create(folder or _new_folder(), prefer_default_ports=True)
    try:
        with console.status("starting four validators") as spinner:
            await network.start()
            start_s = time.perf_counter() - began
            tour = Demo(network, lambda text: spinner.update(text))
            work = asyncio.ensure_future(tour.run(path))
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                raise click.Abort
            stopped.cancel()
            try:
                report = work.result()
            except ZynkError:
                console.print(f"homes and logs stay in {network.folder}")
                raise
        report.data["start_s"] = round(start_s, 2)
        if as_json:
            click.echo(json.dumps({**report.data, **_network_json(network)}))
        else:
            _print_report(network, report)
        if not exit_after:
            if not as_json:
                _print_next(network, report, path)
                console.print("\nThe network keeps running; Ctrl-C stops every process.")
            await stop.wait()
    finally:
        codes = await network.stop()
    if exit_after and any(codes):
        raise click.ClickException(f"a validator did not stop cleanly: exit codes {codes}")
    if exit_after:
        if folder is None:
            network.remove()
        if not as_json:
            console.print("\nAll steps held; the network is stopped.")


def _print_report(network: Devnet, report: DemoReport) -> None:
    table = Table("step", "what was seen", "ms", box=None, pad_edge=False, header_style="dim")
    table.columns[1].overflow = "fold"
    for name, seen, took_ms in report.steps:
        table.add_row(f"[green]ok[/green]  {name}", seen, f"{took_ms:.0f}")
    console.print(table)
    console.print()
    _print_nodes(network)


def _print_next(network: Devnet, report: DemoReport, path: Path) -> None:
    url, home = network.nodes[0].url, network.nodes[0].home
    zynk = sys.argv[0] if Path(sys.argv[0]).name == "zynk" else "zynk"
    console.print("\nTry next, in another terminal:")
    for line in (
        f"{zynk} status --rpc {url}",
        f"{zynk} did resolve {report.data['did']} --rpc {url} > answer.json",
        f"{zynk} did verify answer.json --trust {home / 'genesis.json'}",
        f"{zynk} audit verify {path} --receipt {report.data['receipt']}"
        f" --trust {home / 'genesis.json'}",
        f"{zynk} bench finality --rpc {url} --key {home / 'keys/faucet.json'}",
    ):
        console.print(f"  {line}")


def _print_nodes(network: Devnet) -> None:
    table = Table("validator", "RPC", "home", box=None, pad_edge=False, header_style="dim")
    for node in network.nodes:
        table.add_row(f"validator-{node.index}", node.url, str(node.home))
    console.print(table)


def _network_json(network: Devnet) -> dict[str, Any]:
    return {
        "chain_id": network.chain_id,
        "folder": str(network.folder),
        "nodes": [
            {"rpc": node.url, "home": str(node.home), "pid": node.process and node.process.pid}
            for node in network.nodes
        ],
    }


def _new_folder() -> Path:
    base = Path(os.environ.get("ZYNK_DEVNET_FOLDER", tempfile.gettempdir()))
    base.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="zynk-devnet-", dir=base))


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    return stop
