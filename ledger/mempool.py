"""The mempool: signed txs that are executable at the tip, waiting for a block.

Rules:
- Of an account the pool holds consecutive nonces from the tip's on, at most `account_txs_max`, and
  their fees together are within its balance at the tip. A gap is refused (retry: the missing tx
  may come), so that whatever is pending can be executed.
- Priority is the fee per byte; equal ones in order of arrival. Within an account nonces go in
  order, whatever they pay.
- The same nonce again replaces the pending tx if it pays at least 10% more in total and not less
  per byte.
- When full, the worst last tx of some account makes way for one that pays more per byte; else the
  newcomer is refused (retry).
- A tx leaves when it is final, when its `valid_until` has passed, or when one before it leaves.

Pure and without a clock: time is the height. Signatures and `Executor.check` come before `add`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from ledger.errors import InvalidInputError
from ledger.tx import Tx

RATE_SCALE = 2**20  # priority = fee * RATE_SCALE // bytes
REPLACE_PERCENT_MIN = 110
FIT_MISSES_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class MempoolLimits:
    """Bounds of a pool; local, they do not affect consensus."""

    count_max: int = 20_000
    bytes_max: int = 32 * 1024 * 1024
    account_txs_max: int = 64


@dataclass(frozen=True, slots=True)
class Admission:
    """`added` is False for a tx that is in the pool already. `replaced_id`: the tx that had its
    nonce. `evicted_ids`: what made way."""

    added: bool
    replaced_id: bytes | None = None
    evicted_ids: tuple[bytes, ...] = ()


class MempoolRefusal(InvalidInputError):
    """A tx is not taken in. `code` is a stable word; `retry` tells whether the same tx can be
    taken later."""

    def __init__(
        self, code: str, message: str, *, expected: str = "", got: str = "", retry: bool = False
    ) -> None:
        super().__init__(message, expected=expected, got=got, retry=retry)
        self.code = code


class _Entry:
    """A pending tx. Entries sort by rank: better first. `follower` has its account's next nonce."""

    __slots__ = ("follower", "rank", "size", "tx")

    def __init__(self, tx: Tx, arrival: int) -> None:
        self.tx = tx
        self.size = len(tx.encoded)
        self.follower: _Entry | None = None
        self.rank = (-(tx.fee * RATE_SCALE // self.size), arrival)


_Ranked = tuple[int, int, _Entry]  # rank and entry; arrivals differ, so entries are never compared


_Tail = tuple[int, int, bytes]  # (rate, -arrival, tx id)


def _ranked(entry: _Entry) -> _Ranked:
    return (*entry.rank, entry)


class _Queue:
    """One account's entries, of nonces `base`, base + 1, ..."""

    __slots__ = ("base", "entries", "fees")

    def __init__(self, base: int) -> None:
        self.base = base
        self.entries: list[_Entry] = []
        self.fees = 0


class Mempool:
    """See the module docstring."""

    def __init__(self, limits: MempoolLimits | None = None, *, height: int = 0) -> None:
        self.limits = limits or MempoolLimits()
        self.height = height
        self.bytes = 0
        self._entries: dict[bytes, _Entry] = {}
        self._queues: dict[bytes, _Queue] = {}
        self._heads: list[_Ranked] = []  # first entry of each queue, best first
        self._tails: list[_Tail] = []  # heap, worst first; holds some that are no tails any more
        self._expiry: dict[int, dict[bytes, None]] = {}  # valid_until -> ids
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, tx_id: bytes) -> bool:
        return tx_id in self._entries

    def get(self, tx_id: bytes) -> Tx | None:
        entry = self._entries.get(tx_id)
        return None if entry is None else entry.tx

    def ids(self) -> list[bytes]:
        """All tx ids, in order of arrival (a replacement counts as new)."""
        return list(self._entries)

    def next_nonce(self, payer: bytes, account_nonce: int) -> int:
        """The nonce that `payer`'s next tx needs, its pending ones counted."""
        queue = self._queues.get(payer)
        return account_nonce if queue is None else queue.base + len(queue.entries)

    # --- in ---

    def add(self, tx: Tx, *, account_nonce: int, account_balance: int) -> Admission:
        """Take `tx` in, or raise MempoolRefusal, the pool unchanged.

        `account_nonce` and `account_balance` are the payer's at the tip.
        """
        if tx.id in self._entries:
            return Admission(False)
        entry = _Entry(tx, self._arrivals)
        queue = self._queues.get(tx.payer)
        if queue is not None and queue.base != account_nonce:
            # The tip moved and `on_commit` is still to come: judge by what the pool knows.
            account_nonce = max(queue.base, account_nonce)
        self._check_nonce(tx, queue, account_nonce)
        if queue is not None and tx.nonce < queue.base + len(queue.entries):
            return self._replace(entry, queue, account_balance)
        self._check_fees(tx, (queue.fees if queue else 0) + tx.fee, account_balance)
        evicted = self._make_room(entry)
        self._append(entry, account_nonce)
        return Admission(True, None, evicted)

    def _check_nonce(self, tx: Tx, queue: _Queue | None, account_nonce: int) -> None:
        if tx.valid_until <= self.height:
            raise MempoolRefusal(
                "mempool/expired",
                "tx is no longer valid",
                expected=f"valid_until > {self.height}",
                got=str(tx.valid_until),
            )
        if tx.nonce < account_nonce:
            raise MempoolRefusal(
                "mempool/nonce-used",
                "tx nonce was used before",
                expected=f"at least {account_nonce}",
                got=str(tx.nonce),
            )
        next_nonce = queue.base + len(queue.entries) if queue else account_nonce
        if tx.nonce > next_nonce:
            raise MempoolRefusal(
                "mempool/nonce-gap",
                "txs with lower nonces are missing",
                expected=str(next_nonce),
                got=str(tx.nonce),
                retry=True,
            )
        if tx.nonce >= account_nonce + self.limits.account_txs_max:
            raise MempoolRefusal(
                "mempool/account-full",
                "the account has too many pending txs",
                expected=f"at most {self.limits.account_txs_max}",
                got=f"nonce {tx.nonce}, of which {account_nonce} is next",
                retry=True,
            )

    @staticmethod
    def _check_fees(tx: Tx, fees: int, balance: int) -> None:
        if fees > balance:
            raise MempoolRefusal(
                "mempool/insufficient-balance",
                "payer can not pay the fees of its pending txs",
                expected=f"at least {fees} uzynk",
                got=f"{balance} uzynk",
                retry=True,
            )

    def _replace(self, entry: _Entry, queue: _Queue, balance: int) -> Admission:
        index = entry.tx.nonce - queue.base
        old = queue.entries[index]
        # Rates too, or a long tx could take the place of a short one that blocks rank higher.
        if 100 * entry.tx.fee < REPLACE_PERCENT_MIN * old.tx.fee or entry.rank[0] > old.rank[0]:
            raise MempoolRefusal(
                "mempool/fee-too-low",
                "a pending tx has this nonce; a replacement must pay more",
                expected=f"fee >= {-(-REPLACE_PERCENT_MIN * old.tx.fee // 100)} uzynk, and not "
                "less per byte",
                got=f"{entry.tx.fee} uzynk",
            )
        if self.bytes - old.size + entry.size > self.limits.bytes_max:
            raise _full()
        self._check_fees(entry.tx, queue.fees - old.tx.fee + entry.tx.fee, balance)
        if index == 0:
            self._drop_head(old)
            insort(self._heads, _ranked(entry))
        queue.entries[index] = entry
        entry.follower = old.follower
        if index:
            queue.entries[index - 1].follower = entry
        queue.fees += entry.tx.fee - old.tx.fee
        self._forget(old)
        self._index(entry)
        if index == len(queue.entries) - 1:
            self._push_tail(entry)
        return Admission(True, old.tx.id)

    def _append(self, entry: _Entry, account_nonce: int) -> None:
        payer = entry.tx.payer
        queue = self._queues.get(payer)
        if queue is None:
            queue = self._queues[payer] = _Queue(account_nonce)
            insort(self._heads, _ranked(entry))
        else:
            queue.entries[-1].follower = entry
        queue.entries.append(entry)
        queue.fees += entry.tx.fee
        self._index(entry)
        self._push_tail(entry)

    def _index(self, entry: _Entry) -> None:
        self._arrivals += 1
        self._entries[entry.tx.id] = entry
        self.bytes += entry.size
        self._expiry.setdefault(entry.tx.valid_until, {})[entry.tx.id] = None

    def _forget(self, entry: _Entry) -> None:
        del self._entries[entry.tx.id]
        self.bytes -= entry.size
        expiring = self._expiry[entry.tx.valid_until]
        del expiring[entry.tx.id]
        if not expiring:
            del self._expiry[entry.tx.valid_until]

    # --- eviction ---

    def _make_room(self, entry: _Entry) -> tuple[bytes, ...]:
        """Evict the worst tails until `entry` fits. Raises MempoolRefusal, the pool unchanged."""
        limits = self.limits
        count, size = len(self._entries) + 1, self.bytes + entry.size
        if count <= limits.count_max and size <= limits.bytes_max:
            return ()
        payer = entry.tx.payer
        victims: list[_Entry] = []
        taken: list[_Tail] = []
        chosen: dict[bytes, int] = {}  # payer -> how many of its last entries are victims
        while count > limits.count_max or size > limits.bytes_max:
            victim = self._pop_worst(taken, chosen)
            if victim is None or victim.rank[0] <= entry.rank[0] or victim.tx.payer == payer:
                for item in taken:
                    heappush(self._tails, item)
                raise _full()
            victims.append(victim)
            count -= 1
            size -= victim.size
        for victim in victims:
            self._cut(victim.tx.payer, victim.tx.nonce)
        return tuple(victim.tx.id for victim in victims)

    def _pop_worst(self, taken: list[_Tail], chosen: dict[bytes, int]) -> _Entry | None:
        """The worst entry that is the last of its account, `chosen` ones not counted."""
        while self._tails:
            item = heappop(self._tails)
            entry = self._entries.get(item[2])
            if entry is None:
                continue
            payer = entry.tx.payer
            entries = self._queues[payer].entries
            last = len(entries) - 1 - chosen.get(payer, 0)
            if entries[last] is not entry:  # not last any more; pushed again when it is
                continue
            taken.append(item)
            chosen[payer] = chosen.get(payer, 0) + 1
            if last:
                self._push_tail(entries[last - 1])
            return entry
        return None

    def _push_tail(self, entry: _Entry) -> None:
        if len(self._tails) > 2 * len(self._entries) + 1024:  # shed what is no tail any more
            self._tails = [_tail(queue.entries[-1]) for queue in self._queues.values()]
            heapify(self._tails)
        heappush(self._tails, _tail(entry))

    def _cut(self, payer: bytes, nonce: int) -> list[bytes]:
        """Drop `payer`'s entries from `nonce` on, from the last. Returns their ids."""
        queue = self._queues[payer]
        index = max(nonce - queue.base, 0)
        dropped = queue.entries[index:]
        del queue.entries[index:]
        for entry in dropped:
            queue.fees -= entry.tx.fee
            self._forget(entry)
        if not queue.entries:
            del self._queues[payer]
            self._drop_head(dropped[0])
        elif dropped:
            queue.entries[-1].follower = None
            self._push_tail(queue.entries[-1])
        return [entry.tx.id for entry in dropped]

    def _drop_head(self, entry: _Entry) -> None:
        # A tuple is less than a longer one that it begins: this finds the entry's own place.
        at = bisect_left(self._heads, entry.rank)
        assert self._heads[at][2] is entry, "every queue's first entry is a head"
        del self._heads[at]

    # --- out ---

    def remove(self, tx_id: bytes) -> list[bytes]:
        """Drop a tx and those of its account that come after it; the ids dropped."""
        tx = self.get(tx_id)
        return [] if tx is None else self._cut(tx.payer, tx.nonce)

    def candidates(self, bytes_max: int, count_max: int) -> list[Tx]:
        """Txs for a block, best first, each account's in order of nonce, within the limits."""
        heads = self._heads
        later: list[_Ranked] = []  # heap of followers of entries that are taken
        found: list[Tx] = []
        room, misses, at, ends = bytes_max, 0, 0, len(heads)
        while len(found) < count_max and misses < FIT_MISSES_MAX:
            if later and (at == ends or later[0] < heads[at]):
                entry = heappop(later)[2]
            elif at < ends:
                entry = heads[at][2]
                at += 1
            else:
                break
            if entry.size > room:
                misses += 1
                continue
            found.append(entry.tx)
            room -= entry.size
            if entry.follower is not None:
                heappush(later, _ranked(entry.follower))
        return found

    def on_commit(
        self,
        included_ids: Iterable[bytes],
        height: int,
        nonces: Mapping[bytes, int],
        balances: Mapping[bytes, int] | None = None,
    ) -> dict[bytes, str]:
        """`height` is final: drop what it included, made void or let expire.

        `nonces` (and `balances`, so that what a payer can no longer pay goes too) are those after
        the block, by payer. Returns the ids dropped without being included, each with the code of
        the refusal that it would get now.
        """
        self.height = height
        included = set(included_ids)
        dropped: dict[bytes, str] = {}
        old_heads: set[int] = set()
        new_heads: list[_Ranked] = []
        for payer, nonce in nonces.items():
            queue = self._queues.get(payer)
            if queue is None or nonce <= queue.base:
                continue
            used = queue.entries[: nonce - queue.base]
            old_heads.add(used[0].rank[1])
            del queue.entries[: nonce - queue.base]
            queue.base = nonce
            for entry in used:
                queue.fees -= entry.tx.fee
                self._forget(entry)
                if entry.tx.id not in included:
                    dropped[entry.tx.id] = "mempool/nonce-used"
            if queue.entries:
                new_heads.append(_ranked(queue.entries[0]))
            else:
                del self._queues[payer]
        if old_heads:
            self._heads = [head for head in self._heads if head[1] not in old_heads]
            self._heads.extend(new_heads)
            self._heads.sort()
        for payer, balance in (balances or {}).items():
            unpayable = self._cut_unpayable(payer, balance)
            dropped.update(dict.fromkeys(unpayable, "mempool/insufficient-balance"))
        dropped.update(dict.fromkeys(self._expire(), "mempool/expired"))
        return dropped

    def _cut_unpayable(self, payer: bytes, balance: int) -> list[bytes]:
        queue = self._queues.get(payer)
        if queue is None or queue.fees <= balance:
            return []
        fees = queue.fees
        nonce = queue.base + len(queue.entries)
        while fees > balance:
            nonce -= 1
            fees -= queue.entries[nonce - queue.base].tx.fee
        return self._cut(payer, nonce)

    def _expire(self) -> list[bytes]:
        """Drop what can not be in the next block, and what would follow it."""
        dropped: list[bytes] = []
        for valid_until in sorted(v for v in self._expiry if v <= self.height):
            for tx_id in list(self._expiry[valid_until]):
                entry = self._entries.get(tx_id)
                if entry is not None:  # it may have gone with one before it
                    dropped += self._cut(entry.tx.payer, entry.tx.nonce)
        return dropped


def _tail(entry: _Entry) -> _Tail:
    return (-entry.rank[0], -entry.rank[1], entry.tx.id)


def _full() -> MempoolRefusal:
    return MempoolRefusal(
        "mempool/full",
        "the mempool is full and the tx does not pay more than the worst pending one",
        retry=True,
    )
