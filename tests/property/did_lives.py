"""DIDs with long lives, and every kind of question about them with its true answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from did import resolver
from did.batch import resolve_batch
from did.build import (
    create_operation,
    deactivate_operation,
    recover_operation,
    update_operation,
)
from did.control import Control, KeyList
from did.operation import Operation, decode_operation
from did.record import ControlState, control_key
from did.resolution_options import read_options
from did.syntax import encode_did
from did.version import format_time
from tests.vectors.did_world import (
    EXP,
    NET,
    World,
    control,
    dereference_answer,
    document,
    key,
    key_list,
)

STRANGER = encode_did(bytes(32))
TIERS = (key_list("t1"), key_list("t2", "t3", threshold=2))
PAGE = 3
BEFORE = "2025-12-31T23:59:59Z"
"""Before all of them."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """`asked` is a DID URL, or the DIDs of a batch; `texts` are the answer as sent: all pages of a
    history, of the other kinds one text."""

    kind: str
    asked: str | list[str]
    options: Mapping[str, object] = field(default_factory=dict)
    texts: tuple[str, ...]


class Lives:
    """Three DIDs with long lives: one that a thief took and its owner got back, one deactivated,
    one deactivated and recovered. `authority[did]` is what the control row said after each of its
    operations; `early` are answers about the first that were the newest once."""

    def __init__(self) -> None:
        self.world = World()
        self.authority: dict[str, list[dict[str, Any]]] = {}
        self.early: list[str] = []
        self._head: dict[str, list[Operation]] = {}
        self._time_s: dict[str, list[int]] = {}
        self.owner = ""
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
        self.world.block([])

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
        self._time_s.setdefault(did, []).append(self.world.time_ms // 1000)
        if did == self.owner:
            self.early.append(json.dumps(resolver.resolve(self.world.view(), did)))
        return did

    def pages(self, did: str) -> list[Any]:
        found: list[Any] = []
        cursor: int | None = 0
        while cursor is not None:
            page = resolver.history(self.world.view(), did, cursor, PAGE)
            found.append(json.loads(json.dumps(page)))
            cursor = page["nextCursor"]
        return found

    def questions(self) -> list[Question]:
        """Of every kind, about all DIDs, one that does not exist among them."""
        dids = (self.owner, self.gone, self.back, STRANGER)
        found = [self._resolution("newest", did, {}) for did in dids]
        for did in dids:
            found += [self._resolution("older", did, options) for options in self._versions(did)]
            found += [self._part(did + tail, options) for tail, options in self._parts(did)]
            texts = tuple(json.dumps(page) for page in self.pages(did))
            found.append(Question(kind="history", asked=did, texts=texts))
        for asked in (list(dids), [self.owner], [STRANGER], [STRANGER, self.gone]):
            answer = json.dumps(resolve_batch(self.world.view(), asked))
            found.append(Question(kind="batch", asked=asked, texts=(answer,)))
        return found

    def _resolution(self, kind: str, did: str, options: Mapping[str, object]) -> Question:
        answer = resolver.resolve(self.world.view(), did, read_options(options).version)
        return Question(kind=kind, asked=did, options=options, texts=(json.dumps(answer),))

    def _part(self, text: str, options: Mapping[str, object]) -> Question:
        answer = dereference_answer(self.world.view(), text, **options)
        return Question(kind="part", asked=text, options=options, texts=(json.dumps(answer),))

    def _versions(self, did: str) -> Iterator[dict[str, object]]:
        """By id (nullified ones, too, and one that never was), time and height, and by two."""
        operations = self._head.get(did, [])
        unknown = f"1-{STRANGER.removeprefix('did:zynk:')}"
        yield {"versionId": unknown}
        yield {"versionTime": BEFORE}
        yield {"asOfHeight": 1}
        for operation, time_s in zip(operations, self._time_s.get(did, ()), strict=True):
            yield {"versionId": operation.version_id}
            yield {"versionTime": format_time(time_s * 1000)}
        for height in range(2, self.world.height + 1, 2):
            yield {"asOfHeight": height}
            for operation in operations[1:4]:
                yield {"versionId": operation.version_id, "asOfHeight": height}
        for time_s in self._time_s.get(did, ())[1:]:
            yield {"versionTime": format_time(time_s * 1000), "asOfHeight": str(self.world.height)}

    def _parts(self, did: str) -> Iterator[tuple[str, dict[str, object]]]:
        for tail in ("", "#k1", "#s", "#no", "?service=s", "?service=no", "?serviceType=Files#s"):
            yield tail, {}
        yield "/path", {}
        for relationship in ("authentication", "keyAgreement"):
            yield "#k1", {"verificationRelationship": relationship}
            yield "#s", {"verificationRelationship": relationship}
        for operation in self._head.get(did, [])[:5]:
            yield f"?versionId={operation.version_id}#k1", {}
            yield "?service=s&relativeRef=%2Fa%20b", {"versionId": operation.version_id}
