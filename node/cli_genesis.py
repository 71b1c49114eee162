"""`zynk genesis`: how a network is begun by people who do not trust each other.

    coordinator   zynk genesis init       a draft: chain id, time, parameters
                  zynk genesis add-account    who holds what at height 0
    operators     zynk init                   a home with keys, from the draft
                  zynk genesis gentx          a signed entry, in a file of its own
    coordinator   zynk genesis collect        the entries into the draft
    everybody     zynk genesis validate       the same hash for all
                  zynk genesis use            the final file into the home

Entries are signed by all their keys, and the lists are sorted, so that whoever collects the same
entries gets the same file.
"""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from genesis.document import (
    GenesisAccount,
    GenesisDocument,
    encode_genesis_validator,
    parse_genesis_validator,
)
from genesis.gentx import sign_genesis_validator, verify_genesis_validator
from ledger.accounts import encode_account_id
from ledger.codec import U64_MAX
from ledger.errors import InvalidInputError, UsageError
from ledger.params import ChainParams
from ledger.staking_genesis import GenesisStake
from node import config as cfg
from node.checkpoint import GENESIS_BYTES_MAX
from node.cli_keys import KEY_PATH, load_key_file, read_account_text
from node.cli_output import json_option, read_option, show
from node.cli_tx import format_ms, key_option
from node.cli_validator import KEY_FILES
from node.files import read_small, replace_file
from node.key_options import home_option

GENTX_BYTES_MAX = 64 * 1024

path_argument = click.argument("path", type=click.Path(dir_okay=False, path_type=Path))


@click.group()
def genesis() -> None:
    """Begin a network: a genesis file that everybody can check."""


@genesis.command("init")
@path_argument
@click.option("--chain-id", required=True, help="1-64 of a-z 0-9 . -")
@click.option(
    "--time-ms", type=click.IntRange(min=0), help="When it begins, Unix ms (default: now)."
)
@click.option(
    "--param", "settings", multiple=True, metavar="NAME=INTEGER", help="Other than the default."
)
@json_option
def genesis_init(
    path: Path, chain_id: str, time_ms: int | None, settings: tuple[str, ...], as_json: bool
) -> None:
    """Make a draft without validators and accounts in PATH, which must not exist yet."""
    if path.exists():
        raise UsageError("file exists", expected="a new path", got=str(path))
    document = GenesisDocument(
        chain_id=chain_id,
        genesis_time_ms=time.time_ns() // 1_000_000 if time_ms is None else time_ms,
        params=read_option(_read_params, "\n".join(settings)),
        validators=(),
        accounts=(),
    )
    read_option(lambda _: GenesisDocument.parse_draft(document.encode()), "")
    replace_file(path, document.encode())
    _show(document, as_json)


@genesis.command("add-account")
@path_argument
@click.argument("account")
@click.option("--balance", required=True, type=click.IntRange(1, U64_MAX), help="In uzynk.")
@json_option
def genesis_add_account(path: Path, account: str, balance: int, as_json: bool) -> None:
    """Give ACCOUNT (z6Mk..., hex or a key file) a balance in the draft in PATH."""
    draft = _read_draft(path)
    entry = GenesisAccount(id=read_account_text(account), balance=balance)
    _replace(path, draft.with_more(accounts=[entry]), as_json)


@genesis.command("gentx")
@path_argument
@key_option
@home_option
@click.option("--name", required=True, help="For people.")
@click.option("--bond", required=True, type=click.IntRange(1, U64_MAX), help="In uzynk.")
@click.option(
    "--commission",
    "commission_percent",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0, 100),
    help="In percent of the rewards.",
)
@click.option("--out", "out_path", required=True, type=KEY_PATH, help="Where the entry is written.")
@json_option
def genesis_gentx(
    path: Path,
    key_path: Path,
    home: Path,
    name: str,
    bond: int,
    commission_percent: float,
    out_path: Path,
    as_json: bool,
) -> None:
    """Sign an entry for the draft in PATH: the node in --home becomes a validator of --key's
    account."""
    draft = _read_draft(path)
    operator = load_key_file(key_path)
    consensus, vrf, cosign = (load_key_file(home / file) for file in KEY_FILES)
    entry = sign_genesis_validator(
        GenesisStake(
            operator=operator.public_key,
            consensus_key=consensus.public_key,
            vrf_key=vrf.public_key,
            cosign_key=cosign.public_key,
            name=name,
            commission_ppm=round(commission_percent * 10_000),
            bond=bond,
        ),
        draft.chain_id,
        operator=operator,
        consensus=consensus,
        vrf=vrf,
        cosign=cosign,
    )
    data = encode_genesis_validator(entry)
    read_option(lambda _: parse_genesis_validator(data), "")
    if out_path.exists():
        raise UsageError("file exists", expected="a new path", got=str(out_path))
    replace_file(out_path, data)
    show(
        as_json,
        entry.to_value(),
        [("entry", out_path), ("operator", encode_account_id(operator.public_key))],
    )


