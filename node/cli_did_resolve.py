"""`zynk did resolve` and `zynk did verify`: ask a question about a DID, and judge the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from did.dereference import dereference, dereference_answer
from did.did_url import DidUrl, parse_did_url
from did.resolution_error import ResolutionError
from did.resolution_options import Options, read_options
from did.verify import ANSWER_BYTES_MAX, Outcome, Verdict
from did.verify_answer import Basis, verify_answer
from ledger.errors import InvalidInputError, UsageError
from ledger.light import Verdict as Worth
from ledger.light import format_span, verdict_of, verify_age
from node.checkpoint import Trust
from node.cli_output import F, ask_node, json_option, read_option, rpc_option, show_steps
from node.cli_trust import (
    age_option,
    at_option,
    conclude,
    header_rpc_option,
    load_trust,
    period_option,
    trust_option,
)
from node.cli_tx import format_ms
from node.files import read_small

AGE_DEFAULT_S = "60"

_OUTCOME = {
    Outcome.FOUND: "exists and is active",
    Outcome.DEACTIVATED: "is deactivated",
    Outcome.NOT_FOUND: "does not exist",
}


def question_options(command: F) -> F:
    """Adds what else can be asked besides the DID; parameters by the names of the W3C texts."""
    for name, parameter, text in (
        ("--relative-ref", "relativeRef", "With a service: resolved against its URL."),
        ("--service-type", "serviceType", "The services of this type."),
        ("--service", "service", "The service of this id."),
        ("--relationship", "verificationRelationship", "With a DID URL of a key: its purpose."),
        ("--version-time", "versionTime", "The version in force at this UTC time."),
        ("--version-id", "versionId", "This version."),
    ):
        command = click.option(name, parameter, help=text)(command)
    return click.option(
        "--as-of-height",
        "asOfHeight",
        type=click.IntRange(min=0),
        help="The history as it was known at this height.",
    )(command)


@click.command("resolve")
@click.argument("did_text", metavar="DID_URL")
@question_options
@trust_option(required=False)
@period_option
@age_option("--max-age", AGE_DEFAULT_S, "the block of the answer, with --trust,")
@rpc_option
@json_option
def did_resolve(
    did_text: str,
    trust_path: Path | None,
    trusting_period_s: int | None,
    max_age: int | None,
    rpc_url: str,
    as_json: bool,
    **question: Any,
) -> None:
    """Print the answer about a DID or DID URL: document, metadata and proof, as JSON that `did
    verify` reads.

    What it means in words goes to stderr. With --trust the proof is checked at once, and the exit
    code is that of `did verify`.
    """
    options = _given(question)
    url, read = _read_question(did_text, options)
    trust = None
    if trust_path is not None:
        trust = load_trust(trust_path, rpc_url, trusting_period_s=trusting_period_s)
    result = ask_node(
        rpc_url,
        lambda client: client.call(
            "did_resolve",
            did=url.did,
            version_id=read.version_id,
            version_time=read.version_time,
            as_of_height=read.as_of_height,
            trusted_height=read.trusted_height if trust is None else trust.point.height,
        ),
    )
    is_part = bool(url.path or url.fragment is not None or read.is_dereferencing)
    answer = dereference_answer(result, url, read) if is_part else result
    click.echo(json.dumps(answer, indent=None if as_json else 2))
    shown = answer["dereferencingMetadata" if is_part else "didResolutionMetadata"]
    error = shown.get("error")
    if trust is not None and (error is None or "proof" in shown or "didDocument" in shown):
        data = json.dumps(answer).encode()
        _judge(data, [did_text], options, trust, max_age, as_json=False, err=True)
    elif error is None:
        click.echo("Not checked: --trust genesis.json, or `zynk did verify`, does.", err=True)
    if error is not None:
        raise InvalidInputError(f"{did_text} does not resolve", got=str(error.get("detail", error)))
    if read.selects_services and result["didDocument"] is not None:
        _show_urls(result["didDocument"], url, read)


@click.command("verify")
@click.argument("answer_path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--did",
    "asked",
    multiple=True,
    metavar="DID_URL",
    help="The DID or DID URL it must be about; once for each of a batch, in its order.",
)
@question_options
@trust_option(required=True)
@period_option
@header_rpc_option
@age_option("--max-age", AGE_DEFAULT_S, "the block of the answer")
@at_option
@json_option
def did_verify(
    answer_path: Path,
    asked: tuple[str, ...],
    trust_path: Path,
    trusting_period_s: int | None,
    rpc_url: str | None,
    max_age: int | None,
    at_ms: int | None,
    as_json: bool,
    **question: Any,
) -> None:
    """Check a saved answer offline, step by step: a resolution or dereferencing result, a batch, a
    history page or a record's proof. Give what was asked for.

    Exit codes: 0 valid, 1 wrong, 7 valid but the trust point is past its trusting period, 8 too
    old, 9 it can not be told.
    """
    trust = load_trust(trust_path, rpc_url, trusting_period_s=trusting_period_s, at_ms=at_ms)
    data = read_small(answer_path, "answer file", ANSWER_BYTES_MAX)
    _judge(data, asked, _given(question), trust, max_age, as_json=as_json, err=False)


# --- the question ---


def _given(question: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in question.items() if value is not None}


def _read_question(text: str, options: Mapping[str, object]) -> tuple[DidUrl, Options]:
    """Raises UsageError, also for what the DID URL and an option both say."""
    url = read_option(parse_did_url, text)
    repeated = next((name for name in options if name in url.parameters), None)
    if repeated is not None:
        raise UsageError("the DID URL and an option both say it", got=repeated)
    try:
        return url, read_options({**url.parameters, **options})
    except ResolutionError as error:
        raise UsageError(error.message, got=text) from error


def _show_urls(document: Mapping[str, Any], url: DidUrl, options: Options) -> None:
    """The services' URLs, on standard error."""
    try:
        urls = dereference(document, url, options, wants_urls=True).value
    except ResolutionError as error:
        raise InvalidInputError(error.message) from error
    for found in urls:
        click.echo(f"URL: {found}", err=True)


