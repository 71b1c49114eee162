"""`zynk stake create | edit | rotate | unjail | retire`: what the operator of a validator does."""

from __future__ import annotations

from pathlib import Path

import click

from ledger.codec import U64_MAX
from ledger.errors import UsageError
from ledger.params import PPM
from ledger.staking_messages import (
    ROLES,
    CreateBody,
    EditBody,
    KeysBody,
    NewKey,
    prove_possession,
)
from ledger.tx import Message
from node import config as cfg
from node.cli_keys import KEY_PATH, load_key_file
from node.cli_output import ask_node, json_option, rpc_option
from node.cli_stake import send_and_show, stake
from node.cli_tx import key_option
from rpc.client import RpcClient

KEY_FILES = (cfg.VALIDATOR_KEY_FILE, cfg.VRF_KEY_FILE, cfg.COSIGN_KEY_FILE)
"""In the order of ROLES."""

commission_option = click.option(
    "--commission",
    "commission_percent",
    type=click.FloatRange(0, 100),
    help="In percent of the rewards, up to four decimals.",
)


@stake.command("create")
@key_option
@click.option(
    "--home",
    required=True,
    type=KEY_PATH,
    help="The home of the node that will vote: its keys prove that they are the operator's.",
)
@click.option("--name", required=True, help="For people, at most 70 characters.")
@click.option("--url", default="", help="At most 140 characters.")
@click.option("--details", default="", help="At most 280 characters.")
@commission_option
@click.option("--bond", required=True, type=click.IntRange(1, U64_MAX), help="In uzynk.")
@rpc_option
@json_option
def stake_create(
    key_path: Path,
    home: Path,
    name: str,
    url: str,
    details: str,
    commission_percent: float | None,
    bond: int,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Make a validator. The paying key is its operator from now on."""
    chain_id = _chain_id(rpc_url)
    operator = load_key_file(key_path).public_key
    keys = [load_key_file(home / name) for name in KEY_FILES]
    consensus, vrf, cosign = (key.public_key for key in keys)
    proofs = [
        prove_possession(key, chain_id, operator, role)
        for key, role in zip(keys, ROLES, strict=True)
    ]
    body = CreateBody(
        operator=operator,
        keys=(consensus, vrf, cosign),
        proofs=(proofs[0], proofs[1], proofs[2]),
        description=(name, url, details),
        commission_ppm=_ppm(commission_percent or 0.0),
        bond=bond,
    )
    send_and_show(key_path, [Message("stake/create", body.encode())], rpc_url, as_json)


@stake.command("edit")
@key_option
@click.option("--name", help="A new name.")
@click.option("--url", help="A new address.")
@click.option("--details", help="A new text.")
@commission_option
@rpc_option
@json_option
def stake_edit(
    key_path: Path,
    name: str | None,
    url: str | None,
    details: str | None,
    commission_percent: float | None,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Change a validator's description or commission; what is not named stays."""
    description = None
    if (name, url, details) != (None, None, None):
        operator = load_key_file(key_path).public_key.hex()
        now = ask_node(rpc_url, lambda client: client.call("stake_validator", operator=operator))
        description = (
            now["name"] if name is None else name,
            now["url"] if url is None else url,
            now["details"] if details is None else details,
        )
    if description is None and commission_percent is None:
        raise UsageError("nothing to change", expected="--name, --url, --details or --commission")
    body = EditBody(
        description=description,
        commission_ppm=None if commission_percent is None else _ppm(commission_percent),
    )
    send_and_show(key_path, [Message("stake/edit", body.encode())], rpc_url, as_json)


@stake.command("rotate")
@key_option
@click.option("--consensus", "consensus_path", type=KEY_PATH, help="Key file of the new vote key.")
@click.option("--vrf", "vrf_path", type=KEY_PATH, help="Key file of the new VRF key.")
@click.option("--cosign", "cosign_path", type=KEY_PATH, help="Key file of the new cosign key.")
@rpc_option
@json_option
def stake_rotate(
    key_path: Path,
    consensus_path: Path | None,
    vrf_path: Path | None,
    cosign_path: Path | None,
    rpc_url: str,
    as_json: bool,
) -> None:
    """Replace keys of a validator. A vote key counts two heights later, a VRF key after
    `vrf_key_delay` heights; `zynk keys rotate` makes a node take them over by itself."""
    chain_id = _chain_id(rpc_url)
    operator = load_key_file(key_path).public_key
    found: dict[str, NewKey] = {}
    for role, path in zip(ROLES, (consensus_path, vrf_path, cosign_path), strict=True):
        if path is not None:
            key = load_key_file(path)
            proof = prove_possession(key, chain_id, operator, role)
            found[role] = NewKey(key=key.public_key, proof=proof)
    if not found:
        raise UsageError("no key to replace", expected="--consensus, --vrf or --cosign")
    body = KeysBody(
        operator=operator,
        consensus=found.get("consensus"),
        vrf=found.get("vrf"),
        cosign=found.get("cosign"),
    )
    send_and_show(key_path, [Message("stake/keys", body.encode())], rpc_url, as_json)


@stake.command("unjail")
@key_option
@rpc_option
@json_option
def stake_unjail(key_path: Path, rpc_url: str, as_json: bool) -> None:
    """Come back from jail, once its time is over."""
    send_and_show(key_path, [Message("stake/unjail", b"\x90")], rpc_url, as_json)


@stake.command("retire")
@key_option
@rpc_option
@json_option
def stake_retire(key_path: Path, rpc_url: str, as_json: bool) -> None:
    """Stop being a validator, for good. Stake stays delegated until it is undelegated."""
    send_and_show(key_path, [Message("stake/retire", b"\x90")], rpc_url, as_json)


def _chain_id(rpc_url: str) -> str:
    async def ask(client: RpcClient) -> str:
        return str((await client.call("node_status"))["chain_id"])

    return ask_node(rpc_url, ask)


def _ppm(percent: float) -> int:
    return min(round(percent * 10_000), PPM)


OPERATOR_COMMANDS = stake
"""`zynk stake`, with the commands of this module in it."""
