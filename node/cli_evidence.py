"""`zynk evidence submit`: hand in proof that a validator signed twice."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click

from consensus.evidence import EVIDENCE_WIRE_BYTES_MAX, Evidence
from ledger.errors import InvalidInputError
from ledger.validator_set import VALIDATORS_MAX
from node.cli_output import ask_node, json_option, rpc_option, show_table
from node.cli_stake import account_text
from node.files import read_small
from rpc.client import RpcClient
from rpc.errors import RpcCode, RpcError
from rpc.params import text_of_bytes

FILE_BYTES_MAX = 4 * 1024 * 1024
EXIT_REFUSED = 1

Ask = Callable[..., Awaitable[Any]]
"""(method, parameters by name) -> the node's answer."""


@click.group()
def evidence() -> None:
    """Proof that a validator broke the rules."""


@evidence.command("submit")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@rpc_option
@json_option
def evidence_submit(path: Path, rpc_url: str, as_json: bool) -> int:
    """Hand evidence to a node, which keeps it, tells its peers, and has it punished in a block.

    FILE holds one item as bytes or hex, or what `zynk inspect fork --json` says: all its culprits.
    Exit code 1 if the node refuses any of it, known evidence included.
    """
    items = read_evidence(read_small(path, "evidence file", FILE_BYTES_MAX))

    async def work(client: RpcClient) -> list[dict[str, Any]]:
        return await submit_all(client.call, items)

    found = ask_node(rpc_url, work)
    rows = [(row["height"], row["signer"], row["offender"], row["status"]) for row in found]
    columns = ("height", "signer", "offender", "status")
    show_table(as_json, {"evidence": found}, columns, rows)
    return EXIT_REFUSED if any(row["status"] != "kept" for row in found) else 0


def read_evidence(data: bytes) -> list[Evidence]:
    """The evidence in a file's bytes. Raises InvalidInputError."""
    if not data.lstrip().startswith(b"{"):
        return [Evidence.decode(_from_hex(data))]
    try:
        texts = [culprit["evidence"] for culprit in json.loads(data)["culprits"]]
        wires = [bytes.fromhex(text) for text in texts]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInputError(
            "evidence file is malformed", expected="what `zynk inspect fork --json` says"
        ) from error
    if not 1 <= len(wires) <= VALIDATORS_MAX:
        raise InvalidInputError(
            "evidence file has a wrong number of culprits",
            expected=f"1..{VALIDATORS_MAX}",
            got=str(len(wires)),
        )
    return [Evidence.decode(wire) for wire in wires]


def _from_hex(data: bytes) -> bytes:
    """What hex text stands for; anything else as it is."""
    if len(data) > 2 * EVIDENCE_WIRE_BYTES_MAX + 2:
        raise InvalidInputError(
            "evidence is too long", expected=f"at most {EVIDENCE_WIRE_BYTES_MAX} B"
        )
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        return data


async def submit_all(call: Ask, items: list[Evidence]) -> list[dict[str, Any]]:
    """What the node says of each. Raises RpcError for anything but a refusal."""
    found = []
    for item in items:
        row = {"height": item.first.height, "signer": item.signer.hex(), "offender": ""}
        try:
            answer = await call("evidence_submit", evidence=text_of_bytes(item.encode()))
            row |= {"offender": account_text(answer["operator"]), "status": "kept"}
        except RpcError as error:
            if error.code != RpcCode.EVIDENCE_REFUSED:
                raise
            row |= {"status": f"{error.reason}: {error}"}
        found.append(row)
    return found
