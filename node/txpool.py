"""Txs on their way into a block: admission, gossip in batches, pull repair, waiting for finality.

Admission order is cheap first: decode, stateless check, duplicate, nonce, then the signature (in
the pool, once in a tx's life), then the mempool. Locally submitted txs go out by gossip at most
every `GOSSIP_INTERVAL_S`; what gossip loses is repaired by offers: a node with txs that have waited
longer than `OFFER_AGE_S` names them to one peer at a time, which asks for those it lacks. When
every peer had its turn with some txs, the next `OFFER_IDS_MAX` follow.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from ledger.accounts import read_account
from ledger.chain import Chain, Commit
from ledger.codec import hash_tagged
from ledger.errors import InvalidInputError, ZynkError
from ledger.mempool import Mempool
from ledger.tx import Tx
from node import wire
from node.signature_pool import SignatureJob, SignaturePool
from node.tx_waits import Dropped, Fate, Final, TxWaits
from p2p.link import P2PLink
from p2p.rate import TokenBucket

GOSSIP_INTERVAL_S = 0.05
GOSSIP_BYTES_MAX = 256 * 1024
OFFER_INTERVAL_S = 0.5
OFFER_AGE_S = 1.0
OFFER_IDS_MAX = 2048
ASKS_PER_S_MAX = 4.0
ASKS_BURST = 16.0
"""Offers, and wants, of one peer: honest nodes send at most two a second."""
ASKING_PEERS_MAX = 1024
WANT_ANSWER_BYTES_MAX = 1024 * 1024
"""A want names ids of 32 B and gets txs of up to 64 KiB; the next offer brings the rest."""
INBOX_BYTES_MAX = 8 * 1024 * 1024
INBOX_MESSAGES_MAX = 2048
MESSAGE_OVERHEAD_BYTES = 256
"""What a queued message takes beside its payload."""
INBOX_MESSAGES_A_TURN = 16
ADMIT_BATCH_TXS = 256
BARRED_MAX = 1024
DROPPED_KEPT_MAX = 20_000
"""As many as a full mempool could lose at once."""
RESTART_PAUSE_S = 0.5

log = structlog.get_logger("tx")

Outcome = bytes | ZynkError
"""The tx id, or why the tx was refused."""


class TxPool:
    """Owns the mempool. All calls are on the event loop."""

    def __init__(
        self,
        *,
        chain: Chain,
        mempool: Mempool,
        signatures: SignaturePool,
        link: P2PLink,
        topic: str,
        on_pending: Callable[[], None],
        on_offence: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self.mempool = mempool
        self.refused_total = 0
        self._chain = chain
        self.signatures = signatures
        self._link = link
        self._topic = topic
        self._on_pending = on_pending
        self._on_offence = on_offence
        self._outbox: list[bytes] = []
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flushed_at = 0.0
        self._inbox: deque[tuple[str, bytes]] = deque()
        self.inbox_bytes = 0
        self._inbox_filled = asyncio.Event()
        self._first_seen: dict[bytes, float] = {}
        self._waits = TxWaits(self._fate_of)
        self._dropped: dict[bytes, str] = {}
        """Why the last txs that were forgotten were: a wait for one may only be about to begin."""
        self._offer_turn = 0
        self._asks: OrderedDict[tuple[str, int], TokenBucket] = OrderedDict()
        self._barred: dict[bytes, None] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(keep_going(self._admit_from_inbox), name="tx-inbox"),
            asyncio.create_task(keep_going(self._offer_old_txs), name="tx-offers"),
        ]

    async def stop(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._waits.cancel()

    @property
    def waiting(self) -> int:
        """How many txs somebody waits for."""
        return len(self._waits)

    # --- admission ---

    async def submit(self, encoded: Sequence[bytes]) -> list[Outcome]:
        """Admit txs of our own clients and pass them on. One outcome a tx, in order; a tx that
        is already pending or final counts as admitted."""
        outcomes: list[Outcome] = []
        for start in range(0, len(encoded), ADMIT_BATCH_TXS):
            if start:  # txs that are refused early make no other pause
                await asyncio.sleep(0)
            judged, added, _ = await self._admit(encoded[start : start + ADMIT_BATCH_TXS])
            outcomes += judged
            if added:
                self._outbox += [tx.encoded for tx in added]
                self._schedule_flush()
        return outcomes

    async def _admit(self, encoded: Sequence[bytes]) -> tuple[list[Outcome], list[Tx], list[int]]:
        """Outcomes, the txs that are new, and the places of those that no honest node passes on:
        malformed, or with a wrong signature."""
        outcomes: list[Outcome | None] = [None] * len(encoded)
        fresh: list[tuple[int, Tx]] = []
        faults: list[int] = []
        for position, data in enumerate(encoded):
            try:
                tx = Tx.decode(data)
            except InvalidInputError as error:
                outcomes[position] = error
                faults.append(position)
                continue
            try:
                if not self._is_known(tx.id):
                    self._check_before_signature(tx)
                    fresh.append((position, tx))
                outcomes[position] = tx.id
            except ZynkError as error:
                outcomes[position] = error
        verdicts = await self.signatures.check(
            [(tx.payer, tx.sign_bytes(), tx.signature) for _, tx in fresh]
        )
        added: list[Tx] = []
        now = self._loop.time()
        for (position, tx), is_valid in zip(fresh, verdicts, strict=True):
            try:
                if not is_valid:
                    faults.append(position)
                    raise InvalidInputError("tx signature is wrong", got=tx.id.hex())
                if self._add(tx, now):
                    added.append(tx)
            except ZynkError as error:
                outcomes[position] = error
        self.refused_total += sum(isinstance(outcome, ZynkError) for outcome in outcomes)
        if added:
            self._on_pending()
        return [outcome for outcome in outcomes if outcome is not None], added, faults

    def _is_known(self, tx_id: bytes) -> bool:
        return tx_id in self.mempool or self._chain.tx_location(tx_id) is not None

    def _check_before_signature(self, tx: Tx) -> None:
        if tx.id in self._barred:
            raise InvalidInputError("this node can not execute the tx, for a bug of its own")
        self._chain.executor.check(tx, self._chain.params)
        account = read_account(self._chain.tree, tx.payer)
        if tx.nonce < account.nonce:
            raise InvalidInputError(
                "tx nonce was used already", expected=str(account.nonce), got=str(tx.nonce)
            )

    def _add(self, tx: Tx, now: float) -> bool:
        if self._is_known(tx.id):  # came by another way while the signature was checked
            return False
        account = read_account(self._chain.tree, tx.payer)
        admission = self.mempool.add(
            tx, account_nonce=account.nonce, account_balance=account.balance
        )
        if admission.replaced_id is not None:
            self._drop([admission.replaced_id], "mempool/replaced")
        self._drop(admission.evicted_ids, "mempool/evicted")
        self._first_seen[tx.id] = now
        return True

    # --- from and to peers ---

    def on_gossip(self, peer: str, payload: bytes) -> None:
        """A tx batch made by `peer`: bounded, admitted by the inbox task, its faults scored."""
        size = len(payload) + MESSAGE_OVERHEAD_BYTES
        if len(self._inbox) >= INBOX_MESSAGES_MAX or self.inbox_bytes + size > INBOX_BYTES_MAX:
            return  # pull repair brings it again when there is room
        self._inbox.append((peer, payload))
        self.inbox_bytes += size
        self._inbox_filled.set()

    def on_message(self, peer: str, payload: bytes) -> None:
        """Channel 1: offers, wants and tx batches. Raises InvalidInputError."""
        tag, body = payload[0], payload[1:]
        if tag in (wire.TAG_OFFER, wire.TAG_WANT) and not self._may_ask(peer, tag):
            raise InvalidInputError("offers or wants come too often")
        if tag == wire.TAG_OFFER:
            wanted = [i for i in wire.decode_ids(body) if not self._is_known(i)]
            if wanted:
                self._link.send(peer, wire.CHANNEL_TX, wire.encode_ids(wire.TAG_WANT, wanted))
        elif tag == wire.TAG_WANT:
            for batch in _batches(self._wanted_txs(wire.decode_ids(body))):
                if not self._link.send(peer, wire.CHANNEL_TX, wire.encode_txs(batch)):
                    break
        elif tag == wire.TAG_TXS:
            self.on_gossip(peer, payload)
        else:
            raise InvalidInputError("tx message is unknown", expected="0x10..0x12", got=hex(tag))

    def _may_ask(self, peer: str, tag: int) -> bool:
        now = self._loop.time()
        bucket = self._asks.pop((peer, tag), None) or TokenBucket(ASKS_PER_S_MAX, now, ASKS_BURST)
        self._asks[peer, tag] = bucket
        if len(self._asks) > 2 * ASKING_PEERS_MAX:
            self._asks.popitem(last=False)
        return bucket.take(1.0, now)

    def _wanted_txs(self, ids: Sequence[bytes]) -> list[bytes]:
        txs: list[bytes] = []
        room = WANT_ANSWER_BYTES_MAX
        for tx_id in dict.fromkeys(ids):
            tx = self.mempool.get(tx_id)
            if tx is None:
                continue
            room -= len(tx.encoded)
            if room < 0:
                break
            txs.append(tx.encoded)
        return txs

    async def _admit_from_inbox(self) -> None:
        while True:
            await self._inbox_filled.wait()
            txs = self._take_from_inbox()
            for start in range(0, len(txs), ADMIT_BATCH_TXS):
                batch = txs[start : start + ADMIT_BATCH_TXS]
                _, _, faults = await self._admit([data for _, data in batch])
                for position in faults:
                    self._on_offence(batch[position][0], "malformed or forged tx")
                await asyncio.sleep(0)  # as below
            # Neither wait above yields while there is more and nothing to verify: a full inbox
            # of junk would hold up consensus for seconds.
            await asyncio.sleep(0)

    def _take_from_inbox(self) -> list[tuple[str, bytes]]:
        """One turn's share of (peer, tx), from few enough messages that junk costs little."""
        txs: list[tuple[str, bytes]] = []
        for _ in range(INBOX_MESSAGES_A_TURN):
            if not self._inbox or len(txs) >= ADMIT_BATCH_TXS:
                break
            peer, payload = self._inbox.popleft()
            self.inbox_bytes -= len(payload) + MESSAGE_OVERHEAD_BYTES
            try:
                if payload[:1] != bytes([wire.TAG_TXS]):
                    raise InvalidInputError("gossip is not a tx batch")
                batch = wire.decode_txs(payload[1:])
                if not batch:
                    raise InvalidInputError("tx batch is empty")
                txs += [(peer, tx) for tx in batch]
            except InvalidInputError as error:
                self._on_offence(peer, str(error))
        if not self._inbox:
            self._inbox_filled.clear()
        return txs

    def _schedule_flush(self) -> None:
        if self._flush_timer is not None:
            return
        wait_s = self._flushed_at + GOSSIP_INTERVAL_S - self._loop.time()
        if wait_s <= 0:
            self._flush()
        else:
            self._flush_timer = self._loop.call_later(wait_s, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        self._flushed_at = self._loop.time()
        txs, self._outbox = self._outbox, []
        for batch in _batches(txs):
            self._link.publish(self._topic, wire.encode_txs(batch))

    async def _offer_old_txs(self) -> None:
        while True:
            await asyncio.sleep(OFFER_INTERVAL_S)
            if not self._first_seen:
                continue
            peers = self._link.peers()
            if not peers:
                continue
            limit = self._loop.time() - OFFER_AGE_S
            old = [i for i, seen in self._first_seen.items() if seen <= limit]
            if old:
                windows = -(-len(old) // OFFER_IDS_MAX)
                start = self._offer_turn // len(peers) % windows * OFFER_IDS_MAX
                peer = peers[self._offer_turn % len(peers)]
                self._offer_turn += 1
                offer = wire.encode_ids(wire.TAG_OFFER, old[start : start + OFFER_IDS_MAX])
                self._link.send(peer.peer, wire.CHANNEL_TX, offer)

    # --- for blocks ---

    def bar(self, tx_id: bytes) -> None:
        """A tx that no block can hold, because executing it fails for a bug of ours: drop it, and
        do not take it in again while this node runs."""
        self._barred[tx_id] = None
        if len(self._barred) > BARRED_MAX:
            self._barred.pop(next(iter(self._barred)))
        self._drop(self.mempool.remove(tx_id), "tx/not-executable")

    def find(self, tx_id: bytes) -> bytes | None:
        """Wire bytes of a pending tx."""
        tx = self.mempool.get(tx_id)
        return None if tx is None else tx.encoded

    def is_spread(self, tx_id: bytes) -> bool:
        """True if peers have had the time to hear of a pending tx."""
        seen = self._first_seen.get(tx_id)
        return seen is not None and seen <= self._loop.time() - OFFER_AGE_S / 2

    async def verified_txs(
        self, encoded: Sequence[bytes], votes: Sequence[SignatureJob] = ()
    ) -> list[Tx]:
        """Decode a block's txs, with signatures checked (those in the mempool were already).
        `votes` are late votes of the block: those that are valid are known afterwards. Raises
        InvalidInputError if a tx's signature is bad."""
        await self.signatures.warm(votes)
        txs = [self._pending(data) or Tx.decode(data) for data in encoded]
        unseen = [tx for tx in txs if tx.id not in self.mempool]
        verdicts = await self.signatures.check(
            [(tx.payer, tx.sign_bytes(), tx.signature) for tx in unseen]
        )
        for tx, is_valid in zip(unseen, verdicts, strict=True):
            if not is_valid:
                raise InvalidInputError("block has a tx with a wrong signature", got=tx.id.hex())
        return txs

    def pending_txs(self, block_tx_ids: Sequence[bytes]) -> list[Tx] | None:
        """A block's txs if all of them are pending here, and so checked; else None."""
        txs = [self.mempool.get(tx_id) for tx_id in block_tx_ids]
        found = [tx for tx in txs if tx is not None]
        return found if len(found) == len(txs) else None

    def _pending(self, data: bytes) -> Tx | None:
        return self.mempool.get(hash_tagged("tx", data))

    # --- finality ---

    async def wait_final(self, tx_ids: Iterable[bytes], timeout_s: float) -> dict[bytes, Fate]:
        """What became of each tx within `timeout_s`; see TxWaits.wait."""
        return await self._waits.wait(tx_ids, timeout_s)

    def _fate_of(self, tx_id: bytes) -> Fate | None:
        location = self._chain.tx_location(tx_id)
        if location is not None:
            return Final(height=location[0], index=location[1])
        reason = None if tx_id in self.mempool else self._dropped.get(tx_id)
        return None if reason is None else Dropped(reason=reason)

    def _drop(self, tx_ids: Iterable[bytes], reason: str) -> None:
        """Forget txs that are no longer pending, wake who waits for them."""
        for tx_id in tx_ids:
            self._first_seen.pop(tx_id, None)
            self._dropped.pop(tx_id, None)
            self._dropped[tx_id] = reason
            if len(self._dropped) > DROPPED_KEPT_MAX:
                del self._dropped[next(iter(self._dropped))]
            self._waits.tell(tx_id, Dropped(reason=reason))

    def on_commit(self, commit: Commit) -> None:
        """Drop what is final, wake who waits."""
        ids = commit.tx_ids
        dropped = self.mempool.on_commit(ids, commit.height, commit.next_nonces, commit.balances)
        for index, tx_id in enumerate(ids):
            self._first_seen.pop(tx_id, None)
            self._waits.tell(tx_id, Final(height=commit.height, index=index))
        for tx_id, reason in dropped.items():
            self._drop([tx_id], reason)


async def keep_going(work: Callable[[], Awaitable[None]]) -> None:
    """Run a loop that must never end: an unexpected error is logged, and it starts again."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("a background loop failed; it goes on")
            await asyncio.sleep(RESTART_PAUSE_S)


def _batches(txs: Sequence[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = []
    room = 0
    for tx in txs:
        if not batches or len(tx) > room:
            batches.append([])
            room = GOSSIP_BYTES_MAX
        batches[-1].append(tx)
        room -= len(tx)
    return batches
