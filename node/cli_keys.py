"""`zynk keys`: key files, and how every other command gets a key from one.

A key is an account (it pays fees) and can be a control key of a DID. Files have mode 0600 and are
never overwritten; `encrypt` and `decrypt` replace one in a single rename, after the new content was
synced and read back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import click

from genesis.document import GenesisDocument
from ledger.accounts import decode_account_id, encode_account_id
from ledger.ed25519 import KeyPair
from ledger.errors import DurabilityError, UsageError
from ledger.store import LevelStore
from node import config as cfg
from node.cli_output import json_option, read_option, show
from node.daemon import STORE_FOLDER
from node.files import sync_folder
from node.handlers import open_chain
from node.home import create_next_keys, finish_rotation
from node.key_options import ask_passphrase, home_option
from node.keys import (
    KEY_FILE_BYTES_MAX,
    generate_key,
    import_key,
    is_encrypted,
    key_document,
    load_key,
    read_public_key,
    save_key,
)
from node.mnemonic_words import WORDS_TEXT_MAX, decode_words, encode_words
from node.voting import require_key_in_force

KEY_PATH = click.Path(path_type=Path)


@click.group()
def keys() -> None:
    """Make, show and encrypt key files."""


@keys.command("new")
@click.argument("path", type=KEY_PATH)
@click.option("--encrypt", is_flag=True, help="Encrypt it with a passphrase.")
@json_option
def keys_new(path: Path, encrypt: bool, as_json: bool) -> None:
    """Make a new key in PATH, which must not exist yet."""
    passphrase = ask_new_passphrase() if encrypt and not path.exists() else None
    key = generate_key()
    try:
        save_key(path, key, passphrase)
    except OSError as error:
        raise DurabilityError(
            "key file could not be written", got=f"{path}: {error.strerror}"
        ) from error
    _show_key(path, key.public_key, passphrase is not None, as_json)


@keys.command("show")
@click.argument("path", type=KEY_PATH)
@json_option
def keys_show(path: Path, as_json: bool) -> None:
    """What is in a key file, without its secret. Asks for no passphrase."""
    _show_key(path, read_public_key(path), is_encrypted(path), as_json)


@keys.command("address")
@click.argument("path", type=KEY_PATH)
@json_option
def keys_address(path: Path, as_json: bool) -> None:
    """The account of a key file, alone on its line, for scripts."""
    account = encode_account_id(read_public_key(path))
    if as_json:
        show(True, {"account": account}, [])
    else:
        click.echo(account)


@keys.command("encrypt")
@click.argument("path", type=KEY_PATH)
@json_option
def keys_encrypt(path: Path, as_json: bool) -> None:
    """Encrypt a key file with a passphrase, in place."""
    if is_encrypted(path):
        raise UsageError("key file is encrypted already", got=str(path))
    key = load_key(path)
    passphrase = ask_new_passphrase()
    _replace_key(path, key, passphrase)
    _show_key(path, key.public_key, True, as_json)


@keys.command("decrypt")
@click.argument("path", type=KEY_PATH)
@json_option
def keys_decrypt(path: Path, as_json: bool) -> None:
    """Take the passphrase off a key file, in place. Anyone who can read it can then sign."""
    if not is_encrypted(path):
        raise UsageError("key file is not encrypted", got=str(path))
    key = load_key_file(path)
    _replace_key(path, key, None)
    _show_key(path, key.public_key, False, as_json)


@keys.command("rotate")
@home_option
@click.option("--finish", is_flag=True, help="Let go of the old keys (the node is stopped).")
@click.option(
    "--height",
    type=click.IntRange(min=1),
    help="With --finish: the network has the new voting key in force since HEIGHT, which this "
    "node's store has not reached.",
)
@json_option
def keys_rotate(home: Path, finish: bool, height: int | None, as_json: bool) -> None:
    """Make the next voting and VRF key of a home, with a sign guard. `zynk stake rotate` tells the
    chain; the running node goes over to them by itself, at the heights at which they count.
    --finish is refused until the node's own store shows the new voting key in force."""
    if height is not None and not finish:
        raise UsageError("--height says when the new key counts", expected="--finish beside it")
    if finish:
        moved = finish_rotation(home, lambda key: _require_in_force(home, key, height))
        show(as_json, {"home": str(home), "moved": moved}, [("in place", ", ".join(moved))])
        return
    document = GenesisDocument.parse_draft((home / cfg.GENESIS_FILE).read_bytes())
    passphrase = None
    if is_encrypted(home / cfg.VALIDATOR_KEY_FILE):
        passphrase = ask_passphrase(home / cfg.VALIDATOR_KEY_FILE)
        load_key(home / cfg.VALIDATOR_KEY_FILE, passphrase)
    consensus, vrf = create_next_keys(home, document.chain_id, passphrase)
    data = {"home": str(home), "consensus": str(consensus), "vrf": str(vrf)}
    tell = f"zynk stake rotate --key OPERATOR --consensus {consensus} --vrf {vrf}"
    show(as_json, data, [("vote key", consensus), ("VRF key", vrf), ("next", tell)])


def _require_in_force(home: Path, public_key: bytes, since_height: int | None) -> None:
    """Raises UsageError. The operator's word counts only for heights that the store lacks."""
    folder = home / cfg.DATA_FOLDER / STORE_FOLDER
    if not folder.exists():
        if since_height is None:
            raise UsageError(
                "no store here shows whether the new voting key is in force",
                expected="a node that ran until it is, or --height",
                got=str(folder),
            )
        return
    document = GenesisDocument.parse((home / cfg.GENESIS_FILE).read_bytes())
    store = LevelStore.open(folder, create=False)
    try:
        chain = open_chain(store, document.to_state())
        if since_height is None or chain.height + 1 >= since_height:
            require_key_in_force(chain, public_key)
    finally:
        store.close()


