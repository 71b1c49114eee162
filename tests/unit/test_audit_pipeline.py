"""The pipeline's rules, one by one. Crashes are in tests/property/test_audit_crash.py."""

from __future__ import annotations

import pytest

from audit.anchor import read_next_seq
from audit.answers import status_json
from audit.batch import AnchorDraft, read_batch
from audit.intake import (
    GROUPS_OUTSTANDING_MAX,
    REQUEST_LEAVES_MAX,
    Accepted,
    BackPressureError,
    Request,
)
from audit.issue import build_receipt, issue_receipts
from audit.pipeline import BATCH_AGE_MAX_MS, Pipeline
from audit.stream import UpdateStream, encode_stream_body, stream_sign_bytes
from audit.verify import verify_receipt
from ledger.errors import DurabilityError, InvalidInputError, UsageError
from ledger.merkle import compute_leaf_hash
from ledger.store import CrashStore
from ledger.tx import Tx
from tests.vectors.audit_chain import (
    ANCHOR_KEY,
    CHAIN_ID,
    OWNER_KEY,
    Chain,
    create_stream,
    leaves_of,
    make_tx,
    multihash_of,
)

KEY = ANCHOR_KEY.public_key


class Node:
    """A pipeline beside a chain, driven as the node does it."""

    def __init__(self) -> None:
        self.chain = Chain()
        self.stream = create_stream(self.chain)
        self.store = CrashStore()
        self.pipeline = self.start()
        self.nonce = 100

    def start(self) -> Pipeline:
        self.pipeline = Pipeline(self.store)
        self.pipeline.catch_up(self.chain.height, self.chain.lookup)
        return self.pipeline

    def request(self, start: int, count: int, request_id: bytes | None = None) -> Request:
        return Request(
            stream=self.stream,
            request_id=request_id or b"r%d-%d" % (start, count),
            leaves=leaves_of(self.stream, start, count),
        )

    def accept(self, start: int, count: int, now_ms: int = 0) -> Accepted:
        return self.pipeline.accept(self.request(start, count), now_ms)

    def next_seq(self, stream: bytes) -> int:
        return read_next_seq(self.chain.view, stream, KEY)

    def sign(self, draft: AnchorDraft, valid_until: int = 2**40) -> Tx:
        self.nonce += 1
        return Tx.sign(
            ANCHOR_KEY,
            chain_id=CHAIN_ID,
            nonce=self.nonce,
            fee=1,
            valid_until=valid_until,
            messages=draft.messages,
        )

    def sign_next(self, valid_until: int = 2**40) -> Tx:
        draft = self.pipeline.next_anchor(self.next_seq)
        assert draft is not None
        tx = self.sign(draft, valid_until)
        self.pipeline.record_signed(draft, tx)
        return tx

    def finalise(self, *txs: Tx) -> None:
        codes = self.chain.add_block(txs)
        self.pipeline.on_final(self.chain.height, codes)

    def issue(self) -> int:
        return issue_receipts(self.pipeline, self.chain.view, self.store, self.chain.tree, KEY)

    def state(self, number: int) -> str:
        leaf = leaves_of(self.stream, number, 1)[0]
        return str(status_json(self.store, compute_leaf_hash(leaf))["state"])

    def receipt(self, number: int) -> bytes:
        leaf = leaves_of(self.stream, number, 1)[0]
        return build_receipt(self.chain.view, self.store, compute_leaf_hash(leaf))

    def is_good(self, number: int) -> bool:
        return verify_receipt(
            self.receipt(number),
            multihash=multihash_of(number),
            trusted=self.chain.validators,
            chain_id=CHAIN_ID,
            stream=self.stream,
        ).is_ok


def test_a_leaf_goes_through_every_state_to_a_receipt_that_verifies() -> None:
    node = Node()
    assert node.state(0) == "unknown"
    node.accept(0, 3)
    assert node.state(0) == "accepted"
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    assert node.state(0) == "batched"
    tx = node.sign_next()
    assert node.state(0) == "batched"
    with pytest.raises(InvalidInputError) as caught:
        node.receipt(0)
    assert caught.value.retry
    node.finalise(tx)
    assert node.state(2) == "committed"
    assert node.issue() == 1
    assert node.state(2) == "receipted"
    assert all(node.is_good(i) for i in range(3))
    assert node.pipeline.outstanding == 0
    assert node.pipeline.pending_txs() == []


