"""`zynk did`: create, look up, check and (`node.cli_did_change`) change identities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from did.build import create_operation
from did.control import Control
from did.multikey import encode_hash
from node import identity
from node.cli_did_change import did_deactivate, did_recover, did_rotate, did_update
from node.cli_did_resolve import did_resolve, did_verify
from node.cli_did_sign import did_sign, did_submit
from node.cli_keys import load_key_file, read_account_text
from node.cli_output import (
    ask_node,
    json_option,
    rpc_option,
    show,
    show_steps,
    show_table,
)
from node.cli_trust import load_trust_if, trust_option
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


@did.command("history")
@click.argument("did_text", metavar="DID")
@trust_option(required=False)
@rpc_option
@json_option
def did_history(did_text: str, trust_path: Path | None, rpc_url: str, as_json: bool) -> None:
    """All operations of a DID. With --trust, proven to be all of them, in this order."""
    trust = load_trust_if(trust_path, rpc_url)
    height = 0 if trust is None else trust.point.height
    log = ask_node(
        rpc_url,
        lambda client: identity.fetch_log(client, did_text, trust, trusted_height=height),
    )
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


did.add_command(did_resolve)
did.add_command(did_verify)
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
