"""The pipeline killed at each of its writes, and at random, beside a chain that goes on.

Whatever was acknowledged must end with a receipt that verifies, in the log once; a receipt that was
seen must stay the same. The store forgets what was not synced.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from audit.anchor import AnchorRecord, read_next_seq
from audit.batch import AnchorDraft
from audit.intake import Accepted, Request, find_leaf
from audit.issue import build_receipt, issue_receipts
from audit.pipeline import BATCH_AGE_MAX_MS, Pipeline
from audit.receipt import Receipt
from audit.verify import verify_receipt
from ledger.errors import InvalidInputError
from ledger.merkle import compute_leaf_hash
from ledger.store import CrashStore, SimulatedCrash
from ledger.tx import Tx
from tests.vectors.audit_chain import (
    ANCHOR_KEY,
    CHAIN_ID,
    Chain,
    create_stream,
    leaves_of,
    multihash_of,
)

IS_SOAK = os.environ.get("ZYNK_SOAK") == "1"
SEEDS = 400 if IS_SOAK else 100
TX_LIFE_HEIGHTS = 3


class World:
    """A node with a lossy way to the chain. Each step may raise SimulatedCrash."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.chain = Chain()
        self.streams = [create_stream(self.chain, bytes([i]) * 16) for i in range(2)]
        self.store = CrashStore()
        self.now_ms = 1_000
        self.nonce = 100
        self.next_leaf = 0
        self.requests_made = 0
        self.tried: list[Request] = []
        self.acknowledged: list[tuple[bytes, int]] = []  # stream, content number
        self.receipts: dict[bytes, bytes] = {}
        self.pipeline = self.start()

    def start(self) -> Pipeline:
        pipeline = Pipeline(self.store)
        pipeline.catch_up(self.chain.height, self.chain.lookup)
        return pipeline

    def crash(self) -> None:
        self.store = self.store.crash(rng=self.rng)
        self.pipeline = self.start()
        self.check_kept()

    def submit(self) -> None:
        """New leaves, or a client's retry of an earlier request."""
        if self.tried and self.rng.random() < 0.3:
            requests = [self.rng.choice(self.tried)]
        else:
            requests = [self.new_request() for _ in range(self.rng.randrange(1, 4))]
        self.tried += requests
        answers = self.pipeline.accept_many(requests, self.now_ms)
        for request, answer in zip(requests, answers, strict=True):
            assert isinstance(answer, Accepted), answer
            for leaf in request.leaves:
                self.acknowledged.append((request.stream, self.number_of[leaf]))

    number_of: dict[bytes, int]

    def new_request(self) -> Request:
        stream = self.rng.choice(self.streams)
        count = self.rng.randrange(1, 6)
        first = max(0, self.next_leaf - self.rng.randrange(3))  # overlaps make duplicates
        leaves = leaves_of(stream, first, count)
        self.next_leaf = first + count
        known = self.__dict__.setdefault("number_of", {})
        known.update(zip(leaves, range(first, first + count), strict=True))
        self.requests_made += 1
        request_id = b"request %d" % self.requests_made
        return Request(stream=stream, request_id=request_id, leaves=leaves)

    def sign(self) -> None:
        draft = self.pipeline.resign_due(self.chain.height) or self.pipeline.next_anchor(
            lambda stream: read_next_seq(self.chain.view, stream, ANCHOR_KEY.public_key)
        )
        if draft is not None:
            self.pipeline.record_signed(draft, self.make_tx(draft))

    def make_tx(self, draft: AnchorDraft) -> Tx:
        self.nonce += 1
        return Tx.sign(
            ANCHOR_KEY,
            chain_id=CHAIN_ID,
            nonce=self.nonce,
            fee=1,
            valid_until=self.chain.height + TX_LIFE_HEIGHTS,
            messages=draft.messages,
        )

    def finalise(self) -> None:
        """A block; the pending tx is in it, or is lost on its way."""
        sent = [Tx.decode(data) for data in self.pipeline.pending_txs()]
        carried = [
            tx
            for tx in sent
            if tx.valid_until > self.chain.height
            and tx.id not in self.chain.codes
            and self.rng.random() < 0.7
        ]
        codes = self.chain.add_block(carried)
        self.pipeline.on_final(self.chain.height, codes)

    def issue(self) -> None:
        issue_receipts(
            self.pipeline,
            self.chain.view,
            self.store,
            self.chain.tree,
            ANCHOR_KEY.public_key,
        )
        view = self.chain.view
        for stream, number in dict.fromkeys(self.acknowledged):
            leaf_hash = compute_leaf_hash(leaves_of(stream, number, 1)[0])
            try:
                receipt = build_receipt(view, self.store, leaf_hash)
            except InvalidInputError as error:
                if not error.retry:  # nothing acknowledged may be rejected or unknown
                    raise
                continue
            assert self.receipts.setdefault(leaf_hash, receipt) == receipt

    def tick(self) -> None:
        self.now_ms += self.rng.randrange(2 * BATCH_AGE_MAX_MS)
        self.pipeline.tick(self.now_ms)

    def check_kept(self) -> None:
        for stream, number in self.acknowledged:
            leaf_hash = compute_leaf_hash(leaves_of(stream, number, 1)[0])
            assert find_leaf(self.store, leaf_hash) is not None, f"lost {number}"

    def run_to_the_end(self) -> None:
        """No more crashes: everything acknowledged must come home."""
        for _ in range(40):
            if not self.pipeline.outstanding:
                break
            self.now_ms += BATCH_AGE_MAX_MS
            self.pipeline.tick(self.now_ms)
            self.sign()
            self.finalise()
            self.issue()
        self.issue()
        assert self.pipeline.outstanding == 0
        places = set()
        for count, (stream, number) in enumerate(dict.fromkeys(self.acknowledged)):
            leaf_hash = compute_leaf_hash(leaves_of(stream, number, 1)[0])
            data = self.receipts[leaf_hash]
            if count % 5 == 0:  # a verification costs more than all else here
                self.check_receipt(data, stream, number)
            receipt = Receipt.decode(data)
            places.add((receipt.log_index, receipt.batch_index))
        assert len(places) == len(set(self.acknowledged))
        self.check_log()

    def check_receipt(self, data: bytes, stream: bytes, number: int) -> None:
        verdict = verify_receipt(
            data,
            multihash=multihash_of(number),
            trusted=self.chain.validators,
            chain_id=CHAIN_ID,
            stream=stream,
        )
        assert verdict.is_ok, verdict.reason

    def check_log(self) -> None:
        """Every leaf of the log is there once, and each stream's seqs have no gap."""
        size, root = self.chain.log.size_and_root(self.chain.frontier)
        assert self.chain.tree.root(size) == root
        seqs: dict[bytes, int] = {}
        leaves = 0
        for index in range(size):
            entry = self.chain.tree.entry(index)
            assert entry is not None
            record = AnchorRecord.decode(entry)
            assert record.seq == seqs.get(record.stream, 0)
            seqs[record.stream] = record.seq + 1
            leaves += record.count
        # What a crash took before its answer may be there too, and nothing besides.
        tried = {leaf for request in self.tried for leaf in request.leaves}
        assert len(set(self.acknowledged)) <= leaves <= len(tried)