def test_accepting_is_synced_before_it_returns() -> None:
    node = Node()
    node.accept(0, 5)
    assert node.store.unsynced == 0
    node.store = node.store.crash()
    node.start()
    assert node.state(4) == "accepted"


def test_many_requests_are_accepted_with_one_write_and_judged_one_by_one() -> None:
    node = Node()
    good, other = node.request(0, 2), node.request(2, 2)
    foreign = Request(stream=b"?" * 32, request_id=b"f", leaves=good.leaves)
    before = node.store.writes
    answers = node.pipeline.accept_many([good, foreign, other, good], 0)
    assert node.store.writes == before + 1
    assert [type(a) for a in answers] == [Accepted, InvalidInputError, Accepted, Accepted]
    assert answers[0] == answers[3]
    assert node.pipeline.outstanding == 2


@pytest.mark.parametrize(
    ("request_id", "count"), [(b"", 1), (b"x" * 65, 1), (b"x", 0), (b"x", REQUEST_LEAVES_MAX + 1)]
)
def test_malformed_requests_change_nothing(request_id: bytes, count: int) -> None:
    node = Node()
    request = Request(
        stream=node.stream, request_id=request_id, leaves=leaves_of(node.stream, 0, count)
    )
    with pytest.raises(InvalidInputError):
        node.pipeline.accept(request, 0)
    assert node.store.writes == 0
    assert node.pipeline.outstanding == 0


def test_same_request_gives_the_same_answer_at_every_stage() -> None:
    node = Node()
    first = node.accept(0, 3)
    assert node.accept(0, 3) == first
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    assert node.accept(0, 3) == first
    node.finalise(node.sign_next())
    node.issue()
    assert node.accept(0, 3) == first
    assert node.pipeline.outstanding == 0
    with pytest.raises(InvalidInputError):
        node.pipeline.accept(node.request(1, 3, b"r0-3"), 0)


def test_requests_for_leaves_that_are_there_already_leave_no_row_behind() -> None:
    node = Node()
    first = node.accept(0, 3)
    before = list(node.store.iterate(prefix=b""))
    writes = node.store.writes
    for number in range(50):
        again = node.pipeline.accept(node.request(0, 3, b"new id %d" % number), 0)
        assert again.leaf_hashes == first.leaf_hashes
    assert list(node.store.iterate(prefix=b"")) == before
    assert node.store.writes == writes


def test_a_leaf_that_comes_twice_is_anchored_once() -> None:
    node = Node()
    node.accept(0, 4)
    doubled = Request(
        stream=node.stream,
        request_id=b"doubled",
        leaves=[*leaves_of(node.stream, 2, 4), *leaves_of(node.stream, 4, 2)],
    )
    answer = node.pipeline.accept(doubled, 0)
    assert len(answer.leaf_hashes) == 6
    assert answer.leaf_hashes[2:4] == answer.leaf_hashes[4:]
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    assert read_batch(node.store, 1).count == 6
    assert node.pipeline.outstanding == 2
    node.finalise(node.sign_next())
    node.issue()
    receipt = node.receipt(2)
    node.accept(2, 2)
    assert node.pipeline.outstanding == 0
    assert node.receipt(2) == receipt


def test_batches_close_at_their_age_or_when_they_are_full() -> None:
    node = Node()
    assert Node().pipeline.deadline_ms is None
    node.accept(0, 1, now_ms=1_000)
    node.accept(1, 1, now_ms=1_200)
    assert node.pipeline.deadline_ms == 1_000 + BATCH_AGE_MAX_MS
    assert node.pipeline.tick(1_249) == 0
    assert node.pipeline.tick(1_250) == 1
    node.accept(10, 1000, now_ms=2_000)
    assert node.state(10) == "accepted"
    node.accept(1010, 24, now_ms=2_000)
    assert node.state(10) == node.state(1033) == "batched"
    assert read_batch(node.store, 2).count == 1024
    node.accept(2000, 600, now_ms=3_000)
    node.accept(2600, 600, now_ms=3_000)
    assert (node.state(2000), node.state(2600)) == ("batched", "accepted")


def test_a_clock_that_went_back_does_not_hold_a_batch_open() -> None:
    node = Node()
    node.accept(0, 1, now_ms=10_000)
    assert node.pipeline.tick(5_000) == 1


