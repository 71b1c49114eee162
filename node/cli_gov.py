"""`zynk gov`: propose changes of the chain's parameters and upgrades, and vote on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ledger.codec import U64_MAX
from ledger.errors import UsageError
from ledger.governance_change import compute_params
from ledger.governance_proposal import (
    CancelChange,
    Change,
    Choice,
    ParamsChange,
    ProposeBody,
    UpgradeChange,
    VoteBody,
)
from ledger.params import ChainParams
from ledger.tx import Message
from ledger.upgrade import Upgrade
from node.cli_keys import load_key_file, read_account_text
from node.cli_output import ask_node, json_option, rpc_option, show, show_table
from node.cli_stake import account_text, ask_pages, send_and_show, zynk_text
from node.cli_tx import format_ms, key_option

title_option = click.option("--title", required=True, help="What it is about, in one line.")
summary_option = click.option("--summary", default="", help="Why, for those who vote.")


@click.group()
def gov() -> None:
    """Propose and vote: parameters of the chain, and upgrades."""


@gov.command("list")
@rpc_option
@json_option
def gov_list(rpc_url: str, as_json: bool) -> None:
    """All proposals, newest first, with the votes so far."""
    answer = ask_node(rpc_url, lambda client: ask_pages(client, "gov_proposals", "proposals"))
    rows = [
        (
            item["id"],
            item["status"],
            item["title"],
            zynk_text(item["yes"]),
            zynk_text(item["no"]),
            zynk_text(item["abstain"]),
            format_ms(item["end_ms"]),
        )
        for item in answer["proposals"]
    ]
    columns = ("id", "status", "title", "yes", "no", "abstain", "ends")
    show_table(as_json, answer, columns, rows)


@gov.command("show")
@click.argument("proposal_id", metavar="ID", type=click.IntRange(1, U64_MAX))
@rpc_option
@json_option
def gov_show(proposal_id: int, rpc_url: str, as_json: bool) -> None:
    """One proposal: what it changes, and how far it is."""
    answer = ask_node(rpc_url, lambda client: client.call("gov_proposal", proposal=proposal_id))
    voted = sum(int(answer[choice]) for choice in ("yes", "no", "abstain"))
    share = 100 * voted / max(int(answer["bonded"]), 1)
    rows: list[tuple[str, object]] = [
        ("proposal", answer["id"]),
        ("title", answer["title"]),
        ("summary", answer["summary"]),
        ("status", answer["status"] + (f" ({answer['code']})" if answer["code"] else "")),
        ("by", account_text(answer["proposer"])),
        ("deposit", f"{answer['deposit']} uzynk"),
        ("voting ends", format_ms(answer["end_ms"])),
        ("yes", f"{zynk_text(answer['yes'])} zynk"),
        ("no", f"{zynk_text(answer['no'])} zynk"),
        ("abstain", f"{zynk_text(answer['abstain'])} zynk"),
        ("voted", f"{share:.1f} % of the bonded stake"),
        *_change_rows(answer["change"]),
    ]
    show(as_json, answer, rows)


@gov.command("propose-params")
@key_option
@title_option
@summary_option
@click.argument("settings", nargs=-1, required=True, metavar="NAME=INTEGER...")
@rpc_option
@json_option
def gov_propose_params(
    key_path: Path,
    title: str,
    summary: str,
    settings: tuple[str, ...],
    rpc_url: str,
    as_json: bool,
) -> None:
    """Propose other values of parameters (zynk gov params shows them)."""
    values = []
    for text in settings:
        name, _, value = text.partition("=")
        if not value.isdecimal():
            raise UsageError("setting is malformed", expected="NAME=INTEGER", got=text[:80])
        values.append((name, int(value)))
    change = ParamsChange(values=tuple(values))
    ProposeBody.decode(ProposeBody(title=title, summary=summary, change=change).encode())
    now = ask_node(rpc_url, lambda client: client.call("chain_params"))["params"]
    compute_params(ChainParams(**now), change)  # what the chain would refuse costs no fee
    _propose(key_path, title, summary, change, rpc_url, as_json)


@gov.command("propose-upgrade")
@key_option
@title_option
@summary_option
@click.option("--height", required=True, type=click.IntRange(1), help="The first of the new rules.")
@click.option("--protocol-version", "version", required=True, type=click.IntRange(1))
@click.option("--info", default="", help="What operators have to install.")
@rpc_option
@json_option
def gov_propose_upgrade(
    key_path: Path,
    title: str,
    summary: str,
    height: int,
    version: int,
    info: str,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Propose that from a height on blocks follow another protocol version."""
    change = UpgradeChange(upgrade=Upgrade(height=height, version=version, info=info))
    _propose(key_path, title, summary, change, rpc_url, as_json)


@gov.command("propose-cancel")
@key_option
@title_option
@summary_option
@click.option("--height", required=True, type=click.IntRange(1), help="Of the scheduled upgrade.")
@rpc_option
@json_option
def gov_propose_cancel(
    key_path: Path, title: str, summary: str, height: int, rpc_url: str, as_json: bool
) -> None:
    """Propose to call off a scheduled upgrade."""
    _propose(key_path, title, summary, CancelChange(height=height), rpc_url, as_json)


@gov.command("vote")
@key_option
@click.argument("proposal_id", metavar="ID", type=click.IntRange(1, U64_MAX))
@click.argument("choice", type=click.Choice([c.name.lower() for c in Choice]))
@click.option(
    "--validator",
    "validator",
    help="The validator that the stake is with (default: the key's own account, an operator).",
)
@rpc_option
@json_option
def gov_vote(
    key_path: Path,
    proposal_id: int,
    choice: str,
    validator: str | None,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Vote. An operator votes for all stake with it; who has delegated may vote otherwise with its
    own, naming the validator. Voting again replaces the vote."""
    operator = (
        load_key_file(key_path).public_key if validator is None else read_account_text(validator)
    )
    body = VoteBody(proposal_id=proposal_id, operator=operator, choice=Choice[choice.upper()])
    send_and_show(key_path, [Message("gov/vote", body.encode())], rpc_url, as_json)


@gov.command("params")
@rpc_option
@json_option
def gov_params(rpc_url: str, as_json: bool) -> None:
    """The chain's parameters as they are."""
    answer = ask_node(rpc_url, lambda client: client.call("chain_params"))
    show(as_json, answer, list(answer["params"].items()))


def _propose(
    key_path: Path, title: str, summary: str, change: Change, rpc_url: str, as_json: bool
) -> None:
    body = ProposeBody(title=title, summary=summary, change=change)
    send_and_show(key_path, [Message("gov/propose", body.encode())], rpc_url, as_json)


def _change_rows(change: dict[str, Any]) -> list[tuple[str, object]]:
    if "params" in change:
        return [(f"  {name}", value) for name, value in change["params"].items()]
    if "upgrade" in change:
        upgrade = change["upgrade"]
        text = f"protocol version {upgrade['version']} from height {upgrade['height']} on"
        return [("  upgrade", f"{text}. {upgrade['info']}".rstrip(". "))]
    return [("  calls off", f"the upgrade at height {change['cancel_upgrade']['height']}")]
