"""`zynk vc`: issue, revoke and verify Verifiable Credentials (docs/credentials.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from audit.leaf import decode_stream_text, encode_stream_text
from audit.receipt import RECEIPT_BYTES_MAX, RECEIPT_SUFFIX
from audit.verify import decode_any_receipt
from did import strict_json
from did.credential import complete_credential, read_issuer
from did.data_integrity import DOCUMENT_BYTES_MAX, JCS, SUITES, decode_document
from did.document_at import decode_history_answer
from did.status_list import LIST_BITS_MAX, LIST_BITS_MIN, read_bits, read_status_entry
from did.syntax import decode_did
from did.verify import ANSWER_BYTES_MAX
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from node.checkpoint import Trust
from node.cli_audit import FILE
from node.cli_keys import KEY_PATH, load_key_file
from node.cli_output import (
    F,
    ask_node,
    json_option,
    read_option,
    rpc_option,
    show,
    show_steps,
)
from node.cli_trust import (
    EXIT_BY_VERDICT,
    age_option,
    at_option,
    conclude,
    load_trust,
    load_trust_if,
    period_option,
    trust_option,
)
from node.files import locked, read_small, replace_file
from node.identity import fetch_log
from node.vc_check import CredentialVerdict, StatusEvidence, check_credential
from node.vc_issue import (
    ANSWER_SUFFIX,
    LOCK_SUFFIX,
    STREAM_SUFFIX,
    Issuer,
    anchor_bytes,
    beside,
    fetch_stream,
    find_issuer,
    list_id_of,
    make_list,
    read_list,
    revoke_in,
    take_entry,
    verify_list_size,
    write_json,
)
from rpc.client import RpcClient
from rpc.errors import RpcError

ANSWER_AGE_S = str(30 * 24 * 3600)
LIST_AGE_S = str(7 * 24 * 3600)
"""As long as a certificate authority may leave a revocation list unchanged (CA/Browser Forum
Baseline Requirements 4.9.7)."""
OUT = click.Path(dir_okay=False, path_type=Path)


@click.group()
def vc() -> None:
    """Issue, revoke and check Verifiable Credentials."""


def signer_option(command: F) -> F:
    """Adds `--key FILE`."""
    return click.option(
        "--key",
        "key_path",
        required=True,
        type=KEY_PATH,
        help="A key that the issuer's document lists for assertions.",
    )(command)


def anchor_options(command: F) -> F:
    """Adds `--stream` and `--timeout`."""
    for option in (
        click.option("--timeout", default=120.0, show_default=True, help="Seconds for the anchor."),
        click.option("--stream", required=True, help="The stream to anchor the list's hash in."),
    ):
        command = option(command)
    return command


suite_option = click.option(
    "--suite", default=JCS, show_default=True, type=click.Choice(SUITES), help="How it is signed."
)


@vc.command("issue")
@click.argument("template_path", metavar="TEMPLATE", type=FILE)
@click.option("--issuer", "issuer_did", required=True, metavar="DID")
@signer_option
@click.option("--out", required=True, type=OUT, help="The credential; must not exist yet.")
@suite_option
@click.option("--status-list", "list_path", type=FILE, help="Makes it revocable, in this list.")
@trust_option(required=False)
@rpc_option
@json_option
def vc_issue(
    template_path: Path,
    issuer_did: str,
    key_path: Path,
    out: Path,
    suite: str,
    list_path: Path | None,
    trust_path: Path | None,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Sign a credential. TEMPLATE is JSON with `credentialSubject` at least; `@context`, `type`,
    `issuer` and `validFrom` are filled in where absent. The issuer's proven history goes to
    OUT.zanswer, so that the credential can be checked offline."""
    if out.exists():
        raise UsageError("the file exists already", got=str(out))
    template = _read_template(template_path)
    issuer = _find_issuer(rpc_url, issuer_did, load_key_file(key_path), trust_path)
    if list_path is None:
        credential = _complete(template, issuer, None)
    else:
        _complete(template, issuer, None)  # refuse a bad template before an entry is taken
        with locked(beside(list_path, LOCK_SUFFIX)):
            status_list = read_list(list_path)
            if read_issuer(status_list) != issuer_did:
                raise UsageError(
                    "the status list has another issuer", got=read_issuer(status_list)[:120]
                )
            entry = take_entry(list_path, status_list)
        credential = _complete(template, issuer, entry.to_json())
    signed = issuer.sign(credential, suite)
    write_json(beside(out, ANSWER_SUFFIX), issuer.answer)
    write_json(out, signed)
    status = read_status_entry(signed)
    data = {
        "credential": str(out),
        "answer": str(beside(out, ANSWER_SUFFIX)),
        "issuer": issuer_did,
        "verification_method": issuer.method,
        "created": signed["proof"]["created"],
        "suite": suite,
        "status_index": None if status is None else status.index,
        "checked": trust_path is not None,
    }
    rows: list[tuple[str, object]] = [
        ("credential", out),
        ("issuer", issuer_did),
        ("signed by", issuer.method),
        ("at", data["created"]),
        ("status", "can not be revoked" if status is None else status.to_json()["id"]),
        ("next", f"zynk vc verify {out} --trust genesis.json"),
    ]
    show(as_json, data, rows)


