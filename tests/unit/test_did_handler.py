"""Execution of DID operations: each rule, each failure code, and the order of things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from did import resolver
from did.authority import DidControlAuthority
from did.build import (
    add_signatures,
    create_operation,
    deactivate_operation,
    recover_operation,
    update_operation,
)
from did.control import Control, KeyList
from did.handler import WEIGHT_BASE
from did.multikey import encode_multikey
from did.operation import decode_operation
from did.record import (
    DISPUTES_MAX,
    ControlState,
    Record,
    Status,
    control_key,
    document_key,
    record_key,
)
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.execution import TxFailure
from ledger.params import DAY_MS, ChainParams
from tests.vectors.did_world import (
    EXP,
    NET,
    DictState,
    World,
    control,
    document,
    key,
    key_list,
)

WINDOW_MS = 1000_000


class Owner:
    """Makes the next operation of one DID and remembers the heads."""

    def __init__(self, world: World, ctl: Control, *, recovery: Sequence[KeyList] = ()) -> None:
        self.world = world
        names = [pair for pair in map(key, "abc") if pair.public_key in ctl.current.keys]
        self.create = create_operation(
            net=NET,
            exp_height=EXP,
            document=document(),
            control=ctl,
            recovery=recovery,
            signers=names,
        )
        operation = decode_operation(self.create)
        self.did, self.identifier = operation.did_text, operation.did
        self.heads = [operation.hash]

    def born(self) -> Owner:
        assert self.world.run(self.create) == "ok"
        return self

    def run(self, body: bytes, *, step_ms: int = 1000) -> str:
        code = self.world.run(body, step_ms=step_ms)
        if code == "ok":
            self.heads.append(decode_operation(body).hash)
        return code

    def update(
        self,
        *signers: str,
        ctl: Control | None = None,
        recovery: Sequence[KeyList] = (),
        prev: bytes | None = None,
        seq: int | None = None,
        doc: str = "doc2",
        net: str = NET,
        exp_height: int = EXP,
    ) -> bytes:
        return update_operation(
            net=net,
            exp_height=exp_height,
            did=self.did,
            prev=self.heads[-1] if prev is None else prev,
            seq=len(self.heads) if seq is None else seq,
            document=document(doc),
            control=ctl or control("a"),
            recovery=recovery,
            signers=[key(name) for name in signers],
        )

    def deactivate(self, *signers: str, reveal: KeyList | None = None) -> bytes:
        return deactivate_operation(
            net=NET,
            exp_height=EXP,
            did=self.did,
            prev=self.heads[-1],
            seq=len(self.heads),
            reveal=reveal,
            signers=[key(name) for name in signers],
        )

    def recover(
        self,
        *signers: str,
        tier: int = 0,
        back: int = 0,
        ctl: Control | None = None,
        recovery: Sequence[KeyList] = (),
    ) -> bytes:
        return recover_operation(
            net=NET,
            exp_height=EXP,
            did=self.did,
            prev=self.heads[-1 - back],
            seq=len(self.heads),
            tier=tier,
            document=document("recovered"),
            control=ctl or control("new"),
            recovery=recovery,
            signers=[key(name) for name in signers],
        )

    def record(self) -> Record:
        row = self.world.tree.get(record_key(self.identifier))
        assert row is not None
        return Record.decode(row)

    def control_state(self) -> ControlState:
        row = self.world.tree.get(control_key(self.identifier))
        assert row is not None
        return ControlState.decode(row)


@pytest.fixture
def world() -> World:
    return World(ChainParams(dispute_window_ms=WINDOW_MS, did_ops_per_day_max=5))


@pytest.fixture
def owner(world: World) -> Owner:
    return Owner(world, control("a")).born()


def test_create_writes_record_document_and_control(world: World, owner: Owner) -> None:
    record = owner.record()
    assert (record.seq, record.head, record.status) == (0, owner.identifier, Status.ACTIVE)
    assert record.created_height == record.updated_height == world.height
    assert owner.control_state().control == control("a")
    assert world.tree.get(document_key(owner.identifier)) is not None
    assert [e.type for e in world.events] == ["did.created"]


def test_create_of_a_did_that_exists_is_refused(world: World, owner: Owner) -> None:
    assert world.run(owner.create) == "did/exists"


def test_update_replaces_document_and_control(owner: Owner) -> None:
    assert owner.run(owner.update("a", ctl=control("b"))) == "ok"
    assert owner.record().seq == 1
    assert owner.control_state().control == control("b")
    assert owner.run(owner.update("a", ctl=control("a"))) == "did/not-authorised"
    assert owner.run(owner.update("b", ctl=control("a"))) == "ok"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"net": "zynk-other"}, "did/wrong-net"),
        ({"exp_height": 1}, "did/expired"),
        ({"seq": 2}, "did/bad-seq"),
        ({"prev": bytes(32)}, "did/bad-prev"),
    ],
)
def test_update_out_of_place_is_refused(owner: Owner, changes: dict[str, Any], code: str) -> None:
    assert owner.run(owner.update("a", **changes)) == code


def test_expiry_height_itself_is_still_allowed(world: World, owner: Owner) -> None:
    assert owner.run(owner.update("a", exp_height=world.height + 1)) == "ok"


def test_update_of_an_unknown_did_is_refused(world: World) -> None:
    stranger = Owner(world, control("a"))
    assert world.run(stranger.update("a")) == "did/not-found"


def test_threshold_must_be_reached_by_control_keys_alone(world: World) -> None:
    two_of_three = control("a", "b", "c", threshold=2)
    owner = Owner(world, two_of_three).born()
    assert owner.run(owner.update("a", ctl=two_of_three)) == "did/not-authorised"
    assert owner.run(owner.update("a", "x", ctl=two_of_three)) == "did/not-authorised"
    assert owner.run(owner.update("a", "b", "x", ctl=two_of_three)) == "did/not-authorised"
    one = owner.update("a", ctl=two_of_three)
    both = add_signatures(one, [key("c")])
    assert decode_operation(one).hash == decode_operation(both).hash
    assert owner.run(both) == "ok"


def test_pre_rotation_makes_stolen_current_keys_useless(world: World) -> None:
    nxt = key_list("n1", "n2", threshold=2)
    owner = Owner(world, control("a", next_keys=nxt)).born()
    assert owner.run(owner.update("a", ctl=control("a"))) == "did/not-revealed"
    assert owner.run(owner.deactivate("a")) == "did/not-revealed"
    assert owner.run(owner.deactivate("a", reveal=key_list("a"))) == "did/not-revealed"
    revealed = control("n1", "n2", threshold=2, next_keys=key_list("n3"))
    assert owner.run(owner.update("a", ctl=revealed)) == "did/not-authorised"
    assert owner.run(owner.update("n1", ctl=revealed)) == "did/not-authorised"
    assert owner.run(owner.update("n1", "n2", ctl=revealed)) == "ok"
    assert owner.run(owner.update("n3", ctl=control("n3"))) == "ok"


def test_pre_rotated_did_can_be_deactivated_by_the_revealed_keys(world: World) -> None:
    owner = Owner(world, control("a", next_keys=key_list("n"))).born()
    assert owner.run(owner.deactivate("a", reveal=key_list("n"))) == "did/not-authorised"
    assert owner.run(owner.deactivate("n", reveal=key_list("n"))) == "ok"
    assert owner.record().status is Status.DEACTIVATED


def test_reveal_without_a_commitment_is_refused(owner: Owner) -> None:
    assert owner.run(owner.deactivate("a", reveal=key_list("a"))) == "did/not-revealed"


def test_deactivated_did_keeps_its_record_and_takes_no_update(world: World, owner: Owner) -> None:
    assert owner.run(owner.deactivate("a")) == "ok"
    record = owner.record()
    assert (record.status, record.seq, record.doc_hash) == (Status.DEACTIVATED, 1, bytes(32))
    assert world.tree.get(document_key(owner.identifier)) is None
    assert owner.run(owner.update("a")) == "did/deactivated"
    assert owner.run(owner.deactivate("a")) == "did/deactivated"


def test_one_operation_of_a_did_a_block(world: World, owner: Owner) -> None:
    first = owner.update("a")
    second = owner.update("a", prev=decode_operation(first).hash, seq=2)
    assert world.block([first, second]) == ["ok", "did/rate-block"]
    fresh = Owner(world, control("b"))
    update = fresh.update("b", prev=fresh.identifier, seq=1)
    assert world.block([fresh.create, update]) == ["ok", "did/rate-block"]


def test_daily_limit_is_lifted_by_the_next_day(owner: Owner) -> None:
    for _ in range(4):  # the create counts as well
        assert owner.run(owner.update("a")) == "ok"
    assert owner.run(owner.update("a")) == "did/rate-day"
    assert owner.run(owner.update("a"), step_ms=DAY_MS) == "ok"


def test_failed_operation_leaves_state_unchanged(world: World, owner: Owner) -> None:
    root, side = world.tree.root, dict(world.side)
    for body in (
        owner.create,
        owner.update("x"),
        owner.update("a", seq=7),
        owner.recover("a"),
        owner.deactivate("x"),
        b"{}",
        bytes(17_000),
    ):
        assert owner.run(body) != "ok"
    assert world.tree.root == root
    assert world.side == side


def test_malformed_body_is_refused_by_check_and_fails_in_apply(world: World, owner: Owner) -> None:
    body = owner.update("a")
    forged = body.replace(b'"v":1', b'"v":2')
    tampered = body.replace(b"doc2.example", b"doc3.example")
    for bad in (forged, tampered, b"", b"[]", body + b" "):
        with pytest.raises(InvalidInputError):
            world.handler.check(bad)
        assert world.run(bad) == "did/malformed"
    world.handler.check(body)


def test_create_must_satisfy_its_own_control() -> None:
    body = create_operation(
        net=NET,
        exp_height=EXP,
        document=document(),
        control=control("a", "b", threshold=2),
        signers=[key("a")],
    )
    with pytest.raises(InvalidInputError, match="its own control"):
        World().handler.check(body)
    World().handler.check(add_signatures(body, [key("b")]))


def test_weight_grows_with_signatures(world: World, owner: Owner) -> None:
    one = world.handler.weight_of(owner.update("a"))
    assert world.handler.weight_of(owner.update("a", "b", "c")) == one + 2
    assert one == WEIGHT_BASE + 1


# --- recovery ---

TIERS = (key_list("t0"), key_list("t1", "t1b", threshold=2))


@pytest.fixture
def guarded(world: World) -> Owner:
    return Owner(world, control("a"), recovery=TIERS).born()


def test_tier_takes_over_from_the_head_when_keys_are_lost(guarded: Owner) -> None:
    assert guarded.run(guarded.recover("t1", tier=1)) == "did/not-authorised"
    assert guarded.run(guarded.recover("t0", tier=2)) == "did/no-tier"
    assert guarded.run(guarded.recover("t1", "t1b", tier=1)) == "ok"
    assert guarded.control_state().control == control("new")
    assert guarded.control_state().tiers == ()


def test_tier_nullifies_a_thiefs_operations_with_the_tiers_of_the_fork(guarded: Owner) -> None:
    thief = guarded.update("a", ctl=control("thief"), recovery=[key_list("thief")])
    assert guarded.run(thief) == "ok"
    assert guarded.run(guarded.update("thief", ctl=control("thief"))) == "ok"
    assert guarded.record().dispute_until_ms == guarded.world.time_ms + WINDOW_MS
    assert guarded.run(guarded.recover("thief", back=2)) == "did/not-authorised"
    assert guarded.run(guarded.recover("t0", back=2, recovery=TIERS)) == "ok"
    assert guarded.record().seq == 3
    assert guarded.control_state().control == control("new")
    assert len(guarded.control_state().disputes) == 1


def test_recovery_reaches_behind_a_thief_who_dropped_the_tiers(guarded: Owner) -> None:
    for _ in range(3):  # from the second on, no tier is in force any more
        assert guarded.run(guarded.update("a", ctl=control("a"))) == "ok"
    assert [d.seq for d in guarded.control_state().disputes] == [1, 2, 3]
    assert guarded.run(guarded.recover("t0", back=3)) == "ok"
    history = resolver.history(guarded.world.view(), guarded.did)["operations"]
    assert [item["nullifiedBy"] for item in history] == [None, 4, 4, 4, None]


def test_weaker_tier_can_not_nullify_a_stronger_one(guarded: Owner) -> None:
    assert guarded.run(guarded.update("a", recovery=TIERS)) == "ok"
    assert guarded.run(guarded.recover("t1", "t1b", tier=1, back=1, recovery=TIERS)) == "ok"
    # heads: create, update, recovery by tier 1; the stronger tier forks from the create again
    assert guarded.run(guarded.recover("t0", tier=0, back=2, recovery=TIERS)) == "ok"
    weaker = guarded.recover("t1", "t1b", tier=1, back=3, recovery=TIERS)
    assert guarded.run(weaker) == "did/weaker-tier"
    equal = guarded.recover("t0", tier=0, back=3, recovery=TIERS)
    assert guarded.run(equal) == "did/weaker-tier"


@pytest.mark.parametrize(("late_ms", "code"), [(-1, "ok"), (0, "did/window-closed")])
def test_dispute_window_ends_exactly_on_time(guarded: Owner, late_ms: int, code: str) -> None:
    assert guarded.run(guarded.update("a", recovery=TIERS)) == "ok"
    recovery = guarded.recover("t0", back=1)
    assert guarded.run(recovery, step_ms=WINDOW_MS + late_ms) == code


def test_recovery_from_a_nullified_or_unknown_operation_is_refused(guarded: Owner) -> None:
    assert guarded.run(guarded.update("a", recovery=TIERS)) == "ok"
    assert guarded.run(guarded.recover("t0", back=1, recovery=TIERS)) == "ok"
    assert guarded.run(guarded.recover("t0", back=1)) == "did/bad-prev"


def test_deactivation_is_recoverable_within_the_window_only(guarded: Owner) -> None:
    assert guarded.run(guarded.deactivate("a")) == "ok"
    assert guarded.run(guarded.recover("t0")) == "did/deactivated"
    late = Owner(guarded.world, control("b"), recovery=TIERS).born()
    assert late.run(late.deactivate("b")) == "ok"
    assert guarded.run(guarded.recover("t0", back=1)) == "ok"
    assert guarded.record().status is Status.ACTIVE
    assert late.run(late.recover("t0", back=1), step_ms=WINDOW_MS) == "did/window-closed"
    assert late.record().status is Status.DEACTIVATED


def test_thief_at_the_daily_limit_does_not_stop_a_recovery(guarded: Owner) -> None:
    for _ in range(4):
        assert guarded.run(guarded.update("a", recovery=TIERS)) == "ok"
    assert guarded.run(guarded.update("a", recovery=TIERS)) == "did/rate-day"
    assert guarded.run(guarded.recover("t0", back=4)) == "ok"


# --- when the head is final ---


def test_recovery_by_the_strongest_tier_is_final_at_once(guarded: Owner) -> None:
    assert guarded.run(guarded.update("a", recovery=TIERS)) == "ok"
    assert guarded.record().dispute_until_ms == guarded.world.time_ms + WINDOW_MS
    assert guarded.run(guarded.recover("t0", back=1, recovery=TIERS)) == "ok"
    assert guarded.record().dispute_until_ms == 0
    assert guarded.run(guarded.update("new", ctl=control("a"), recovery=TIERS)) == "ok"
    assert guarded.record().dispute_until_ms == guarded.world.time_ms + WINDOW_MS


def test_recovery_by_a_weaker_tier_can_be_disputed_by_a_stronger_one(guarded: Owner) -> None:
    assert guarded.run(guarded.recover("t1", "t1b", tier=1)) == "ok"
    assert guarded.record().dispute_until_ms == guarded.world.time_ms + WINDOW_MS
    assert guarded.run(guarded.recover("t0", back=1), step_ms=WINDOW_MS - 1) == "ok"


def test_head_without_tiers_is_final_once_nothing_before_it_can_be_forked(guarded: Owner) -> None:
    assert guarded.run(guarded.update("a")) == "ok"  # drops the tiers, which judge it none the less
    until_ms = guarded.record().dispute_until_ms
    assert until_ms == guarded.world.time_ms + WINDOW_MS
    assert guarded.run(guarded.update("a"), step_ms=WINDOW_MS - 1) == "ok"
    assert guarded.record().dispute_until_ms == until_ms
    assert guarded.run(guarded.update("a")) == "ok"
    assert guarded.record().dispute_until_ms == 0
    assert guarded.control_state().disputes == ()


@pytest.mark.parametrize("later_ms", [WINDOW_MS // 2, WINDOW_MS * 2])
@pytest.mark.parametrize(("late_ms", "code"), [(-1, "ok"), (0, "did/window-closed")])
def test_window_is_the_one_in_force_when_the_operation_came(
    guarded: Owner, later_ms: int, late_ms: int, code: str
) -> None:
    world = guarded.world
    assert guarded.run(guarded.deactivate("a")) == "ok"
    until_ms = guarded.record().dispute_until_ms
    world.set_params(ChainParams(dispute_window_ms=later_ms, did_ops_per_day_max=5))
    step_ms = until_ms - world.time_ms + late_ms
    assert guarded.run(guarded.recover("t0", back=1), step_ms=step_ms) == code
    other = Owner(world, control("b"), recovery=TIERS).born()
    assert other.run(other.deactivate("b")) == "ok"
    assert other.record().dispute_until_ms == world.time_ms + later_ms
    assert other.run(other.recover("t0", back=1), step_ms=later_ms + late_ms) == code


def test_operation_in_a_shortened_window_goes_with_the_one_before_it(guarded: Owner) -> None:
    world = guarded.world
    assert guarded.run(guarded.update("a", recovery=TIERS)) == "ok"
    world.set_params(ChainParams(dispute_window_ms=1, did_ops_per_day_max=5))
    assert guarded.run(guarded.update("a", recovery=TIERS)) == "ok"
    assert guarded.run(guarded.recover("t0", back=1)) == "did/window-closed"
    assert guarded.run(guarded.recover("t0", back=2)) == "ok"


def test_control_keys_leave_room_in_the_dispute_list_for_recoveries(world: World) -> None:
    world.set_params(ChainParams(dispute_window_ms=DAY_MS, did_ops_per_day_max=10_000))
    owner = Owner(world, control("a"), recovery=TIERS).born()
    for _ in range(DISPUTES_MAX // 2):
        assert owner.run(owner.update("a", recovery=TIERS)) == "ok"
    assert owner.run(owner.update("a", recovery=TIERS)) == "did/rate-day"
    assert owner.run(owner.recover("t1", "t1b", tier=1, back=1, recovery=TIERS)) == "ok"
    assert owner.run(owner.recover("t0", back=DISPUTES_MAX // 2 + 1)) == "ok"
    assert owner.run(owner.update("new")) == "ok"


# --- authority ---


def _authority(world: World, did: str, message: bytes, *signers: KeyPair) -> str:
    pairs = [(encode_multikey(s.public_key), s.sign(message)) for s in signers]
    try:
        DidControlAuthority().verify_authority(DictState(world.tree, {}), did, message, pairs)
    except TxFailure as failure:
        return failure.code
    return "ok"


def test_authority_is_the_threshold_of_current_control_keys(world: World) -> None:
    owner = Owner(world, control("a", "b", threshold=2)).born()
    a, b, x = key("a"), key("b"), key("x")
    assert _authority(world, owner.did, b"m", a, b) == "ok"
    for signers in ((), (a,), (a, a), (a, x), (a, b, x)):
        assert _authority(world, owner.did, b"m", *signers) == "did/not-authorised"
    bad = KeyPair(b.public_key, a.secret)
    assert _authority(world, owner.did, b"m", a, bad) == "did/not-authorised"
    assert _authority(world, "did:zynk:zzz", b"m", a, b) == "did/not-found"
    assert _authority(world, Owner(world, control("c")).did, b"m", a) == "did/not-found"
    assert owner.run(owner.deactivate("a", "b")) == "ok"
    assert _authority(world, owner.did, b"m", a, b) == "did/deactivated"