@genesis.command("collect")
@path_argument
@click.argument("gentxs", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@json_option
def genesis_collect(path: Path, gentxs: tuple[Path, ...], as_json: bool) -> None:
    """Put the entries in the files GENTXS into the draft in PATH, and check the whole."""
    draft = _read_draft(path)
    entries = []
    for gentx in gentxs:
        try:
            entry = parse_genesis_validator(read_small(gentx, "entry", GENTX_BYTES_MAX))
            verify_genesis_validator(entry, draft.chain_id, "validator")
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{gentx}: {error.message}", expected=error.expected, got=error.got
            ) from error
        entries.append(entry)
    document = draft.with_more(validators=entries)
    GenesisDocument.parse(document.encode())
    _replace(path, document, as_json)


@genesis.command("validate")
@path_argument
@json_option
def genesis_validate(path: Path, as_json: bool) -> None:
    """Check a genesis file whole: each field, each signature, the sums. Prints its hash."""
    _show(GenesisDocument.parse(read_small(path, "genesis file", GENESIS_BYTES_MAX)), as_json)


@genesis.command("show")
@path_argument
@json_option
def genesis_show(path: Path, as_json: bool) -> None:
    """Say what a genesis file, or a draft of one, defines."""
    _show(_read_draft(path), as_json)


@genesis.command("use")
@path_argument
@home_option
@json_option
def genesis_use(path: Path, home: Path, as_json: bool) -> None:
    """Put the final genesis file into a home that was made from a draft of it."""
    data = read_small(path, "genesis file", GENESIS_BYTES_MAX)
    document = GenesisDocument.parse(data)
    before = _read_draft(home / cfg.GENESIS_FILE)
    if before.chain_id != document.chain_id:
        raise UsageError(
            "the home was made for another chain", expected=before.chain_id, got=document.chain_id
        )
    if (home / cfg.DATA_FOLDER).exists():
        raise UsageError(
            "the node has run already; its chain can't be exchanged",
            expected=f"no {home / cfg.DATA_FOLDER}",
        )
    replace_file(home / cfg.GENESIS_FILE, data)
    _show(document, as_json)


def _read_draft(path: Path) -> GenesisDocument:
    return GenesisDocument.parse_draft(read_small(path, "genesis file", GENESIS_BYTES_MAX))


def _replace(path: Path, document: GenesisDocument, as_json: bool) -> None:
    replace_file(path, document.encode())
    _show(document, as_json)


def _read_params(text: str) -> ChainParams:
    """`NAME=INTEGER` lines over the defaults. Raises InvalidInputError."""
    found: dict[str, int] = {}
    names = {field.name for field in fields(ChainParams)}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name not in names:
            raise InvalidInputError(
                "no such parameter", expected=", ".join(sorted(names)), got=name[:60]
            )
        try:
            found[name] = int(value)
        except ValueError as error:
            raise InvalidInputError(
                f"parameter {name} is wrong", expected="an integer", got=value[:60]
            ) from error
    return ChainParams(**found)


def _show(document: GenesisDocument, as_json: bool) -> None:
    supply = sum(account.balance for account in document.accounts)
    data: dict[str, Any] = {
        "chain_id": document.chain_id,
        "genesis_hash": document.compute_hash().hex(),
        "genesis_time_ms": document.genesis_time_ms,
        "validators": [v.to_value() for v in document.validators],
        "accounts": len(document.accounts),
        "supply": str(supply),
    }
    rows: list[tuple[str, object]] = [
        ("chain", document.chain_id),
        ("genesis hash", data["genesis_hash"]),
        ("begins", format_ms(document.genesis_time_ms)),
        ("supply", f"{supply} uzynk in {len(document.accounts)} accounts"),
        ("validators", len(document.validators)),
    ]
    rows += [
        (
            v.stake.name,
            f"{encode_account_id(v.stake.operator)}  bonds {v.stake.bond} uzynk, "
            f"commission {v.stake.commission_ppm / 10_000:g} %",
        )
        for v in document.validators
    ]
    show(as_json, data, rows)
