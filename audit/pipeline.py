"""The pipeline: accept -> batch -> anchor -> receipt, a state machine over a store.

    accepted   the leaf group is synced. Only then does `accept` return.
    batched    its batch is closed: 1,024 leaves, or 250 ms after its first group
    committed  the anchor tx is final at a height
    receipted  the receipt is synced; from then on it never changes
    rejected   the anchor failed for good, with the code as reason

One anchor tx is in flight at a time, with up to 16 batches as its messages: their seqs and the
account's nonce are then plain, and 16,384 leaves a block are more than the node takes in. Batches
gather while it flies.

Durability, and why a kill at any point loses nothing and anchors nothing twice:
- Closing a batch is written without a sync. If a crash undoes it, the groups are batched anew,
  which may give other batches; no anchor of the old ones exists, because
- `record_signed` syncs the signed tx (and with it, all earlier writes) before the node may send
  it. After a crash exactly that tx is sent again.
- It is signed anew, with the same anchors, only once a final height has passed its valid_until
  without it, for then it can never be included.
- What a height did to it is read from the chain: `catch_up` after a start, `on_final` from then on.
  Losing the row that says "committed" is harmless.
- Should an anchor be signed twice after all (a chain joined by snapshot can not say what became of
  the tx), the chain takes the same (stream, submitter, seq, root) as a repetition.

Not known here: clock (`now_ms` arguments are Unix milliseconds), keys, nonces, network. Errors:
BackPressureError and InvalidInputError for requests (state unchanged), DurabilityError (stop),
UsageError for calls out of order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from audit.anchor import BATCH_LEAVES_MAX, Anchor, AnchorRecord
from audit.batch import (
    ATTEMPTS_MAX,
    REASON_MAX,
    AnchorDraft,
    Batch,
    BatchState,
    InFlight,
    batch_rows,
    find_group_batch,
    hash_batch_leaves,
    read_batch,
    read_group,
)
from audit.intake import (
    GROUPS_OUTSTANDING_MAX,
    Accepted,
    Group,
    Intake,
    Request,
    find_last_number,
    group_rows,
)
from audit.leaf import Leaf
from audit.rows import (
    BATCH,
    BATCH_BY_ROOT,
    GROUP,
    IN_FLIGHT,
    OUTSTANDING,
    RECEIPT,
    number_at_end,
    u64,
)
from ledger.errors import InvalidInputError, UsageError, ZynkError
from ledger.merkle import compute_leaf_hash, compute_root
from ledger.store import Batch as WriteBatch
from ledger.store import Store, decode_row
from ledger.tx import MESSAGES_MAX, Tx

BATCH_AGE_MAX_MS = 250

RETRY_CODES = frozenset({"audit/equivocation", "audit/seq-gap"})
"""Failures that say the seq was wrong, not the leaves: drafted anew with the chain's next seq."""

TxLookup = Callable[[bytes], tuple[int, str] | None]
"""tx id -> (height, result code, "" for success) if it is in a final block, else None."""


@dataclass(slots=True)
class _OpenBatch:
    """Groups of one stream that gather until the batch closes."""

    opened_ms: int
    groups: list[Group] = field(default_factory=list)
    count: int = 0


