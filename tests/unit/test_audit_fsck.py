"""The whole-log check finds each kind of damage, and says which part is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from audit.anchor import Anchor, AnchorRecord, anchor_key
from audit.frontier import encode_frontier
from audit.fsck import Check, Kept, LogHead, check_log
from audit.rows import INDEX_ANCHOR, TILE, u64
from audit.tree_store import entry_key, tile_key
from ledger import codec
from ledger.merkle import EMPTY_ROOT
from ledger.store import Batch, MemoryStore
from ledger.tx import Message, Tx
from tests.vectors.audit_chain import ANCHOR_KEY, CHAIN_ID, Chain, create_stream

ANCHORS_A_BLOCK = 7
SIZE = 256 * 3 + 40


@dataclass
class Log:
    """A small chain's log, with the head after each block."""

    chain: Chain
    heads: dict[int, LogHead]
    streams: list[bytes]

    def kept(self) -> Kept:
        """A copy to damage."""
        store = MemoryStore()
        batch = Batch()
        for key, value in self.chain.store.iterate(prefix=b""):
            batch.put(key, value)
        store.write(batch, sync=True)
        size, root = self.chain.log.size_and_root(self.chain.frontier)
        return Kept(
            store=store,
            state=Rows(dict(self.chain.rows)),
            head=(size, root),
            head_at=self.heads.get,
            frontier=self.chain.frontier,
            signed=(500, self.chain.tree.root(500)),
        )


class Rows(dict[bytes, bytes]):
    """State rows."""


def make_log() -> Log:
    chain = Chain()
    streams = [create_stream(chain, bytes([i]) * 16) for i in (1, 2)]
    heads: dict[int, LogHead] = {}
    seqs = [0, 0]
    while (size := chain.log.size_and_root(chain.frontier)[0]) < SIZE:
        txs = []
        for i in range(min(ANCHORS_A_BLOCK, SIZE - size)):
            which = (size + i) % 3 == 0
            anchor = Anchor(
                stream=streams[which], seq=seqs[which], count=1 + i, batch_root=bytes([i]) * 32
            )
            seqs[which] += 1
            txs.append(
                Tx.sign(
                    ANCHOR_KEY,
                    chain_id=CHAIN_ID,
                    nonce=1000 + size + i,
                    fee=1,
                    valid_until=2**40,
                    messages=[Message("audit/anchor", anchor.encode())],
                )
            )
        assert set(chain.add_block(txs).values()) == {""}
        heads[chain.height] = chain.log.size_and_root(chain.frontier)
    return Log(chain, heads, streams)


LOG = make_log()


def damaged(kept: Kept, *changes: tuple[bytes, bytes | None]) -> Kept:
    batch = Batch()
    for key, value in changes:
        if value is None:
            batch.delete(key)
        else:
            batch.put(key, value)
    assert isinstance(kept.store, MemoryStore)
    kept.store.write(batch, sync=True)
    return kept


def get(kept: Kept, key: bytes) -> bytes:
    value = kept.store.get(key)
    assert value is not None
    return value


def flipped(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def faults_of(kept: Kept) -> dict[str, Check]:
    return {check.name: check for check in check_log(kept) if not check.is_ok}


def test_whole_log_passes_every_check_and_tells_its_progress() -> None:
    told: list[int] = []
    checks = check_log(LOG.kept(), told.append)
    assert [check for check in checks if not check.is_ok] == []
    assert sum(told) == SIZE
    counts = {check.name: check.count for check in checks}
    assert counts == {
        "entries": SIZE,
        "tiles": 4 + 1,
        "headers": len(LOG.heads) + 1,
        "frontier": 1,
        "anchors": SIZE,
        "index": SIZE + 1,
        "signed": 1,
    }
    assert checks[0].text == f"{checks[0].what}: {SIZE} checked"


def test_empty_log_passes() -> None:
    empty = Kept(
        store=MemoryStore(),
        state=Rows(),
        head=(0, EMPTY_ROOT),
        head_at=lambda _: None,
        frontier=b"",
        signed=(0, EMPTY_ROOT),
    )
    assert faults_of(empty) == {}
    assert set(faults_of(replace(empty, signed=(0, bytes(32))))) == {"signed"}


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, SIZE])
def test_what_was_signed_last_is_checked_at_any_size(size: int) -> None:
    kept = LOG.kept()
    root = LOG.chain.tree.root(size)
    assert faults_of(replace(kept, signed=(size, root))) == {}
    assert set(faults_of(replace(kept, signed=(size, flipped(root))))) == {"signed"}
    assert set(faults_of(replace(kept, signed=(SIZE + 1, root)))) == {"signed"}


def _record(index: int) -> AnchorRecord:
    return AnchorRecord.decode(get(LOG.kept(), entry_key(index)))


def _index_row(index: int) -> bytes:
    return INDEX_ANCHOR + _record(index).stream + u64(index)


def _other_height(kept: Kept, index: int, height: int) -> Kept:
    record = replace(_record(index), height=height)
    return damaged(kept, (entry_key(index), record.encode()))


