"""`zynk did`: create, look up, check and (`node.cli_did_change`) change identities."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from did.build import create_operation
from did.control import Control
from did.multikey import encode_hash
from did.verify import ANSWER_BYTES_MAX, Outcome, Verdict
from did.verify_answer import Basis, verify_answer
from ledger.errors import InvalidInputError
from node import identity
from node.checkpoint import load_trust_point
from node.cli_did_change import did_deactivate, did_recover, did_rotate, did_update
from node.cli_did_sign import did_sign, did_submit
from node.cli_keys import load_key_file, read_account_text
from node.cli_output import (
    ask_node,
    json_option,
    rpc_option,
    show,
    show_steps,
    show_table,
    trust_option,
)
from node.cli_tx import format_ms, key_option
from node.did_options import (
    Future,
    control_option,
    document_option,
    future_options,
    key_list_text,
    load_signers,
    read_document_file,
    save_options,
    service_option,
    show_change,
    submit_operation,
    threshold_option,
)
from node.files import read_small


@click.group()
def did() -> None:
    """Create, look up, change and check identities."""


@did.command("create")
@key_option
@control_option
@threshold_option
@document_option
@service_option
@future_options
@save_options
@rpc_option
@json_option
def did_create(
    key_path: Path,
    control: tuple[str, ...],
    threshold: int | None,
    document_path: Path | None,
    services: tuple[tuple[str, str, str], ...],
    save_path: Path | None,
    valid_for: int,
    rpc_url: str,
    as_json: bool,
    **future: Any,
) -> None:
    """Create a DID. Without --control, the paying key controls it; without --document, its
    document lists the control keys."""
    payer = load_key_file(key_path)
    plan = Future(**future)
    given = [read_account_text(text) for text in control] or [payer.public_key]
    current = identity.make_key_list(given, threshold, "--threshold")
    signers = load_signers(control) if control else [payer]
    signers = identity.require_signers(
        current, signers, "--control", others_follow=save_path is not None
    )
    document = (
        identity.make_document(given)
        if document_path is None
        else identity.read_document(read_document_file(document_path), None)
    )
    next_list = plan.next_list()
    commitment = None if next_list is None else next_list.compute_commitment()

    def build(net: str, exp_height: int) -> bytes:
        return create_operation(
            net=net,
            exp_height=exp_height,
            document=identity.change_services(document, services),
            control=Control(current=current, next=commitment),
            recovery=plan.tiers(()),
            signers=signers,
        )

    answer = submit_operation(rpc_url, payer, build, save_path, valid_for)
    hint = [("next", f"zynk did resolve {answer['did']} --rpc {rpc_url}")]
    show_change(answer, as_json, [] if save_path else hint)


@did.command("resolve")
@click.argument("did_text", metavar="DID")
@trust_option(required=False)
@rpc_option
@json_option
def did_resolve(did_text: str, trust_path: Path | None, rpc_url: str, as_json: bool) -> None:
    """Print the answer about a DID: document, metadata and proof, as JSON that `did verify` reads.

    What it means in words goes to stderr. With --trust the proof is checked at once.
    """
    trust = None if trust_path is None else load_trust_point(trust_path)
    answer = ask_node(rpc_url, lambda client: client.call("did_resolve", did=did_text))
    click.echo(json.dumps(answer, indent=None if as_json else 2))
    error = answer["didResolutionMetadata"].get("error")
    if trust is not None and (error is None or "proof" in answer["didResolutionMetadata"]):
        data = json.dumps(answer).encode()
        _verify(data, [did_text], trust_path, None, options={}, as_json=False, err=True)
    elif error is None:
        click.echo("Not checked: --trust genesis.json, or `zynk did verify`, does.", err=True)
    if error is not None:
        raise InvalidInputError(f"{did_text} does not resolve", got=str(error.get("detail", error)))


@did.command("history")
@click.argument("did_text", metavar="DID")
@trust_option(required=False)
@rpc_option
@json_option
def did_history(did_text: str, trust_path: Path | None, rpc_url: str, as_json: bool) -> None:
    """All operations of a DID. With --trust, proven to be all of them, in this order."""
    trust = None if trust_path is None else load_trust_point(trust_path)
    log = ask_node(rpc_url, lambda client: identity.fetch_log(client, did_text, trust))
    rows = [
        (
            item.operation.seq,
            item.operation.type.value,
            format_ms(item.entry.time_ms),
            item.entry.height,
            "set aside by a recovery" if item.is_nullified else "",
            item.operation.version_id,
        )
        for item in log.operations
    ]
    state = log.current()
    data = {
        "did": did_text,
        "deactivated": log.is_deactivated,
        "disputeUntilMs": log.record.dispute_until_ms,
        "control": state.control.to_json(),
        "recovery": [tier.to_json() for tier in state.tiers],
        "verified": trust is not None,
        "steps": list(log.steps),
        "operations": list(log.items),
    }
    show_table(as_json, data, ("seq", "type", "time", "height", "note", "version"), rows)
    if not as_json:
        click.echo("The DID is deactivated." if log.is_deactivated else "The DID is active.")
        show(False, {}, _state_rows(log, state))
        show_steps([(True, text) for text in log.steps])


@did.command("verify")
@click.argument("answer_path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@trust_option(required=True)
@click.option(
    "--did",
    "asked",
    multiple=True,
    metavar="DID",
    help="The DID or DID URL it must be about; once for each of a batch, in its order.",
)
@click.option("--version-id", metavar="ID", help="The version that was asked for.")
@click.option("--version-time", metavar="TIME", help="The time that was asked for.")
@click.option("--as-of-height", type=click.IntRange(min=0), help="The height asked for.")
@click.option("--relationship", metavar="NAME", help="The verificationRelationship asked for.")
@click.option("--max-age", type=click.FloatRange(min=0), metavar="SECONDS", help="No older.")
@json_option
def did_verify(
    answer_path: Path,
    trust_path: Path,
    asked: tuple[str, ...],
    version_id: str | None,
    version_time: str | None,
    as_of_height: int | None,
    relationship: str | None,
    max_age: float | None,
    as_json: bool,
) -> None:
    """Check a saved answer offline, step by step: a resolution or dereferencing result, a batch, a
    history page or a record's proof."""
    options = {
        "versionId": version_id,
        "versionTime": version_time,
        "asOfHeight": as_of_height,
        "verificationRelationship": relationship,
    }
    _verify(
        read_small(answer_path, "answer file", ANSWER_BYTES_MAX),
        asked,
        trust_path,
        max_age,
        options={name: value for name, value in options.items() if value is not None},
        as_json=as_json,
        err=False,
    )


