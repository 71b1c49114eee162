"""Options that several command groups share: the node's home and a key file's passphrase."""

from __future__ import annotations

import os
from pathlib import Path

import click

from node.keys import is_encrypted

home_option = click.option(
    "--home",
    envvar="ZYNK_HOME",
    type=click.Path(path_type=Path),
    default=Path.home() / ".zynk",
    show_default=True,
    help="The node's folder (or ZYNK_HOME).",
)


def ask_passphrase(*paths: Path) -> str | None:
    """The passphrase if one of the key files needs it: ZYNK_PASSPHRASE, else a prompt."""
    if not any(path.exists() and is_encrypted(path) for path in paths):
        return None
    return os.environ.get("ZYNK_PASSPHRASE") or click.prompt("Passphrase", hide_input=True)
