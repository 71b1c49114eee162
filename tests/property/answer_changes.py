"""Changes to DID answers, most of them lies: each takes an answer's JSON value and gives text."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

from did.multikey import decode_base64url, encode_base64url
from ledger.block import Header
from tests.vectors.did_world import VALIDATORS

Change = Callable[[Any, Random], str]
ODD: tuple[Any, ...] = (None, True, False, 0, 1, 2**53, -1, "", "x", [], {}, "2026-01-01T00:00:00Z")
_BLOB = re.compile("[A-Za-z0-9_-]+")
PARTS = (
    *("record", "records", "stateProof", "multiproof", "header", "certificate", "peaks", "entries"),
    *("entry", "path", "didDocument", "content", "contentStream", "error", "nextVersionId"),
    *("didDocumentMetadata", "didResolutionMetadata", "contentMetadata", "results"),
)  # fmt: skip
"""Members of answers; what stands in the proof in one of them is a part of its own."""


def places(value: Any, *, but: str | None = None) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value, without what is in members called `but`."""
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in pairs:
        found.append((value, name))
        if isinstance(inner, dict | list) and name != but:
            found += places(inner, but=but)
    return found


def texts_of(value: Any, part: str) -> list[tuple[Any, Any]]:
    """(container, key) of every text in the members called `part`, but for a proof in them."""
    found: list[tuple[Any, Any]] = []
    for container, name in places(value):
        if name == part:
            found += [(container, name)]
            if isinstance(container[name], dict | list):
                found += places(container[name], but="proof")
    return [(c, k) for c, k in found if isinstance(c[k], str) and c[k]]


def change_part(value: Any, part: str, random: Random) -> str:
    """One bit of a blob, or one character of another text, in this part, which has to be there."""
    container, name = random.choice(texts_of(value, part))
    container[name] = _flip(container[name], random)
    return json.dumps(value)


def _flip(text: str, random: Random) -> str:
    at = random.randrange(len(text))
    if len(text) > 40 and _BLOB.fullmatch(text) is not None and "zQm" not in text:
        raw = bytearray(decode_base64url(text, bytes_max=len(text)))
        raw[at % len(raw)] ^= 1 << random.randrange(8)
        return encode_base64url(bytes(raw))
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


# --- changes of any kind ---


def nothing(value: Any, random: Random) -> str:
    """Other layout and order of names: still the same answer."""
    del random
    return json.dumps(value, indent=1, sort_keys=True)


def one_character(value: Any, random: Random) -> str:
    text = json.dumps(value)
    at = random.randrange(len(text))
    return text[:at] + chr(random.choice((*range(32, 127), 0xE9))) + text[at + 1 :]


def one_blob_character(value: Any, random: Random) -> str:
    blobs = [(c, k) for c, k in places(value) if isinstance(c[k], str) and len(c[k]) > 40]
    container, name = random.choice(blobs)
    at = random.randrange(len(container[name]))
    old = container[name]
    container[name] = old[:at] + random.choice("AZaz059_-") + old[at + 1 :]
    return json.dumps(value)


def another_value(value: Any, random: Random) -> str:
    container, name = random.choice(places(value))
    container[name] = random.choice(ODD)
    return json.dumps(value)


def without_a_member(value: Any, random: Random) -> str:
    container, name = random.choice(places(value))
    del container[name]
    return json.dumps(value)


def one_more_member(value: Any, random: Random) -> str:
    objects = [c[k] for c, k in places(value) if isinstance(c[k], dict)]
    random.choice(objects)[random.choice(("more", "__proto__", "type", "id"))] = random.choice(ODD)
    return json.dumps(value)


def a_name_twice(value: Any, random: Random) -> str:
    text = json.dumps(value)
    names = [at for at in range(len(text)) if text[at] in "{"]
    at = random.choice(names) + 1
    rest = text[at:]
    return text[:at] + (rest.split(":")[0] + ":null," if rest[0] == '"' else "") + rest


def a_float(value: Any, random: Random) -> str:
    numbers = [
        (c, k)
        for c, k in places(value)
        if type(c[k]) is int or (c[k] is None and k == "nullifiedBy")
    ]
    if not numbers:
        return one_character(value, random)
    container, name = random.choice(numbers)
    container[name] = float(container[name] or 0)
    return json.dumps(value)


def two_swapped(value: Any, random: Random) -> str:
    found = places(value)
    (c1, k1), (c2, k2) = random.choice(found), random.choice(found)
    if isinstance(c1[k1], dict | list) or isinstance(c2[k2], dict | list):
        return another_value(value, random)
    c1[k1], c2[k2] = c2[k2], c1[k1]
    return json.dumps(value)


# --- lies that hold together ---


def another_protocol(value: Any, random: Random) -> str:
    """A header of rules that nobody here knows."""
    del random
    for container, name in places(value):
        if name == "header":
            header = Header.decode(decode_base64url(container[name], bytes_max=1024))
            newer = dataclasses.replace(header, protocol_version=header.protocol_version + 1)
            container[name] = encode_base64url(newer.encoded)
    return json.dumps(value)


def one_more_handoff(value: Any, random: Random) -> str:
    """From the set that is trusted to itself, by the answer's own block."""
    del random
    for container, name in places(value):
        if name == "handoffs":
            step = {n: container[n] for n in ("header", "certificate")}
            container[name] = [{**step, "nextValidators": encode_base64url(VALIDATORS.encoded)}]
    return json.dumps(value)


def no_or_two_proofs(value: Any, random: Random) -> str:
    for container, name in places(value):
        if name == "proof" and isinstance(container[name], list):
            container[name] = container[name] * random.choice((0, 2))
            break
    else:
        return without_a_member(value, random)
    return json.dumps(value)


def shorter_log(value: Any, random: Random) -> str:
    """Without its first or last operation, or the peaks before it."""
    for container, name in places(value):
        if name in ("entries", "operations", "peaks") and container[name]:
            container[name].pop(random.choice((0, -1)))
            if random.random() < 0.5:
                break
    return json.dumps(value)


def another_kind_of_proof(value: Any, random: Random) -> str:
    """With a log that is not needed, or without the one that is."""
    for container, name in places(value):
        if name != "proof" or not isinstance(container[name], list):
            continue
        for proof in container[name]:
            if proof["type"] == "ZynkStateProof1":
                proof.update(type="ZynkHistoryProof1", log={"peaks": [], "entries": []})
            elif random.random() < 0.5:
                proof["log"] = {"peaks": [], "entries": []}
            else:
                del proof["log"]
                proof["type"] = "ZynkStateProof1"
    return json.dumps(value)


OF_ANY_JSON: tuple[Change, ...] = (
    *(nothing, one_character, one_blob_character, another_value, without_a_member),
    *(one_more_member, a_name_twice, a_float, two_swapped),
)
CHANGES: tuple[Change, ...] = (
    *OF_ANY_JSON,
    *(another_protocol, one_more_handoff, no_or_two_proofs, another_kind_of_proof, shorter_log),
)