@keys.command("words")
@click.argument("path", type=KEY_PATH)
@json_option
def keys_words(path: Path, as_json: bool) -> None:
    """Show a key as 24 words, to be written on paper. Whoever reads them has the key."""
    words = encode_words(load_key_file(path).seed)
    if as_json:
        show(True, {"path": str(path), "words": words}, [])
        return
    numbered = [f"{n:>2}. {word}" for n, word in enumerate(words.split(), start=1)]
    for row in range(6):
        click.echo("   ".join(f"{text:<14}" for text in numbered[row::6]).rstrip())


@keys.command("restore")
@click.argument("path", type=KEY_PATH)
@click.option("--encrypt", is_flag=True, help="Encrypt it with a passphrase.")
@json_option
def keys_restore(path: Path, encrypt: bool, as_json: bool) -> None:
    """Make a key file in PATH from its 24 words, read from the prompt or standard input."""
    if sys.stdin.isatty():
        text = str(click.prompt("The 24 words", err=True))
    else:
        text = sys.stdin.read(WORDS_TEXT_MAX)
    key = KeyPair.from_seed(read_option(decode_words, text))
    passphrase = ask_new_passphrase() if encrypt else None
    save_key(path, key, passphrase)
    _show_key(path, key.public_key, passphrase is not None, as_json)


@keys.command("export")
@click.argument("path", type=KEY_PATH)
def keys_export(path: Path) -> None:
    """Print a key file encrypted with a new passphrase, to be kept or moved elsewhere."""
    key = load_key_file(path)
    click.echo("The exported copy gets a passphrase of its own.", err=True)
    passphrase = ask_new_passphrase()
    click.echo(key_document(key, passphrase))


@keys.command("import")
@click.argument("path", type=KEY_PATH)
@click.argument("source", type=click.File("r"), default="-")
@json_option
def keys_import(path: Path, source: IO[str], as_json: bool) -> None:
    """Write an exported key (a file, or standard input) to PATH, encrypted as it came."""
    public_key = import_key(path, source.read(KEY_FILE_BYTES_MAX + 1))
    _show_key(path, public_key, is_encrypted(path), as_json)


def load_key_file(path: Path) -> KeyPair:
    """The key in a file, asking for its passphrase if it needs one. Raises UsageError,
    InvalidInputError."""
    if is_encrypted(path) and not os.environ.get("ZYNK_PASSPHRASE"):
        click.echo(f"{path} is encrypted.", err=True)
    try:
        passphrase = ask_passphrase(path)
    except click.Abort as error:
        if sys.stdin.isatty():
            raise
        raise UsageError(
            "key file is encrypted", expected="ZYNK_PASSPHRASE or an answer", got=f"none for {path}"
        ) from error
    return load_key(path, passphrase)


def load_key_files(paths: Sequence[Path]) -> list[KeyPair]:
    """`load_key_file` of each, no key twice. Raises UsageError, InvalidInputError."""
    found = [load_key_file(path) for path in paths]
    if len({key.public_key for key in found}) != len(found):
        raise UsageError("the same key is given twice", got=", ".join(map(str, paths)))
    return found


def read_account_text(text: str) -> bytes:
    """The public key (32 B) that TEXT means: z6Mk..., 64 hex digits, or a key file's path.
    Raises UsageError, InvalidInputError."""
    if text.startswith("z6Mk") and not os.path.exists(text):
        return read_option(decode_account_id, text)
    if len(text) == 64 and not os.path.exists(text):
        try:
            return bytes.fromhex(text)
        except ValueError as error:
            raise UsageError("account is malformed", expected="64 hex digits", got=text) from error
    if not os.path.exists(text):
        raise UsageError(
            "not an account",
            expected="z6Mk... (48 characters), 64 hex digits, or a key file",
            got=repr(text)[:80],
        )
    return read_public_key(Path(text))


def ask_new_passphrase() -> str:
    """ZYNK_PASSPHRASE, else a prompt that asks twice. Raises UsageError for an empty one."""
    passphrase = os.environ.get("ZYNK_PASSPHRASE")
    if passphrase is None:
        try:
            passphrase = str(
                click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
            )
        except click.Abort as error:
            if sys.stdin.isatty():
                raise
            raise UsageError("no passphrase given", expected="ZYNK_PASSPHRASE or the prompt") from (
                error
            )
    if not passphrase:
        raise UsageError("passphrase is empty", expected="at least one character")
    return passphrase


def _replace_key(path: Path, key: KeyPair, passphrase: str | None) -> None:
    """Write the new file beside the old one, read it back, and only then rename it over."""
    target = path.resolve()
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        save_key(temporary, key, passphrase)
        if load_key(temporary, passphrase).seed != key.seed:
            raise DurabilityError("new key file does not read back; the old one is untouched")
        os.replace(temporary, target)
        sync_folder(target.parent)
    except OSError as error:
        raise DurabilityError(
            "key file could not be replaced; the old one is untouched",
            got=f"{path}: {error.strerror}",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _show_key(path: Path, public_key: bytes, encrypted: bool, as_json: bool) -> None:
    data = {
        "path": str(path),
        "account": encode_account_id(public_key),
        "public_key": public_key.hex(),
        "encrypted": encrypted,
    }
    rows: list[tuple[str, object]] = [
        ("key file", path),
        ("account", data["account"]),
        ("public key", data["public_key"]),
        ("encrypted", "yes" if encrypted else "no: whoever can read the file can sign"),
    ]
    show(as_json, data, rows)
