"""`zynk audit`: anchor files, and check offline that they were."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from audit.leaf import (
    SHA2_256,
    SHA2_512,
    SHA3_256,
    decode_stream_text,
    verify_multihash,
)
from audit.receipt import RECEIPT_BYTES_MAX, RECEIPT_SUFFIX, Receipt, receipt_value
from audit.verify import Verdict, decode_any_receipt, verify_receipt
from ledger.accounts import encode_account_id
from ledger.errors import InvalidInputError, UsageError
from node.anchor_client import (
    HashedFile,
    fetch_receipts,
    hash_file,
    hash_files,
    read_receipt_answer,
    submit_files,
    wait_receipted,
)
from node.checkpoint import Trust
from node.cli_audit_log import LOG_COMMANDS
from node.cli_audit_monitor import audit_monitor, audit_split_view
from node.cli_keys import load_key_file, load_key_files, read_account_text
from node.cli_output import (
    ask_node,
    json_option,
    progress_bar,
    read_option,
    rpc_option,
    show,
    show_steps,
    show_table,
)
from node.cli_trust import (
    ANY_AGE,
    age_option,
    at_option,
    conclude,
    header_rpc_option,
    load_trust,
    load_trust_if,
    period_option,
    trust_option,
)
from node.cli_tx import format_ms, key_option, result_rows
from node.files import read_small, replace_file
from node.streams import QUOTA_LEAVES_PER_DAY, create_stream_message
from node.wallet import Wallet
from rpc.client import RpcClient

FILES_LISTED_MAX = 20
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def audit() -> None:
    """Anchor files in the log, and check receipts offline."""


for log_command in (*LOG_COMMANDS, audit_monitor, audit_split_view):
    audit.add_command(log_command)


@audit.group("stream")
def stream_group() -> None:
    """Streams: who may anchor, and how much."""


@stream_group.command("create")
@key_option
@click.option("--owner", required=True, metavar="DID", help="The DID that owns the stream.")
@click.option(
    "--control",
    "control",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="KEYFILE",
    help="The owner's control keys, which sign (default: the paying key).",
)
@click.option(
    "--submitter",
    "submitters",
    multiple=True,
    metavar="ACCOUNT",
    help="An account that may anchor (default: the anchor account of this node).",
)
@click.option("--quota", default=QUOTA_LEAVES_PER_DAY, show_default=True, help="Leaves a day.")
@click.option("--description", default="", help="Only its hash is kept on the chain.")
@rpc_option
@json_option
def stream_create(
    key_path: Path,
    owner: str,
    control: tuple[Path, ...],
    submitters: tuple[str, ...],
    quota: int,
    description: str,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Create a stream of a DID, and wait until it is final."""
    payer = load_key_file(key_path)
    keys = load_key_files(control) if control else [payer]
    accounts = [read_account_text(text) for text in submitters]

    async def send(client: RpcClient) -> dict[str, Any]:
        status = await client.call("node_status")
        allowed = accounts or [bytes.fromhex(status["anchor_account"])]
        stream, message = create_stream_message(
            chain_id=status["chain_id"],
            owner=owner,
            submitters=allowed,
            description=description,
            keys=keys,
            quota=quota,
        )
        answer = await Wallet(client, payer).submit([message])
        return {
            **answer,
            "stream": stream,
            "owner": owner,
            "submitters": [encode_account_id(account) for account in allowed],
            "quota": quota,
        }

    answer = ask_node(rpc_url, send)
    rows: list[tuple[str, object]] = [
        ("stream", answer["stream"]),
        ("owner", owner),
        ("may anchor", ", ".join(answer["submitters"])),
        ("quota", f"{quota} leaves a day"),
        *result_rows({**answer, "events": []}),
        ("next", f"zynk audit anchor FILE --stream {answer['stream']} --rpc {rpc_url}"),
    ]
    show(as_json, answer, rows)


