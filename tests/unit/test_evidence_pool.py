"""The evidence pool: who gets in, who is at fault, and that nobody can push the truth out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest

from consensus.accountability import EPOCH_HEIGHTS, epoch_key
from consensus.evidence import Evidence
from ledger.accounts import StateReader
from ledger.errors import InvalidInputError
from ledger.params import ChainParams
from ledger.staking_record import SlashEvent
from ledger.staking_rows import read_validator, validator_key
from ledger.store import CrashStore, MemoryStore, Store
from node import wire
from node.evidence_pool import TIME_LEFT_DIVISOR, EvidencePool, NotNeededError
from tests.unit.block_context import DictState
from tests.unit.chain_fixture import CHAIN_ID, GENESIS, GENESIS_TIME_MS, NETWORK, PARAMS, key_of
from tests.unit.test_accountability import evidence

OPERATORS = [node.operator_key.public_key for node in NETWORK.nodes]
KEYS = [node.validator_key for node in NETWORK.nodes]


@dataclass
class FakeTip:
    """A `Tip` whose state and height the test sets."""

    height: int = 20
    chain_id: str = CHAIN_ID
    head_time_ms: int = GENESIS_TIME_MS + 20_000
    params: ChainParams = PARAMS
    rows: DictState = field(default_factory=lambda: DictState(dict(GENESIS.state_rows())))

    @property
    def tree(self) -> StateReader:
        return self.rows

    def slash(self, number: int, offence: int) -> None:
        record = read_validator(self.rows, OPERATORS[number])
        assert record is not None
        slash = SlashEvent(
            offence_height=offence, slashed_height=self.height, ppm=1, slashed_ms=self.head_time_ms
        )
        row = dataclasses.replace(record, slash=slash).encode()
        self.rows.put(validator_key(OPERATORS[number]), row)


class Node:
    def __init__(self, store: Store | None = None, *, pool_max: int = 256) -> None:
        self.tip = FakeTip()
        self.store = store or MemoryStore()
        self.sent: list[tuple[str | None, bytes]] = []
        self.pool = EvidencePool(self.tip, self.store, self._spread, pool_max=pool_max)

    def _spread(self, peer: str | None, payload: bytes) -> None:
        self.sent.append((peer, payload))


def pair(number: int = 1, height: int = 5) -> Evidence:
    return evidence(height=height, key=KEYS[number])


def forged(item: Evidence) -> Evidence:
    return dataclasses.replace(item, second_signature=item.first_signature)


def test_what_a_peer_sends_is_kept_spread_and_offered_to_a_block() -> None:
    node = Node()
    node.pool.on_message(pair().encode())
    assert len(node.pool) == 1
    assert node.sent == [(None, bytes([wire.TAG_EVIDENCE]) + pair().encode())]
    assert node.pool.pick(node.tip.head_time_ms) == (pair().encode(),)
    node.pool.on_peer_up("late")
    assert node.sent[-1] == ("late", node.sent[0][1])
    node.pool.on_message(pair().encode())
    assert len(node.sent) == 2, "known evidence is not spread again"


@pytest.mark.parametrize(
    "item",
    [
        evidence(key=key_of(3)),
        evidence(key=key_of(3), height=22),
        evidence(height=0),
        forged(pair()),
        evidence(chain_id="other-1"),
    ],
    ids=["stranger", "stranger, two heights ahead", "height 0", "forged", "another chain"],
)
def test_false_evidence_is_the_peers_fault_and_changes_nothing(item: Evidence) -> None:
    node = Node()
    with pytest.raises(InvalidInputError) as raised:
        node.pool.on_message(item.encode())
    assert not isinstance(raised.value, NotNeededError)
    assert (len(node.pool), node.sent) == (0, [])
    assert list(node.store.iterate(prefix=b"")) == []


@pytest.mark.parametrize("data", [b"", b"\x90", pair().encode()[:-1], pair().encode() + b"\0"])
def test_malformed_evidence_is_the_peers_fault(data: bytes) -> None:
    node = Node()
    with pytest.raises(InvalidInputError):
        node.pool.on_message(data)
    assert len(node.pool) == 0


def test_nobody_fills_the_pool_with_heights_that_are_not_reached() -> None:
    """Neither a stranger nor a validator: the heights were free to choose, and never came."""
    node = Node()
    for i in range(300):
        for key in (key_of(3), KEYS[2]):
            node.pool.on_message(evidence(height=2**60 + i, key=key).encode())
    assert len(node.pool) == 0
    node.pool.on_message(pair().encode())
    assert node.pool.pick(0) == (pair().encode(),)


def test_a_validator_that_confesses_for_ever_takes_one_place() -> None:
    node = Node()
    for height in range(1, 20):
        node.pool.on_message(evidence(height=height, key=KEYS[2]).encode())
    node.pool.on_message(pair().encode())
    assert len(node.pool) == 2
    picked = [Evidence.decode(data).first.height for data in node.pool.pick(0)]
    assert picked == [1, 5], "lowest heights first"


def test_a_lower_height_takes_the_place_once_a_block() -> None:
    """Descending pairs cost one sync and one message to all a block."""
    node = Node()
    for height in range(15, 10, -1):
        node.pool.on_message(pair(height=height).encode())
    assert [Evidence.decode(data).first.height for data in node.pool.pick(0)] == [15]
    node.tip.height += 1
    node.pool.on_commit()
    node.pool.on_message(pair(height=3).encode())
    node.pool.on_message(pair(height=2).encode())
    assert [Evidence.decode(data).first.height for data in node.pool.pick(0)] == [3]
    assert len(node.sent) == 2


def test_signatures_are_looked_at_last() -> None:
    """What is not needed costs no signature check, and so is no fault, however forged."""
    node = Node()
    node.pool.on_message(pair(height=5).encode())
    node.tip.slash(2, 3)
    for item in (pair(1, 5), pair(1, 9), pair(2, 3), pair(2, 4), pair(0, 23)):
        with pytest.raises(NotNeededError):
            node.pool.submit(forged(item).encode())
    node.tip.height += 1
    with pytest.raises(InvalidInputError, match="sign"):
        node.pool.submit(forged(pair(1, 4)).encode())


def test_what_was_found_here_has_a_place_that_no_peer_takes() -> None:
    node = Node(pool_max=2)
    node.pool.found(pair(1, 9))
    node.tip.height += 1
    node.pool.on_message(pair(1, 4).encode())
    assert len(node.pool) == 2
    assert node.pool.pick(0) == (pair(1, 4).encode(),), "the lower one says more"
    node.tip.slash(1, 6)  # neither by the one nor by the other
    node.pool.on_commit()
    assert node.pool.pick(0) == (pair(1, 4).encode(),)
    node.tip.slash(1, 4)
    node.pool.on_commit()
    assert len(node.pool) == 0


def test_a_full_pool_lets_in_what_was_found_here_alone() -> None:
    node = Node(pool_max=2)
    node.pool.on_message(pair(0, 5).encode())
    node.pool.on_message(pair(1, 6).encode())
    with pytest.raises(NotNeededError, match="full") as raised:
        node.pool.submit(pair(2, 4).encode())
    assert raised.value.retry
    node.pool.found(pair(2, 4))
    node.pool.found(pair(3, 7))
    node.pool.found(pair(1, 3))  # full of what was found here
    assert node.pool.pick(0) == (pair(2, 4).encode(), pair(3, 7).encode())
    rows = [Evidence.decode(row) for _, row in node.store.iterate(prefix=b"")]
    assert rows == [pair(2, 4), pair(3, 7)] or rows == [pair(3, 7), pair(2, 4)]


def test_it_survives_a_crash_and_keeps_its_places() -> None:
    store = CrashStore()
    node = Node(store, pool_max=2)
    node.pool.on_message(pair(1, 5).encode())
    node.pool.found(pair(2, 6))
    again = Node(store.crash(), pool_max=2)
    assert again.pool.pick(0) == (pair(1, 5).encode(), pair(2, 6).encode())
    again.pool.found(pair(3, 7))
    assert again.pool.pick(0) == (pair(2, 6).encode(), pair(3, 7).encode())


def test_evidence_two_heights_ahead_waits_for_its_height() -> None:
    node = Node()
    node.pool.on_message(pair(height=22).encode())
    assert node.pool.pick(0) == ()
    node.pool.on_commit()
    node.tip.height += 1
    assert node.pool.pick(0) == (pair(height=22).encode(),)


def test_a_block_carries_one_item_an_offender() -> None:
    node = Node()
    node.pool.found(pair(1, 9))
    node.pool.on_message(pair(1, 8).encode())
    assert node.pool.pick(0) == (pair(1, 8).encode(),)


def test_evidence_leaves_when_it_is_too_old_and_enters_with_time_to_spare() -> None:
    """Else a pair that no block can carry any more would push out one that a block can."""
    window_ms = PARAMS.evidence_window_ms
    node = Node()
    node.tip.height = EPOCH_HEIGHTS + 9
    node.tip.rows.put(epoch_key(1), GENESIS_TIME_MS.to_bytes(8, "big"))
    node.tip.head_time_ms = GENESIS_TIME_MS + window_ms - window_ms // TIME_LEFT_DIVISOR + 1
    node.pool.on_message(pair(1, EPOCH_HEIGHTS + 3).encode())
    with pytest.raises(NotNeededError, match="too old"):
        node.pool.submit(pair(1, 5).encode())
    node.pool.found(pair(2, 6))
    assert len(node.pool) == 2
    node.tip.head_time_ms = GENESIS_TIME_MS + window_ms
    assert node.pool.pick(0) == (pair(1, EPOCH_HEIGHTS + 3).encode(),), "in the next block"
    node.tip.head_time_ms += 1
    node.pool.on_commit()
    assert len(node.pool) == 1


def test_a_finding_about_nobody_is_not_kept() -> None:
    node = Node()
    node.pool.found(evidence(key=key_of(3)))
    node.pool.found(pair(height=99))
    assert (len(node.pool), node.sent) == (0, [])
