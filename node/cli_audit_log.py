"""`zynk audit checkpoint` and `zynk audit fsck`: the log as a whole, published and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from audit.checkpoint import compute_origin
from audit.cosign import find_witness_lines
from audit.fsck import Check, Kept, LogHead, check_log
from audit.note import KeyType, NoteKey, verify_signed
from genesis.document import GenesisDocument
from ledger.accounts import encode_account_id
from ledger.chain import Chain
from ledger.errors import DamagedStoreError, InvalidInputError, UsageError
from ledger.genesis_state import AUDIT_FRONTIER_KEY
from ledger.merkle import EMPTY_ROOT
from ledger.store import LevelStore, Store
from node import config as cfg
from node.api_log import PublishedCheckpoint, read_published
from node.checkpoint import Trust
from node.cli_output import (
    ask_node,
    json_option,
    progress_bar,
    read_option,
    rpc_option,
    show,
    show_steps,
)
from node.cli_trust import load_trust, trust_option
from node.cli_tx import format_ms
from node.files import read_small
from node.handlers import open_chain
from node.key_options import home_option
from node.log_guard import LogGuard

ANSWER_BYTES_MAX = 16 * 1024 * 1024


@click.command("checkpoint")
@click.argument(
    "path", required=False, metavar="[ANSWER]", type=click.Path(dir_okay=False, path_type=Path)
)
@click.option("--verify", "is_verified", is_flag=True, help="Check it offline, with --trust.")
@click.option("--log-key", metavar="VKEY", help="The log key that must have signed it.")
@click.option("--witness", "witnesses", multiple=True, metavar="VKEY", help="Must have cosigned.")
@click.option("--note", "is_note", is_flag=True, help="Print the signed note alone.")
@trust_option(required=False)
@rpc_option
@json_option
def checkpoint(
    path: Path | None,
    is_verified: bool,
    log_key: str | None,
    witnesses: tuple[str, ...],
    is_note: bool,
    trust_path: Path | None,
    rpc_url: str,
    as_json: bool,
) -> None:
    """The published checkpoint of the log, and who cosigned it. ANSWER is one that --json printed;
    without it a node is asked. With --verify, exits with 0 only if validators with more than 2/3 of
    the stake cosigned it, and all the rest holds."""
    if is_verified and trust_path is None:
        raise UsageError("nothing to verify against", expected="--trust genesis.json")
    key = None if log_key is None else read_option(NoteKey.decode, log_key)
    outside = [read_option(NoteKey.decode, vkey) for vkey in witnesses]
    if path is None:
        answer = ask_node(rpc_url, lambda client: client.call("audit_checkpoint"))
    else:
        answer = _read_answer(path)
    published = answer.get("published")
    if not isinstance(published, dict):
        raise InvalidInputError(
            "no checkpoint is published", got=str(answer.get("reason") or "none yet"), retry=True
        )
    if is_note:
        click.echo(str(published.get("note")), nl=False)
    elif not is_verified or trust_path is None:
        _show_published(as_json, answer, published)
    else:
        _verify(as_json, answer, published, load_trust(trust_path, rpc_url), key, outside)


def _read_answer(path: Path) -> dict[str, Any]:
    try:
        answer = json.loads(read_small(path, "answer", ANSWER_BYTES_MAX))
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("answer is not JSON", got=str(path)) from error
    if not isinstance(answer, dict):
        raise InvalidInputError("answer is malformed", expected="what --json printed")
    return answer


def _show_published(as_json: bool, answer: Mapping[str, Any], published: Mapping[str, Any]) -> None:
    try:
        signed = [item for item in published["cosigners"] if item["time_s"] is not None]
        rows: list[tuple[str, object]] = [
            ("log size", f"{published['tree_size']} anchored batches"),
            ("root hash", published["root_hash"]),
            ("block", published["height"]),
            (
                "cosigned by",
                f"{len(signed)} of {len(published['cosigners'])} validators, power "
                f"{published['power']} of {published['total_power']}"
                + ("" if published["quorum"] else ": no quorum (more than 2/3)"),
            ),
        ]
        for item in signed:
            account = encode_account_id(bytes.fromhex(item["operator"]))
            when = format_ms(1000 * item["time_s"])
            rows.append(("", f"{account}  power {item['power']}, {when}"))
        rows += [
            ("witnesses", ", ".join(published["witnesses"]) or "none"),
            ("log key", published["log_key"]),
            ("newest block", f"{answer['height']}, log size {answer['tree_size']}"),
            ("checked", "no: --verify --trust genesis.json does"),
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError("answer is malformed", got=repr(error)) from error
    if answer["reason"]:
        rows.append(("signs nothing", answer["reason"]))
    show(as_json, answer, rows)


def _verify(
    as_json: bool,
    answer: Mapping[str, Any],
    published: Mapping[str, Any],
    trust: Trust,
    log_key: NoteKey | None,
    witnesses: list[NoteKey],
) -> None:
    steps: list[tuple[bool, str]] = [(True, f"Trusted: {trust.text}.")]
    try:
        found = read_published(published, trust.point, trust.chain_id, now_ms=trust.now_ms())
    except InvalidInputError as error:
        steps.append((False, f"The checkpoint does not hold: {error}."))
    else:
        steps += _describe(found, trust, log_key, witnesses)
    is_ok = all(ok for ok, _ in steps)
    if as_json:
        told = [{"ok": ok, "text": text} for ok, text in steps]
        click.echo(json.dumps({**answer, "verified": is_ok, "steps": told}))
    else:
        show_steps(steps)
        click.echo("VERIFIED" if is_ok else "NOT VERIFIED")
    if not is_ok:
        raise click.exceptions.Exit(1)


def _describe(
    found: PublishedCheckpoint,
    trust: Trust,
    log_key: NoteKey | None,
    witnesses: list[NoteKey],
) -> list[tuple[bool, str]]:
    """The steps in words, for one whose bytes hold."""
    header, cosigned = found.header, found.cosigned
    count, total = len(cosigned.time_s_by_operator), len(found.cosigners.validators)
    steps = [
        (
            True,
            f"Validators with more than 2/3 of the stake made block {header.height} final "
            f"({found.handoffs} handoffs from the trusted set).",
        ),
        (
            True,
            f"Block {header.height} and the checkpoint have the same log: {header.audit_size} "
            f"entries, root {header.audit_root.hex()}.",
        ),
        (True, f"Its state has the cosign keys of {len(found.cosigners.cosigners)} validators."),
        (
            cosigned.has_quorum,
            f"{count} of {total} validators cosigned it, with power {cosigned.power} of "
            f"{cosigned.total_power}: {'more than' if cosigned.has_quorum else 'not'} 2/3.",
        ),
    ]
    key = log_key or found.log_key
    whose = "the given log key" if log_key else "the log key that the node names"
    origin = compute_origin(trust.chain_id)
    is_signed = key.type is KeyType.ED25519 and key.name == origin and _is_signed(found, key)
    steps.append((is_signed, f"The note of {origin} is signed with {whose}."))
    return [*steps, *(_witness_step(found, witness) for witness in witnesses)]


def _is_signed(found: PublishedCheckpoint, key: NoteKey) -> bool:
    try:
        verify_signed(found.note, key)
    except InvalidInputError:
        return False
    return True


def _witness_step(found: PublishedCheckpoint, witness: NoteKey) -> tuple[bool, str]:
    try:
        lines = find_witness_lines(found.note, [witness])
    except InvalidInputError as error:
        return False, f"The line of witness {witness.name} does not hold: {error}."
    if not lines:
        return False, f"Witness {witness.name} has not cosigned it."
    return True, f"Witness {witness.name} cosigned it at {format_ms(1000 * lines[0][1])}."


@click.command("fsck")
@home_option
@json_option
def fsck(home: Path, as_json: bool) -> None:
    """Rebuild the whole log of a stopped node from its entries, and compare tiles, headers, state
    and indexes with it. Changes nothing."""
    cfg.load_config(home)
    document = GenesisDocument.parse((home / cfg.GENESIS_FILE).read_bytes())
    store = LevelStore.open(home / cfg.CHAIN_FOLDER, create=False)
    try:
        chain = open_chain(store, document.to_state())
        kept = _what_is_kept(home, chain, store)
        with progress_bar("checking", kept.head[0], "entries") as advance:
            checks = check_log(kept, advance)
        size, root = kept.head
    finally:
        store.close()
    _show_checks(as_json, size, root, checks)


def _what_is_kept(home: Path, chain: Chain, store: Store) -> Kept:
    def head_at(height: int) -> LogHead | None:
        try:
            header = chain.header(height)
        except InvalidInputError:  # pruned
            return None
        return header.audit_size, header.audit_root

    head = chain.head
    guard_path = home / cfg.LOG_GUARD_FILE
    signed = None
    if guard_path.exists():
        guard = LogGuard.open(guard_path, compute_origin(chain.chain_id))
        signed = (guard.size, guard.root)
    return Kept(
        store=store,
        state=chain.tree,
        head=(0, EMPTY_ROOT) if head is None else (head.audit_size, head.audit_root),
        head_at=head_at,
        frontier=chain.tree.get(AUDIT_FRONTIER_KEY) or b"",
        signed=signed,
    )


def _show_checks(as_json: bool, size: int, root: bytes, checks: list[Check]) -> None:
    faults = sum(check.faults for check in checks)
    if as_json:
        told = [
            {"name": c.name, "ok": c.is_ok, "checked": c.count, "faults": c.faults, "text": c.text}
            for c in checks
        ]
        data = {"tree_size": size, "root_hash": root.hex(), "ok": faults == 0, "checks": told}
        click.echo(json.dumps(data))
    else:
        show_steps([(check.is_ok, check.text + ".") for check in checks])
        click.echo(
            f"log of {size} entries, root {root.hex()}: {'whole' if not faults else 'DAMAGED'}"
        )
    if faults:
        raise DamagedStoreError(
            "the audit log is damaged; restore a backup or sync the node again",
            got=f"{faults} faults",
        )


LOG_COMMANDS = (checkpoint, fsck)
