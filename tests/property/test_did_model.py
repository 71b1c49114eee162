"""Random operation sequences, valid and hostile, against a naive twin of the rules.

The twin keeps whole states and the whole history in plain lists, knows nothing of rows, disputes or
frontiers, and recomputes everything from the history each time. Both must give the same code for
every operation, the same documents, and a log root that the naive tree gives.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from did import resolver
from did.build import (
    create_operation,
    deactivate_operation,
    recover_operation,
    update_operation,
)
from did.control import Control, KeyList
from did.multikey import decode_base64url
from did.operation import Operation, OperationType, decode_operation
from did.oplog import compute_log_path
from did.record import Record, record_key
from did.verify import Outcome, verify_resolution
from did.verify_history import verify_history
from ledger.merkle import compute_inclusion_proof, compute_leaf_hash, compute_root
from ledger.params import DAY_MS, ChainParams
from tests.vectors.did_world import EXP, NET, VALIDATORS, World, document, key, key_list

SOAK = os.environ.get("ZYNK_SOAK") == "1"
WINDOW_MS = 3 * DAY_MS
DAY_LIMIT = 4
LISTS = (key_list("a"), key_list("b"), key_list("a", "b", threshold=2), key_list("b", "c"))


@dataclass(frozen=True)
class Version:
    """One operation in the twin's history, with the state it left."""

    op: Operation
    height: int
    time_ms: int
    authority: int
    alive: bool
    control: Control
    tiers: tuple[KeyList, ...]
    nullified: bool = False


