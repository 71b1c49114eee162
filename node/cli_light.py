"""`zynk light`: a verified head from any endpoints, and a local JSON-RPC that can be believed."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from ledger.errors import UsageError
from ledger.light import Verdict
from node.cli_output import json_option, run_async
from node.cli_trust import EXIT_BY_VERDICT, follow_options
from node.config import LogSettings
from node.light_api import LightApi
from node.light_ask import Asker
from node.light_follow import Follower
from node.light_source import Endpoint
from node.light_trust import TrustRoot, load_trust_root
from node.log import configure_logging
from rpc.config import RpcConfig
from rpc.server import RpcServer

WITNESSES_MAX = 16
PERIOD_CHECK_S = 600.0
"""Between looks at the chain's unbonding time, which a vote can change."""


@click.command()
@follow_options(home=Path.home() / ".zynk-light", keeps="the verified head is", interval_s=2.0)
@click.option("--primary", required=True, help="The endpoint that is asked first.")
@click.option("--witness", "witnesses", multiple=True, help="An endpoint to compare with; repeat.")
@click.option("--listen", default="", help="HOST:PORT of a local JSON-RPC; port 0: any free one.")
@click.option(
    "--once",
    is_flag=True,
    help="One round, then exit: 0 only if the head is verified, else as its verdict.",
)
@json_option
def light(
    trust_path: Path,
    primary: str,
    witnesses: tuple[str, ...],
    home: Path,
    listen: str,
    interval: float,
    max_age: int,
    trusting_period: int | None,
    once: bool,
    as_json: bool,
) -> int:
    """Follow a chain without believing any node, and serve what was verified."""
    if len(witnesses) > WITNESSES_MAX or len({primary, *witnesses}) != len(witnesses) + 1:
        raise UsageError(f"expected at most {WITNESSES_MAX} witnesses, each endpoint named once")
    root = load_trust_root(trust_path, None if trusting_period is None else trusting_period * 1000)
    folder = home / root.chain_id
    folder.mkdir(parents=True, exist_ok=True)
    config = _rpc_config(listen) if listen else None
    return run_async(
        _until_sigterm(
            _run(
                root, (primary, *witnesses), folder, config, interval, max_age * 1000, once, as_json
            )
        )
    )


async def _until_sigterm(work: Coroutine[Any, Any, int]) -> int:
    """The exit code of `work`; 0 if SIGTERM ends it. As a container's first process nothing else
    ends it politely: the kernel takes a signal that such a process does not handle for ignored."""
    task = asyncio.create_task(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        this = asyncio.current_task()
        if this is not None and this.cancelling():  # Ctrl-C
            raise
        return 0


async def _run(
    root: TrustRoot,
    urls: tuple[str, ...],
    folder: Path,
    config: RpcConfig | None,
    interval_s: float,
    max_age_ms: int,
    once: bool,
    as_json: bool,
) -> int:
    configure_logging(LogSettings(level="warning"))
    sources = [Endpoint(url) for url in urls]
    follower = Follower(root, sources, folder, max_age_ms=max_age_ms)
    server = None
    try:
        await follower.start()
        for _ in sources:  # until one of them leads to the head
            judgement = await follower.advance()
            if judgement.verdict is Verdict.VALID:
                break
        _say(follower, as_json)
        asker, checked_at = Asker(follower), time.monotonic()
        await asker.check_trusting_period()
        if once:
            return EXIT_BY_VERDICT[judgement.verdict]
        if config is not None:
            server = RpcServer(LightApi(follower), config)
            port = await server.start()
            click.echo(f"listening on http://{config.host}:{port}", err=True)
        while True:
            await asyncio.sleep(interval_s)
            before = follower.trust.height, follower.last.verdict
            await follower.advance()
            if time.monotonic() > checked_at + PERIOD_CHECK_S:
                checked_at = time.monotonic()
                await asker.check_trusting_period()
            if (follower.trust.height, follower.last.verdict) != before:
                _say(follower, as_json)
    finally:
        if server is not None:
            await server.stop()
        for source in sources:
            await source.close()


def _say(follower: Follower, as_json: bool) -> None:
    trust, last = follower.trust, follower.last
    if as_json:
        click.echo(
            json.dumps(
                {
                    "height": trust.height,
                    "hash": trust.header_hash.hex(),
                    "time_ms": trust.time_ms,
                    "verdict": last.verdict.value,
                    "reason": last.reason,
                }
            )
        )
        return
    reason = f"  {last.reason}" if last.reason else ""
    click.echo(f"{trust.height:>10}  {trust.header_hash.hex()}  {last.verdict.value}{reason}")


def _rpc_config(listen: str) -> RpcConfig:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise UsageError("--listen is malformed", expected="HOST:PORT", got=listen)
    return RpcConfig(host=host, port=int(port))
