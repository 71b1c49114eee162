"""`zynk audit monitor` and `zynk audit split-view`: nobody shows two logs unnoticed."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import click

from audit.leaf import decode_stream_text
from audit.log_copy import LogCopy
from audit.note import Note, NoteKey
from audit.split_view import BYTES_MAX, SplitView
from ledger.errors import InvalidInputError, UsageError
from ledger.light import verify_trusted
from ledger.store import LevelStore
from node.cli_output import json_option, run_async, show
from node.cli_trust import follow_options, header_rpc_option, load_trust, trust_option
from node.config import LogSettings
from node.files import read_small
from node.light_follow import Follower
from node.light_source import Endpoint
from node.light_trust import TrustRoot, load_trust_root
from node.log import configure_logging
from node.monitor import Monitor, Watch
from rpc.client import RpcClient

ENDPOINTS_MAX = 16
NOTE_BYTES_MAX = 64 * 1024
COPY_FOLDER = "log"


@click.command("monitor")
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@follow_options(
    home=Path.home() / ".zynk-monitor", keeps="the log and the verified head are", interval_s=5.0
)
@click.option("--stream", "streams", multiple=True, help="Tell what is logged in it; repeat.")
@click.option("--did", "dids", multiple=True, help="Tell what is logged in its streams; repeat.")
@click.option(
    "--checkpoint",
    "notes",
    multiple=True,
    type=(click.Path(exists=True, dir_okay=False, path_type=Path), str),
    metavar="FILE KEY",
    help="A checkpoint that somebody was shown, and the verifier key of who signed it; repeat.",
)
@click.option("--once", is_flag=True, help="One round, then exit: 0 only if nothing is wrong.")
@json_option
def audit_monitor(
    urls: tuple[str, ...],
    trust_path: Path,
    home: Path,
    streams: tuple[str, ...],
    dids: tuple[str, ...],
    notes: tuple[tuple[Path, str], ...],
    interval: float,
    max_age: int,
    trusting_period: int | None,
    once: bool,
    as_json: bool,
) -> int:
    """Follow the log on one or more nodes: it only grows, and everybody shows the same one."""
    if len(set(urls)) != len(urls) or len(urls) > ENDPOINTS_MAX:
        raise UsageError(f"expected at most {ENDPOINTS_MAX} endpoints, each named once")
    root = load_trust_root(trust_path, None if trusting_period is None else trusting_period * 1000)
    folder = home / root.chain_id
    folder.mkdir(parents=True, exist_ok=True)
    watch = Watch(
        streams=frozenset(decode_stream_text(stream) for stream in streams), dids=frozenset(dids)
    )
    return run_async(
        _run(
            root=root,
            urls=urls,
            folder=folder,
            watch=watch,
            notes=[(_read_note(path), NoteKey.decode(key), str(path)) for path, key in notes],
            interval_s=None if once else interval,
            max_age_ms=max_age * 1000,
            as_json=as_json,
        )
    )


async def _run(
    *,
    root: TrustRoot,
    urls: tuple[str, ...],
    folder: Path,
    watch: Watch,
    notes: list[tuple[str, NoteKey, str]],
    interval_s: float | None,
    max_age_ms: int,
    as_json: bool,
) -> int:
    """Until interrupted; once if `interval_s` is None."""
    configure_logging(LogSettings(level="error"))
    sources = [Endpoint(url) for url in urls]
    clients = [RpcClient(url) for url in urls]
    store = LevelStore.open(folder / COPY_FOLDER)
    try:
        follower = Follower(root, sources, folder, max_age_ms=max_age_ms)
        monitor = Monitor(
            follower, clients, LogCopy(store), folder, lambda event: _say(event, as_json), watch
        )
        await follower.start()
        await monitor.round()
        for note, key, source in notes:
            if monitor.header is None or not await monitor.judge(note, key, source):
                click.echo(f"{source} is no head of the log that is final", err=True)
                monitor.faults += 1
        while interval_s is not None:
            await asyncio.sleep(interval_s)
            await monitor.round()
    finally:
        store.close()
        for endpoint in sources:
            await endpoint.close()
        for client in clients:
            await client.close()
    return 1 if monitor.faults else 0


def _read_note(path: Path) -> str:
    try:
        note = read_small(path, "checkpoint", NOTE_BYTES_MAX).decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError("checkpoint is not text", got=str(path)) from error
    Note.decode(note)
    return note


def _say(event: dict[str, object], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(event))
        return
    now = time.strftime("%H:%M:%S")
    match event["event"]:
        case "head":
            click.echo(f"{now}  log of {event['tree_size']} entries at height {event['height']}")
        case "anchored":
            click.echo(
                f"{now}  {event['count']} leaves anchored at height {event['height']} in stream "
                f"{event['stream']} of {event['owner']}, entry {event['index']}, by "
                f"{event['submitter']}"
            )
        case "split-view":
            click.echo(
                f"{now}  SPLIT VIEW: {event['source']} shows another log of {event['tree_size']} "
                f"entries, signed by {event['key']}; proof in {event['proof']}",
                err=True,
            )
        case _:
            source = f"{event['source']}: " if event["source"] else ""
            click.echo(f"{now}  {source}{event['text']}", err=True)


@click.command("split-view")
@click.argument("proof_path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@trust_option(required=True)
@header_rpc_option
@json_option
def audit_split_view(proof_path: Path, trust_path: Path, rpc_url: str | None, as_json: bool) -> int:
    """Check the proof that somebody signed a log that is not the chain's; exit code 0 if it is."""
    trust = load_trust(trust_path, rpc_url)
    proof = SplitView.decode(read_small(proof_path, "split view", BYTES_MAX))
    header = verify_trusted(proof.finality, trust.point, trust.chain_id, now_ms=trust.now_ms())
    checkpoint = proof.verify(header)
    data = {
        "key": proof.key.vkey,
        "tree_size": checkpoint.tree_size,
        "root_hash": checkpoint.root_hash.hex(),
        "true_root_hash": proof.root.hex(),
        "height": header.height,
        "chain_id": header.chain_id,
    }
    show(as_json, data, [("whoever holds", proof.key.vkey), *list(data.items())[1:]])
    return 0