@stream_group.command("show")
@click.argument("stream")
@rpc_option
@json_option
def stream_show(stream: str, rpc_url: str, as_json: bool) -> None:
    """Who owns a stream, who may anchor in it, and how much was."""
    read_option(decode_stream_text, stream)
    answer = ask_node(rpc_url, lambda client: client.call("audit_stream", stream=stream))
    accounts = [encode_account_id(bytes.fromhex(key)) for key in answer["submitters"]]
    rows: list[tuple[str, object]] = [
        ("stream", answer["stream"]),
        ("owner", answer["owner"]),
        ("may anchor", ", ".join(accounts) or "nobody"),
        ("quota", f"{answer['quota_leaves_per_day']} leaves a day"),
        ("anchored", f"{answer['leaves_total']} leaves in {answer['anchors_total']} batches"),
        ("created", format_ms(answer["created_ms"])),
        ("updated", f"{format_ms(answer['updated_ms'])} (change {answer['sequence']})"),
    ]
    show(as_json, answer, rows)


@audit.command("anchor")
@click.argument("paths", nargs=-1, required=True, type=FILE, metavar="PATH...")
@click.option("--stream", required=True, help="The stream to anchor in.")
@click.option(
    "--receipt-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where receipts go (default: beside each file).",
)
@click.option(
    "--hash",
    "function",
    default=SHA2_256,
    show_default=True,
    type=click.Choice([SHA2_256, SHA2_512, SHA3_256]),
)
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait for receipts.")
@trust_option(required=False)
@rpc_option
@json_option
def audit_anchor(
    paths: tuple[Path, ...],
    stream: str,
    receipt_folder: Path | None,
    function: str,
    timeout: float,
    trust_path: Path | None,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Anchor files: their hashes go into the log, and a receipt of each is written to
    PATH.zreceipt. The files themselves never leave this machine. With --trust, each receipt is
    checked before it is written."""
    began = time.monotonic()
    read_option(decode_stream_text, stream)
    trust = load_trust_if(trust_path, rpc_url)
    target_by_path = _receipt_paths(paths, receipt_folder)
    with progress_bar("hashing", sum(path.stat().st_size for path in paths), "bytes") as advance:
        files = hash_files(paths, stream, function, advance)
    statuses, receipts = _anchor(rpc_url, stream, files, timeout)
    written = []
    for item in files:
        receipt = receipts.get(item.leaf)
        if receipt is not None:
            if trust is not None:
                _require_holds(receipt, item, trust)
            replace_file(target_by_path[item.path], receipt)
            written.append(item)
    found = [
        {
            "path": str(item.path),
            "bytes": item.size_bytes,
            "multihash": item.multihash.hex(),
            "leaf": item.leaf.hex(),
            "receipt": str(target_by_path[item.path]) if item in written else None,
            **{k: v for k, v in statuses[item.leaf].items() if k != "leaf"},
        }
        for item in files
    ]
    seconds = time.monotonic() - began
    data = {
        "stream": stream,
        "anchored": len(written),
        "seconds": round(seconds, 3),
        "checked": trust is not None,
        "files": found,
    }
    _show_anchored(as_json, data, found)
    if len(written) < len(files):
        raise InvalidInputError(f"{len(files) - len(written)} files were rejected; see above")


@audit.command("receipt")
@click.argument("leaf")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it here.")
@rpc_option
@json_option
def audit_receipt(leaf: str, out: Path | None, rpc_url: str, as_json: bool) -> None:
    """Fetch the receipt of LEAF, a leaf hash in hex as `anchor --json` gives it."""
    leaf_hash = _read_leaf(leaf)
    answer = ask_node(rpc_url, lambda client: client.call("audit_receipt", leaf=leaf))
    encoded = read_receipt_answer(answer, leaf_hash)
    receipt = Receipt.decode(encoded)
    if out is not None:
        replace_file(out, encoded)
    data = {
        "leaf": leaf,
        "bytes": len(encoded),
        "path": None if out is None else str(out),
        "receipt": receipt_value(receipt),
    }
    rows: list[tuple[str, object]] = [
        ("leaf", leaf),
        ("content", receipt.leaf.multihash.hex() or "salted"),
        ("anchored", f"block {receipt.anchor.height}, {format_ms(receipt.anchor.time_ms)}"),
        ("log entry", f"{receipt.log_index} of {receipt.finality.header.audit_size}"),
        (
            "written to",
            f"{out} ({len(encoded)} bytes)" if out else "nowhere (--out FILE keeps it)",
        ),
        ("checked", "no: zynk audit verify FILE --receipt R --trust genesis.json does"),
    ]
    show(as_json, data, rows)


@audit.command("verify")
@click.argument("path", type=FILE)
@click.option("--receipt", "receipt_path", type=FILE, help="Default: PATH.zreceipt.")
@trust_option(required=True)
@period_option
@header_rpc_option
@click.option("--stream", help="The stream it must be in.")
@click.option("--salt", metavar="HEX", help="The salt, if the leaf is salted.")
@click.option(
    "--hash",
    "function",
    type=click.Choice([SHA2_256, SHA2_512, SHA3_256]),
    help="Default: what the receipt names.",
)
@age_option("--max-age", ANY_AGE, "the block that proves the log")
@at_option
@json_option
def audit_verify(
    path: Path,
    receipt_path: Path | None,
    trust_path: Path,
    trusting_period_s: int | None,
    rpc_url: str | None,
    stream: str | None,
    salt: str | None,
    function: str | None,
    max_age: int | None,
    at_ms: int | None,
    as_json: bool,
) -> None:
    """Check offline that a file is in the log, step by step in words.

    Exit codes: 0 valid, 1 wrong, 7 valid but the trust point is past its trusting period, 8 too
    old, 9 it can not be told.
    """
    trust = load_trust(trust_path, rpc_url, trusting_period_s=trusting_period_s, at_ms=at_ms)
    encoded = read_small(
        receipt_path or path.with_name(path.name + RECEIPT_SUFFIX), "receipt", 3 * RECEIPT_BYTES_MAX
    )
    name = function or _function_of(encoded)
    with progress_bar(f"hashing {path.name}", path.stat().st_size, "bytes") as advance:
        multihash = hash_file(path, name, advance)
    verdict = verify_receipt(
        encoded,
        multihash=multihash,
        trusted=trust.point,
        chain_id=trust.chain_id,
        salt=_read_salt(salt),
        stream=None if stream is None else read_option(decode_stream_text, stream),
        max_age_ms=max_age,
        now_ms=trust.now_ms(),
    )
    _show_verdict(as_json, verdict, path, trust)


@audit.command("status")
@click.argument("leaves", nargs=-1, metavar="[LEAF...]")
@rpc_option
@json_option
def audit_status(leaves: tuple[str, ...], rpc_url: str, as_json: bool) -> None:
    """How far leaves have come; without a LEAF, how large the log is."""
    if not leaves:
        answer = ask_node(rpc_url, lambda client: client.call("audit_checkpoint"))
        rows: list[tuple[str, object]] = [
            ("log size", f"{answer['tree_size']} anchored batches"),
            ("root hash", answer["root_hash"]),
            ("as of", f"block {answer['height']}"),
        ]
        show(as_json, answer, rows)
        return
    for leaf in leaves:
        _read_leaf(leaf)
    answer = ask_node(rpc_url, lambda client: client.call("audit_status", leaves=list(leaves)))
    table = [
        (item["leaf"], item["status"], item.get("height", ""), item.get("reason", ""))
        for item in answer["leaves"]
    ]
    show_table(as_json, answer, ("leaf", "status", "height", "reason"), table)


def _anchor(
    rpc_url: str, stream: str, files: Sequence[HashedFile], timeout_s: float
) -> tuple[dict[bytes, dict[str, Any]], dict[bytes, bytes]]:
    """(status by leaf, receipt by leaf of those that have one)."""
    leaves = [item.leaf for item in files]

    async def work(client: RpcClient) -> tuple[dict[bytes, dict[str, Any]], dict[bytes, bytes]]:
        with progress_bar("handing in", len(files), "hashes") as advance:
            await submit_files(client, stream, files, timeout_s=timeout_s, progress=advance)
        with progress_bar("anchoring", len(set(leaves)), "hashes") as advance:
            statuses = await wait_receipted(client, leaves, timeout_s=timeout_s, progress=advance)
        due = [leaf for leaf in leaves if statuses[leaf]["status"] == "receipted"]
        with progress_bar("receipts", len(set(due)), "receipts") as advance:
            return statuses, await fetch_receipts(client, due, progress=advance)

    return ask_node(rpc_url, work)


def _receipt_paths(paths: Sequence[Path], folder: Path | None) -> dict[Path, Path]:
    """Where each receipt goes; made sure of before anything is handed in. Raises UsageError."""
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                "receipt folder can not be made", got=f"{folder}: {error.strerror}"
            ) from error
    targets = {
        path: (folder or path.parent) / (path.name + RECEIPT_SUFFIX)
        for path in dict.fromkeys(paths)
    }
    name, count = Counter(targets.values()).most_common(1)[0]
    if count > 1:
        raise UsageError(
            "two files would have the same receipt", expected="distinct names", got=str(name)
        )
    return targets


def _require_holds(receipt: bytes, item: HashedFile, trust: Trust) -> None:
    verdict = verify_receipt(
        receipt,
        multihash=item.multihash,
        trusted=trust.point,
        chain_id=trust.chain_id,
        now_ms=trust.now_ms(),
    )
    if not verdict.is_right:
        raise InvalidInputError(f"the receipt of {item.path} does not hold", got=verdict.reason)


def _show_anchored(as_json: bool, data: dict[str, Any], found: list[dict[str, Any]]) -> None:
    rows = [
        (
            item["path"],
            item["status"] if item["receipt"] is None else f"block {item['height']}",
            item["receipt"] or item.get("reason", ""),
        )
        for item in found[:FILES_LISTED_MAX]
    ]
    show_table(as_json, data, ("file", "anchored in", "receipt"), rows)
    if as_json:
        return
    if len(found) > FILES_LISTED_MAX:
        click.echo(f"... and {len(found) - FILES_LISTED_MAX} more")
    click.echo(f"{data['anchored']} of {len(found)} files anchored in {data['seconds']:.1f} s")
    if not data["checked"]:
        click.echo("Check one offline: zynk audit verify FILE --trust genesis.json")


def _show_verdict(as_json: bool, verdict: Verdict, path: Path, trust: Trust) -> None:
    if as_json:
        click.echo(json.dumps({"path": str(path), **verdict.to_json()}))
    else:
        show_steps([(True, f"Trusted: {trust.text}.")])
        show_steps([(step.is_ok, step.text) for step in verdict.steps])
    what = str(path)
    if verdict.is_right and verdict.receipt is not None:
        anchor = verdict.receipt.anchor
        what += f" is in the log since block {anchor.height}, {format_ms(anchor.time_ms)}"
    conclude(verdict.worth, [what], as_json=as_json)


def _function_of(encoded: bytes) -> str:
    """The hash function that a receipt names; sha2-256 where it can not be read or is salted, and
    then the check says what is wrong."""
    try:
        receipt = decode_any_receipt(encoded)
        return verify_multihash(receipt.leaf.multihash) if receipt.leaf.multihash else SHA2_256
    except InvalidInputError:
        return SHA2_256


def _read_leaf(text: str) -> bytes:
    try:
        leaf = bytes.fromhex(text)
    except ValueError:
        leaf = b""
    if len(leaf) != 32:
        raise UsageError("not a leaf hash", expected="64 hex digits", got=text[:80])
    return leaf


def _read_salt(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError("salt is not hex", got=text[:80]) from error
