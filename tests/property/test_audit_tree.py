"""The log's tree against the recursive definition of RFC 6962, section 2.1."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.frontier import FrontierLog
from audit.second_opinion import verify_inclusion_by_pymerkle
from audit.tiles import compute_tile_width
from audit.tree_store import LogTree, commit_rows
from ledger.errors import DurabilityError, InvalidInputError
from ledger.merkle import verify_consistency_proof, verify_inclusion_proof
from ledger.store import Batch, MemoryStore

IS_SOAK = os.environ.get("ZYNK_SOAK") == "1"
SIZE_MAX = 600 if IS_SOAK else 130


def entry(index: int) -> bytes:
    return b"entry %d" % index


@lru_cache(maxsize=2**20)
def naive_root(start: int, end: int) -> bytes:
    """MTH(D[start:end])."""
    if start == end:
        return hashlib.sha256(b"").digest()
    if end - start == 1:
        return hashlib.sha256(b"\0" + entry(start)).digest()
    k = naive_split(end - start)
    left, right = naive_root(start, start + k), naive_root(start + k, end)
    return hashlib.sha256(b"\1" + left + right).digest()


def naive_split(count: int) -> int:
    k = 1
    while 2 * k < count:
        k *= 2
    return k


def naive_path(m: int, start: int, end: int) -> list[bytes]:
    """PATH(m, D[start:end])."""
    if end - start == 1:
        return []
    k = naive_split(end - start)
    if m < k:
        return [*naive_path(m, start, start + k), naive_root(start + k, end)]
    return [*naive_path(m - k, start + k, end), naive_root(start, start + k)]


def naive_subproof(m: int, start: int, end: int, is_known: bool) -> list[bytes]:
    """SUBPROOF(m, D[start:end], b)."""
    if m == end - start:
        return [] if is_known else [naive_root(start, end)]
    k = naive_split(end - start)
    if m <= k:
        return [*naive_subproof(m, start, start + k, is_known), naive_root(start + k, end)]
    return [*naive_subproof(m - k, start + k, end, False), naive_root(start, start + k)]


def append(store: MemoryStore, old_size: int, count: int) -> None:
    batch = Batch()
    for key, value in commit_rows(store, old_size, [entry(old_size + i) for i in range(count)]):
        batch.put(key, value)
    store.write(batch, sync=True)


def log_of(*counts: int) -> MemoryStore:
    store, size = MemoryStore(), 0
    for count in counts:
        append(store, size, count)
        size += count
    return store


def test_frontier_has_the_naive_root_for_every_size_one_by_one() -> None:
    log, frontier = FrontierLog(), b""
    assert log.size_and_root(frontier) == (0, naive_root(0, 0))
    for size in range(1, SIZE_MAX + 1):
        frontier = log.append(frontier, [entry(size - 1)])
        assert log.size_and_root(frontier) == (size, naive_root(0, size))


@given(st.lists(st.integers(0, 700), max_size=8))
@settings(deadline=None, max_examples=300 if IS_SOAK else 30)
def test_frontier_does_not_depend_on_how_entries_were_grouped(counts: list[int]) -> None:
    log, frontier, size = FrontierLog(), b"", 0
    for count in counts:
        frontier = log.append(frontier, [entry(size + i) for i in range(count)])
        size += count
        assert log.size_and_root(frontier) == (size, naive_root(0, size))
    assert frontier == log.append(b"", [entry(i) for i in range(size)])


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=10_000 if IS_SOAK else 300)
def test_malformed_frontier_is_invalid_input(data: bytes) -> None:
    try:
        size, _ = FrontierLog().size_and_root(data)
    except InvalidInputError:
        return
    assert len(data) == (8 + 32 * size.bit_count() if size else 0)


@pytest.mark.slow
def test_every_inclusion_proof_is_the_one_of_the_rfc_and_two_verifiers_accept_it() -> None:
    tree = LogTree(log_of(*[1] * SIZE_MAX))
    for size in range(1, SIZE_MAX + 1):
        root = tree.root(size)
        assert root == naive_root(0, size)
        for index in range(size):
            path = tree.inclusion_proof(index, size)
            assert path == naive_path(index, 0, size)
            if size <= 40:
                leaf = naive_root(index, index + 1)
                verify_inclusion_proof(root, size, index, leaf, path)
                verify_inclusion_by_pymerkle(root, size, index, leaf, path)


@pytest.mark.slow
def test_every_consistency_proof_is_the_one_of_the_rfc() -> None:
    tree = LogTree(log_of(SIZE_MAX))
    for new in range(1, SIZE_MAX + 1):
        for old in range(1, new + 1):
            assert tree.consistency_proof(old, new) == naive_subproof(old, 0, new, True)


@pytest.mark.slow
def test_every_consistency_proof_verifies_and_no_altered_one() -> None:
    tree = LogTree(log_of(70))
    for new in range(1, 71):
        for old in range(1, new + 1):
            path = tree.consistency_proof(old, new)
            roots = naive_root(0, old), naive_root(0, new)
            verify_consistency_proof(roots[0], old, roots[1], new, path)
            for bad in wrong_consistency(*roots, old, new, path):
                with pytest.raises(InvalidInputError):
                    verify_consistency_proof(*bad)


def wrong_consistency(
    old_root: bytes, new_root: bytes, old: int, new: int, path: list[bytes]
) -> list[tuple[bytes, int, bytes, int, list[bytes]]]:
    """What must be refused: another root, size, a path that lacks, repeats or alters a hash."""
    other = hashlib.sha256(b"other").digest()
    bad = [
        (other, old, new_root, new, path),
        (old_root, old, other, new, path),
        (old_root, old, new_root, new, [*path, other]),
        (old_root, new + 1, new_root, new, path),
        (old_root, 0, new_root, new, path),
    ]
    for at in range(len(path)):
        bad.append((old_root, old, new_root, new, path[:at] + path[at + 1 :]))
        bad.append((old_root, old, new_root, new, [*path[:at], other, *path[at + 1 :]]))
        bad.append((old_root, old, new_root, new, [*path[:at], other[:-1], *path[at + 1 :]]))
    return bad


@pytest.mark.slow
@given(st.data())
@settings(deadline=None, max_examples=50 if IS_SOAK else 4)
def test_random_larger_logs_prove_any_size_they_ever_had(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 1500), min_size=1, max_size=5))
    counts.append(data.draw(st.integers(1, 70_000)))
    tree, size = LogTree(log_of(*counts)), sum(counts)
    for _ in range(10):
        new = data.draw(st.integers(1, size))
        old = data.draw(st.integers(1, new))
        assert tree.root(new) == naive_root(0, new)
        assert tree.inclusion_proof(old - 1, new) == naive_path(old - 1, 0, new)
        assert tree.consistency_proof(old, new) == naive_subproof(old, 0, new, True)


def test_tiles_hold_level_by_level_what_the_rfc_says() -> None:
    store = log_of(200, 300, 66_000)
    size = 66_500
    tree = LogTree(store)
    for level, number in ((0, 0), (0, 259), (1, 0), (1, 1), (2, 0)):
        width = compute_tile_width(size, level, number)
        tile = tree.tile(level, number, size)
        assert len(tile) == 32 * width > 0
        span, first = 256**level, number * 256
        for place in (0, width - 1):
            start = (first + place) * span
            assert tile[32 * place : 32 * place + 32] == naive_root(start, start + span)
    assert tree.tile(1, 2, size) == b""
    assert tree.tile(0, 0, 100) == tree.tile(0, 0, size)[: 32 * 100]
    assert tree.entries(259, size) == [entry(i) for i in range(259 * 256, size)]


def test_a_grown_tree_is_seen_by_a_reader_that_was_there_before() -> None:
    store = log_of(300)
    tree = LogTree(store)
    assert tree.root(300) == naive_root(0, 300)
    append(store, 300, 300)
    assert tree.root(600) == naive_root(0, 600)
    assert tree.root(300) == naive_root(0, 300)


def test_a_missing_tile_is_an_error_and_not_another_root() -> None:
    store = log_of(300)
    with pytest.raises(DurabilityError):
        commit_rows(store, 900, [b"x"])
    with pytest.raises(DurabilityError):
        LogTree(store).root(700)


def test_proofs_read_few_rows_of_a_reopened_log() -> None:
    class Counting:
        """Counts reads."""

        def __init__(self, store: MemoryStore) -> None:
            self.store, self.reads = store, 0

        def get(self, key: bytes) -> bytes | None:
            self.reads += 1
            return self.store.get(key)

        def iterate(self, **_: object) -> None:
            raise AssertionError("proofs need no iteration")

    counting = Counting(log_of(70_000))
    LogTree(counting).inclusion_proof(12_345, 70_000)  # type: ignore[arg-type]  # never iterates
    assert counting.reads <= 6
