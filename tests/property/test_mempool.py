"""The mempool against a naive twin that keeps one list and searches it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.mempool import Mempool, MempoolLimits, MempoolRefusal
from ledger.tx import Tx
from tests.property.campaign import examples
from tests.unit.tx_fixture import payer_of, unsigned_tx

LIMITS = MempoolLimits(count_max=8, bytes_max=3000, account_txs_max=5)
BALANCE = 12_000
PAYERS = 4


def rate(tx: Tx) -> int:
    return tx.fee * 2**20 // len(tx.encoded)


@dataclass
class Twin:
    """(arrival, tx) pairs; account nonces as the chain has them."""

    nonces: dict[bytes, int]
    pending: list[tuple[int, Tx]] = field(default_factory=list)
    height: int = 0
    arrivals: int = 0

    def of(self, payer: bytes) -> list[Tx]:
        return sorted((t for _, t in self.pending if t.payer == payer), key=lambda t: t.nonce)

    def bytes(self) -> int:
        return sum(len(t.encoded) for _, t in self.pending)

    def drop(self, txs: list[Tx]) -> None:
        self.pending = [(a, t) for a, t in self.pending if t not in txs]

    def add(self, tx: Tx) -> str:
        own = self.of(tx.payer)
        base = self.nonces[tx.payer]
        if tx.id in [t.id for _, t in self.pending]:
            return "known"
        if tx.valid_until <= self.height:
            return "mempool/expired"
        if tx.nonce < base:
            return "mempool/nonce-used"
        if tx.nonce > base + len(own):
            return "mempool/nonce-gap"
        if tx.nonce >= base + LIMITS.account_txs_max:
            return "mempool/account-full"
        same = [t for t in own if t.nonce == tx.nonce]
        if same:
            old = same[0]
            if tx.fee * 100 < old.fee * 110 or rate(tx) < rate(old):
                return "mempool/fee-too-low"
            if self.bytes() - len(old.encoded) + len(tx.encoded) > LIMITS.bytes_max:
                return "mempool/full"
            if sum(t.fee for t in own) - old.fee + tx.fee > BALANCE:
                return "mempool/insufficient-balance"
            self.drop(same)
        else:
            if sum(t.fee for t in own) + tx.fee > BALANCE:
                return "mempool/insufficient-balance"
            victims = self.victims(tx)
            if victims is None:
                return "mempool/full"
            self.drop(victims)
        self.pending.append((self.arrivals, tx))
        self.arrivals += 1
        return "added"

    def victims(self, tx: Tx) -> list[Tx] | None:
        left = list(self.pending)
        found: list[Tx] = []
        while (
            len(left) + 1 > LIMITS.count_max
            or sum(len(t.encoded) for _, t in left) + len(tx.encoded) > LIMITS.bytes_max
        ):
            tails = [
                (rate(t), -a, t)
                for a, t in left
                if not any(u.payer == t.payer and u.nonce > t.nonce for _, u in left)
            ]
            if not tails:
                return None
            worst = min(tails, key=lambda item: item[:2])
            if worst[0] >= rate(tx) or worst[2].payer == tx.payer:
                return None
            found.append(worst[2])
            left = [(a, t) for a, t in left if t is not worst[2]]
        return found

    def candidates(self, bytes_max: int, count_max: int) -> list[Tx]:
        done: list[Tx] = []
        stopped: set[bytes] = set()
        room = bytes_max
        while len(done) < count_max:
            ready = [
                (-rate(t), a, t)
                for a, t in self.pending
                if t not in done
                and t.payer not in stopped
                and not any(
                    u.payer == t.payer and u.nonce < t.nonce and u not in done
                    for _, u in self.pending
                )
            ]
            if not ready:
                break
            best = min(ready, key=lambda item: item[:2])[2]
            if len(best.encoded) > room:
                stopped.add(best.payer)
                continue
            done.append(best)
            room -= len(best.encoded)
        return done

    def commit(self, included: list[Tx]) -> None:
        self.height += 1
        for tx in included:
            self.nonces[tx.payer] = tx.nonce + 1
        gone = [t for _, t in self.pending if t.nonce < self.nonces[t.payer]]
        self.drop(gone)
        for _, tx in sorted(self.pending, key=lambda item: item[1].nonce):
            if tx.valid_until <= self.height:
                self.drop([t for t in self.of(tx.payer) if t.nonce >= tx.nonce])


ADD = st.tuples(
    st.just("add"),
    st.integers(0, PAYERS - 1),
    st.integers(-1, 5),
    st.integers(500, 6000),
    st.integers(0, 600),
    st.integers(0, 6),
)
COMMIT = st.tuples(st.just("commit"), st.integers(0, 4), st.integers(0, 2000))
STRANGER = st.tuples(st.just("stranger"), st.integers(0, PAYERS - 1))


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(ADD | ADD | ADD | COMMIT | STRANGER, max_size=40))
def test_the_pool_does_what_its_naive_twin_does(steps: list[tuple[object, ...]]) -> None:
    pool = Mempool(LIMITS)
    twin = Twin({payer_of(p): 0 for p in range(PAYERS)})
    for step in steps:
        match step:
            case ("add", int(payer), int(ahead), int(fee), int(memo), int(until)):
                nonce = max(twin.nonces[payer_of(payer)] + ahead, 0)
                tx = unsigned_tx(
                    payer, nonce, fee=fee, memo_bytes=memo, valid_until=twin.height + until
                )
                assert _add(pool, tx, twin.nonces[tx.payer]) == twin.add(tx)
            case ("commit", int(count), int(size)):
                _commit(pool, twin, pool.candidates(size, count))
            case ("stranger", int(payer)):  # a tx that this pool never saw uses the next nonce
                tx = unsigned_tx(payer, twin.nonces[payer_of(payer)], fee=1)
                _commit(pool, twin, [tx])
        assert sorted(pool.ids()) == sorted(t.id for _, t in twin.pending)
        assert pool.bytes == twin.bytes() <= LIMITS.bytes_max
        assert len(pool) == len(twin.pending) <= LIMITS.count_max
        for count, size in ((100, 10**6), (3, 900)):
            assert pool.candidates(size, count) == twin.candidates(size, count)


def _add(pool: Mempool, tx: Tx, nonce: int) -> str:
    try:
        admission = pool.add(tx, account_nonce=nonce, account_balance=BALANCE)
    except MempoolRefusal as refusal:
        return refusal.code
    return "added" if admission.added else "known"


def _commit(pool: Mempool, twin: Twin, included: list[Tx]) -> None:
    twin.commit(included)
    nonces = {tx.payer: twin.nonces[tx.payer] for tx in included}
    before = set(pool.ids())
    dropped = pool.on_commit(
        [t.id for t in included], twin.height, nonces, dict.fromkeys(nonces, BALANCE)
    )
    assert before - set(pool.ids()) - {t.id for t in included} == set(dropped)
