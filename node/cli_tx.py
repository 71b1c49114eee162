"""`zynk tx`: transfers, transactions, accounts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from audit.leaf import encode_stream_text
from audit.stream import CreateStream, decode_stream_body
from did.operation import decode_operation
from ledger.accounts import (
    EMPTY_ACCOUNT,
    MEMO_BYTES_MAX,
    Account,
    TransferBody,
    account_key,
    encode_account_id,
)
from ledger.codec import U64_MAX
from ledger.ed25519 import is_valid_signature
from ledger.errors import InvalidInputError, UsageError
from ledger.tx import TX_BYTES_MAX, Message, Tx
from node.checkpoint import Trust, verify_row
from node.cli_keys import KEY_PATH, load_key_file, read_account_text
from node.cli_output import (
    ask_node,
    json_option,
    rpc_option,
    show,
    show_steps,
)
from node.cli_trust import load_trust_if, trust_option
from node.files import read_small
from node.wallet import TxFailedError, Wallet
from rpc.client import RpcClient
from rpc.params import bytes_of_text, text_of_bytes

WAIT_MS = 30_000

key_option = click.option(
    "--key", "key_path", required=True, type=KEY_PATH, help="Key file of the account that pays."
)


@click.group()
def tx() -> None:
    """Send, look up and read transactions; look at accounts."""


@tx.command("transfer")
@key_option
@click.option("--to", "to_text", required=True, help="The receiver: z6Mk..., hex or a key file.")
@click.option("--amount", required=True, type=click.IntRange(1, U64_MAX), help="In uzynk.")
@click.option("--memo", default="", help="A public note, kept on the chain for ever.")
@click.option("--sign-only", is_flag=True, help="Print the signed bytes and don't submit.")
@rpc_option
@json_option
def tx_transfer(
    key_path: Path,
    to_text: str,
    amount: int,
    memo: str,
    sign_only: bool,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Send uzynk to an account, and wait until that is final."""
    to = read_account_text(to_text)
    if len(memo.encode()) > MEMO_BYTES_MAX:
        raise UsageError("memo is too long", expected=f"at most {MEMO_BYTES_MAX} bytes")
    key = load_key_file(key_path)
    message = Message(
        "bank/transfer", TransferBody(to=to, amount=amount, memo=memo.encode()).encode()
    )

    async def send(client: RpcClient) -> dict[str, Any]:
        wallet = Wallet(client, key)
        if sign_only:
            signed = await wallet.sign([message])
            return {"tx_id": signed.id.hex(), "tx": text_of_bytes(signed.encoded)}
        return await wallet.submit([message], timeout_ms=WAIT_MS)

    answer = ask_node(rpc_url, send)
    if sign_only:
        show(as_json, answer, [("tx id", answer["tx_id"]), ("bytes", answer["tx"])])
        return
    rows: list[tuple[str, object]] = [
        ("sent", f"{amount} uzynk to {encode_account_id(to)}"),
        *result_rows(answer),
    ]
    show(as_json, {**answer, "amount": str(amount), "to": encode_account_id(to)}, rows)


@tx.command("get")
@click.argument("tx_id")
@rpc_option
@json_option
def tx_get(tx_id: str, rpc_url: str, as_json: bool) -> None:
    """What became of a transaction: pending, or final with its result."""
    answer = ask_node(rpc_url, lambda client: client.call("tx_get", tx_id=tx_id))
    show(as_json, answer, result_rows(answer))


@tx.command("show")
@click.argument("source", metavar="BYTES")
@json_option
def tx_show(source: str, as_json: bool) -> None:
    """Read a transaction offline. BYTES is base64url, hex, or a file of either (- is stdin)."""
    decoded = _read_tx(source)
    is_signed = is_valid_signature(decoded.payer, decoded.sign_bytes(), decoded.signature)
    messages = [_describe_message(message) for message in decoded.messages]
    data = {
        "tx_id": decoded.id.hex(),
        "chain_id": decoded.chain_id,
        "payer": encode_account_id(decoded.payer),
        "nonce": decoded.nonce,
        "fee": str(decoded.fee),
        "valid_until": decoded.valid_until,
        "bytes": len(decoded.encoded),
        "signature_valid": is_signed,
        "messages": messages,
    }
    rows: list[tuple[str, object]] = [
        ("tx id", data["tx_id"]),
        ("chain", decoded.chain_id),
        ("payer", data["payer"]),
        ("nonce", decoded.nonce),
        ("fee", f"{decoded.fee} uzynk"),
        ("valid until", f"height {decoded.valid_until}"),
        ("signature", "valid" if is_signed else "NOT VALID"),
    ]
    for message in messages:
        rows.append(("message", message["type"]))
        rows += [(f"  {name}", text) for name, text in message.items() if name != "type"]
    show(as_json, data, rows)
    if not is_signed:
        raise click.exceptions.Exit(1)


