"""Mutated DID answers and histories, as text, judged by the Python and the JavaScript verifier."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest

from did import resolver, strict_json
from did.build import (
    create_operation,
    deactivate_operation,
    recover_operation,
    update_operation,
)
from did.control import Control, KeyList
from did.operation import Operation, decode_operation
from did.record import ControlState, control_key
from did.syntax import encode_did
from did.verify import ANSWER_BYTES_MAX, decode_answer, verify_proof, verify_resolution
from did.verify_history import verify_history
from ledger.errors import InvalidInputError
from ledger.light import TrustPoint
from tests.property.campaign import examples
from tests.property.light_bundles import Bundle
from tests.property.test_light_bundles import run_js
from tests.vectors.did_world import (
    EXP,
    NET,
    START_MS,
    VALIDATORS,
    World,
    control,
    document,
    key,
    key_list,
)

COUNT = examples(300, 4_000)
SEED = 20_260_101
STRANGER = encode_did(bytes(32))
TIERS = (key_list("t1"), key_list("t2", "t3", threshold=2))
PAGE = 3
TRUST = TrustPoint(
    chain_id=NET,
    height=0,
    time_ms=START_MS,
    validators=VALIDATORS,
    trusting_period_ms=10**12,
    header_hash=bytes(32),
)


class Lives:
    """Three DIDs with long lives: one that a thief took and its owner got back, one deactivated,
    one deactivated and recovered. `authority[did]` is what the control row said after each of its
    operations."""

    def __init__(self) -> None:
        self.world = World()
        self.authority: dict[str, list[dict[str, Any]]] = {}
        self._head: dict[str, list[Operation]] = {}
        self.owner = self._create("owner", control("a", "b", "c", threshold=2), ("a", "c"))
        self.gone = self._create("gone", control("g"), ("g",))
        self.back = self._create("back", control("k"), ("k",))
        after = key_list("d", "e")
        self._update(self.owner, control("a", "b", threshold=2, next_keys=after), ("b", "c"))
        self._update(self.owner, control("d", "e"), ("e",))
        self._update(self.owner, control("thief"), ("d",), tiers=())
        self._update(self.owner, control("thief", "thief2"), ("thief",), tiers=())
        self._recover(self.owner, back_to=2, tier=1, signers=("t2", "t3"))
        self._recover(self.owner, back_to=2, tier=0, signers=("t1",))
        self._update(self.owner, control("n"), ("n",), tiers=TIERS[:1])
        self._update(self.gone, control("g"), ("g",))
        self._end(self.gone, ("g",))
        self._end(self.back, ("k",))
        self._recover(self.back, back_to=0, tier=0, signers=("t1",))

    def _create(self, name: str, charge: Control, signers: Sequence[str]) -> str:
        body = create_operation(
            net=NET,
            exp_height=EXP,
            document=document(name),
            control=charge,
            recovery=TIERS,
            signers=[key(s) for s in signers],
        )
        return self._run(body)

    def _update(
        self,
        did: str,
        charge: Control,
        signers: Sequence[str],
        tiers: Sequence[KeyList] = TIERS,
    ) -> None:
        self._run(
            update_operation(
                **self._after(did),
                document=document(f"v{len(self._head[did])}"),
                control=charge,
                recovery=tiers,
                signers=[key(s) for s in signers],
            )
        )

    def _recover(self, did: str, *, back_to: int, tier: int, signers: Sequence[str]) -> None:
        self._run(
            recover_operation(
                **{**self._after(did), "prev": self._head[did][back_to].hash},
                tier=tier,
                document=document("recovered"),
                control=control("n"),
                recovery=TIERS,
                signers=[key(s) for s in signers],
            )
        )

    def _end(self, did: str, signers: Sequence[str]) -> None:
        self._run(deactivate_operation(**self._after(did), signers=[key(s) for s in signers]))

    def _after(self, did: str) -> dict[str, Any]:
        head = self._head[did][-1]
        return {
            "net": NET,
            "exp_height": EXP,
            "did": did,
            "prev": head.hash,
            "seq": len(self._head[did]),
        }

    def _run(self, body: bytes) -> str:
        operation = decode_operation(body)
        assert self.world.run(body) == "ok"
        did = operation.did_text
        self._head.setdefault(did, []).append(operation)
        row = self.world.tree.get(control_key(operation.did))
        assert row is not None
        state = ControlState.decode(row)
        shown: dict[str, Any] = {"control": state.control.to_json()}
        if state.tiers:
            shown["recovery"] = [tier.to_json() for tier in state.tiers]
        self.authority.setdefault(did, []).append(shown)
        return did

    def answer(self, did: str) -> Any:
        return json.loads(json.dumps(resolver.resolve(self.world.view(), did)))

    def pages(self, did: str) -> list[Any]:
        found: list[Any] = []
        cursor: int | None = 0
        while cursor is not None:
            page = resolver.history(self.world.view(), did, cursor, PAGE)
            found.append(json.loads(json.dumps(page)))
            cursor = page["nextCursor"]
        return found


def item(kind: str, did: str, **more: object) -> dict[str, Any]:
    bundle = Bundle(
        name=kind, trust=TRUST, proof=b"", now_ms=START_MS + 10**9, max_age_ms=None, expected=None
    )
    return {**bundle.to_json(), "kind": kind, "did": did, **more}


def verify_pages(did: str, texts: Sequence[str]) -> None:
    """As `node.identity` does it, and that a page says nothing else. Raises InvalidInputError."""
    pages = [strict_json.decode(text.encode(), bytes_max=ANSWER_BYTES_MAX) for text in texts]
    items, records = [], []
    for page in pages:
        if type(page) is not dict or page.keys() != {"did", "operations", "nextCursor", "proof"}:
            raise InvalidInputError("page is malformed")
        if page["did"] != did or type(page["operations"]) is not list:
            raise InvalidInputError("page is of another DID")
        _, record, _ = verify_proof(
            page["proof"],
            did=did,
            trusted=VALIDATORS,
            chain_id=NET,
            max_age_ms=None,
            now_ms=None,
        )
        records.append(record)
        items += page["operations"]
    first = records[0]
    if any((r and r.head) != (first and first.head) for r in records):
        raise InvalidInputError("the DID changed")
    if first is None:
        if items:
            raise InvalidInputError("operations of nobody")
        return
    verify_history(items, first)


def is_true(asked: dict[str, Any]) -> bool:
    try:
        if asked["kind"] == "history":
            verify_pages(asked["did"], asked["pages"])
        else:
            verify_resolution(
                decode_answer(asked["answer"].encode()),
                did=asked["did"],
                trusted=VALIDATORS,
                chain_id=NET,
                max_age_ms=None,
                now_ms=None,
            )
    except InvalidInputError:
        return False
    return True


# --- changes: each takes an answer's JSON value and returns text ---

Change = Callable[[Any, Random], str]
ODD: tuple[Any, ...] = (None, True, False, 0, 1, 2**53, -1, "", "x", [], {}, "2026-01-01T00:00:00Z")


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in pairs:
        found.append((value, name))
        if isinstance(inner, dict | list):
            found += places(inner)
    return found


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


CHANGES: tuple[Change, ...] = (
    nothing,
    one_character,
    one_blob_character,
    another_value,
    without_a_member,
    one_more_member,
    a_name_twice,
    a_float,
    two_swapped,
)


@pytest.fixture(scope="module")
def lives() -> Lives:
    return Lives()


def true_items(lives: Lives) -> list[dict[str, Any]]:
    found = []
    for did in (lives.owner, lives.gone, lives.back, STRANGER):
        found.append(item("did", did, answer=json.dumps(lives.answer(did))))
        found.append(item("history", did, pages=[json.dumps(p) for p in lives.pages(did)]))
    return found


def mutated_items(lives: Lives, count: int) -> list[dict[str, Any]]:
    random = Random(SEED)
    true = true_items(lives)
    found = []
    for number in range(count):
        change = CHANGES[number % len(CHANGES)]
        changed = dict(true[number // len(CHANGES) % len(true)])
        if changed["kind"] == "did":
            changed["answer"] = change(json.loads(changed["answer"]), random)
        else:
            at = random.randrange(len(changed["pages"]))
            page = json.loads(changed["pages"][at])
            changed["pages"] = list(changed["pages"])
            changed["pages"][at] = change(page, random)
        found.append({**changed, "name": change.__name__})
    return found


@pytest.mark.slow
def test_both_verifiers_agree_on_mutated_answers_and_histories(lives: Lives) -> None:
    items = [*true_items(lives), *mutated_items(lives, COUNT)]
    verdicts = [line.partition(" ")[0] for line in run_js(items)]
    seen: Counter[tuple[str, bool]] = Counter()
    for asked, verdict in zip(items, verdicts, strict=True):
        expected = is_true(asked)
        assert expected == (verdict == "valid"), (asked["name"], verdict, asked)
        seen[asked["kind"], expected] += 1
    assert min(seen[kind, is_so] for kind in ("did", "history") for is_so in (True, False)) >= 12


@pytest.mark.slow
def test_history_tells_who_was_in_charge_after_each_operation_as_the_chain_had_it(
    lives: Lives,
) -> None:
    dids = (lives.owner, lives.gone, lives.back)
    items = [item("history", d, pages=[json.dumps(p) for p in lives.pages(d)]) for d in dids]
    for did, line in zip(dids, run_js(items), strict=True):
        verdict, _, shown = line.partition(" ")
        expected = lives.authority[did]
        changes = [at == 0 or now != expected[at - 1] for at, now in enumerate(expected)]
        assert verdict == "valid"
        assert json.loads(shown) == [list(pair) for pair in zip(changes, expected, strict=True)]
    assert len(lives.authority[lives.owner]) == 8


def moved_operations(pages: list[Any], lives: Lives) -> dict[str, list[Any]]:
    """Histories of which each part is true by itself."""

    def changed(change: Callable[[list[Any]], object]) -> list[Any]:
        copy = json.loads(json.dumps(pages))
        change(copy)
        return list(copy)

    other = lives.pages(lives.gone)
    return {
        "last page missing": pages[:-1],
        "pages out of order": pages[::-1],
        "a page twice": [pages[0], *pages],
        "an operation missing": changed(lambda p: p[0]["operations"].pop()),
        "nullified hidden": changed(lambda p: p[1]["operations"][0].update(nullifiedBy=None)),
        "nullified by another": changed(lambda p: p[1]["operations"][0].update(nullifiedBy=6)),
        "nullified invented": changed(lambda p: p[0]["operations"][1].update(nullifiedBy=6)),
        "operations of another": changed(lambda p: p[0].update(operations=other[0]["operations"])),
        "proof of another": changed(lambda p: p[0].update(proof=other[0]["proof"])),
    }


@pytest.mark.slow
def test_a_history_made_of_true_parts_is_refused_by_both(lives: Lives) -> None:
    pages = lives.pages(lives.owner)
    cases = moved_operations(pages, lives)
    items = [
        item("history", lives.owner, pages=[json.dumps(p) for p in case]) for case in cases.values()
    ]
    for name, asked, line in zip(cases, items, run_js(items), strict=True):
        assert (line, is_true(asked)) == ("wrong []", False), name