class Pipeline:
    """See the module docstring. Create with the node's store; there may be only one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[bytes, _OpenBatch] = {}
        self._closed: deque[int] = deque()  # batches to anchor, oldest first
        self._committed: deque[int] = deque()  # batches whose receipts are due
        self._outstanding: set[int] = set()  # membership and size only, never iterated
        self._next_group = find_last_number(store, GROUP) + 1
        self._next_batch = find_last_number(store, BATCH) + 1
        row = store.get(IN_FLIGHT)
        self._in_flight = None if row is None else decode_row("anchor tx", InFlight.decode, row)
        self._height: int | None = None
        self._load()

    def _load(self) -> None:
        """Rebuild what is in memory: O(outstanding groups)."""
        flying = {batch for batch, _ in self._in_flight.anchors} if self._in_flight else set()
        batches: dict[int, None] = {}
        for key, _ in self._store.iterate(prefix=OUTSTANDING):
            group = number_at_end(key)
            self._outstanding.add(group)
            found = find_group_batch(self._store, group)
            if found is not None:
                batches[found[0]] = None
                continue
            stream, accepted_ms, leaves = read_group(self._store, group)
            self._gather(
                Group(number=group, stream=stream, count=len(leaves), accepted_ms=accepted_ms), 0
            )
        for number in sorted(batches):
            if read_batch(self._store, number).state is BatchState.COMMITTED:
                self._committed.append(number)
            elif number not in flying:
                self._closed.append(number)

    # --- accepting ---

    @property
    def outstanding(self) -> int:
        """Leaf groups with neither receipt nor rejection; at most 4,096."""
        return len(self._outstanding)

    def accept(self, request: Request, now_ms: int) -> Accepted:
        """Accept one request, durably. Raises InvalidInputError or BackPressureError."""
        answer = self.accept_many([request], now_ms)[0]
        if isinstance(answer, ZynkError):
            raise answer
        return answer

    def accept_many(self, requests: Sequence[Request], now_ms: int) -> list[Accepted | ZynkError]:
        """Group commit: judge each request by itself, accept the good ones with one synced
        write, and give each its answer or its error. Raises only DurabilityError."""
        intake = Intake(
            self._store, self._next_group, GROUPS_OUTSTANDING_MAX - len(self._outstanding)
        )
        answers: list[Accepted | ZynkError] = []
        for request in requests:
            try:
                answers.append(intake.plan(request, now_ms))
            except ZynkError as error:
                answers.append(error)
        if len(intake.rows):
            self._store.write(intake.rows, sync=True)
        self._next_group += len(intake.groups)
        for group in intake.groups:
            self._outstanding.add(group.number)
            self._gather(group, now_ms)
        return answers

    def _gather(self, group: Group, now_ms: int) -> None:
        gathering = self._open.get(group.stream)
        if gathering is not None and gathering.count + group.count > BATCH_LEAVES_MAX:
            self._close(group.stream)
            gathering = None
        if gathering is None:
            gathering = self._open[group.stream] = _OpenBatch(opened_ms=now_ms)
        gathering.groups.append(group)
        gathering.count += group.count
        if gathering.count == BATCH_LEAVES_MAX:
            self._close(group.stream)

    # --- batching ---

    @property
    def deadline_ms(self) -> int | None:
        """When `tick` has work next, in the terms of `now_ms`; None if nothing gathers."""
        if not self._open:
            return None
        return min(gathering.opened_ms for gathering in self._open.values()) + BATCH_AGE_MAX_MS

    def tick(self, now_ms: int) -> int:
        """Close the batches that are due; how many were. A clock that went back closes too."""
        due = [
            stream
            for stream, gathering in self._open.items()
            if not 0 <= now_ms - gathering.opened_ms < BATCH_AGE_MAX_MS
        ]
        for stream in due:
            self._close(stream)
        return len(due)

    def _close(self, stream: bytes) -> None:
        gathering = self._open.pop(stream)
        groups = tuple((group.number, group.count) for group in gathering.groups)
        batch = Batch(stream=stream, groups=groups, root=b"")
        batch = replace(batch, root=compute_root(hash_batch_leaves(self._store, batch)))
        number = self._next_batch
        rows = WriteBatch()
        for key, value in batch_rows(number, batch):
            rows.put(key, value)
        self._store.write(rows, sync=False)
        self._next_batch += 1
        self._closed.append(number)

    # --- anchoring ---

    def upcoming(self, count: int) -> list[int]:
        """The batches that are anchored next, oldest first, at most `count`."""
        return list(islice(self._closed, count))

    def next_anchor(
        self,
        next_seq: Callable[[bytes], int],
        is_copied: Callable[[int], bool] = lambda batch: True,
    ) -> AnchorDraft | None:
        """What to sign and hand to `record_signed`; None while a tx is in flight or there is
        nothing to anchor. `next_seq(stream)` reads the node's cursor in the newest final state
        (`audit.anchor.read_next_seq`); a batch waits until `is_copied(batch)`, and those after
        it with it. Asking again gives the same."""
        if self._in_flight is not None:
            return None
        anchors: list[tuple[int, Anchor]] = []
        seqs: dict[bytes, int] = {}
        for number in self._closed:
            if not is_copied(number):
                break
            batch = read_batch(self._store, number)
            if batch.is_alone and anchors:
                break
            seq = seqs[batch.stream] if batch.stream in seqs else next_seq(batch.stream)
            seqs[batch.stream] = seq + 1
            anchors.append((number, _anchor_of(batch, seq)))
            if batch.is_alone or len(anchors) == MESSAGES_MAX:
                break
        return AnchorDraft(anchors=tuple(anchors)) if anchors else None

    def record_signed(self, draft: AnchorDraft, tx: Tx) -> None:
        """Sync the signed tx; only after this may it be sent. `draft` is from `next_anchor` or
        `resign_due`, and `tx` carries exactly its messages. Raises UsageError otherwise."""
        if tx.messages != draft.messages:
            raise UsageError("tx does not carry the draft's anchors")
        anchors = tuple((number, anchor.seq) for number, anchor in draft.anchors)
        numbers = [number for number, _ in anchors]
        if self._in_flight is not None:
            if self._in_flight.anchors != anchors or not self._is_overdue():
                raise UsageError("an anchor tx is in flight", expected="the draft of resign_due")
        elif list(self._closed)[: len(numbers)] != numbers or not numbers:
            raise UsageError("draft is stale", expected="the newest of next_anchor")
        in_flight = InFlight(
            tx=tx.encoded, tx_id=tx.id, valid_until=tx.valid_until, anchors=anchors
        )
        rows = WriteBatch()
        rows.put(IN_FLIGHT, in_flight.encode())
        for number, anchor in draft.anchors:
            batch = replace(read_batch(self._store, number), seq=anchor.seq)
            rows.put(BATCH + u64(number), batch.encode())
        self._store.write(rows, sync=True)
        if self._in_flight is None:
            for _ in numbers:
                self._closed.popleft()
        self._in_flight = in_flight

    def pending_txs(self) -> list[bytes]:
        """Wire bytes to (re)send, unchanged, until `on_final` has them: at most one."""
        return [] if self._in_flight is None else [self._in_flight.tx]

    def resign_due(self, height: int) -> AnchorDraft | None:
        """The same anchors, to be signed anew with the account's next nonce, if `height`, final
        and told to `on_final` or `catch_up`, has passed the tx's valid_until without it."""
        if self._in_flight is None or not self._is_overdue() or height != self._height:
            return None
        return AnchorDraft(
            anchors=tuple(
                (number, _anchor_of(read_batch(self._store, number), seq))
                for number, seq in self._in_flight.anchors
            )
        )

    def _is_overdue(self) -> bool:
        flying = self._in_flight
        return (
            flying is not None and self._height is not None and self._height >= flying.valid_until
        )

    # --- what became final ---

    def catch_up(self, height: int, lookup: TxLookup) -> None:
        """Take in all heights to `height`, after a start or a jump (sync): call it before the
        first `on_final`."""
        self._height = height
        if self._in_flight is not None:
            found = lookup(self._in_flight.tx_id)
            if found is not None:
                self._settle(*found)

    def on_final(self, height: int, codes: Mapping[bytes, str]) -> None:
        """`height` is final; `codes` maps its tx ids to result codes ("" is success). Raises
        UsageError unless heights come one after the other from the one of `catch_up`."""
        if self._height is None or height != self._height + 1:
            raise UsageError(
                "final heights come in order, after catch_up",
                expected="none yet" if self._height is None else str(self._height + 1),
                got=str(height),
            )
        self._height = height
        if self._in_flight is not None and self._in_flight.tx_id in codes:
            self._settle(height, codes[self._in_flight.tx_id])

    def _settle(self, height: int, code: str) -> None:
        """The tx in flight is final with `code`."""
        assert self._in_flight is not None, "callers have checked"
        rows = WriteBatch()
        rows.delete(IN_FLIGHT)
        numbers = [number for number, _ in self._in_flight.anchors]
        again: list[int] = []
        done: list[int] = []
        freed: list[int] = []
        for number in numbers:
            batch = _settle_batch(read_batch(self._store, number), height, code, len(numbers) > 1)
            rows.put(BATCH + u64(number), batch.encode())
            if batch.state is BatchState.BATCHED:
                again.append(number)
            elif batch.state is BatchState.COMMITTED:
                done.append(number)
            else:
                freed += [group for group, _ in batch.groups]
        for group in freed:
            rows.delete(OUTSTANDING + u64(group))
        self._store.write(rows, sync=False)
        self._in_flight = None
        self._closed.extendleft(reversed(again))
        self._committed.extend(done)
        self._outstanding.difference_update(freed)

    # --- lost leaf lists ---

    def has_batch(self, root: bytes) -> bool:
        """Whether the leaves of the batch with this root are here."""
        return self._store.get(BATCH_BY_ROOT + root) is not None

    def recover(self, record: AnchorRecord, leaves: Sequence[bytes]) -> None:
        """Take back, synced, the leaves of an anchor of this node that is in the log and not in
        the store: the batch is committed, and its receipts are due. Raises InvalidInputError if
        these are not the leaves."""
        hashes = [compute_leaf_hash(leaf) for leaf in leaves]
        if len(hashes) != record.count or compute_root(hashes) != record.batch_root:
            raise InvalidInputError("leaves are not those of the anchor")
        for leaf in leaves:
            if Leaf.decode(leaf).stream != record.stream:
                raise InvalidInputError("leaf belongs to another stream", got=leaf.hex())
        group, number = self._next_group, self._next_batch
        batch = Batch(
            stream=record.stream,
            groups=((group, record.count),),
            root=record.batch_root,
            state=BatchState.COMMITTED,
            seq=record.seq,
            height=record.height,
        )
        named = list(zip(hashes, leaves, strict=True))
        rows = WriteBatch()
        for key, value in chain(
            group_rows(group, record.stream, record.time_ms, named), batch_rows(number, batch)
        ):
            rows.put(key, value)
        self._store.write(rows, sync=True)
        self._next_group += 1
        self._next_batch += 1
        self._outstanding.add(group)
        self._committed.append(number)

    # --- receipts ---

    def receipts_due(self) -> list[int]:
        """Committed batches that have no receipt yet, oldest first."""
        return list(self._committed)

    def record_receipts(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Sync the shared receipt parts of committed batches (`audit.issue`); from then on they
        are receipted. Raises UsageError for a batch that is not due."""
        written = WriteBatch()
        freed: list[int] = []
        for number, row in rows:
            if number not in self._committed:
                raise UsageError("no receipt is due for this batch", got=str(number))
            batch = replace(read_batch(self._store, number), state=BatchState.RECEIPTED)
            written.put(BATCH + u64(number), batch.encode())
            written.put(RECEIPT + u64(number), row)
            for group, _ in batch.groups:
                written.delete(OUTSTANDING + u64(group))
                freed.append(group)
        if rows:
            self._store.write(written, sync=True)
        for number, _ in rows:
            self._committed.remove(number)
        self._outstanding.difference_update(freed)


def _anchor_of(batch: Batch, seq: int) -> Anchor:
    return Anchor(stream=batch.stream, seq=seq, count=batch.count, batch_root=batch.root)


def _settle_batch(batch: Batch, height: int, code: str, is_shared: bool) -> Batch:
    """What becomes of a batch whose anchor tx is final with `code`."""
    if not code:
        return replace(batch, state=BatchState.COMMITTED, height=height)
    if is_shared:  # one failing message fails the tx: each of them gets its own chance
        return replace(batch, seq=None, is_alone=True)
    if code in RETRY_CODES and batch.attempts + 1 < ATTEMPTS_MAX:
        return replace(batch, seq=None, is_alone=True, attempts=batch.attempts + 1)
    return replace(batch, state=BatchState.REJECTED, height=height, reason=code[:REASON_MAX])