@tx.command("submit")
@click.argument("source", metavar="BYTES")
@click.option(
    "--wait",
    default="finalized",
    show_default=True,
    type=click.Choice(["accepted", "finalized"]),
    help="When to come back.",
)
@rpc_option
@json_option
def tx_submit(source: str, wait: str, rpc_url: str, as_json: bool) -> None:
    """Submit signed bytes (base64url, hex, a file of either, or - for stdin). Doing so twice is
    harmless."""
    signed = _read_tx(source)

    async def send(client: RpcClient) -> dict[str, Any]:
        answer: dict[str, Any] = await client.call(
            "tx_submit", tx=text_of_bytes(signed.encoded), wait=wait, timeout_ms=WAIT_MS
        )
        return answer

    answer = ask_node(rpc_url, send)
    show(as_json, answer, result_rows(answer))
    if answer.get("code", "ok") != "ok":
        raise TxFailedError(answer["code"], answer["message"])


@tx.command("account")
@click.argument("account")
@trust_option(required=False)
@rpc_option
@json_option
def tx_account(account: str, trust_path: Path | None, rpc_url: str, as_json: bool) -> None:
    """An account's balance. ACCOUNT is z6Mk..., hex or a key file. With --trust the node's proof
    is checked, so that its word doesn't count."""
    account_id = read_account_text(account)
    trust = load_trust_if(trust_path, rpc_url)
    answer = ask_node(
        rpc_url,
        lambda client: client.call(
            "chain_account",
            account=account_id.hex(),
            trusted_height=0 if trust is None else trust.point.height,
        ),
    )
    balance, nonce = int(answer["balance"]), int(answer["nonce"])
    steps = None if trust is None else _verify_account(trust, account_id, answer)
    data = {**answer, "account": encode_account_id(account_id), "verified": steps is not None}
    rows: list[tuple[str, object]] = [
        ("account", data["account"]),
        ("balance", f"{balance} uzynk"),
        ("next nonce", nonce),
        ("as of", f"block {answer['proof']['height']}"),
        (
            "checked",
            "no, this is what the node says (--trust genesis.json checks it)"
            if trust is None
            else f"yes, against {trust.text}",
        ),
    ]
    show(as_json, data, rows)
    if steps is not None and not as_json:
        show_steps([(True, text) for text in steps])


def result_rows(answer: Mapping[str, Any]) -> list[tuple[str, object]]:
    """A tx's outcome for people."""
    rows: list[tuple[str, object]] = [("tx id", answer["tx_id"])]
    if answer["status"] == "dropped":
        return [*rows, ("status", f"dropped by this node ({answer['reason']}); submit it again")]
    if answer["status"] != "finalized":
        return [*rows, ("status", f"{answer['status']}: not final yet")]
    code = answer["code"]
    rows += [
        ("status", f"final at height {answer['height']}"),
        ("result", "ok" if code == "ok" else f"FAILED: {code} ({answer['message']})"),
        ("fee", f"{answer['fee']} uzynk"),
    ]
    for event in answer.get("events", []):
        attributes = " ".join(f"{name}={text}" for name, text in event["attributes"].items())
        rows.append(("event", f"{event['type']} {attributes}"))
    return rows


def format_ms(time_ms: int) -> str:
    """Unix milliseconds as people read them, in UTC."""
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise InvalidInputError("time is out of range", got=str(time_ms)) from error
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _verify_account(trust: Trust, account_id: bytes, answer: dict[str, Any]) -> list[str]:
    row, steps = verify_row(trust, answer["proof"], account_key(account_id))
    proven = EMPTY_ACCOUNT if row is None else Account.decode(row)
    shown = Account(int(answer["balance"]), int(answer["nonce"]))
    if proven != shown:
        raise InvalidInputError(
            "the node says something that its proof does not show",
            expected=f"balance {proven.balance}, nonce {proven.nonce}",
            got=f"balance {shown.balance}, nonce {shown.nonce}",
        )
    return [*steps, "Balance and nonce are those of the row."]


def _read_tx(source: str) -> Tx:
    text = source.strip()
    if source == "-":
        with click.open_file("-", "r") as file:
            text = file.read(4 * TX_BYTES_MAX).strip()
    elif os.path.isfile(source):
        data = read_small(Path(source), "transaction file", 4 * TX_BYTES_MAX)
        try:
            text = data.decode("ascii").strip()
        except UnicodeDecodeError:
            return Tx.decode(data)
    try:
        return Tx.decode(bytes.fromhex(text))
    except ValueError:
        pass
    try:
        return Tx.decode(bytes_of_text(text))
    except ValueError as error:
        raise InvalidInputError(
            "not a transaction", expected="base64url, hex, or a file", got=repr(text)[:60]
        ) from error


def _describe_message(message: Message) -> dict[str, object]:
    """What a message says, for the types this client knows."""
    found: dict[str, object] = {"type": message.type}
    if message.type == "bank/transfer":
        transfer = TransferBody.decode(message.body)
        found["to"] = encode_account_id(transfer.to)
        found["amount"] = f"{transfer.amount} uzynk"
        if transfer.memo:
            found["memo"] = transfer.memo.decode(errors="backslashreplace")
    elif message.type == "did/op":
        operation = decode_operation(message.body)
        found["operation"] = operation.type.value
        found["did"] = operation.did_text
        found["version"] = operation.version_id
    elif message.type == "audit/stream":
        body = decode_stream_body(message.body)
        if isinstance(body, CreateStream):
            found["owner"] = body.owner
        else:
            found["stream"] = encode_stream_text(body.stream)
        found["submitters"] = ", ".join(map(encode_account_id, body.submitters))
        found["quota"] = f"{body.quota} leaves a day"
    else:
        found["body"] = message.body.hex()
    return found
