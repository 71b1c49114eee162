"""Leaf lists between nodes: ours go to peers before their anchor is signed, theirs are kept here.

    ours     batch closed -> KEEP to peers -> KEPT from `copies` of them -> its anchor may be signed
    theirs   KEEP -> checked, synced with others that came meanwhile -> KEPT
             WANT (their disk is new: `node.leaf_recovery`) -> LIST

Ours go to the peers that the config names. What others may do to us is bounded: a list needs the
signature of a stream's submitter, few may wait for their anchor (`audit.copies`), and lists that
come or are wanted faster than a budget allows are left out; whoever sent them tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from audit.anchor import AnchorRecord
from audit.batch import read_batch, read_batch_leaves
from audit.copies import KeptLists, LeafList, keep_sign_bytes
from audit.stream import read_stream
from ledger.chain import Chain, Commit
from ledger.ed25519 import KeyPair, is_valid_signature
from ledger.errors import DurabilityError, InvalidInputError
from ledger.store import Store
from node import wire
from p2p.link import P2PLink
from p2p.rate import TokenBucket

UPCOMING_MAX = 32
"""Batches that are spread at a time: this anchor tx's and the next one's."""
ANSWER_S = 2.0
"""A peer that has not said KEPT by then is asked again, after the others."""
GROUP_COMMIT_S = 0.002
LISTS_PER_S = 100.0
"""Lists taken in from configured peers together; one of 1,024 leaves costs some 3 ms."""
STRANGERS_LISTS_PER_S = 5.0
SERVED_PER_S = 20.0
WANTED_MAX = 16
LOG_INTERVAL_S = 30.0

log = structlog.get_logger("audit")


def connected_peers(link: P2PLink) -> list[str]:
    """The peers of the config that are connected."""
    up = {info.peer for info in link.peers()}
    return [peer for peer in link.validators if peer in up]


class LeafCopies:
    """All calls are on the event loop. `on_change` is told when a batch may be anchored now."""

    def __init__(
        self,
        *,
        chain: Chain,
        store: Store,
        link: P2PLink,
        key: KeyPair,
        copies: int,
        on_change: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._chain = chain
        self._store = store
        self._link = link
        self._key = key
        self._peers = link.validators
        self._needed = min(copies, len(self._peers))
        self._on_change = on_change
        self._on_failure = on_failure
        self.kept = KeptLists(store)
        self._loop = asyncio.get_running_loop()
        self._spreading: dict[int, _Spreading] = {}
        self._arrived: list[tuple[str, bytes, LeafList]] = []
        self._flush_timer: asyncio.TimerHandle | None = None
        self._again_timer: asyncio.TimerHandle | None = None
        self._logged_at = 0.0
        now = self._loop.time()
        self._budget = TokenBucket(LISTS_PER_S, now)
        self._strangers_budget = TokenBucket(STRANGERS_LISTS_PER_S, now)
        self._served = TokenBucket(SERVED_PER_S, now)

    def stop(self) -> None:
        for timer in (self._flush_timer, self._again_timer):
            if timer is not None:
                timer.cancel()

    def on_message(self, peer: str, payload: bytes) -> None:
        """Channel 4. Raises InvalidInputError for what an honest peer does not send."""
        tag, body = payload[0], payload[1:]
        if tag == wire.TAG_KEEP:
            self._on_keep(peer, body)
        elif tag == wire.TAG_KEPT:
            self._on_kept(peer, wire.decode_ids(body))
        elif tag == wire.TAG_WANT_LISTS:
            self._on_want(peer, wire.decode_ids(body))
        else:
            raise InvalidInputError("audit message is unknown", got=hex(tag))

    def on_commit(self, commit: Commit) -> None:
        """Lists whose anchors are final stay."""
        if commit.log_entries:
            self.kept.on_anchored(
                AnchorRecord.decode(entry).batch_root for entry in commit.log_entries
            )

    # --- ours ---

    def is_copied(self, batch: int) -> bool:
        """Whether enough peers have the batch's leaves."""
        spreading = self._spreading.get(batch)
        return self._needed == 0 or (
            spreading is not None and len(spreading.kept_by) >= self._needed
        )

    def spread(self, batches: Sequence[int]) -> None:
        """See that enough peers keep these batches; others are forgotten. Called with every
        submission, so a batch is read once."""
        if self._needed == 0:
            return
        before = self._spreading
        self._spreading = {number: before.get(number) or self._begin(number) for number in batches}
        lacking = self._lacking()
        for spreading in lacking:
            self._ask(spreading)
        if lacking and self._again_timer is None:
            self._again_timer = self._loop.call_later(ANSWER_S, self._again)

    def _begin(self, number: int) -> _Spreading:
        batch = read_batch(self._store, number)
        leaf_list = LeafList.signed(
            self._key,
            chain_id=self._chain.chain_id,
            stream=batch.stream,
            leaves=read_batch_leaves(self._store, batch),
        )
        return _Spreading(batch.root, bytes([wire.TAG_KEEP]) + leaf_list.encode())

    def _lacking(self) -> list[_Spreading]:
        return [s for s in self._spreading.values() if len(s.kept_by) < self._needed]

    def _again(self) -> None:
        self._again_timer = None
        now = self._loop.time()
        lacking = self._lacking()
        if lacking and now - self._logged_at > LOG_INTERVAL_S:
            self._logged_at = now
            log.warning(
                "leaves wait for peers that keep a copy; they are anchored after that",
                batches=len(lacking),
                copies=self._needed,
                connected=len(connected_peers(self._link)),
            )
        self._on_change()

    def _ask(self, spreading: _Spreading) -> None:
        """Send the list to as many peers as may be enough: those that were not asked first."""
        now = self._loop.time()
        asked = spreading.asked_at
        open_now = [p for p in asked if now - asked[p] < ANSWER_S and p not in spreading.kept_by]
        more = self._needed - len(spreading.kept_by) - len(open_now)
        if more <= 0:
            return
        passed_over = spreading.kept_by.union(open_now)
        peers = [peer for peer in connected_peers(self._link) if peer not in passed_over]
        first = spreading.root[0] % len(peers) if peers else 0
        peers = sorted(peers[first:] + peers[:first], key=lambda peer: asked.get(peer, 0.0))
        for peer in peers[:more]:
            if self._link.send(peer, wire.CHANNEL_LOG, spreading.payload):
                asked[peer] = now

    def _on_kept(self, peer: str, roots: Sequence[bytes]) -> None:
        is_news = False
        for spreading in self._spreading.values():
            if spreading.root in roots and peer in spreading.asked_at:
                spreading.kept_by.add(peer)
                is_news = is_news or len(spreading.kept_by) == self._needed
        if is_news:
            self._on_change()

    # --- theirs ---

    def _on_keep(self, peer: str, body: bytes) -> None:
        budget = self._budget if peer in self._peers else self._strangers_budget
        if not budget.take(1, self._loop.time()):
            return  # asked again
        leaf_list = LeafList.decode(body)
        root = leaf_list.compute_root()
        message = keep_sign_bytes(self._chain.chain_id, root)
        if not is_valid_signature(leaf_list.submitter, message, leaf_list.signature):
            raise InvalidInputError("leaf list is not signed by its submitter")
        record = read_stream(self._chain.tree, leaf_list.stream)
        if record is None or leaf_list.submitter not in record.submitters:
            return  # the stream may be newer than our state
        if not self.kept.has(root) and not self.kept.has_room(leaf_list.submitter):
            return
        self._arrived.append((peer, root, leaf_list))
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(GROUP_COMMIT_S, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        arrived, self._arrived = self._arrived, []
        try:
            self.kept.keep([(root, item) for _, root, item in arrived], self._chain.height)
        except DurabilityError as error:
            self._on_failure(f"audit store: {error}")
            return
        roots_by_peer: dict[str, list[bytes]] = {}
        for peer, root, _ in arrived:
            roots_by_peer.setdefault(peer, []).append(root)
        for peer, roots in roots_by_peer.items():
            self._link.send(peer, wire.CHANNEL_LOG, wire.encode_ids(wire.TAG_KEPT, roots))

    def _on_want(self, peer: str, roots: Sequence[bytes]) -> None:
        if len(roots) > WANTED_MAX:
            raise InvalidInputError(
                "too many leaf lists are wanted", expected=f"<= {WANTED_MAX}", got=str(len(roots))
            )
        for root in roots:
            if not self._served.take(1, self._loop.time()):
                return  # asked again
            leaf_list = self.kept.find(root)
            if leaf_list is not None:
                payload = bytes([wire.TAG_LIST]) + leaf_list.encode()
                self._link.send(peer, wire.CHANNEL_LOG, payload)


class _Spreading:
    """A batch on its way to peers."""

    __slots__ = ("asked_at", "kept_by", "payload", "root")

    def __init__(self, root: bytes, payload: bytes) -> None:
        self.root = root
        self.payload = payload
        self.asked_at: dict[str, float] = {}
        self.kept_by: set[str] = set()
