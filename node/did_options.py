"""What the `zynk did` commands that change a DID share: options, signers, submission."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from did.control import KeyList
from did.multikey import encode_multikey
from did.operation import decode_operation
from did.verify import ANSWER_BYTES_MAX
from ledger.ed25519 import KeyPair
from ledger.tx import Message
from node import identity
from node.cli_keys import load_key_files, read_account_text
from node.cli_output import F, ask_node, show
from node.files import read_small, replace_file
from node.wallet import Wallet
from rpc.client import RpcClient

VALID_FOR_BLOCKS = 1000
VALID_FOR_BLOCKS_MAX = 10_000_000

control_option = click.option(
    "--control",
    "control",
    multiple=True,
    metavar="KEY",
    help="A control key that signs; of a pre-rotated DID, each key it is committed to.",
)
document_option = click.option(
    "--document",
    "document_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON of the new document.",
)
service_option = click.option(
    "--service",
    "services",
    nargs=3,
    multiple=True,
    metavar="ID TYPE URL",
    help="A service to list in the document, such as: files Files https://example.org/",
)
new_option = click.option(
    "--new", "new", multiple=True, required=True, metavar="KEY", help="A new control key."
)
threshold_option = click.option(
    "--threshold", type=click.IntRange(1, 8), help="How many control keys must sign."
)
keep_option = click.option(
    "--keep-document",
    is_flag=True,
    help="Leave old control keys in the document; else the new ones replace them there too.",
)


def save_options(command: F) -> F:
    """Adds --save and --valid-for."""
    save = click.option(
        "--save",
        "save_path",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Send nothing; write the operation to FILE, for others to `zynk did sign`.",
    )
    valid_for = click.option(
        "--valid-for",
        type=click.IntRange(1, VALID_FOR_BLOCKS_MAX),
        default=VALID_FOR_BLOCKS,
        show_default=True,
        metavar="BLOCKS",
        help="How long the operation may still be executed.",
    )
    return save(valid_for(command))


@dataclass(frozen=True, slots=True, kw_only=True)
class Future:
    """What a change says about the keys after this one; None and False leave things as they are."""

    next_keys: tuple[str, ...]
    next_threshold: int | None
    gives_up_next: bool
    recovery: tuple[str, ...]
    drops_recovery: bool

    def next_list(self) -> KeyList | None:
        """The key list to commit to, if any."""
        if not self.next_keys:
            return None
        keys = [read_account_text(text) for text in self.next_keys]
        return identity.make_key_list(keys, self.next_threshold, "--next-threshold")

    def tiers(self, before: tuple[KeyList, ...]) -> tuple[KeyList, ...]:
        """The recovery tiers from now on."""
        if self.drops_recovery:
            return ()
        return tuple(map(_read_tier, self.recovery)) or before


def future_options(command: F) -> F:
    """Adds --next, --next-threshold, --no-next, --recovery and --no-recovery; the command reads
    them with `_future`."""
    for option in reversed(
        (
            click.option(
                "--next",
                "next_keys",
                multiple=True,
                metavar="KEY",
                help="Pre-rotation: commit to this key; only it can make the next change.",
            ),
            click.option("--next-threshold", type=click.IntRange(1, 8), help="How many of those."),
            click.option("--no-next", "gives_up_next", is_flag=True, help="End pre-rotation."),
            click.option(
                "--recovery",
                multiple=True,
                metavar="[N:]KEY[,KEY...]",
                help="A recovery tier, N of whose keys can recover; strongest tier first.",
            ),
            click.option(
                "--no-recovery", "drops_recovery", is_flag=True, help="Have no recovery tiers."
            ),
        )
    ):
        command = option(command)
    return command


def submit_operation(
    rpc_url: str,
    payer: KeyPair,
    build: Callable[[str, int], bytes],
    save_path: Path | None,
    valid_for: int,
) -> dict[str, Any]:
    """Build for the node's chain, submit, and wait until final; or only save it."""

    async def prepare(client: RpcClient) -> bytes:
        status = await client.call("node_status")
        return build(status["chain_id"], int(status["height"]) + valid_for)

    if save_path is None:
        return ask_node(rpc_url, lambda client: _send(client, payer, prepare(client)))
    data = ask_node(rpc_url, prepare)
    replace_file(save_path, data)
    return {**describe_operation(data), "saved": str(save_path)}


def submit_bytes(rpc_url: str, payer: KeyPair, data: bytes) -> dict[str, Any]:
    """Submit an operation that is whole, and wait until final."""

    async def whole() -> bytes:
        return data

    return ask_node(rpc_url, lambda client: _send(client, payer, whole()))


async def _send(client: RpcClient, payer: KeyPair, prepared: Awaitable[bytes]) -> dict[str, Any]:
    data = await prepared
    message = Message("did/op", data)
    answer = await Wallet(client, payer).submit([message], method="did_submit")
    return {**answer, **describe_operation(data)}


def describe_operation(data: bytes) -> dict[str, Any]:
    """What a saved or sent operation is. Raises InvalidInputError."""
    operation = decode_operation(data)
    return {
        "did": operation.did_text,
        "operation": operation.type.value,
        "version": operation.version_id,
        "expires_height": operation.exp_height,
        "signed_by": [encode_multikey(key) for key, _ in operation.signatures],
    }


def show_change(answer: dict[str, Any], as_json: bool, more: Sequence[tuple[str, object]]) -> None:
    rows: list[tuple[str, object]] = [("did", answer["did"])]
    if "saved" in answer:
        rows += [
            (answer["operation"], f"in {answer['saved']}, not sent"),
            ("version", answer["version"]),
            *signature_rows(answer),
            *more,
            ("next", f"zynk did sign {answer['saved']} --by KEYFILE, then zynk did submit"),
        ]
    else:
        rows += [
            (answer["operation"], f"final at height {answer['height']}"),
            ("version", answer["version"]),
            ("fee", f"{answer['fee']} uzynk"),
            ("tx id", answer["tx_id"]),
            *more,
        ]
    show(as_json, answer, rows)


def signature_rows(answer: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        ("signed by", ", ".join(answer["signed_by"])),
        ("good until", f"height {answer['expires_height']}"),
    ]


def key_list_text(keys: KeyList) -> str:
    """Such as `2 of 3: z6Mk..., z6Mk..., z6Mk...`."""
    texts = ", ".join(map(encode_multikey, keys.keys))
    return f"{keys.threshold} of {len(keys.keys)}: {texts}"


def load_signers(texts: Sequence[str]) -> list[KeyPair]:
    """The keys among `texts` that are files; those given as z6Mk... can not sign here."""
    return load_key_files([Path(text) for text in texts if os.path.exists(text)])


def _read_tier(text: str) -> KeyList:
    count, colon, rest = text.partition(":")
    threshold = int(count) if colon and count.isdigit() else None
    keys = [read_account_text(part) for part in (rest if threshold else text).split(",")]
    return identity.make_key_list(keys, threshold, "--recovery N:KEY,KEY")


def read_document_file(path: Path) -> bytes:
    return read_small(path, "document file", ANSWER_BYTES_MAX)
