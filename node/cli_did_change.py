"""`zynk did update`, `rotate`, `deactivate`, `recover`: changing an identity.

KEY in an option is a key file or, for a key that is held elsewhere, its z6Mk... text; only key
files can sign.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from did.build import deactivate_operation, recover_operation, update_operation
from did.control import Control, KeyList
from did.multikey import encode_hash, encode_multikey
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from node import identity
from node.cli_keys import load_key_file, load_key_files, read_account_text
from node.cli_output import ask_node, json_option, rpc_option
from node.cli_trust import load_trust_if, trust_option
from node.cli_tx import key_option
from node.did_options import (
    Future,
    control_option,
    document_option,
    future_options,
    keep_option,
    key_list_text,
    load_signers,
    new_option,
    read_document_file,
    save_options,
    service_option,
    show_change,
    submit_operation,
    threshold_option,
)


@click.command("update")
@click.argument("did_text", metavar="DID")
@key_option
@control_option
@document_option
@service_option
@click.option("--remove-service", "removed", multiple=True, metavar="ID")
@future_options
@save_options
@trust_option(required=False)
@rpc_option
@json_option
def did_update(
    did_text: str,
    key_path: Path,
    control: tuple[str, ...],
    document_path: Path | None,
    services: tuple[tuple[str, str, str], ...],
    removed: tuple[str, ...],
    save_path: Path | None,
    valid_for: int,
    trust_path: Path | None,
    rpc_url: str,
    as_json: bool,
    **future: Any,
) -> None:
    """Change a DID's document or services, or what --next and --recovery say. What is not named
    stays. The control keys stay as well, except of a pre-rotated DID: there the committed keys,
    given with --control, take over with any change."""
    plan = Future(**future)
    if not (document_path or services or removed or _says_something(plan)):
        raise UsageError("nothing to change", expected="--document, --service, --next, ...")
    payer, log = _load(rpc_url, key_path, did_text, trust_path)
    state = _active(log)
    texts = control or (str(key_path),)
    required = _required(state, texts, None, "--control")
    document = (
        state.document
        if document_path is None
        else identity.read_document(read_document_file(document_path), did_text)
    )
    document = identity.change_services(document, services, removed)
    build = _updater(log, state, required, required, texts, document, plan, save_path)
    show_change(
        submit_operation(rpc_url, payer, build, save_path, valid_for), as_json, _next_rows(plan)
    )


@click.command("rotate")
@click.argument("did_text", metavar="DID")
@key_option
@control_option
@new_option
@threshold_option
@keep_option
@future_options
@save_options
@trust_option(required=False)
@rpc_option
@json_option
def did_rotate(
    did_text: str,
    key_path: Path,
    control: tuple[str, ...],
    new: tuple[str, ...],
    threshold: int | None,
    keep_document: bool,
    save_path: Path | None,
    valid_for: int,
    trust_path: Path | None,
    rpc_url: str,
    as_json: bool,
    **future: Any,
) -> None:
    """Hand control to new keys. The present ones (--control) sign, unless the DID is pre-rotated:
    then --new must be the keys it is committed to, and they sign."""
    plan = Future(**future)
    payer, log = _load(rpc_url, key_path, did_text, trust_path)
    state = _active(log)
    if state.control.next is None:
        texts = control or (str(key_path),)
        required = state.control.current
        keys = [read_account_text(text) for text in new]
        successor = identity.make_key_list(keys, threshold, "--threshold")
    else:
        texts = new
        required = successor = _required(state, new, threshold, "--new")
    document, swapped = state.document, 0
    if not keep_document:
        document, swapped = identity.swap_keys(document, state.control.current.keys, successor.keys)
    build = _updater(log, state, required, successor, texts, document, plan, save_path)
    rows = [("document", f"{swapped} keys replaced"), *_control_rows(successor), *_next_rows(plan)]
    show_change(submit_operation(rpc_url, payer, build, save_path, valid_for), as_json, rows)


@click.command("deactivate")
@click.argument("did_text", metavar="DID")
@key_option
@control_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@save_options
@trust_option(required=False)
@rpc_option
@json_option
def did_deactivate(
    did_text: str,
    key_path: Path,
    control: tuple[str, ...],
    yes: bool,
    save_path: Path | None,
    valid_for: int,
    trust_path: Path | None,
    rpc_url: str,
    as_json: bool,
) -> None:
    """End a DID for good (its recovery tiers can undo it while the dispute window is open)."""
    payer, log = _load(rpc_url, key_path, did_text, trust_path)
    state = _active(log)
    texts = control or (str(key_path),)
    required = _required(state, texts, None, "--control")
    signers = identity.require_signers(
        required, load_signers(texts), "--control", others_follow=save_path is not None
    )
    if not yes:
        click.confirm(f"Deactivate {did_text} for good?", abort=True, err=True)

    def build(net: str, exp_height: int) -> bytes:
        return deactivate_operation(
            net=net,
            exp_height=exp_height,
            did=did_text,
            prev=state.head,
            seq=log.record.seq + 1,
            reveal=None if state.control.next is None else required,
            signers=signers,
        )

    show_change(submit_operation(rpc_url, payer, build, save_path, valid_for), as_json, [])


@click.command("recover")
@click.argument("did_text", metavar="DID")
@key_option
@click.option(
    "--by",
    "by",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    metavar="KEYFILE",
    help="A key of a recovery tier, which signs.",
)
@click.option("--tier", type=click.IntRange(1, 3), help="Which tier, 1 is strongest (found out).")
@new_option
@threshold_option
@click.option(
    "--from",
    "version",
    metavar="VERSION",
    help="The last version to keep: its versionId or number. Later ones are set aside.",
)
@document_option
@keep_option
@future_options
@save_options
@trust_option(required=False)
@rpc_option
@json_option
def did_recover(
    did_text: str,
    key_path: Path,
    by: tuple[Path, ...],
    tier: int | None,
    new: tuple[str, ...],
    threshold: int | None,
    version: str | None,
    document_path: Path | None,
    keep_document: bool,
    save_path: Path | None,
    valid_for: int,
    trust_path: Path | None,
    rpc_url: str,
    as_json: bool,
    **future: Any,
) -> None:
    """Take a DID back with a recovery tier: new control keys and, with --from, without what a
    thief has changed since. A deactivated DID comes back as it was before."""
    plan = Future(**future)
    payer, log = _load(rpc_url, key_path, did_text, trust_path)
    state = log.state_at(_fork_point(log, version))
    signers = load_key_files(by)
    index = _find_tier(state.tiers, signers, tier, others_follow=save_path is not None)
    signers = identity.require_signers(
        state.tiers[index], signers, "--by", others_follow=save_path is not None
    )
    keys = [read_account_text(text) for text in new]
    successor = identity.make_key_list(keys, threshold, "--threshold")
    document = state.document
    if document_path is not None:
        document = identity.read_document(read_document_file(document_path), did_text)
    elif not keep_document:
        document, _ = identity.swap_keys(document, state.control.current.keys, successor.keys)
    next_list = plan.next_list()

    def build(net: str, exp_height: int) -> bytes:
        return recover_operation(
            net=net,
            exp_height=exp_height,
            did=did_text,
            prev=state.head,
            seq=log.record.seq + 1,
            tier=index,
            document=document,
            control=Control(
                current=successor,
                next=None if next_list is None else next_list.compute_commitment(),
            ),
            recovery=plan.tiers(state.tiers),
            signers=signers,
        )

    dropped = [str(item.operation.seq) for item in log.after(state.head)]
    rows = [
        ("by", f"recovery tier {index + 1}"),
        ("sets aside", "seq " + ", ".join(dropped) if dropped else "nothing"),
        *_control_rows(successor),
        *_next_rows(plan),
    ]
    show_change(submit_operation(rpc_url, payer, build, save_path, valid_for), as_json, rows)


def _load(
    rpc_url: str, key_path: Path, did_text: str, trust_path: Path | None
) -> tuple[KeyPair, identity.DidLog]:
    payer = load_key_file(key_path)
    trust = load_trust_if(trust_path, rpc_url)
    return payer, ask_node(rpc_url, lambda client: identity.fetch_log(client, did_text, trust))


def _active(log: identity.DidLog) -> identity.KeyState:
    if log.is_deactivated:
        raise InvalidInputError(
            "the DID is deactivated", expected="zynk did recover, while it can be", got=log.did
        )
    return log.current()


def _required(
    state: identity.KeyState, texts: Sequence[str], threshold: int | None, option: str
) -> KeyList:
    """Who must sign: those in control or, under pre-rotation, the committed list, found from the
    keys given with `option`."""
    if state.control.next is None:
        return state.control.current
    keys = [read_account_text(text) for text in texts]
    return identity.find_committed(state.control.next, keys, threshold, option)


def _updater(
    log: identity.DidLog,
    state: identity.KeyState,
    required: KeyList,
    successor: KeyList,
    signer_texts: Sequence[str],
    document: dict[str, Any],
    plan: Future,
    save_path: Path | None,
) -> Callable[[str, int], bytes]:
    """What builds the update. Raises UsageError if the keys are not enough, or if pre-rotation
    would end unasked."""
    next_list = plan.next_list()
    if state.control.next is not None and next_list is None and not plan.gives_up_next:
        raise UsageError(
            "this change reveals the committed keys, and there would be none for the next change",
            expected="--next KEY to stay pre-rotated, or --no-next",
        )
    signers = identity.require_signers(
        required, load_signers(signer_texts), "--control", others_follow=save_path is not None
    )
    control = Control(
        current=successor, next=None if next_list is None else next_list.compute_commitment()
    )

    def build(net: str, exp_height: int) -> bytes:
        return update_operation(
            net=net,
            exp_height=exp_height,
            did=log.did,
            prev=state.head,
            seq=log.record.seq + 1,
            document=document,
            control=control,
            recovery=plan.tiers(state.tiers),
            signers=signers,
        )

    return build


def _fork_point(log: identity.DidLog, version: str | None) -> bytes:
    """The op hash that a recovery goes back to."""
    if version is not None:
        return log.hash_of_version(version)
    if not log.is_deactivated:
        return log.record.head
    head = next(i.operation for i in log.operations if i.operation.hash == log.record.head)
    assert head.prev is not None, "a deactivation follows something"
    return head.prev


def _find_tier(
    tiers: Sequence[KeyList], signers: Sequence[KeyPair], tier: int | None, *, others_follow: bool
) -> int:
    if not tiers:
        raise UsageError("the DID has no recovery tiers at that version")
    if tier is not None:
        if tier > len(tiers):
            raise UsageError("no such tier", expected=f"1..{len(tiers)}", got=str(tier))
        return tier - 1
    keys = {signer.public_key for signer in signers}
    for index, candidate in enumerate(tiers):
        needed = 1 if others_follow else candidate.threshold
        if keys <= set(candidate.keys) and len(keys) >= needed:
            return index
    raise UsageError(
        "these keys reach no recovery tier",
        expected="; ".join(
            f"tier {number}: {t.threshold} of " + ", ".join(map(encode_multikey, t.keys))
            for number, t in enumerate(tiers, 1)
        ),
        got=", ".join(encode_multikey(key) for key in sorted(keys)),
    )


def _control_rows(keys: KeyList) -> list[tuple[str, object]]:
    return [("control", key_list_text(keys))]


def _next_rows(plan: Future) -> list[tuple[str, object]]:
    next_list = plan.next_list()
    if next_list is None:
        return []
    return [("committed to", encode_hash(next_list.compute_commitment()))]


def _says_something(plan: Future) -> bool:
    return bool(plan.next_keys or plan.gives_up_next or plan.recovery or plan.drops_recovery)
