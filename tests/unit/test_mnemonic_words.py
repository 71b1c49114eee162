"""Keys as 24 words: the published BIP-39 vectors of 256 bits, and what a person may get wrong."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from ledger.errors import InvalidInputError
from node.cli import cli
from node.keys import load_key
from node.mnemonic_words import decode_words, encode_words

# From the reference vectors of BIP-39 (python-mnemonic, vectors.json, English).
LEGAL = "legal winner thank year wave sausage worth "
LETTER = "letter advice cage absurd amount doctor acoustic "
VECTORS = [
    (b"\0" * 32, " ".join(["abandon"] * 23 + ["art"])),
    (b"\x7f" * 32, f"{LEGAL}useful {LEGAL}useful {LEGAL}title"),
    (b"\x80" * 32, f"{LETTER}avoid {LETTER}avoid {LETTER}bless"),
    (b"\xff" * 32, " ".join(["zoo"] * 23 + ["vote"])),
]


@pytest.mark.parametrize(("seed", "words"), VECTORS, ids=["00", "7f", "80", "ff"])
def test_words_are_those_of_the_standard_and_come_back(seed: bytes, words: str) -> None:
    assert encode_words(seed) == words
    assert decode_words(words) == seed
    assert decode_words("\n " + words.upper().replace(" ", "\t\n")) == seed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "number of words"),
        (VECTORS[0][1].removesuffix(" art"), "number of words"),
        (VECTORS[0][1] + " art", "number of words"),
        (VECTORS[0][1].replace("art", "abandon"), "checksum"),
        (VECTORS[1][1].replace("legal winner", "winner legal", 1), "checksum"),
        (VECTORS[0][1].replace("art", "arts"), "word 24 is not in the list"),
    ],
)
def test_mistakes_are_named_without_showing_the_words(text: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        decode_words(text)
    assert "abandon" not in str(caught.value)
    assert "winner" not in str(caught.value)


def test_a_key_written_on_paper_is_restored(tmp_path: Path) -> None:
    run = CliRunner().invoke
    path, copy = tmp_path / "key.json", tmp_path / "copy.json"
    assert run(cli, ["keys", "new", str(path)]).exit_code == 0
    words = json.loads(run(cli, ["keys", "words", str(path), "--json"]).output)["words"]
    shown = run(cli, ["keys", "words", str(path)]).output
    assert all(word in shown for word in words.split())
    assert run(cli, ["keys", "restore", str(copy)], input=words).exit_code == 0
    assert load_key(copy).seed == load_key(path).seed
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert run(cli, ["keys", "restore", str(copy)], input=words).exit_code != 0, "never overwritten"


def test_an_exported_key_is_encrypted_and_imports_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CliRunner().invoke
    path, copy = tmp_path / "key.json", tmp_path / "copy.json"
    assert run(cli, ["keys", "new", str(path)]).exit_code == 0
    monkeypatch.setenv("ZYNK_PASSPHRASE", "on the way")
    exported = run(cli, ["keys", "export", str(path)])
    assert exported.exit_code == 0
    text = exported.stdout
    assert load_key(path).seed.hex() not in text
    assert run(cli, ["keys", "import", str(copy)], input=text).exit_code == 0
    assert load_key(copy, "on the way").seed == load_key(path).seed
    for bad in ("", "{}", text[:-20], '{"version": 1, "public_key": "00"}'):
        result = run(cli, ["keys", "import", str(tmp_path / "bad.json")], input=bad)
        assert result.exit_code != 0
        assert not (tmp_path / "bad.json").exists()