@pytest.mark.slow
def test_back_pressure_is_retryable_and_still_answers_known_requests() -> None:
    node = Node()
    requests = [node.request(i, 1) for i in range(GROUPS_OUTSTANDING_MAX)]
    for start in range(0, len(requests), 512):
        node.pipeline.accept_many(requests[start : start + 512], 0)
    assert node.pipeline.outstanding == GROUPS_OUTSTANDING_MAX
    with pytest.raises(BackPressureError) as caught:
        node.accept(10_000, 1)
    assert caught.value.retry
    assert node.state(10_000) == "unknown"
    node.pipeline.accept(requests[0], 0)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    node.finalise(node.sign_next())
    node.issue()
    node.accept(10_000, 1)


@pytest.mark.slow
def test_one_tx_carries_up_to_sixteen_batches_and_the_next_waits_for_it() -> None:
    node = Node()
    for i in range(20):
        node.accept(i * 1000, 1000)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    first = node.sign_next()
    assert len(first.messages) == 16
    assert node.pipeline.next_anchor(node.next_seq) is None
    assert node.pipeline.pending_txs() == [first.encoded]
    node.finalise(first)
    second = node.sign_next()
    assert len(second.messages) == 4
    node.finalise(second)
    assert node.issue() == 20
    assert all(node.is_good(i * 1000 + i) for i in range(20))


def test_signed_tx_is_synced_before_it_can_be_sent_and_sent_again_unchanged() -> None:
    node = Node()
    node.accept(0, 2)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    tx = node.sign_next()
    assert node.store.unsynced == 0
    node.store = node.store.crash()
    node.start()
    assert node.pipeline.pending_txs() == [tx.encoded]
    assert node.pipeline.next_anchor(node.next_seq) is None
    node.finalise(tx)
    node.issue()
    assert node.is_good(1)


def test_signs_anew_only_after_a_final_height_passed_valid_until() -> None:
    node = Node()
    node.accept(0, 2)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    limit = node.chain.height + 2
    old = node.sign_next(valid_until=limit)
    node.finalise()
    assert node.pipeline.resign_due(node.chain.height) is None
    node.finalise()
    assert node.chain.height == limit
    draft = node.pipeline.resign_due(limit)
    assert draft is not None
    assert draft.messages == old.messages
    new = node.sign(draft)
    node.pipeline.record_signed(draft, new)
    assert node.pipeline.pending_txs() == [new.encoded]
    node.finalise(new)
    node.issue()
    assert node.is_good(0)


def test_a_tx_that_became_final_while_the_node_was_down_is_found() -> None:
    node = Node()
    node.accept(0, 2)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    tx = node.sign_next(valid_until=node.chain.height + 1)
    node.chain.add_block([tx])
    node.chain.add_block()
    node.store = node.store.crash()
    node.start()
    assert node.pipeline.resign_due(node.chain.height) is None
    assert node.pipeline.pending_txs() == []
    node.issue()
    assert node.is_good(0)


def test_an_anchor_signed_twice_gives_one_entry_and_one_receipt() -> None:
    """A node that came back by snapshot can not look the old tx up and signs anew."""
    node = Node()
    node.accept(0, 2)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    tx = node.sign_next(valid_until=node.chain.height + 1)
    node.chain.add_block([tx])
    node.pipeline = Pipeline(node.store)
    node.pipeline.catch_up(node.chain.height, lambda tx_id: None)
    draft = node.pipeline.resign_due(node.chain.height)
    assert draft is not None
    again = node.sign(draft)
    node.pipeline.record_signed(draft, again)
    node.finalise(again)
    assert node.chain.log.size_and_root(node.chain.frontier)[0] == 1
    node.issue()
    assert node.is_good(0)


def test_rejected_leaves_say_why_free_their_place_and_may_come_again() -> None:
    node = Node()
    node.accept(0, 2)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    tx = node.sign_next()
    unlist(node)
    node.finalise(tx)
    leaf_hash = compute_leaf_hash(leaves_of(node.stream, 0, 1)[0])
    assert status_json(node.store, leaf_hash) == {
        "leaf_hash": leaf_hash.hex(),
        "state": "rejected",
        "is_anchored": False,
        "reason": "audit/not-submitter",
    }
    with pytest.raises(InvalidInputError):
        node.receipt(0)
    assert node.pipeline.outstanding == 0
    node.accept(0, 2)
    assert node.state(0) == "rejected"
    node.pipeline.accept(node.request(0, 1, b"again"), 0)
    assert (node.state(0), node.state(1)) == ("accepted", "rejected")