@dataclass
class Twin:
    """The rules of DESIGN section 7 for one DID, by brute force."""

    versions: list[Version] = field(default_factory=list)

    def run(self, op: Operation, height: int, time_ms: int) -> str:
        if op.type is OperationType.CREATE:
            if self.versions:
                return "did/exists"
            assert op.control is not None
            self.versions.append(Version(op, height, time_ms, 0, True, op.control, op.tiers))
            return "ok"
        if not self.versions:
            return "did/not-found"
        if self.versions[-1].height == height:
            return "did/rate-block"
        if op.seq != len(self.versions):
            return "did/bad-seq"
        recovering = op.type is OperationType.RECOVER
        code, authority, drop = self._recover(op, time_ms) if recovering else self._by_control(op)
        if code:
            return code
        today = [v for v in self.versions if v.time_ms // DAY_MS == time_ms // DAY_MS]
        if sum(v.authority == authority for v in today) >= DAY_LIMIT:
            return "did/rate-day"
        head = self.living()[-1]
        self.versions = [replace(v, nullified=v.nullified or v in drop) for v in self.versions]
        self.versions.append(
            Version(
                op,
                height,
                time_ms,
                authority,
                op.type is not OperationType.DEACTIVATE,
                op.control or head.control,
                head.tiers if op.control is None else op.tiers,
            )
        )
        return "ok"

    def living(self) -> list[Version]:
        return [v for v in self.versions if not v.nullified]

    def _by_control(self, op: Operation) -> tuple[str, int, list[Version]]:
        head = self.living()[-1]
        if not head.alive:
            return "did/deactivated", 0, []
        if op.prev != head.op.hash:
            return "did/bad-prev", 0, []
        required = head.control.current
        revealed = op.reveal if op.type is OperationType.DEACTIVATE else None
        if op.control is not None:
            revealed = op.control.current
        if head.control.next is not None:
            if revealed is None or revealed.compute_commitment() != head.control.next:
                return "did/not-revealed", 0, []
            required = revealed
        elif op.reveal is not None:
            return "did/not-revealed", 0, []
        return ("" if _signed(op, required) else "did/not-authorised"), 0, []

    def _recover(self, op: Operation, time_ms: int) -> tuple[str, int, list[Version]]:
        living = self.living()
        at = next((i for i, v in enumerate(living) if v.op.hash == op.prev), None)
        if at is None:
            return "did/bad-prev", 0, []
        drop, fork = living[at + 1 :], living[at]
        if not drop and not fork.alive:
            return "did/deactivated", 0, []
        if drop and drop[0].time_ms + WINDOW_MS <= time_ms:
            return "did/window-closed", 0, []
        assert op.tier is not None
        if op.tier >= len(fork.tiers):
            return "did/no-tier", 0, []
        authority = 3 - op.tier
        if any(v.authority >= authority for v in drop):
            return "did/weaker-tier", 0, []
        if not _signed(op, fork.tiers[op.tier]):
            return "did/not-authorised", 0, []
        return "", authority, drop


def _signed(op: Operation, required: KeyList) -> bool:
    signers = {pk for pk, _ in op.signatures}
    return signers <= set(required.keys) and len(signers) >= required.threshold


# Where a DID never had a tier, the handler keeps no past to fork from and says `bad-prev`, and it
# forgets what is past the window: which of these three comes out is not part of the rules.
NO_FORK = {"did/bad-prev", "did/window-closed", "did/no-tier"}


@dataclass(frozen=True)
class Step:
    """One drawn operation: indexes into the tables above, and what is wrong with it."""

    kind: str
    signers: tuple[str, ...]
    control: int
    next: int | None
    tiers: tuple[int, ...]
    tier: int
    back: int
    bad_seq: bool
    same_block: bool
    step_ms: int


STEPS = st.builds(
    Step,
    kind=st.sampled_from(["update", "update", "update", "deactivate", "recover", "recover"]),
    signers=st.sampled_from([("a",), ("b",), ("a", "b"), ("b", "c"), ("a", "b"), ("z",)]),
    control=st.integers(0, 3),
    next=st.sampled_from([None, None, 0, 1, 2]),
    tiers=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    tier=st.sampled_from([0, 0, 0, 1, 2]),
    back=st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
    bad_seq=st.sampled_from([False] * 19 + [True]),
    same_block=st.sampled_from([False] * 19 + [True]),
    step_ms=st.sampled_from([1000, 1000, 7 * 3600_000, DAY_MS, 2 * DAY_MS, WINDOW_MS]),
)


def _body(step: Step, twin: Twin, did: str, number: int) -> bytes:
    """The operation that a step means in the twin's present state. Half of the time a drawn key
    list is overruled by the one that would be right, so that long valid histories come up."""
    living = twin.living()
    recovering = step.kind == "recover"
    prev = living[-1 - min(step.back, len(living) - 1)] if recovering else living[-1]
    head = living[-1]
    current = LISTS[step.control]
    signers = list(step.signers)
    if number % 2:
        required = head.control.current
        committed = [x for x in LISTS if x.compute_commitment() == head.control.next]
        if committed and not recovering:
            required = current = committed[0]
        if recovering and step.tier < len(prev.tiers):
            required = prev.tiers[step.tier]
        signers = [n for n in "abc" if key(n).public_key in required.keys]
    seq = len(twin.versions) + int(step.bad_seq)
    pairs = [key(name) for name in signers]
    if step.kind == "deactivate":
        reveal = current if head.control.next is not None else None
        return deactivate_operation(
            net=NET,
            exp_height=EXP,
            did=did,
            prev=prev.op.hash,
            seq=seq,
            reveal=reveal,
            signers=pairs,
        )
    control = Control(
        current=current,
        next=None if step.next is None else LISTS[step.next].compute_commitment(),
    )
    tiers = [LISTS[i] for i in step.tiers]
    if recovering:
        return recover_operation(
            net=NET,
            exp_height=EXP,
            did=did,
            prev=prev.op.hash,
            seq=seq,
            tier=step.tier,
            document=document(f"n{number}"),
            control=control,
            recovery=tiers,
            signers=pairs,
        )
    return update_operation(
        net=NET,
        exp_height=EXP,
        did=did,
        prev=prev.op.hash,
        seq=seq,
        document=document(f"n{number}"),
        control=control,
        recovery=tiers,
        signers=pairs,
    )


@settings(
    max_examples=50_000 if SOAK else 150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(STEPS, min_size=1, max_size=12), st.lists(st.integers(0, 3), max_size=3))
def test_random_sequences_agree_with_the_naive_twin(steps: list[Step], tiers: list[int]) -> None:
    world = World(ChainParams(dispute_window_ms=WINDOW_MS, did_ops_per_day_max=DAY_LIMIT))
    twin = Twin()
    create = create_operation(
        net=NET,
        exp_height=EXP,
        document=document("n"),
        control=Control(current=LISTS[0]),
        recovery=[LISTS[i] for i in tiers],
        signers=[key("a")],
    )
    did = decode_operation(create).did_text
    assert world.run(create) == "ok"
    assert twin.run(decode_operation(create), world.height, world.time_ms) == "ok"
    for number, step in enumerate(steps):
        body = _body(step, twin, did, number)
        bodies = [body, body] if step.same_block else [body]
        codes = world.block(bodies, step_ms=step.step_ms)
        wanted = [twin.run(decode_operation(b), world.height, world.time_ms) for b in bodies]
        for code, want in zip(codes, wanted, strict=True):
            assert code == want or {code, want} <= NO_FORK
    _check_state(world, twin, did)


def _check_state(world: World, twin: Twin, did: str) -> None:
    head = twin.living()[-1]
    answer = resolver.resolve(world.view(), did)
    verdict = verify_resolution(
        answer, did=did, trusted=VALIDATORS, chain_id=NET, max_age_ms=None, now_ms=None
    )
    assert verdict.outcome is (Outcome.FOUND if head.alive else Outcome.DEACTIVATED)
    row = world.tree.get(record_key(head.op.did))
    assert row is not None
    record = Record.decode(row)
    assert (record.seq, record.head) == (len(twin.versions) - 1, head.op.hash)
    assert record.doc_hash == head.op.document_hash
    pages = resolver.history(world.view(), did, 0, 100)["operations"]
    assert len(pages) == len(twin.versions)
    assert [p["nullifiedBy"] is not None for p in pages] == [v.nullified for v in twin.versions]
    verify_history(pages, record)
    leaves = [
        compute_leaf_hash(decode_base64url(page["entry"], bytes_max=20_000)) for page in pages
    ]
    assert compute_root(leaves) == record.log_root
    for at, page in enumerate(pages):
        path = [decode_base64url(h, bytes_max=32) for h in page["path"]]
        assert path == compute_inclusion_proof(leaves, at)


@given(st.integers(1, 70), st.data())
def test_log_path_is_the_rfc_6962_path(size: int, data: st.DataObject) -> None:
    leaves = [compute_leaf_hash(bytes([n])) for n in range(size)]
    at = data.draw(st.integers(0, size - 1))

    def read_node(level: int, index: int) -> bytes:
        return compute_root(leaves[index << level : (index + 1) << level])

    assert compute_log_path(size, at, read_node) == compute_inclusion_proof(leaves, at)