@vc.command("status-list")
@click.argument("list_path", metavar="LIST", type=OUT)
@click.option("--url", "list_id", required=True, help="Where the list will be published: its id.")
@click.option("--issuer", "issuer_did", required=True, metavar="DID")
@signer_option
@click.option(
    "--bits",
    "bits_count",
    default=LIST_BITS_MIN,
    show_default=True,
    type=click.IntRange(LIST_BITS_MIN, LIST_BITS_MAX),
    help="Entries, one a credential.",
)
@suite_option
@anchor_options
@trust_option(required=False)
@rpc_option
@json_option
def vc_status_list(
    list_path: Path,
    list_id: str,
    issuer_did: str,
    key_path: Path,
    bits_count: int,
    suite: str,
    stream: str,
    timeout: float,
    trust_path: Path | None,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Make a status list in which nothing is revoked yet, and anchor its hash."""
    verify_list_size(bits_count)
    read_option(decode_stream_text, stream)
    key = load_key_file(key_path)
    with locked(beside(list_path, LOCK_SUFFIX)):
        if list_path.exists():
            raise UsageError("the file exists already", got=str(list_path))
        issuer = _find_issuer(rpc_url, issuer_did, key, trust_path)
        status_list = make_list(issuer, list_id, bits_count, suite)
        _publish(list_path, status_list, issuer, stream, timeout, trust_path, rpc_url)
    data = {"list": str(list_path), "id": list_id, "bits": bits_count, "issuer": issuer_did}
    rows: list[tuple[str, object]] = [
        ("list", f"{list_path}, {bits_count} entries"),
        ("id", list_id),
        ("receipt", beside(list_path, RECEIPT_SUFFIX)),
        ("next", f"zynk vc issue TEMPLATE --status-list {list_path} ..."),
    ]
    show(as_json, data, rows)


@vc.command("revoke")
@click.argument("paths", nargs=-1, type=FILE, metavar="[CREDENTIAL]...")
@click.option("--status-list", "list_path", required=True, type=FILE)
@click.option("--index", "indexes", multiple=True, type=click.IntRange(0, LIST_BITS_MAX - 1))
@signer_option
@anchor_options
@trust_option(required=False)
@rpc_option
@json_option
def vc_revoke(
    paths: tuple[Path, ...],
    list_path: Path,
    indexes: tuple[int, ...],
    key_path: Path,
    stream: str,
    timeout: float,
    trust_path: Path | None,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Revoke credentials, given as files or by --index: the list is changed, signed and anchored.
    Without any, the list is signed and anchored anew, which shows that it is still current."""
    read_option(decode_stream_text, stream)
    key = load_key_file(key_path)
    with locked(beside(list_path, LOCK_SUFFIX)):
        status_list = read_list(list_path)
        wanted = sorted({*indexes, *(_index_in(path, status_list) for path in paths)})
        issuer = _find_issuer(rpc_url, read_issuer(status_list), key, trust_path)
        changed, before = revoke_in(status_list, wanted, issuer)
        _publish(list_path, changed, issuer, stream, timeout, trust_path, rpc_url)
    data = {"list": str(list_path), "revoked": wanted, "revoked_before": before}
    rows: list[tuple[str, object]] = [
        ("list", list_path),
        ("revoked", ", ".join(map(str, wanted)) or "nothing; signed and anchored anew"),
        ("receipt", beside(list_path, RECEIPT_SUFFIX)),
        ("next", f"publish {list_path} and its receipt at {list_id_of(changed)}"),
    ]
    show(as_json, data, rows)


@vc.command("verify")
@click.argument("path", metavar="CREDENTIAL", type=FILE)
@trust_option(required=True)
@period_option
@click.option(
    "--rpc",
    "rpc_url",
    metavar="URL",
    help="Ask this node, now: about the issuer, whose stream the list is anchored in, and the "
    "header of a trust point file.",
)
@click.option(
    "--answer",
    "answer_paths",
    multiple=True,
    type=FILE,
    help="The issuer's history (default: CREDENTIAL.zanswer, LIST.zanswer).",
)
@click.option("--status-list", "list_path", type=FILE, help="The list that its status is in.")
@click.option("--status-receipt", "receipt_path", type=FILE, help="Default: LIST.zreceipt.")
@age_option("--max-age", ANSWER_AGE_S, "the newest answer about the issuer")
@age_option("--status-max-age", LIST_AGE_S, "the signature of the status list")
@at_option
@json_option
def vc_verify(
    path: Path,
    trust_path: Path,
    trusting_period_s: int | None,
    rpc_url: str | None,
    answer_paths: tuple[Path, ...],
    list_path: Path | None,
    receipt_path: Path | None,
    max_age: int | None,
    status_max_age: int | None,
    at_ms: int | None,
    as_json: bool,
) -> None:
    """Check a credential step by step: offline with the answers beside it, or with a node's.

    Exit codes: 0 valid, 1 wrong or revoked, 7 valid but the trust point is past its trusting
    period, 8 too old, 9 it can not be told.
    """
    trust = load_trust(trust_path, rpc_url, trusting_period_s=trusting_period_s, at_ms=at_ms)
    credential = decode_document(read_small(path, "credential", DOCUMENT_BYTES_MAX))
    found = [beside(p, ANSWER_SUFFIX) for p in (path, list_path) if p is not None]
    files = [*answer_paths, *(p for p in found if p.exists())]
    answers = [decode_history_answer(read_small(p, "answer file", ANSWER_BYTES_MAX)) for p in files]
    if rpc_url is not None:
        answers.append(_ask_history(rpc_url, credential, trust))
    status = _read_status(list_path, receipt_path, status_max_age, rpc_url, trust)
    verdict = check_credential(
        credential,
        answers=answers,
        trust=trust,
        status=status,
        max_age_ms=max_age,
    )
    _show_verdict(as_json, verdict, path, trust)


# --- parts ---


def _read_template(path: Path) -> dict[str, Any]:
    template = decode_document(read_small(path, "template", DOCUMENT_BYTES_MAX))
    if "credentialSubject" not in template:
        raise InvalidInputError("template has no claims", expected="credentialSubject")
    return template


def _complete(
    template: Mapping[str, Any], issuer: Issuer, status: Mapping[str, str] | None
) -> dict[str, Any]:
    return complete_credential(
        template, issuer=issuer.did, valid_from_ms=issuer.time_ms, status=status
    )


def _find_issuer(rpc_url: str, did: str, key: KeyPair, trust_path: Path | None) -> Issuer:
    read_option(decode_did, did)
    trust = load_trust_if(trust_path, rpc_url)
    return ask_node(rpc_url, lambda client: find_issuer(client, did, key, trust))


def _publish(
    path: Path,
    status_list: Mapping[str, Any],
    issuer: Issuer,
    stream: str,
    timeout_s: float,
    trust_path: Path | None,
    rpc_url: str,
) -> None:
    """Anchor the new list, and only then replace the old one and what is beside it. Between the
    three files a crash leaves a list that does not verify; the same command again mends it."""
    data = strict_json.encode(status_list)
    trust = load_trust_if(trust_path, rpc_url)

    async def work(client: RpcClient) -> tuple[dict[str, Any], bytes]:
        found = await fetch_stream(client, stream, issuer.did, trust)
        return found, await anchor_bytes(client, data, stream, timeout_s=timeout_s, trust=trust)

    owned, receipt = ask_node(rpc_url, work)
    write_json(beside(path, ANSWER_SUFFIX), issuer.answer)
    write_json(beside(path, STREAM_SUFFIX), owned)
    replace_file(beside(path, RECEIPT_SUFFIX), receipt)
    replace_file(path, data)


def _index_in(path: Path, status_list: Mapping[str, Any]) -> int:
    """The entry of a credential, which must be in this list. Raises UsageError."""
    credential = decode_document(read_small(path, "credential", DOCUMENT_BYTES_MAX))
    entry = read_status_entry(credential)
    if entry is None:
        raise UsageError("the credential has no status entry: it can not be revoked", got=str(path))
    if entry.list_id != list_id_of(status_list):
        raise UsageError(
            "the credential is in another status list",
            expected=list_id_of(status_list)[:200],
            got=entry.list_id[:200],
        )
    read_bits(status_list, entry)  # refuses an entry past the end
    return entry.index


def _ask_history(rpc_url: str, credential: Mapping[str, Any], trust: Trust) -> dict[str, Any]:
    issuer = read_issuer(credential)
    decode_did(issuer)
    height = trust.point.height
    log = ask_node(rpc_url, lambda client: fetch_log(client, issuer, trust, trusted_height=height))
    return log.to_answer()


def _read_status(
    list_path: Path | None,
    receipt_path: Path | None,
    max_age_ms: int | None,
    rpc_url: str | None,
    trust: Trust,
) -> StatusEvidence | None:
    if list_path is None:
        return None
    receipt = read_small(
        receipt_path or beside(list_path, RECEIPT_SUFFIX), "receipt", 3 * RECEIPT_BYTES_MAX
    )
    stream_path = beside(list_path, STREAM_SUFFIX)
    stream = None if rpc_url is None else _ask_stream(rpc_url, receipt, trust)
    if stream is None and stream_path.exists():
        data = read_small(stream_path, "answer about the stream", ANSWER_BYTES_MAX)
        stream = strict_json.decode(data, bytes_max=ANSWER_BYTES_MAX)
        if type(stream) is not dict:
            raise InvalidInputError("answer about the stream is malformed", expected="an object")
    return StatusEvidence(
        status_list=read_list(list_path), receipt=receipt, stream=stream, age_max_ms=max_age_ms
    )


def _ask_stream(rpc_url: str, receipt: bytes, trust: Trust) -> dict[str, Any] | None:
    """Of the stream that the receipt names; None if the receipt can not be read, which the verdict
    tells, or the node does not say."""
    try:
        stream = encode_stream_text(decode_any_receipt(receipt).leaf.stream)
    except InvalidInputError:
        return None
    height = trust.point.height
    try:
        found: dict[str, Any] = ask_node(
            rpc_url,
            lambda client: client.call("audit_stream", stream=stream, trusted_height=height),
        )
    except RpcError:
        return None
    return found


def _show_verdict(as_json: bool, found: CredentialVerdict, path: Path, trust: Trust) -> None:
    worth = found.verdict.worth
    if as_json:
        click.echo(json.dumps({"path": str(path), **found.to_json()}))
    else:
        show_steps([(True, f"Trusted: {trust.text}.")])
        show_steps([(step.is_ok, step.text) for step in found.verdict.steps])
        if found.is_revoked:
            click.echo(f"REVOKED: {path}")
            raise click.exceptions.Exit(EXIT_BY_VERDICT[worth])
    conclude(worth, [str(path)], as_json=as_json)