def unlist(node: Node) -> None:
    """The owner takes the node off the stream's submitters."""
    body = UpdateStream(
        stream=node.stream, sequence=1, submitters=(), quota=1, description_hash=b"d" * 32
    )
    signature = OWNER_KEY.sign(stream_sign_bytes(CHAIN_ID, body))
    signed = UpdateStream(
        stream=body.stream,
        sequence=1,
        submitters=(),
        quota=1,
        description_hash=body.description_hash,
        signatures=(("owner", signature),),
    )
    tx = make_tx("audit/stream", encode_stream_body(signed), nonce=node.chain.height)
    node.finalise(tx)


def test_one_bad_batch_does_not_take_down_those_that_shared_its_tx() -> None:
    node = Node()
    small = create_stream(node.chain, b"small" + bytes(11), quota=1)
    node.start()
    node.accept(0, 2)
    node.pipeline.accept(Request(stream=small, request_id=b"s", leaves=leaves_of(small, 100, 2)), 0)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    tx = node.sign_next()
    assert len(tx.messages) == 2
    for _ in range(3):
        node.finalise(tx)
        if node.pipeline.next_anchor(node.next_seq) is None:
            break
        tx = node.sign_next()
        assert len(tx.messages) == 1
    node.issue()
    assert node.is_good(1)
    rejected = compute_leaf_hash(leaves_of(small, 100, 1)[0])
    assert status_json(node.store, rejected)["reason"] == "audit/quota"
    assert node.pipeline.outstanding == 0


def test_a_seq_that_somebody_else_took_is_drafted_anew_and_no_leaf_is_lost() -> None:
    node = Node()
    node.accept(0, 2)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    mine = node.sign_next()
    twin = Node()
    twin.stream = node.stream
    twin.accept(50, 1)
    twin.pipeline.tick(BATCH_AGE_MAX_MS)
    taken = twin.sign_next()  # the same account, run on two nodes by mistake
    node.finalise(taken)
    node.finalise(mine)
    assert node.chain.codes[mine.id][1] == "audit/equivocation"
    assert node.state(0) == "batched"
    node.finalise(node.sign_next())
    node.issue()
    assert node.is_good(0)


def test_stored_receipt_never_changes_while_a_fresh_one_names_a_later_header() -> None:
    node = Node()
    node.accept(0, 2)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    node.finalise(node.sign_next())
    node.issue()
    first = node.receipt(0)
    node.accept(10, 2)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    node.finalise(node.sign_next())
    leaf_hash = compute_leaf_hash(leaves_of(node.stream, 0, 1)[0])
    assert node.receipt(0) == first

    fresh = build_receipt(
        node.chain.view, node.store, leaf_hash, submitter=KEY, fresh_from=node.chain.tree
    )
    assert fresh != first
    verdict = verify_receipt(
        fresh, multihash=multihash_of(0), trusted=node.chain.validators, chain_id=CHAIN_ID
    )
    assert verdict.is_ok
    assert node.receipt(0) == first


def test_calls_out_of_order_are_refused_and_change_nothing() -> None:
    node = Node()
    node.accept(0, 1)
    node.pipeline.tick(BATCH_AGE_MAX_MS)
    draft = node.pipeline.next_anchor(node.next_seq)
    assert draft is not None
    writes = node.store.writes
    with pytest.raises(UsageError):
        node.pipeline.record_signed(draft, make_tx("audit/anchor", b"other"))
    with pytest.raises(UsageError):
        node.pipeline.record_signed(AnchorDraft(anchors=()), node.sign(draft))
    with pytest.raises(UsageError):
        node.pipeline.on_final(node.chain.height + 2, {})
    with pytest.raises(UsageError):
        Pipeline(node.store).on_final(1, {})
    with pytest.raises(UsageError):
        node.pipeline.record_receipts([(1, b"")])
    assert node.store.writes == writes
    node.pipeline.record_signed(draft, node.sign(draft))
    with pytest.raises(UsageError):
        node.pipeline.record_signed(draft, node.sign(draft))


def test_a_full_disk_accepts_nothing() -> None:
    node = Node()
    node.store.fail_after(0)
    with pytest.raises(DurabilityError):
        node.accept(0, 1)
    assert node.pipeline.outstanding == 0
    assert node.state(0) == "unknown"
