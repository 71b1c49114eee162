"""The mempool's rules, one by one."""

from __future__ import annotations

import pytest

from ledger.mempool import Admission, Mempool, MempoolLimits, MempoolRefusal
from ledger.tx import Tx
from tests.unit.tx_fixture import payer_of, unsigned_tx

RICH = 10**12
ROOM = 10**9


def add(pool: Mempool, tx: Tx, *, nonce: int = 0, balance: int = RICH) -> Admission:
    return pool.add(tx, account_nonce=nonce, account_balance=balance)


def refuse(pool: Mempool, tx: Tx, code: str, *, nonce: int = 0, balance: int = RICH) -> bool:
    """Assert that `tx` is refused with `code` and that the pool is as before; tell `retry`."""
    before = (pool.ids(), pool.bytes, pool.candidates(ROOM, 1000))
    with pytest.raises(MempoolRefusal) as caught:
        add(pool, tx, nonce=nonce, balance=balance)
    assert caught.value.code == code
    assert (pool.ids(), pool.bytes, pool.candidates(ROOM, 1000)) == before
    return caught.value.retry


def test_the_same_tx_is_held_once() -> None:
    pool, tx = Mempool(), unsigned_tx(1, 0)
    assert add(pool, tx) == Admission(True)
    assert add(pool, tx) == Admission(False)
    assert len(pool) == 1
    assert pool.bytes == len(tx.encoded)
    assert tx.id in pool
    assert pool.get(tx.id) is tx
    assert pool.get(bytes(32)) is None


def test_consecutive_nonces_are_held_and_leave_in_order_whatever_they_pay() -> None:
    pool = Mempool()
    txs = [unsigned_tx(1, n, fee=1000 + n) for n in range(7, 17)]
    for tx in txs:
        add(pool, tx, nonce=7)
    assert pool.candidates(ROOM, 100) == txs
    assert pool.next_nonce(payer_of(1), 7) == 17
    assert pool.next_nonce(payer_of(2), 7) == 7


def test_a_gap_is_refused_and_may_be_retried() -> None:
    pool = Mempool()
    add(pool, unsigned_tx(1, 0))
    assert refuse(pool, unsigned_tx(1, 2), "mempool/nonce-gap") is True
    assert refuse(pool, unsigned_tx(2, 1), "mempool/nonce-gap") is True


def test_a_used_nonce_is_refused_for_good() -> None:
    assert refuse(Mempool(), unsigned_tx(1, 4), "mempool/nonce-used", nonce=5) is False


def test_an_account_holds_no_more_than_its_limit() -> None:
    pool = Mempool(MempoolLimits(account_txs_max=3))
    for nonce in range(3):
        add(pool, unsigned_tx(1, nonce))
    assert refuse(pool, unsigned_tx(1, 3), "mempool/account-full") is True


def test_fees_of_all_pending_txs_are_within_the_balance() -> None:
    pool = Mempool()
    add(pool, unsigned_tx(1, 0, fee=600), balance=1000)
    assert refuse(pool, unsigned_tx(1, 1, fee=600), "mempool/insufficient-balance", balance=1000)
    add(pool, unsigned_tx(1, 1, fee=400), balance=1000)


def test_better_paid_bytes_go_first_and_equal_ones_in_order_of_arrival() -> None:
    pool = Mempool()
    cheap, dear = unsigned_tx(1, 0, fee=1000), unsigned_tx(2, 0, fee=3000)
    same, long = unsigned_tx(3, 0, fee=3000), unsigned_tx(4, 0, fee=3001, memo_bytes=1000)
    for tx in (cheap, dear, same, long):
        add(pool, tx)
    assert pool.candidates(ROOM, 100) == [dear, same, cheap, long]
    assert pool.candidates(ROOM, 2) == [dear, same]


def test_candidates_stay_within_the_bytes_and_pass_over_what_does_not_fit() -> None:
    pool = Mempool()
    long, short = unsigned_tx(1, 0, fee=9000, memo_bytes=900), unsigned_tx(2, 0, fee=1000)
    after_long = unsigned_tx(1, 1, fee=9000)
    for tx in (long, after_long, short):
        add(pool, tx)
    assert pool.candidates(len(short.encoded), 10) == [short]


@pytest.mark.parametrize("nonce", [0, 1, 2])
def test_a_tenth_more_replaces_the_pending_tx_of_that_nonce(nonce: int) -> None:
    pool = Mempool()
    txs = [unsigned_tx(1, n, fee=1000) for n in range(3)]
    for tx in txs:
        add(pool, tx)
    refuse(pool, unsigned_tx(1, nonce, fee=1099), "mempool/fee-too-low")
    newer = unsigned_tx(1, nonce, fee=1100)
    assert add(pool, newer) == Admission(True, txs[nonce].id)
    txs[nonce] = newer
    assert pool.candidates(ROOM, 10) == txs
    assert len(pool) == 3
    assert pool.bytes == sum(len(tx.encoded) for tx in txs)