# --- the answer ---


def _judge(
    data: bytes,
    asked: Sequence[str],
    options: Mapping[str, object],
    trust: Trust,
    max_age_ms: int | None,
    *,
    as_json: bool,
    err: bool,
) -> None:
    """Verify and print. Raises click's Exit if the answer is not valid, UsageError."""
    now_ms, worth, reason = trust.now_ms(), Worth.VALID, ""
    basis = Basis(trusted=trust.point, chain_id=trust.chain_id, max_age_ms=None, now_ms=now_ms)
    verdicts: list[Verdict] = []
    try:
        verdicts = verify_answer(data, asked=asked, options=options, basis=basis)
        for verdict in verdicts:
            verify_age(verdict.time_ms, trust.point, now_ms=now_ms, max_age_ms=max_age_ms)
    except InvalidInputError as error:
        worth, reason = verdict_of(error), str(error)
    about = ", ".join(asked) or "the answer"
    if as_json:
        head = {"ok": worth is Worth.VALID, "verdict": worth.value, "reason": reason}
        click.echo(json.dumps(head | _answers_json(verdicts, about)))
    else:
        show_steps([(True, f"trust: {trust.text}")], err=err)
        for verdict in verdicts:
            show_steps([(True, text) for text in verdict.steps], err=err)
        if worth is Worth.VALID and verdicts:
            limit = "" if max_age_ms is None else f", at most {format_span(max_age_ms)} are allowed"
            age = format_span(max(0, now_ms - verdicts[0].time_ms))
            show_steps([(True, f"the block is {age} old{limit}")], err=err)
        if reason:
            show_steps([(False, reason)], err=err)
    conclude(worth, [_describe(v) for v in verdicts] or [about], as_json=as_json, err=err)


def _describe(verdict: Verdict) -> str:
    return (
        f"{verdict.did} {_OUTCOME[verdict.outcome]} as of block {verdict.height}, "
        f"{format_ms(verdict.time_ms)}"
        + (f", version {verdict.version_id}" if verdict.version_id else "")
    )


def _answers_json(verdicts: Sequence[Verdict], about: str) -> dict[str, object]:
    found: list[dict[str, object]] = [
        {
            "did": verdict.did,
            "outcome": verdict.outcome.value,
            "height": verdict.height,
            "time_ms": verdict.time_ms,
            "version": verdict.version_id,
            "steps": list(verdict.steps),
        }
        for verdict in verdicts
    ]
    if not found:
        return {"did": about}
    return found[0] if len(found) == 1 else {"answers": found}