did.add_command(did_update)
did.add_command(did_rotate)
did.add_command(did_deactivate)
did.add_command(did_recover)

did.add_command(did_sign)
did.add_command(did_submit)


def _state_rows(log: identity.DidLog, state: identity.KeyState) -> list[tuple[str, object]]:
    """Who may do what from here on."""
    rows: list[tuple[str, object]] = [("control", key_list_text(state.control.current))]
    if state.control.next is not None:
        committed = encode_hash(state.control.next)
        rows.append(("pre-rotated", f"the next change must reveal the keys behind {committed}"))
    rows += [(f"recovery {i}", key_list_text(tier)) for i, tier in enumerate(state.tiers, 1)]
    until_ms = log.record.dispute_until_ms
    if until_ms:
        rows.append(
            ("disputable", f"the newest change can be set aside until {format_ms(until_ms)}")
        )
    return rows


# --- checking ---

_OUTCOME = {
    Outcome.FOUND: "exists and is active",
    Outcome.DEACTIVATED: "is deactivated",
    Outcome.NOT_FOUND: "does not exist",
}


def _verify(
    data: bytes,
    asked: Sequence[str],
    trust_path: Path | None,
    max_age: float | None,
    *,
    options: Mapping[str, object],
    as_json: bool,
    err: bool,
) -> None:
    """Verify and print; exits with 1 if anything does not hold."""
    assert trust_path is not None
    trust = load_trust_point(trust_path)
    basis = Basis(
        trusted=trust.validators,
        chain_id=trust.chain_id,
        max_age_ms=None if max_age is None else int(max_age * 1000),
        now_ms=int(time.time() * 1000),
    )
    about = ", ".join(asked)
    try:
        verdicts = verify_answer(data, asked=asked, options=options, basis=basis)
    except InvalidInputError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "did": about, "reason": str(error)}))
        else:
            show_steps([(True, f"trust: {trust.text}"), (False, str(error))], err=err)
            click.echo(f"NOT VERIFIED: {about}", err=err)
        raise click.exceptions.Exit(1) from error
    if as_json:
        found = [_verdict_json(verdict) for verdict in verdicts]
        click.echo(json.dumps(found[0] if len(found) == 1 else {"ok": True, "answers": found}))
        return
    for verdict in verdicts:
        show_steps([(True, text) for text in (f"trust: {trust.text}", *verdict.steps)], err=err)
        click.echo(
            f"VERIFIED: {verdict.did} {_OUTCOME[verdict.outcome]} as of block {verdict.height}, "
            f"{format_ms(verdict.time_ms)}",
            err=err,
        )


def _verdict_json(verdict: Verdict) -> dict[str, object]:
    return {
        "ok": True,
        "did": verdict.did,
        "outcome": verdict.outcome.value,
        "height": verdict.height,
        "time_ms": verdict.time_ms,
        "version": verdict.version_id,
        "steps": list(verdict.steps),
    }
