"""Random chains of DID operations, valid and hostile, played on the real handler and on the twin.

An episode is a chain of its own, with up to three DIDs. Most operations are right at their place;
some have one fault (another signer, seq, prev, tier, net, key list), some break a rule of form and
are signed all the same, some are sent again. Time moves in leaps, often to the last millisecond of
somebody's dispute window or to the first after it, and governance changes the window at times.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import base58

from did.multikey import encode_base64url
from ledger.params import PARAMS_KEY, ChainParams
from ledger.state import state_key
from tests.property.did_twin import (
    DAY_MS,
    Json,
    Twin,
    Version,
    commitment,
    disputed,
    hash_text,
    jcs,
    keys_of,
    living,
    unsigned,
)
from tests.property.test_state_tree import naive_root
from tests.vectors.did_world import EXP, NET, World, document, key

WINDOW_MS = 3 * DAY_MS
DAY_LIMIT = 4
STEPS_MS = [1000] * 8 + [7 * 3_600_000, DAY_MS, 2 * DAY_MS, WINDOW_MS]
DIDS_MAX = 3
TWISTS = ("signers", "fewer", "stranger", "place", "place", "chain", "height", *["keys"] * 4)


def key_text(name: str) -> str:
    return "z" + base58.b58encode(b"\xed\x01" + key(name).public_key).decode()


NAMES = {key_text(name): name for name in "abcdefghtuvwxyz"}


def key_list(names: str, threshold: int = 1) -> Json:
    return {"keys": [key_text(name) for name in names], "threshold": threshold}


LISTS = (
    key_list("a"),
    key_list("b"),
    key_list("ab", 2),
    key_list("bcd", 2),
    key_list("ca"),
    key_list("abcdefgh", 8),
)
LIST_WEIGHTS = (5, 5, 4, 3, 3, 1)
TIERS = (key_list("t"), key_list("uv"), key_list("wxy", 2), key_list("a"))
BY_COMMITMENT = {commitment(item): item for item in LISTS}


def seal(form: Json, names: list[str]) -> bytes:
    """Sign an operation's form, whatever it says; its `sigs` are replaced."""
    message = b"zynk/sign/did-op/1\0" + unsigned(form)
    form["sigs"] = [
        {"key": key_text(name), "sig": encode_base64url(key(name).sign(message))}
        for name in sorted(set(names), key=key_text)
    ]
    return jcs(form)