def script(world: World) -> Iterator[None]:
    """A fixed course that makes every kind of write."""
    for _ in range(4):
        world.submit()
        yield
        world.submit()
        yield
        world.tick()
        world.tick()
        yield
        world.sign()
        yield
        world.finalise()
        world.issue()
        yield


def run(world: World) -> None:
    for _ in script(world):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("seed", range(10 if IS_SOAK else 4))
def test_a_kill_at_any_write_loses_nothing_and_anchors_nothing_twice(
    seed: int, after: bool
) -> None:
    dry = World(seed)
    run(dry)
    assert dry.receipts, "a stored receipt takes each kind of write: accept to receipt"
    for number in range(1, dry.store.writes + 1):
        world = World(seed)
        if after:
            world.store.stop_after(number)
        else:
            world.store.stop_before(number)
        with pytest.raises(SimulatedCrash):
            run(world)
        world.crash()
        run(world)
        world.run_to_the_end()


@pytest.mark.slow
def test_random_courses_with_kills_keep_every_promise() -> None:
    for seed in range(SEEDS):
        world = World(seed)
        try:
            for _ in range(60):
                if world.rng.random() < 0.15:
                    if world.rng.random() < 0.5:
                        world.store.stop_before(1 + world.rng.randrange(3))
                    else:
                        world.store.stop_after(1 + world.rng.randrange(3))
                step = world.rng.choice(
                    [world.submit, world.tick, world.tick, world.sign, world.finalise, world.issue]
                )
                try:
                    step()
                except SimulatedCrash:
                    world.crash()
            world.crash()
            world.run_to_the_end()
        except (AssertionError, KeyError) as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
