"""`zynk stake`: look at who secures the network, and take part in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ledger.accounts import encode_account_id
from ledger.codec import U64_MAX
from ledger.errors import UsageError, ZynkError
from ledger.staking_messages import AmountBody, RedelegateBody, SettleBody, WithdrawBody
from ledger.tx import Message
from node.cli_keys import load_key_file, read_account_text
from node.cli_output import ask_node, json_option, rpc_option, show, show_table
from node.cli_tx import format_ms, key_option, result_rows
from node.wallet import Wallet
from rpc.client import RpcClient

PAGE = 1000
WAIT_MS = 30_000
UZYNK = 1_000_000
POLL_S = 0.25
STATUSES = ("active", "standby", "jailed", "may-unjail", "tombstoned", "retired")

amount_option = click.option(
    "--amount", type=click.IntRange(1, U64_MAX), help="How much, in uzynk."
)
all_option = click.option("--all", "take_all", is_flag=True, help="All that is there.")


@click.group()
def stake() -> None:
    """Who secures the network, and with how much; bond, move and withdraw stake."""


@stake.command("validators")
@rpc_option
@json_option
def stake_validators(rpc_url: str, as_json: bool) -> None:
    """All validators: their status, power, stake and commission."""
    answer = ask_node(rpc_url, lambda client: ask_pages(client, "stake_validators", "validators"))
    total = sum(int(item["power"]) for item in answer["validators"])
    rows = [
        (
            item["name"],
            account_text(item["operator"]),
            item["status"],
            item["power"],
            f"{100 * int(item['power']) / max(total, 1):.1f}%",
            zynk_text(item["tokens"]),
            percent_text(item["commission_ppm"]),
            f"{item['missed']}/{item['missed_window']}",
        )
        for item in answer["validators"]
    ]
    columns = ("name", "operator", "status", "power", "share", "zynk", "commission", "missed")
    show_table(as_json, answer, columns, rows)


@stake.command("validator")
@click.argument("operator")
@click.option("--until", type=click.Choice(STATUSES), help="Wait until it has this status.")
@click.option(
    "--timeout", "timeout_s", default=600, show_default=True, type=click.IntRange(1), help="In s."
)
@rpc_option
@json_option
def stake_validator(
    operator: str, until: str | None, timeout_s: int, rpc_url: str, as_json: bool
) -> None:
    """One validator. OPERATOR is its account: z6Mk..., hex or a key file."""
    wanted = read_account_text(operator).hex()
    answer = ask_node(rpc_url, lambda client: _ask_validator(client, wanted, until, timeout_s))
    rows: list[tuple[str, object]] = [
        ("name", answer["name"]),
        ("operator", account_text(answer["operator"])),
        ("status", _status_text(answer)),
        ("power", answer["power"]),
        ("stake", f"{zynk_text(answer['tokens'])} zynk"),
        ("of its own", f"{zynk_text(answer['self_bond'])} zynk"),
        ("commission", percent_text(answer["commission_ppm"])),
        ("commission owed", f"{answer['commission_owed']} uzynk"),
        ("missed", f"{answer['missed']} of the last {answer['missed_window']} heights"),
        ("consensus key", account_text(answer["public_key"])),
        ("VRF key", account_text(answer["vrf_key"])),
        ("cosign key", account_text(answer["cosign_key"])),
    ]
    if answer["slash"]:
        slash = answer["slash"]
        rows.append(
            (
                "slashed",
                f"{percent_text(slash['ppm'])} at height {slash['slashed_height']}, for a double "
                f"sign at height {slash['offence_height']}",
            )
        )
    show(as_json, answer, rows)


@stake.command("delegations")
@click.argument("account", required=False)
@click.option("--validator", "validator", help="Only to this validator.")
@rpc_option
@json_option
def stake_delegations(
    account: str | None, validator: str | None, rpc_url: str, as_json: bool
) -> None:
    """Who has bonded how much to which validator; of ACCOUNT, or of everybody."""
    params = {
        "account": None if account is None else read_account_text(account).hex(),
        "validator": None if validator is None else read_account_text(validator).hex(),
    }
    answer = ask_node(
        rpc_url, lambda client: ask_pages(client, "stake_delegations", "delegations", **params)
    )
    rows = [
        (
            account_text(item["delegator"]),
            account_text(item["validator"]),
            item["amount"],
            item["rewards"],
        )
        for item in answer["delegations"]
    ]
    columns = ("delegator", "validator", "uzynk", "rewards so far")
    show_table(as_json, answer, columns, rows)


@stake.command("unbonding")
@click.argument("account", required=False)
@rpc_option
@json_option
def stake_unbonding(account: str | None, rpc_url: str, as_json: bool) -> None:
    """What was undelegated and waits for its time; of ACCOUNT, or of everybody."""
    wanted = None if account is None else read_account_text(account).hex()
    answer = ask_node(
        rpc_url, lambda client: ask_pages(client, "stake_unbonding", "entries", account=wanted)
    )
    rows = [
        (
            account_text(item["delegator"]),
            account_text(item["validator"]),
            item["amount"],
            format_ms(item["due_ms"]),
        )
        for item in answer["entries"]
    ]
    show_table(as_json, answer, ("delegator", "validator", "uzynk", "free from"), rows)


@stake.command("delegate")
@key_option
@click.option("--to", "validator", required=True, help="The validator's operator account.")
@click.option("--amount", required=True, type=click.IntRange(1, U64_MAX), help="In uzynk.")
@rpc_option
@json_option
def stake_delegate(
    key_path: Path, validator: str, amount: int, rpc_url: str, as_json: bool
) -> None:
    """Bond stake to a validator."""
    operator = read_account_text(validator)
    message = Message("stake/delegate", AmountBody(operator=operator, amount=amount).encode())
    send_and_show(key_path, [message], rpc_url, as_json)


@stake.command("undelegate")
@key_option
@click.option("--from", "validator", required=True, help="The validator's operator account.")
@amount_option
@all_option
@rpc_option
@json_option
def stake_undelegate(
    key_path: Path,
    validator: str,
    amount: int | None,
    take_all: bool,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Take stake away from a validator. It comes back after the unbonding time, and answers for the
    validator's offences until then."""
    operator, key = read_account_text(validator), load_key_file(key_path)
    shares = _shares_of(rpc_url, operator, key.public_key, amount, take_all)
    message = Message("stake/undelegate", AmountBody(operator=operator, amount=shares).encode())
    send_and_show(key_path, [message], rpc_url, as_json)