def test_a_replacement_may_not_pay_less_per_byte() -> None:
    pool = Mempool()
    add(pool, unsigned_tx(1, 0, fee=1000))
    refuse(pool, unsigned_tx(1, 0, fee=1200, memo_bytes=900), "mempool/fee-too-low")


def test_when_full_the_worst_last_tx_makes_way_for_a_better_one() -> None:
    pool = Mempool(MempoolLimits(count_max=3))
    first, last = unsigned_tx(1, 0, fee=500), unsigned_tx(1, 1, fee=5000)
    other = unsigned_tx(2, 0, fee=4000)
    for tx in (first, last, other):
        add(pool, tx)
    # `first` pays least of all, but `last` depends on it: only last ones can go.
    assert refuse(pool, unsigned_tx(3, 0, fee=4000), "mempool/full") is True
    assert add(pool, unsigned_tx(3, 0, fee=4500)) == Admission(True, None, (other.id,))
    assert other.id not in pool
    assert len(pool) == 3


def test_a_long_tx_takes_the_place_of_several_or_of_none() -> None:
    short = [unsigned_tx(n, 0, fee=500) for n in range(1, 5)]
    pool = Mempool(MempoolLimits(bytes_max=sum(len(tx.encoded) for tx in short)))
    for tx in short:
        add(pool, tx)
    long = unsigned_tx(9, 0, fee=50_000, memo_bytes=len(short[0].encoded) * 3 // 2)
    assert len(add(pool, long).evicted_ids) == 3
    assert pool.bytes <= pool.limits.bytes_max
    too_long = unsigned_tx(8, 0, fee=10**6, memo_bytes=1024)
    assert refuse(pool, too_long, "mempool/full") is True


def test_eviction_can_take_several_of_one_account_from_its_end() -> None:
    chain = [unsigned_tx(1, n, fee=500) for n in range(4)]
    pool = Mempool(MempoolLimits(bytes_max=sum(len(tx.encoded) for tx in chain)))
    for tx in chain:
        add(pool, tx)
    newcomer = unsigned_tx(2, 0, fee=50_000, memo_bytes=len(chain[0].encoded))
    evicted = add(pool, newcomer).evicted_ids
    assert evicted == tuple(tx.id for tx in reversed(chain[-len(evicted) :]))
    assert pool.candidates(ROOM, 10) == [newcomer, *chain[: -len(evicted)]]


def test_what_was_included_leaves_and_the_rest_moves_up() -> None:
    pool = Mempool()
    txs = [unsigned_tx(1, n) for n in range(4)]
    for tx in txs:
        add(pool, tx)
    dropped = pool.on_commit([txs[0].id, txs[1].id], 1, {payer_of(1): 2}, {payer_of(1): RICH})
    assert dropped == {}
    assert pool.candidates(ROOM, 10) == txs[2:]
    assert refuse(pool, txs[1], "mempool/nonce-used", nonce=2) is False


def test_a_pending_tx_whose_nonce_another_one_used_is_dropped_and_named() -> None:
    pool = Mempool()
    mine = [unsigned_tx(1, 0), unsigned_tx(1, 1)]
    for tx in mine:
        add(pool, tx)
    stranger = unsigned_tx(1, 0, fee=7777)
    assert pool.on_commit([stranger.id], 1, {payer_of(1): 1}) == {mine[0].id: "mempool/nonce-used"}
    assert pool.candidates(ROOM, 10) == [mine[1]]


def test_what_a_payer_can_no_longer_pay_is_dropped_from_its_end() -> None:
    pool = Mempool()
    txs = [unsigned_tx(1, n, fee=1000) for n in range(4)]
    for tx in txs:
        add(pool, tx)
    dropped = pool.on_commit([txs[0].id], 1, {payer_of(1): 1}, {payer_of(1): 1500})
    assert dropped == dict.fromkeys([txs[2].id, txs[3].id], "mempool/insufficient-balance")
    assert pool.candidates(ROOM, 10) == [txs[1]]


def test_a_tx_expires_with_those_that_follow_it() -> None:
    pool = Mempool()
    untils = (9, 5, 9)
    txs = [unsigned_tx(1, n, valid_until=until) for n, until in enumerate(untils)]
    for tx in txs:
        add(pool, tx)
    assert pool.on_commit([], 4, {}) == {}
    assert pool.on_commit([], 5, {}) == dict.fromkeys([txs[1].id, txs[2].id], "mempool/expired")
    assert pool.ids() == [txs[0].id]
    assert refuse(pool, unsigned_tx(2, 0, valid_until=5), "mempool/expired") is False


def test_an_empty_pool_remembers_nothing() -> None:
    pool = Mempool()
    txs = [unsigned_tx(payer, n) for payer in range(1, 20) for n in range(5)]
    for tx in txs:
        add(pool, tx)
    pool.on_commit([tx.id for tx in txs], 1, {payer_of(p): 5 for p in range(1, 20)})
    assert (len(pool), pool.bytes, pool.ids(), pool.candidates(ROOM, 10)) == (0, 0, [], [])
    for tx in txs:
        refuse(pool, tx, "mempool/nonce-used", nonce=5)
