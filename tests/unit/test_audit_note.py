"""Signed notes and cosignatures against frozen vectors of the specification and of Go's packages,
and every way in which they may be wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from audit.checkpoint import Checkpoint, log_note_key, sign_note, verify_note
from audit.cosign import (
    Cosigner,
    CosignerSet,
    cosigner_key,
    find_witness_lines,
    sign_cosignature,
    verify_cosignature,
    verify_cosigned,
    verify_quorum,
)
from audit.note import (
    SIGNATURES_MAX,
    KeyType,
    Note,
    NoteKey,
    NoteSignature,
    decode_signatures,
    sign_text,
    verify_signed,
)
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from ledger.validator_set import Validator, ValidatorSet

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "c2sp_notes.json").read_text()
)
CHAIN_ID = "zynk-test"
ORIGIN = f"zynk.log/{CHAIN_ID}"
LOG = KeyPair.from_seed(b"\7" * 32)
BODY = Checkpoint(origin=ORIGIN, tree_size=70_000, root_hash=b"\5" * 32).body()
POWERS = (40, 30, 20, 10)
PAIRS = [KeyPair.from_seed(bytes([i]) * 32) for i in range(1, 5)]
OPERATORS = [bytes([64 + i]) * 32 for i in range(4)]


def cosigners() -> CosignerSet:
    validators = [Validator(public_key=bytes([9, i]) * 16, power=p) for i, p in enumerate(POWERS)]
    return CosignerSet(
        cosigners=tuple(
            Cosigner(
                operator=operator,
                key=cosigner_key(CHAIN_ID, operator, pair.public_key),
                power=power,
            )
            for operator, pair, power in zip(OPERATORS, PAIRS, POWERS, strict=True)
        ),
        validators=ValidatorSet.of(validators),
    )


def cosigned_note(*indexes: int, body: str = BODY, time_s: int = 1_700_000_000) -> Note:
    lines = [sign_text(body, ORIGIN, LOG)]
    known = cosigners().cosigners
    lines += [sign_cosignature(body, known[i].key, PAIRS[i], time_s + i) for i in indexes]
    return Note(text=body, signatures=tuple(lines))


def test_example_of_the_specification_verifies() -> None:
    vector = VECTORS["signed_note"]
    key = NoteKey.decode(vector["vkey"])
    note = Note.decode(vector["note"])
    verify_signed(note, key)
    assert note.text == "This is an example message.\n"
    assert (key.vkey, note.encode()) == (vector["vkey"], vector["note"])
    changed = Note.decode(vector["note"].replace("example message", "Example message"))
    with pytest.raises(InvalidInputError, match="bad signature"):
        verify_signed(changed, key)


def test_note_made_by_go_is_made_here_to_the_byte() -> None:
    vector = VECTORS["checkpoint"]
    note = Note.decode(vector["note"])
    assert note.text == BODY
    assert log_note_key(CHAIN_ID, LOG.public_key).vkey == vector["log_vkey"]
    assert sign_note(BODY, ORIGIN, LOG).splitlines()[-1] == vector["note"].splitlines()[-2]
    pair = KeyPair.from_seed(b"\x09" * 32)
    key = NoteKey(
        name=vector["cosigner_name"], type=KeyType.COSIGNATURE, public_key=pair.public_key
    )
    assert key.key_id.hex() == vector["cosigner_key_id"]
    line = note.find(key)
    assert line is not None
    time_s = verify_cosignature(BODY, key, line.signature)
    assert sign_cosignature(BODY, key, pair, time_s) == line
    assert find_witness_lines(note, [key]) == [(key, time_s)]


def test_verifier_key_round_trips_and_each_part_counts() -> None:
    key = cosigner_key(CHAIN_ID, OPERATORS[0], PAIRS[0].public_key)
    assert NoteKey.decode(key.vkey) == key
    name, key_id, encoded = key.vkey.split("+", 2)
    other_type = base64.b64encode(b"\6" + PAIRS[0].public_key).decode()
    for bad in (
        "",
        name,
        f"{name}+{key_id}",
        f"{name}x+{key_id}+{encoded}",
        f"+{key_id}+{encoded}",
        f"a b+{key_id}+{encoded}",
        f"{name}+{key_id.upper()}+{encoded}",
        f"{name}+{key_id}+{other_type}",
        f"{name}+{key_id}+{encoded[:-4]}",
        "x" * 600,
    ):
        with pytest.raises(InvalidInputError):
            NoteKey.decode(bad)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        BODY,
        BODY + "\n",
        sign_note(BODY, ORIGIN, LOG)[:-1],
        sign_note(BODY, ORIGIN, LOG) + "\n",
        sign_note(BODY, ORIGIN, LOG).replace("—", "-"),
        sign_note(BODY, ORIGIN, LOG).replace("— ", "—  "),
        sign_note(BODY, ORIGIN, LOG) + "— w\n",
        sign_note(BODY, ORIGIN, LOG) + "— w AAAA\n",
        sign_note(BODY, ORIGIN, LOG) + "— w AAAAAAB=\n",
        sign_note(BODY, ORIGIN, LOG) + "— w+ AAAAAAA=\n",
        sign_note(BODY, ORIGIN, LOG) + "— w AAAAAAA= x\n",
        sign_note(BODY, ORIGIN, LOG).replace("70000", "70000\r"),
        sign_note(BODY, ORIGIN, LOG).replace("70000", "\ud800"),
        BODY + "\n" + "— w AAAAAAA=\n" * (SIGNATURES_MAX + 1),
        "x" * 200_000 + "\n\n— w AAAAAAA=\n",
    ],
)
def test_malformed_note_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInputError):
        Note.decode(bad)


def test_lines_of_unknown_keys_are_passed_over_and_known_ones_must_hold() -> None:
    note = sign_note(BODY, ORIGIN, LOG)
    stranger = sign_text(BODY, ORIGIN, PAIRS[0]).line  # same name, another key id
    assert verify_note(note + stranger, ORIGIN, LOG.public_key).tree_size == 70_000
    false = NoteSignature(
        name=ORIGIN, key_id=log_note_key(CHAIN_ID, LOG.public_key).key_id, signature=b"x" * 64
    )
    with pytest.raises(InvalidInputError, match="bad signature"):
        verify_note(note + false.line, ORIGIN, LOG.public_key)
    with pytest.raises(InvalidInputError, match="not signed"):
        verify_note(note, ORIGIN, PAIRS[0].public_key)
    with pytest.raises(UsageError):
        verify_signed(Note.decode(note), cosigners().cosigners[0].key)


def test_text_of_a_note_may_hold_empty_lines() -> None:
    text = "one\n\ntwo\n"
    note = Note(text=text, signatures=(sign_text(text, "n", LOG),))
    assert Note.decode(note.encode()) == note
    assert decode_signatures(note.signatures[0].line) == note.signatures


@pytest.mark.parametrize(
    ("who", "power", "has_quorum"),
    [
        ((), 0, False),
        ((0,), 40, False),
        ((0, 2), 60, False),
        ((0, 1), 70, True),
        ((1, 2, 3), 60, False),
        ((0, 2, 3), 70, True),
        ((0, 1, 2, 3), 100, True),
        ((0, 0, 0), 40, False),
    ],
)
def test_quorum_is_more_than_two_thirds_of_the_power(
    who: tuple[int, ...], power: int, has_quorum: bool
) -> None:
    note = Note.decode(cosigned_note(*who).encode())
    found = verify_cosigned(note, cosigners(), CHAIN_ID)
    assert (found.power, found.total_power, found.has_quorum) == (power, 100, has_quorum)
    assert found.time_s_by_operator == {OPERATORS[i]: 1_700_000_000 + i for i in who}
    if has_quorum:
        assert verify_quorum(note, cosigners(), CHAIN_ID) == found
    else:
        with pytest.raises(InvalidInputError, match="too few cosignatures"):
            verify_quorum(note, cosigners(), CHAIN_ID)


def test_exactly_two_thirds_are_too_few() -> None:
    validators = ValidatorSet.of(
        [Validator(public_key=bytes([i]) * 32, power=1) for i in (1, 2, 3)]
    )
    three = CosignerSet(cosigners=cosigners().cosigners[:3], validators=validators)
    assert not validators.has_quorum(2)
    ones = tuple(Cosigner(operator=c.operator, key=c.key, power=1) for c in three.cosigners)
    found = verify_cosigned(
        cosigned_note(0, 1), CosignerSet(cosigners=ones, validators=validators), CHAIN_ID
    )
    assert (found.power, found.has_quorum) == (2, False)


def test_cosignature_of_another_head_or_time_makes_the_note_invalid() -> None:
    other = Checkpoint(origin=ORIGIN, tree_size=70_000, root_hash=b"\6" * 32).body()
    stolen = cosigned_note(1, body=other).signatures[1]
    good = cosigned_note(0)
    later = good.signatures[1].signature
    moved = (int.from_bytes(later[:8], "big") + 1).to_bytes(8, "big") + later[8:]
    key = good.signatures[1]
    for line in (
        stolen,
        NoteSignature(name=key.name, key_id=key.key_id, signature=moved),
        NoteSignature(name=key.name, key_id=key.key_id, signature=later[:-1]),
        NoteSignature(name=key.name, key_id=key.key_id, signature=bytes(8) + later[8:]),
        NoteSignature(name=key.name, key_id=key.key_id, signature=b"\xff" * 8 + later[8:]),
    ):
        note = Note(text=BODY, signatures=(good.signatures[0], line))
        with pytest.raises(InvalidInputError, match="cosignature"):
            verify_cosigned(note, cosigners(), CHAIN_ID)


def test_cosignature_counts_for_this_chain_alone() -> None:
    with pytest.raises(InvalidInputError, match="another log"):
        verify_cosigned(cosigned_note(0, 1), cosigners(), "zynk-other")