@stake.command("redelegate")
@key_option
@click.option("--from", "source", required=True, help="The validator that has the stake.")
@click.option("--to", "target", required=True, help="The validator that gets it.")
@amount_option
@all_option
@rpc_option
@json_option
def stake_redelegate(
    key_path: Path,
    source: str,
    target: str,
    amount: int | None,
    take_all: bool,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Move stake to another validator at once. It answers for the old one's offences until the
    unbonding time is over."""
    operator, destination = read_account_text(source), read_account_text(target)
    account = load_key_file(key_path).public_key
    shares = _shares_of(rpc_url, operator, account, amount, take_all)
    body = RedelegateBody(source=operator, destination=destination, shares=shares)
    send_and_show(key_path, [Message("stake/redelegate", body.encode())], rpc_url, as_json)


@stake.command("withdraw")
@key_option
@click.option("--from", "validators", multiple=True, help="Validators; absent: all delegated to.")
@rpc_option
@json_option
def stake_withdraw(key_path: Path, validators: Sequence[str], rpc_url: str, as_json: bool) -> None:
    """Take the rewards (and, with an operator's key, its commission) to the account."""
    operators = [read_account_text(text) for text in validators]
    if not operators:
        account = load_key_file(key_path).public_key.hex()
        answer = ask_node(
            rpc_url,
            lambda client: ask_pages(client, "stake_delegations", "delegations", account=account),
        )
        operators = [bytes.fromhex(item["validator"]) for item in answer["delegations"]]
    if not operators:
        raise UsageError("the account has delegated nothing", expected="--from VALIDATOR")
    messages = [
        Message("stake/withdraw", WithdrawBody(operator=operator).encode())
        for operator in operators[:16]
    ]
    send_and_show(key_path, messages, rpc_url, as_json)


@stake.command("settle")
@key_option
@click.option("--validator", required=True, help="The validator's operator account.")
@click.option("--delegator", required=True, help="Whose stake.")
@rpc_option
@json_option
def stake_settle(
    key_path: Path, validator: str, delegator: str, rpc_url: str, as_json: bool
) -> None:
    """Settle somebody's stake now: pay its rewards, and let a slash of where it came from take
    effect. Anyone may."""
    body = SettleBody(operator=read_account_text(validator), delegator=read_account_text(delegator))
    send_and_show(key_path, [Message("stake/settle", body.encode())], rpc_url, as_json)


# --- shared with cli_validator ---


def send_and_show(
    key_path: Path, messages: Sequence[Message], rpc_url: str, as_json: bool
) -> dict[str, Any]:
    """Submit, wait until final, print the outcome. Raises TxFailedError if it failed."""
    key = load_key_file(key_path)

    async def send(client: RpcClient) -> dict[str, Any]:
        return await Wallet(client, key).submit(messages, timeout_ms=WAIT_MS)

    answer = ask_node(rpc_url, send)
    show(as_json, answer, result_rows(answer))
    return answer


async def ask_pages(client: RpcClient, method: str, name: str, **params: object) -> dict[str, Any]:
    """All pages of a list as one answer. Cursors may rise or fall; one that comes again ends it."""
    found: list[Any] = []
    cursor: int | None = 0
    page: dict[str, Any] = {}
    seen: set[int | None] = set()
    while cursor is not None and cursor not in seen:
        seen.add(cursor)
        page = await client.call(method, cursor=cursor, limit=PAGE, **params)
        found += page[name]
        cursor = page["next_cursor"]
    return {**page, name: found}


def account_text(hex_text: str) -> str:
    """z6Mk... of an account in hex."""
    return encode_account_id(bytes.fromhex(hex_text))


def zynk_text(uzynk: str) -> str:
    """An amount of uzynk, in zynk."""
    whole, rest = divmod(int(uzynk), UZYNK)
    return f"{whole:,}" + (f".{rest:06}".rstrip("0") if rest else "")


def percent_text(ppm: int) -> str:
    """Millionths as percent."""
    return f"{ppm / 10_000:g} %"


async def _ask_validator(
    client: RpcClient, operator: str, until: str | None, timeout_s: int
) -> dict[str, Any]:
    """The validator, once its status is `until`. Raises ZynkError (retry) if that takes too
    long."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer: dict[str, Any] = await client.call("stake_validator", operator=operator)
        if until is None or answer["status"] == until:
            return answer
        if time.monotonic() > deadline:
            raise ZynkError(
                "the validator does not have that status yet",
                expected=until,
                got=answer["status"],
                retry=True,
            )
        await asyncio.sleep(POLL_S)


def _status_text(answer: dict[str, Any]) -> str:
    status: str = answer["status"]
    if status == "jailed":
        return f"jailed until {format_ms(answer['jailed_until_ms'])}"
    if status == "may-unjail":
        return "jailed; its time is over (zynk stake unjail)"
    return status


def _shares_of(
    rpc_url: str, operator: bytes, account: bytes, amount: int | None, take_all: bool
) -> int:
    """The shares that are worth `amount` uzynk, rounded up, or all of them. Raises UsageError."""
    if (amount is None) != take_all:
        raise UsageError("say how much", expected="either --amount or --all")

    async def ask(client: RpcClient) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        page = await client.call(
            "stake_delegations", account=account.hex(), validator=operator.hex()
        )
        return await client.call("stake_validator", operator=operator.hex()), page["delegations"]

    validator, delegations = ask_node(rpc_url, ask)
    if not delegations:
        raise UsageError(
            "the account has delegated nothing to this validator", got=encode_account_id(account)
        )
    held, tokens = int(delegations[0]["shares"]), int(validator["tokens"])
    if amount is None or not tokens:
        return held
    shares = -(-amount * int(validator["shares"]) // tokens)
    if shares > held:
        raise UsageError(
            "the account has not delegated so much",
            expected=f"at most {delegations[0]['amount']} uzynk",
            got=f"{amount} uzynk",
        )
    return shares
