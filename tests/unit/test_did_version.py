"""Older versions: what is asked is what is answered, proven, and no lie about it passes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from did import resolver
from did.build import create_operation, deactivate_operation, recover_operation, update_operation
from did.log_suffix import find_suffix
from did.multikey import decode_base64url, encode_base64url
from did.operation import decode_operation
from did.oplog import entry_key
from did.record import Record, record_key
from did.resolution_error import ResolutionError
from did.resolution_options import VersionQuery, read_version_query
from did.syntax import decode_did, encode_did
from did.verify import Outcome, Verdict, decode_proof_finality, split_proof, verify_resolution
from did.version import LOG_OPERATIONS_MAX, format_time
from ledger.errors import InvalidInputError
from ledger.params import ChainParams
from tests.vectors.did_world import (
    EXP,
    NET,
    VALIDATORS,
    World,
    WorldView,
    control,
    document,
    key,
    key_list,
)

WINDOW_MS = 72 * 3600 * 1000
STRANGER = encode_did(bytes(32))


class History:
    """One DID; each step is a block a second later. Keeps what a naive reader knows: the version
    in force after every height."""

    def __init__(self, params: ChainParams | None = None) -> None:
        self.world = World(params)
        self.did = ""
        self.versions: list[str] = []
        self.alive: list[int] = []
        self.times: list[int] = []
        self.heights: list[int] = []
        self.documents: list[dict[str, Any] | None] = []
        self.alive_by_height: dict[int, list[int]] = {}

    def create(self) -> None:
        self._run(
            create_operation(
                net=NET, exp_height=EXP, document=document("0"), control=control("a"),
                recovery=[key_list("t")], signers=[key("a")],
            ),
            document("0"),
        )  # fmt: skip

    def update(self) -> None:
        body = document(str(len(self.versions)))
        self._run(self._build(update_operation, document=body), body)

    def deactivate(self) -> None:
        seq = len(self.versions)
        operation = deactivate_operation(
            net=NET, exp_height=EXP, did=self.did, prev=self._hash(self.alive[-1]), seq=seq,
            signers=[key("a")],
        )  # fmt: skip
        self._run(operation, None)

    def recover(self, back: int) -> None:
        """Set aside the last `back` living operations."""
        body = document(str(len(self.versions)))
        operation = self._build(
            recover_operation, document=body, tier=0, prev=self._hash(self.alive[-1 - back]),
            signers=[key("t")],
        )  # fmt: skip
        self.alive = self.alive[: len(self.alive) - back]
        self._run(operation, body)

    def _build(self, make: Callable[..., bytes], **changes: Any) -> bytes:
        arguments: dict[str, Any] = {
            "net": NET, "exp_height": EXP, "did": self.did, "seq": len(self.versions),
            "prev": self._hash(self.alive[-1]), "control": control("a"),
            "recovery": [key_list("t")], "signers": [key("a")],
        }  # fmt: skip
        return make(**{**arguments, **changes})

    def _hash(self, seq: int) -> bytes:
        query = read_version_query(self.versions[seq], None, None)
        assert query is not None
        assert query.version is not None
        return query.version[1]

    def _run(self, body: bytes, shown: dict[str, Any] | None) -> None:
        operation = decode_operation(body)
        assert self.world.run(body) == "ok"
        self.did = operation.did_text
        self.alive.append(len(self.versions))
        self.versions.append(operation.version_id)
        self.times.append(self.world.time_ms)
        self.heights.append(self.world.height)
        self.documents.append(shown)
        self.alive_by_height[self.world.height] = list(self.alive)

    def ask(self, view: WorldView, **query: Any) -> dict[str, Any]:
        found = resolver.resolve(view, self.did, read_version_query(*_texts(query)))
        parsed: dict[str, Any] = json.loads(json.dumps(found))
        return parsed

    def verify(self, answer: dict[str, Any], did: str = "", **query: Any) -> Verdict:
        return verify_resolution(
            answer,
            did=did or self.did,
            trusted=VALIDATORS,
            chain_id=NET,
            max_age_ms=None,
            now_ms=None,
            query=read_version_query(*_texts(query)),
        )


def _texts(query: dict[str, Any]) -> tuple[str | None, str | None, int | None]:
    return query.get("version_id"), query.get("version_time"), query.get("as_of_height")


@pytest.fixture(scope="module")
def past() -> History:
    """0 created, 1..3 updated, 4 recovered from 2 (3 set aside), 5 deactivated, 6 recovered (5 set
    aside), 7 updated."""
    history = History()
    history.create()
    for _ in range(3):
        history.update()
    history.recover(1)
    history.deactivate()
    history.recover(1)
    history.update()
    history.world.block([])
    return history


LIVING = [0, 1, 2, 4, 6, 7]


def test_each_living_version_resolves_by_id_and_by_time(past: History) -> None:
    view = past.world.view()
    assert past.alive == LIVING
    for place, seq in enumerate(LIVING):
        following = LIVING[place + 1] if place + 1 < len(LIVING) else None
        for query in (
            {"version_id": past.versions[seq]},
            {"version_time": format_time(past.times[seq])},
        ):
            answer = past.ask(view, **query)
            metadata = answer["didDocumentMetadata"]
            assert metadata["versionId"] == past.versions[seq]
            shown = past.documents[seq]
            assert shown is not None
            endpoint = answer["didDocument"]["service"][0]["serviceEndpoint"]
            assert endpoint == shown["service"][0]["serviceEndpoint"]
            assert metadata["created"] == format_time(past.times[0])
            assert metadata.get("updated") == (format_time(past.times[seq]) if seq else None)
            if following is not None:
                assert metadata["nextVersionId"] == past.versions[following]
                assert metadata["nextUpdate"] == format_time(past.times[following])
                assert metadata["proof"][0]["type"] == "ZynkHistoryProof1"
            else:
                assert "nextVersionId" not in metadata
                assert metadata["proof"][0]["type"] == "ZynkStateProof1"
            verdict = past.verify(answer, **query)
            assert (verdict.outcome, verdict.version_id) == (Outcome.FOUND, past.versions[seq])


def test_version_in_force_between_two_operations_is_the_earlier(past: History) -> None:
    view = past.world.view()
    query = {"version_time": format_time(past.times[3])}  # set aside later: 2 was in force
    answer = past.ask(view, **query)
    assert answer["didDocumentMetadata"]["versionId"] == past.versions[2]
    assert answer["didDocumentMetadata"]["nextVersionId"] == past.versions[4]
    past.verify(answer, **query)


def test_nullified_version_is_not_found_and_that_is_proven(past: History) -> None:
    view = past.world.view()
    for seq in (3, 5):
        answer = past.ask(view, version_id=past.versions[seq])
        error = answer["didResolutionMetadata"]["error"]
        assert error["type"].endswith("#NOT_FOUND")
        assert "recovery" in error["detail"]
        verdict = past.verify(answer, version_id=past.versions[seq])
        assert verdict.outcome is Outcome.NOT_FOUND


def test_as_of_height_is_the_history_as_it_was_known_then(past: History) -> None:
    view = past.world.view()
    for height in range(1, past.world.height + 1):
        known = past.alive_by_height.get(min(height, past.heights[-1]))
        answer = past.ask(view, as_of_height=height)
        verdict = past.verify(answer, as_of_height=height)
        if known is None:
            assert verdict.outcome is Outcome.NOT_FOUND
            continue
        assert verdict.version_id == past.versions[known[-1]]
        is_gone = past.documents[known[-1]] is None
        assert verdict.outcome is (Outcome.DEACTIVATED if is_gone else Outcome.FOUND)
        assert (answer["didDocument"] is None) is is_gone
        for seq, version_id in enumerate(past.versions):
            query: dict[str, Any] = {"as_of_height": height, "version_id": version_id}
            verdict = past.verify(past.ask(view, **query), **query)
            assert (verdict.version_id == version_id) is (seq in known)
        for place, time_ms in enumerate(past.times):
            query = {"as_of_height": height, "version_time": format_time(time_ms)}
            verdict = past.verify(past.ask(view, **query), **query)
            then = [s for s in known if s <= place]
            assert verdict.version_id == past.versions[then[-1]]


def test_set_aside_version_is_found_as_of_before_the_recovery(past: History) -> None:
    view = past.world.view()
    query: dict[str, Any] = {"version_id": past.versions[3], "as_of_height": past.heights[3]}
    verdict = past.verify(past.ask(view, **query), **query)
    assert verdict.outcome is Outcome.FOUND
    # a recovery that the height does not know is no reason to hide what it set aside
    lie = past.ask(view, version_id=past.versions[3])
    with pytest.raises(InvalidInputError):
        past.verify(lie, **query)


def test_what_never_was_is_not_found(past: History) -> None:
    view = past.world.view()
    other = past.versions[1].split("-")[1]
    for query in (
        {"version_id": f"99-{other}"},
        {"version_id": f"2-{other}"},
        {"version_id": f"7-{other}"},
        {"version_time": "2025-12-31T23:59:59Z"},
    ):
        answer = past.ask(view, **query)
        assert answer["didResolutionMetadata"]["error"]["type"].endswith("#NOT_FOUND")
        assert past.verify(answer, **query).outcome is Outcome.NOT_FOUND


def test_future_has_no_answer(past: History) -> None:
    view = past.world.view()
    for query in (
        {"version_time": "2099-01-01T00:00:00Z"},
        {"as_of_height": past.world.height + 1},
    ):
        answer = past.ask(view, **query)
        assert answer["didResolutionMetadata"]["error"]["type"].endswith("#INVALID_OPTIONS")
        with pytest.raises(InvalidInputError):
            past.verify(answer, **query)


def test_a_second_that_may_hold_another_block_has_no_answer_yet() -> None:
    history = History()
    history.create()
    history.update()
    second = {"version_time": format_time(history.times[1])}
    early = history.ask(history.world.view(), **second)
    assert early["didResolutionMetadata"]["error"]["type"].endswith("#INVALID_OPTIONS")
    operation = history._build(update_operation, document=document("2"))
    assert history.world.run(operation, step_ms=20) == "ok"
    history.world.block([])
    answer = history.ask(history.world.view(), **second)
    assert answer["didDocumentMetadata"]["versionId"].startswith("2-")
    history.verify(answer, **second)


def test_future_of_a_did_that_does_not_exist_is_open(past: History) -> None:
    view = past.world.view()
    for query in (
        {"version_time": "2099-01-01T00:00:00Z"},
        {"as_of_height": past.world.height + 1},
    ):
        answer = resolver.resolve(view, STRANGER, read_version_query(*_texts(query)))
        assert answer["didResolutionMetadata"]["error"]["type"].endswith("#INVALID_OPTIONS")
        absent = resolver.resolve(view, STRANGER)  # true now, and no answer about then
        with pytest.raises(InvalidInputError):
            past.verify(absent, STRANGER, **query)


@pytest.mark.parametrize("later_ms", [1, WINDOW_MS])
def test_older_version_is_not_called_final_before_it_is(later_ms: int) -> None:
    """By a thief who drops the tiers: the newest version's window is that of the one before it. Or
    in a window that governance has shortened since."""
    history = History(ChainParams(dispute_window_ms=WINDOW_MS))
    history.create()
    dropped = document("thief")
    history._run(history._build(update_operation, document=dropped, recovery=[]), dropped)
    until_ms = history.world.time_ms + WINDOW_MS
    history.world.set_params(ChainParams(dispute_window_ms=later_ms))
    history.world.time_ms = until_ms - 3_000
    history._run(history._build(update_operation, document=dropped, recovery=[]), dropped)
    query = {"version_id": history.versions[1]}
    answer = history.ask(history.world.view(), **query)
    history.verify(answer, **query)
    assert answer["didDocumentMetadata"]["disputeUntil"] == format_time(until_ms)
    history.world.time_ms = until_ms - 1_001
    history.recover(2)  # at the last millisecond
    answer = history.ask(history.world.view(), **query)
    assert history.verify(answer, **query).outcome is Outcome.NOT_FOUND


def test_unknown_did_has_no_versions(past: History) -> None:
    query = {"version_time": format_time(past.times[0])}
    found = resolver.resolve(past.world.view(), STRANGER, read_version_query(*_texts(query)))
    assert past.verify(found, STRANGER, **query).outcome is Outcome.NOT_FOUND


# --- lies ---


def test_answer_to_one_question_does_not_pass_for_another(past: History) -> None:
    view = past.world.view()
    queries: list[dict[str, Any]] = [
        {},
        *({"version_id": version} for version in past.versions),
        *({"version_time": format_time(t)} for t in past.times),
        *({"as_of_height": height} for height in range(1, past.world.height + 1)),
    ]
    answers = [past.ask(view, **query) for query in queries]
    passed = 0
    for asked, query in enumerate(queries):
        for given, answer in enumerate(answers):
            try:
                verdict = past.verify(answer, **query)
            except InvalidInputError:
                assert asked != given
                continue
            passed += 1
            own = past.verify(answers[asked], **query)
            assert (verdict.outcome, verdict.version_id) == (own.outcome, own.version_id)
    assert passed > len(queries)


def test_log_of_an_older_answer_can_not_be_cut_or_changed(past: History) -> None:
    view = past.world.view()
    query = {"version_id": past.versions[2]}
    answer = past.ask(view, **query)
    log = answer["didDocumentMetadata"]["proof"][0]["log"]
    assert (len(log["peaks"]), len(log["entries"])) == (1, 6)

    def refused(change: Callable[[dict[str, Any]], object]) -> None:
        changed = copy.deepcopy(answer)
        change(changed["didDocumentMetadata"]["proof"][0]["log"])
        with pytest.raises(InvalidInputError):
            past.verify(changed, **query)

    for at in range(6):
        refused(lambda log, at=at: log["entries"].pop(at))  # type: ignore[misc]
        refused(lambda log, at=at: log["entries"].insert(at, log["entries"][at]))  # type: ignore[misc]
        raw = decode_base64url(log["entries"][at], bytes_max=10**6)
        for place in range(0, len(raw), 7):
            flipped = bytearray(raw)
            flipped[place] ^= 1
            text = encode_base64url(bytes(flipped))
            refused(lambda log, at=at, text=text: log["entries"].__setitem__(at, text))  # type: ignore[misc]
    for value in ([], ["AA"], log["peaks"] * 2, None, [log["entries"][0]]):
        refused(lambda log, value=value: log.update(peaks=value))  # type: ignore[misc]
    for value in ([], None, {}, [1]):
        refused(lambda log, value=value: log.update(entries=value))  # type: ignore[misc]
    refused(lambda log: log.update(more=1))
    for name in ("nextVersionId", "nextUpdate", "updated", "disputeUntil"):
        changed = copy.deepcopy(answer)
        del changed["didDocumentMetadata"][name]
        with pytest.raises(InvalidInputError):
            past.verify(changed, **query)


def test_log_that_is_not_needed_is_refused(past: History) -> None:
    view = past.world.view()
    query = {"version_time": "2025-12-31T23:59:59Z"}
    answer = past.ask(view, **query)
    older = past.ask(view, version_id=past.versions[2])
    (proof,) = answer["didResolutionMetadata"]["proof"]
    assert proof["log"] == {"peaks": [], "entries": []}
    proof["log"] = older["didDocumentMetadata"]["proof"][0]["log"]
    with pytest.raises(InvalidInputError):
        past.verify(answer, **query)
    newest = past.ask(view)
    (head,) = newest["didDocumentMetadata"]["proof"]
    head.update(type="ZynkHistoryProof1", log={"peaks": [], "entries": []})
    for query in ({}, {"version_id": past.versions[7]}):
        with pytest.raises(InvalidInputError):
            past.verify(newest, **query)


def test_finality_of_an_older_answer_can_be_read_without_its_log(past: History) -> None:
    answer = past.ask(past.world.view(), version_id=past.versions[2])
    plain, log = split_proof(answer["didDocumentMetadata"]["proof"])
    assert log is not None
    assert decode_proof_finality(plain).header.height == past.world.height


def test_version_with_too_many_operations_after_it_is_refused_with_a_reason() -> None:
    history = History()
    history.create()
    for _ in range(3):
        history.update()
    view = history.world.view()
    record_row, _ = view.prove(record_key(decode_did(history.did)))
    assert record_row is not None
    record = Record.decode(record_row)
    last = view.side[entry_key(record.did, 3)]
    size = LOG_OPERATIONS_MAX + 5
    for seq in range(4, size):
        view.side[entry_key(record.did, seq)] = last
    with pytest.raises(ResolutionError) as caught:
        find_suffix(view, replace(record, seq=size - 1), VersionQuery(version=(0, bytes(32))))
    assert caught.value.code == "FEATURE_NOT_SUPPORTED"