DAMAGES: dict[str, tuple[Callable[[Kept], Kept], set[str], str]] = {
    "an entry changed": (
        lambda k: damaged(k, (entry_key(300), flipped(get(k, entry_key(300)), -40))),
        {"tiles", "headers", "frontier", "signed", "anchors"},
        "tile 0/1 differs",
    ),
    "the last entry changed": (
        lambda k: damaged(k, (entry_key(SIZE - 1), replace(_record(SIZE - 1), time_ms=1).encode())),
        {"tiles", "headers", "frontier"},
        "tile 0/3 differs",
    ),
    "an entry that is no record": (
        lambda k: damaged(k, (entry_key(SIZE - 1), b"what?")),
        {"entries", "tiles", "headers", "frontier"},
        f"entry {SIZE - 1} is no anchor's record",
    ),
    "an entry missing": (
        lambda k: damaged(k, (entry_key(700), None)),
        {"entries", "tiles", "headers", "frontier", "index"},
        "entries 700..700 are missing",
    ),
    "the last entries missing": (
        lambda k: damaged(k, (entry_key(SIZE - 1), None), (entry_key(SIZE - 2), None)),
        {"entries", "tiles", "headers", "frontier", "index"},
        f"entries {SIZE - 2}..{SIZE - 1} are missing",
    ),
    "an entry too many": (
        lambda k: damaged(k, (entry_key(SIZE), get(k, entry_key(0)))),
        {"entries"},
        f"entry {SIZE} is beyond",
    ),
    "heights that fall": (
        lambda k: _other_height(k, SIZE - 1, 3),
        {"entries", "tiles", "headers", "frontier"},
        f"entry {SIZE - 1} is of height 3",
    ),
    "a full tile changed": (
        lambda k: damaged(k, (tile_key(0, 1), flipped(get(k, tile_key(0, 1)), 100))),
        {"tiles"},
        "tile 0/1 differs",
    ),
    "a partial tile changed": (
        lambda k: damaged(k, (tile_key(0, 3), flipped(get(k, tile_key(0, 3))))),
        {"tiles"},
        "tile 0/3 differs",
    ),
    "a tile cut short": (
        lambda k: damaged(k, (tile_key(0, 3), get(k, tile_key(0, 3))[:-32])),
        {"tiles"},
        "tile 0/3 has 1248 B for 40 hashes",
    ),
    "a tile of level 1 changed": (
        lambda k: damaged(k, (tile_key(1, 0), flipped(get(k, tile_key(1, 0))))),
        {"tiles"},
        "tile 1/0 differs",
    ),
    "a tile missing": (
        lambda k: damaged(k, (tile_key(0, 2), None)),
        {"tiles"},
        "tile 0/2 is missing",
    ),
    "a tile too many": (
        lambda k: damaged(k, (tile_key(2, 0), bytes(32)), (TILE + b"x", b"")),
        {"tiles"},
        "tile 2/0 is beyond the log",
    ),
    "another head": (
        lambda k: replace(k, head=(SIZE, bytes(32))),
        {"headers"},
        "the newest block has another root",
    ),
    "a head of a larger log": (
        lambda k: replace(k, head=(SIZE + 1, k.head[1])),
        {"entries", "headers"},
        f"entries {SIZE}..{SIZE} are missing",
    ),
    "another header in between": (
        lambda k: replace(
            k, head_at=lambda h: (LOG.heads[h][0], bytes(32)) if h == 50 else LOG.heads[h]
        ),
        {"headers"},
        "block 50 has another root",
    ),
    "a header of another size": (
        lambda k: replace(
            k, head_at=lambda h: (LOG.heads[h][0] + 1, bytes(32)) if h == 50 else LOG.heads[h]
        ),
        {"headers"},
        "block 50 has size",
    ),
    "another frontier": (
        lambda k: replace(k, frontier=flipped(k.frontier)),
        {"frontier"},
        "not the frontier",
    ),
    "no frontier": (lambda k: replace(k, frontier=encode_frontier(0, [])), {"frontier"}, ""),
    "a state row missing": (
        lambda k: replace(k, state=_without(k, 77)),
        {"anchors"},
        "that of entry 77 (seq",
    ),
    "a state row that names another entry": (
        lambda k: replace(k, state=_without(k, 77, codec.encode([78, 1, bytes(32)]))),
        {"anchors"},
        "that of entry 77 (seq",
    ),
    "a state row that is none": (
        lambda k: replace(k, state=_without(k, 77, b"\xff")),
        {"anchors"},
        "",
    ),
    "an index row missing": (
        lambda k: damaged(k, (_index_row(5), None)),
        {"index"},
        "entry 5 is not in it",
    ),
    "an index row too many": (
        lambda k: damaged(k, (INDEX_ANCHOR + bytes(32) + u64(5), b"")),
        {"index"},
        f"{SIZE + 1} rows for {SIZE} entries",
    ),
}


def _without(kept: Kept, index: int, row: bytes | None = None) -> Rows:
    record = _record(index)
    key = anchor_key(record.stream, record.submitter, record.seq)
    assert isinstance(kept.state, Rows)
    rows = Rows(kept.state)
    del rows[key]
    if row is not None:
        rows[key] = row
    return rows


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_where_it_is(damage: str) -> None:
    spoil, names, example = DAMAGES[damage]
    found = faults_of(spoil(LOG.kept()))
    assert set(found) == names
    assert any(example in check.text for check in found.values())


def test_many_faults_are_counted_and_few_are_told() -> None:
    kept = damaged(LOG.kept(), *((_index_row(index), None) for index in range(10)))
    check = faults_of(kept)["index"]
    assert check.faults == 11
    assert check.text.count(";") == 3
    assert check.text.endswith("and 8 more)")
