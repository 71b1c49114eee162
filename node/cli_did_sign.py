"""`zynk did sign` and `zynk did submit`: one operation, signed in several places.

Whoever has one key of a threshold makes the operation with `--save FILE` and hands the file on; the
others look at it and add their signatures; anybody sends it. The file holds the operation's bytes.
"""

from __future__ import annotations

from pathlib import Path

import click

from did.build import add_signatures
from did.control import CONTROL_KEYS_MAX
from did.multikey import encode_hash
from did.operation import (
    OPERATION_BYTES_MAX,
    Operation,
    decode_operation,
    decode_verified,
    verify_present_signatures,
)
from ledger.errors import UsageError
from node.cli_keys import load_key_file, load_key_files
from node.cli_output import json_option, rpc_option, show
from node.cli_tx import key_option
from node.did_options import (
    describe_operation,
    key_list_text,
    show_change,
    signature_rows,
    submit_bytes,
)
from node.files import read_small, replace_file

operation_argument = click.argument(
    "path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@click.command("sign")
@operation_argument
@click.option(
    "--by",
    "by",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="KEYFILE",
    help="A key that signs. Without one, the operation is only shown.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def did_sign(path: Path, by: tuple[Path, ...], yes: bool, as_json: bool) -> None:
    """Show a saved operation, whose signatures are checked, and add yours."""
    data = read_small(path, "operation file", OPERATION_BYTES_MAX)
    operation = decode_operation(data)
    verify_present_signatures(operation)
    if not as_json:
        show(False, {}, _rows(operation))
    if by:
        signers = load_key_files(by)
        keys = {key for key, _ in operation.signatures} | {key.public_key for key in signers}
        if len(keys) > CONTROL_KEYS_MAX:
            raise UsageError(
                "an operation has no room for so many signatures",
                expected=f"at most {CONTROL_KEYS_MAX}",
                got=str(len(keys)),
            )
        if not yes:
            click.confirm("Sign this?", abort=True, err=True)
        data = add_signatures(data, signers)
        replace_file(path, data)
    answer = describe_operation(data)
    show(as_json, answer, signature_rows(answer))


@click.command("submit")
@operation_argument
@key_option
@rpc_option
@json_option
def did_submit(path: Path, key_path: Path, rpc_url: str, as_json: bool) -> None:
    """Send a saved operation, once enough have signed it. Whoever pays needs no right over it."""
    data = read_small(path, "operation file", OPERATION_BYTES_MAX)
    decode_verified(data)
    show_change(submit_bytes(rpc_url, load_key_file(key_path), data), as_json, [])


def _rows(operation: Operation) -> list[tuple[str, object]]:
    """All that the operation says, for whoever is asked to sign it."""
    rows: list[tuple[str, object]] = [
        ("network", operation.net),
        ("did", operation.did_text),
        (operation.type.value, f"seq {operation.seq}"),
    ]
    if operation.prev is not None:
        rows.append(("after", encode_hash(operation.prev)))
    if operation.tier is not None:
        rows.append(("by", f"recovery tier {operation.tier + 1}"))
    if operation.control is not None:
        rows.append(("control", key_list_text(operation.control.current)))
        if operation.control.next is not None:
            rows.append(("committed to", encode_hash(operation.control.next)))
    if operation.reveal is not None:
        rows.append(("reveals", key_list_text(operation.reveal)))
    rows += [(f"recovery {i}", key_list_text(tier)) for i, tier in enumerate(operation.tiers, 1)]
    if operation.document is not None:
        rows.append(("document", operation.document.decode()))
    return rows