class Episode:
    """One chain. `play` raises AssertionError where the two sides part."""

    def __init__(self, rng: Random, seen: Counter[str]) -> None:
        self.rng = rng
        self.seen = seen
        self.params = ChainParams(dispute_window_ms=WINDOW_MS, did_ops_per_day_max=DAY_LIMIT)
        self.world = World(self.params)
        self.twin = Twin(NET, WINDOW_MS, DAY_LIMIT)
        self.sent: list[tuple[bytes, Json | None]] = []
        self.number = 0
        self.focus: tuple[str, Version, str] | None = None
        self.is_hasty = rng.random() < 0.2

    def play(self, blocks: int) -> None:
        for _ in range(blocks):
            if self.rng.random() < 0.04:
                self._govern()
            self._block()
            self._check_state()

    def _govern(self) -> None:
        self.twin.window_ms = self.rng.choice((WINDOW_MS, WINDOW_MS, DAY_MS, 2 * WINDOW_MS, 1))
        self.twin.block_limit = self.rng.choice((1, 1, 2))
        self.params = ChainParams(
            dispute_window_ms=self.twin.window_ms,
            did_ops_per_block_max=self.twin.block_limit,
            did_ops_per_day_max=DAY_LIMIT,
        )
        self.world.set_params(self.params)
        self.seen["window changed"] += 1

    def _block(self) -> None:
        step_ms = self._step_ms()
        self.twin.height = self.world.height + 1
        self.twin.time_ms = self.world.time_ms + step_ms
        count = self.rng.choice((1, 1, 1, 2, 3))
        drafts = [self._draft() for _ in range(count)]
        if self.rng.random() < 0.03:
            drafts.append(drafts[0])
        codes = self.world.block([encoded for encoded, _ in drafts], step_ms=step_ms)
        for at, ((encoded, form), code) in enumerate(zip(drafts, codes, strict=True)):
            notes = self._note(form, is_first=at == 0)
            wanted = self.twin.run(encoded, form)
            assert code == wanted, f"{code}, not {wanted}: {encoded!r}"
            self.seen[code] += 1
            for note in notes:
                self.seen[f"{note}: {code}"] += 1
        self.sent += drafts
        self.focus = None

    def _note(self, form: Json | None, *, is_first: bool) -> list[str]:
        """What is worth counting about an operation that is about to be judged."""
        if form is None or form.get("did") not in self.twin.dids:
            return []
        notes = []
        head = living(self.twin.dids[form["did"]])[-1]
        if form["type"] == "deactivate" and "next" in head.control:
            notes.append("deactivation under pre-rotation")
        if self.focus is not None and is_first:
            notes.append(f"recovery at the window's {self.focus[2]}")
        return notes

    def _step_ms(self) -> int:
        """How far time moves; sometimes to the very end of an operation's dispute window."""
        if self.twin.dids and self.rng.random() < 0.15:
            did = self.rng.choice(list(self.twin.dids))
            line = living(self.twin.dids[did])
            version = self.rng.choice(disputed(line, self.world.time_ms) or line)
            moment, late_ms = self.rng.choice((("last moment", -1), ("end", 0)))
            step_ms = version.until_ms - self.world.time_ms + late_ms
            if version is not line[0] and step_ms > 0:
                self.focus = (did, version, moment)
                return step_ms
        return 1000 if self.is_hasty else self.rng.choice(STEPS_MS)

    # --- drafting ---

    def _draft(self) -> tuple[bytes, Json | None]:
        """(bytes, form) of an operation, form None if it is broken on purpose."""
        rng, dids = self.rng, list(self.twin.dids)
        self.number += 1
        if self.sent and rng.random() < 0.04:
            return rng.choice(self.sent)
        if not dids or (len(dids) < DIDS_MAX and rng.random() < 0.15):
            form, names = self._create()
        elif self.focus is not None:
            form, names = self._recovery(self.focus[0], self.focus[1])
            self.seen["aimed at a window's end"] += 1
            return seal(form, names), form
        else:
            form, names = self._change(rng.choice(dids))
        if rng.random() < 0.25:
            names = self._twist(form, names)
        if rng.random() < 0.1:
            return rng.choice(SPOILERS)(form, names), None
        return seal(form, names), form

    def _create(self) -> tuple[Json, list[str]]:
        state = self._state(None)
        form = self._form("create", state, 0)
        return form, self._signers(keys_of(state["control"]))

    def _change(self, did: str) -> tuple[Json, list[str]]:
        versions = self.twin.dids[did]
        head = living(versions)[-1]
        weights = (1, 1, 6) if head.document is None else (6, 2, 4)
        kind = self.rng.choices(("update", "deactivate", "recover"), weights)[0]
        if kind == "recover":
            return self._recovery(did, None)
        required = keys_of(head.control)
        body: Json = {}
        if "next" in head.control:
            required = BY_COMMITMENT[head.control["next"]]
            body = {"reveal": required}
        if kind == "update":
            body = self._state(head)
            if "next" in head.control:
                body["control"].update(required)
        form = self._form(kind, body, len(versions), did, head)
        return form, self._signers(required)

    def _recovery(self, did: str, dropped: Version | None) -> tuple[Json, list[str]]:
        """By a random tier, from before `dropped` or from a recent version."""
        versions = self.twin.dids[did]
        line = living(versions)
        back = self.rng.choice((0, 0, 1, 1, 2, 3, 5))
        at = max(0, len(line) - 1 - back) if dropped is None else line.index(dropped) - 1
        tiers = line[at].tiers
        tier = self.rng.choice((0, 0, 1, 2))
        required = tiers[tier] if tier < len(tiers) else TIERS[0]
        body = {**self._state(line[at]), "tier": tier}
        form = self._form("recover", body, len(versions), did, line[at])
        return form, self._signers(required)

    def _state(self, before: Version | None) -> Json:
        rng = self.rng
        control = copy.deepcopy(rng.choices(LISTS, LIST_WEIGHTS)[0])
        if rng.random() < 0.4:
            control["next"] = commitment(rng.choices(LISTS, LIST_WEIGHTS)[0])
        tiers = [] if before is None else before.tiers
        if rng.random() < (0.8 if before is None else 0.3):
            tiers = rng.sample(TIERS, rng.randint(0, 3))
        shape: Json = {} if rng.random() < 0.1 else document(f"n{self.number}")
        if rng.random() < 0.2:
            shape["alsoKnownAs"] = [f"https://example.org/{self.number}"]
        state = {"control": control, "document": shape}
        return copy.deepcopy({**state, "recovery": tiers} if tiers else state)

    def _form(
        self, kind: str, body: Json, seq: int, did: str = "", prev: Version | None = None
    ) -> Json:
        form: Json = {"v": 1, "net": NET, "type": kind, "seq": seq, "expHeight": EXP, "body": body}
        return {**form, "did": did, "prev": hash_text(prev.hash)} if prev else form

    def _signers(self, required: Json) -> list[str]:
        names = [NAMES[text] for text in required["keys"]]
        return self.rng.sample(names, self.rng.randint(required["threshold"], len(names)))

    def _twist(self, form: Json, names: list[str]) -> list[str]:
        """Change one thing, usually for the worse. Returns the signers."""
        rng = self.rng
        match rng.choice(TWISTS):
            case "signers":
                return [rng.choice("abcdtuwz")]
            case "fewer":
                return names[1:] or ["z"]
            case "stranger":
                return [*names[:7], "z"]
            case "place" if "prev" in form:
                versions = self.twin.dids[form["did"]]
                others = [v for line in self.twin.dids.values() for v in line]
                if rng.random() < 0.4:
                    form["seq"] = max(1, len(versions) + rng.choice((-1, 1)))
                elif rng.random() < 0.8:
                    form["prev"] = hash_text(rng.choice(others).hash)
                else:
                    form["did"] = "did:zynk:" + hash_text(rng.randbytes(32))
            case "chain":
                form["net"] = "zynk-other"
            case "height":
                form["expHeight"] = self.twin.height - rng.choice((0, 1))
            case "keys":
                if form["type"] == "deactivate":
                    form["body"] = rng.choice(({}, {"reveal": rng.choice(LISTS)}))
                elif form["type"] == "recover" and rng.random() < 0.5:
                    form["body"]["tier"] = rng.choice((0, 1, 2))
                else:
                    form["body"]["control"].update(rng.choice(LISTS))
        return names

    # --- checking ---

    def _check_state(self) -> None:
        """All of state is what the twin says, byte for byte, so its root is as well."""
        rows = {state_key(domain, did): row for (domain, did), row in self.twin.rows().items()}
        rows[PARAMS_KEY] = self.params.encode()
        assert dict(self.world.tree.iterate(b"")) == rows
        assert self.world.tree.root == naive_root(rows)


