"""Every DID parser, fed mutations and noise: InvalidInputError or a value that encodes back."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from typing import Any

import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from did import resolver, strict_json
from did.build import create_operation, update_operation
from did.did_url import parse_did_url
from did.document import encode_document, to_stored
from did.multikey import decode_base64url, decode_hash, decode_multikey, encode_multikey
from did.operation import decode_operation, decode_verified
from did.oplog import LogEntry
from did.record import ControlState, Record, control_key, record_key
from did.syntax import decode_did, encode_did
from did.verify import verify_resolution
from ledger.errors import InvalidInputError
from tests.vectors.did_world import (
    EXP,
    NET,
    VALIDATORS,
    World,
    control,
    document,
    key,
    key_list,
)

CASES = 10_000 if os.environ.get("ZYNK_SOAK") == "1" else 300


def _samples() -> tuple[World, bytes, bytes]:
    world = World()
    create = create_operation(
        net=NET,
        exp_height=EXP,
        document=document(),
        control=control("a", next_keys=key_list("n")),
        recovery=[key_list("t")],
        signers=[key("a")],
    )
    operation = decode_operation(create)
    update = update_operation(
        net=NET,
        exp_height=EXP,
        did=operation.did_text,
        prev=operation.hash,
        seq=1,
        document=document("next"),
        control=control("n"),
        recovery=[key_list("t")],
        signers=[key("n")],
    )
    assert world.block([create]) == world.block([update]) == ["ok"]
    return world, create, update


WORLD, CREATE, UPDATE = _samples()
IDENTIFIER = decode_operation(CREATE).did
DID = encode_did(IDENTIFIER)
ROWS = [WORLD.tree.get(row_key(IDENTIFIER)) or b"" for row_key in (record_key, control_key)]
ENTRIES = [value for row, value in WORLD.side.items() if row.startswith(b"d/o")]
ANSWER = resolver.resolve(WORLD.view(), DID)


@st.composite
def mutated(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """Noise, or a sample with a few bytes changed, cut out or put in."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del data[at : at + draw(st.integers(1, 40))]
            case 2:
                data[at:at] = draw(st.binary(max_size=8))
            case _:
                tokens = [b"null", b"{}", b"[]", b'""', b"-1", b"1.5", b'"\\ud800"', b"true"]
                data[at:at] = draw(st.sampled_from(tokens))
    return bytes(data)


def _refused_or(decode: Callable[[], Any]) -> Any:
    """The decoded value, or None if refused the one right way."""
    try:
        return decode()
    except InvalidInputError:
        return None


@settings(max_examples=CASES, deadline=None)
@given(mutated([CREATE, UPDATE]))
def test_mutated_operation_is_refused_or_is_itself(data: bytes) -> None:
    operation = _refused_or(lambda: decode_operation(data))
    if operation is not None:
        assert operation.encoded == data == rfc8785.dumps(json.loads(data))
        assert data not in (CREATE, UPDATE) or decode_verified(data) == operation
    if data not in (CREATE, UPDATE):
        assert _refused_or(lambda: decode_verified(data)) is None


@settings(max_examples=CASES, deadline=None)
@given(mutated([CREATE, UPDATE, b'{"a":[1,"x",null]}', '{"é":"\\u0007"}'.encode()]))
def test_json_that_is_accepted_is_what_rfc_8785_says(data: bytes) -> None:
    value = _refused_or(lambda: strict_json.decode_canonical(data, bytes_max=1 << 14))
    if value is not None:
        assert rfc8785.dumps(value) == data
    _refused_or(lambda: strict_json.decode(data, bytes_max=1 << 14))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)


@settings(max_examples=CASES, deadline=None)
@given(JSON)
def test_canonical_json_agrees_with_the_library(value: Any) -> None:
    assert strict_json.encode(value) == rfc8785.dumps(value)
    assert strict_json.decode_canonical(rfc8785.dumps(value), bytes_max=1 << 16) == value


@settings(max_examples=CASES, deadline=None)
@given(mutated([b for b in (*ROWS, *ENTRIES) if b]))
def test_mutated_row_is_refused_or_encodes_back(data: bytes) -> None:
    for kind in (Record, ControlState, LogEntry):
        row = _refused_or(lambda kind=kind: kind.decode(data))  # type: ignore[misc]  # bound now
        if isinstance(row, Record | LogEntry):
            assert row.encode() == data


@settings(max_examples=CASES, deadline=None)
@given(st.text(max_size=80) | mutated([DID.encode()]).map(lambda b: b.decode("latin-1")))
def test_text_forms_never_fail_otherwise(text: str) -> None:
    did = _refused_or(lambda: decode_did(text))
    assert did is None or encode_did(did) == text
    multikey = _refused_or(lambda: decode_multikey(text))
    assert multikey is None or encode_multikey(multikey) == text
    for parse in (parse_did_url, decode_hash, lambda t: decode_base64url(t, bytes_max=64)):
        _refused_or(lambda parse=parse: parse(text))  # type: ignore[misc]  # bound now
    _refused_or(lambda: parse_did_url(DID + text))


@settings(max_examples=CASES, deadline=None)
@given(JSON, st.sampled_from([*ANSWER["didDocument"], "@context", "alsoKnownAs"]))
def test_document_with_any_member_is_refused_or_canonical(value: Any, member: str) -> None:
    stored = {**document(), member: value}
    data = _refused_or(lambda: encode_document(stored))
    assert data is None or strict_json.decode_canonical(data, bytes_max=1 << 14) == stored
    _refused_or(lambda: to_stored(DID, {**ANSWER["didDocument"], member: value}))


@settings(max_examples=CASES, deadline=None)
@given(JSON, st.data())
def test_answer_with_any_part_replaced_is_refused(value: Any, data: st.DataObject) -> None:
    answer = copy.deepcopy(ANSWER)
    holder: Any = answer
    while True:
        names = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        name = data.draw(st.sampled_from(names))
        inner = holder[name]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 4)) == 0:
            break
        holder = inner
    if json.dumps(inner, sort_keys=True) == json.dumps(value, sort_keys=True):
        return
    holder[name] = value
    verdict = _refused_or(
        lambda: verify_resolution(
            answer, did=DID, trusted=VALIDATORS, chain_id=NET, max_age_ms=None, now_ms=None
        )
    )
    assert verdict is None
