"""`zynk tx`: reading transactions offline, and the proof of an account."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ledger.accounts import TransferBody, account_key, encode_account_id
from ledger.errors import InvalidInputError, UsageError, ZynkError
from ledger.params import PARAMS_KEY
from ledger.tx import Message, Tx
from node.checkpoint import verify_row
from node.cli_output import show, show_table
from node.cli_tx import tx
from rpc.api import proof_json
from rpc.params import text_of_bytes
from tests.unit.trust_fixture import trust_of
from tests.vectors.did_world import NET, WORLD_PARAMS, World, key

TRUST = trust_of(World())


def make_tx(memo: bytes = b"") -> Tx:
    body = TransferBody(to=key("b").public_key, amount=7, memo=memo).encode()
    return Tx.sign(
        key("a"),
        chain_id=NET,
        nonce=3,
        fee=100,
        valid_until=50,
        messages=[Message("bank/transfer", body)],
    )


def show_tx(source: str, *more: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(tx, ["show", source, *more], input=typed)


def test_show_reads_base64url_hex_files_and_stdin(tmp_path: Path) -> None:
    made = make_tx()
    raw, text = tmp_path / "raw", tmp_path / "text"
    raw.write_bytes(made.encoded)
    text.write_text(made.encoded.hex() + "\n")
    for source in (text_of_bytes(made.encoded), made.encoded.hex(), str(raw), str(text), "-"):
        result = show_tx(source, "--json", typed=text_of_bytes(made.encoded))
        assert result.exit_code == 0, source
        shown = json.loads(result.output.splitlines()[-1])
        assert shown["tx_id"] == made.id.hex()
        assert shown["messages"][0]["to"] == encode_account_id(key("b").public_key)


def test_show_exits_with_1_if_the_signature_is_not_valid() -> None:
    made = make_tx()
    result = show_tx((made.encoded[:-1] + bytes([made.encoded[-1] ^ 1])).hex())
    assert result.exit_code == 1
    assert "NOT VALID" in result.output


@pytest.mark.parametrize("source", ["", "xyz!", "00", "/nowhere"])
def test_show_refuses_what_is_no_transaction(source: str) -> None:
    assert isinstance(show_tx(source).exception, InvalidInputError)


def test_a_memo_can_not_drive_the_terminal() -> None:
    result = show_tx(make_tx(b"\x1b[2J\nbalance  9").encoded.hex())
    assert result.exit_code == 0
    assert "\x1b[2J" not in result.output
    assert "\\x1b[2J\\nbalance  9" in result.output


def test_tables_do_not_fold_long_values(capsys: pytest.CaptureFixture[str]) -> None:
    show(False, {}, [("name", "x" * 300)])
    show_table(False, {}, ("one", "two"), [("y" * 200, "z" * 200)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name  " + "x" * 300
    assert lines[2] == "y" * 200 + "  " + "z" * 200
    show_table(False, {}, ("one", "two"), [])
    assert capsys.readouterr().out == "one  two\n"


def prove(world: World, row_key: bytes) -> dict[str, object]:
    view = world.view()
    value, state_proof = view.prove(row_key)
    return proof_json(
        height=view.height,
        key=row_key,
        value=value,
        state_proof=state_proof,
        finality=view.finality.encode(),
    )


def test_a_row_and_its_absence_are_proven() -> None:
    world = World()
    row_key = account_key(key("a").public_key)
    assert verify_row(TRUST, prove(world, row_key), row_key)[0] is None
    shown = prove(world, PARAMS_KEY)
    row, steps = verify_row(TRUST, shown, PARAMS_KEY)
    assert row == WORLD_PARAMS.encode()
    assert len(steps) == 2
    with pytest.raises(InvalidInputError):
        verify_row(TRUST, shown, row_key)


def test_a_proof_with_any_member_altered_is_refused() -> None:
    world = World()
    row_key = account_key(key("a").public_key)
    proof = prove(world, row_key)
    alien = trust_of(world, chain_id="other")
    with pytest.raises(InvalidInputError):
        verify_row(alien, proof, row_key)
    for name in ("state_proof", "finality"):
        text = str(proof[name])
        for changed in (None, 7, "", "!", text[:-4], ("B" if text[0] == "A" else "A") + text[1:]):
            with pytest.raises(InvalidInputError):
                verify_row(TRUST, {**proof, name: changed}, row_key)
    with pytest.raises(InvalidInputError):
        verify_row(TRUST, {**proof, "value": "AAAA"}, row_key)
    shapes: list[object] = [None, [], "x", {}]
    for broken in shapes:
        with pytest.raises(InvalidInputError):
            verify_row(TRUST, broken, row_key)


def test_a_missing_key_file_is_wrong_usage(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        tx,
        [
            "transfer",
            *("--key", str(tmp_path / "no"), "--to", key("b").public_key.hex()),
            *("--amount", "1"),
        ],
    )
    assert isinstance(result.exception, UsageError)


def test_a_node_that_is_away_is_named() -> None:
    result = CliRunner().invoke(
        tx, ["account", key("a").public_key.hex(), "--rpc", "http://127.0.0.1:1"]
    )
    assert isinstance(result.exception, ZynkError)
    assert "no answer from http://127.0.0.1:1" in str(result.exception)