# --- operations that break a rule of form, most of them signed as if nothing were wrong ---

Spoiler = Callable[[Json, list[str]], bytes]


def _of_form(change: Callable[[Json], Any]) -> Spoiler:
    def spoil(form: Json, names: list[str]) -> bytes:
        change(form)
        return seal(form, names)

    return spoil


def _of_state(change: Callable[[Json], Any]) -> Spoiler:
    """A change of the body; a deactivation, which has little of one, gets an unknown member."""

    def spoil(form: Json, names: list[str]) -> bytes:
        if form["type"] == "deactivate":
            form["body"]["document"] = {}
        else:
            change(form["body"])
        return seal(form, names)

    return spoil


def _of_bytes(change: Callable[[bytes], bytes]) -> Spoiler:
    return lambda form, names: change(seal(form, names))


def _forge(form: Json, names: list[str]) -> bytes:
    """A signature by the right key over something else."""
    other = copy.deepcopy(form)
    other["expHeight"] += 1
    seal(other, names)
    form["sigs"] = other["sigs"]
    return jcs(form)


def _repeat_signature(form: Json, names: list[str]) -> bytes:
    seal(form, names)
    form["sigs"].append(form["sigs"][-1])
    return jcs(form)


def _twice(body: Json) -> None:
    body["control"]["keys"] = body["control"]["keys"][:4] * 2


SPOILERS: tuple[Spoiler, ...] = (
    _forge,
    _repeat_signature,
    lambda form, names: seal(form, []),
    _of_bytes(lambda data: data + b" "),
    _of_bytes(lambda data: data[:-1]),
    _of_bytes(lambda data: data.replace(b'"v":1', b'"v":1.0')),
    _of_bytes(lambda data: data.replace(b'"v":1', b'"v":1,"v":1')),
    _of_bytes(lambda data: data.replace(b'"v":1', b'"v": 1')),
    _of_bytes(lambda data: data.replace(b'"type":"', b'"type":"\\ud800')),
    _of_bytes(lambda data: data.replace(b'"net":"z', b'"net":"\\u007a')),
    _of_form(lambda form: form.update(v=2)),
    _of_form(lambda form: form.update(more=1)),
    _of_form(lambda form: form.pop("expHeight")),
    _of_form(lambda form: form.update(expHeight=2**53)),
    _of_form(lambda form: form.update(expHeight=-1)),
    _of_form(lambda form: form.update(seq=True)),
    _of_form(lambda form: form.update(body=None)),
    _of_form(lambda form: form.update(body={**form["body"], "more": []})),
    _of_state(_twice),
    _of_state(lambda body: body["control"].update(threshold=0)),
    _of_state(lambda body: body["control"].update(threshold=len(body["control"]["keys"]) + 1)),
    _of_state(lambda body: body["control"].update(more=1)),
    _of_state(lambda body: body["control"].update(next="z" + "1" * 46)),
    _of_state(lambda body: body["control"].update(keys=["z1" + key_text("a")[1:]], threshold=1)),
    _of_state(lambda body: body.update(recovery=[])),
    _of_state(lambda body: body.update(recovery=list(TIERS))),
    _of_state(lambda body: body.update(document={"authentication": ["#gone"]})),
    _of_state(lambda body: body.update(document={"alsoKnownAs": ["mailto:a@example.org"]})),
    _of_state(lambda body: body.update(document={"id": "did:zynk:z"})),
    _of_state(lambda body: body.update(document={"alsoKnownAs": ["a:" + "b" * 511]})),
    _of_state(lambda body: body.update(document=_deep(17))),
)


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return {"service": value}
