"""A crash, or a full disk, at any write of a commit leaves the last synced height."""

from __future__ import annotations

from random import Random

import pytest

from ledger.errors import DurabilityError, InvalidInputError
from ledger.state import StateTree, state_key, verify_state_proof
from ledger.state.bulk import bulk_load
from ledger.state.check import check_state
from ledger.store import Batch, CrashStore, SimulatedCrash

HEIGHTS = 12


def run_until_it_stops(store: CrashStore, rng: Random) -> list[bytes]:
    """Commit heights 1 .. HEIGHTS, with unsynced rows of others between; the roots adopted."""
    tree = StateTree.open(store, history_blocks=4, history_ms=0)
    roots = [tree.root]
    try:
        for height in range(1, HEIGHTS + 1):
            noise = Batch()
            noise.put(b"x/%d" % height, b"")
            store.write(noise, sync=False)
            overlay = tree.compute(
                {
                    state_key("a", bytes([rng.randrange(30)])): rng.choice([None, rng.randbytes(3)])
                    for _ in range(6)
                }
            )
            batch = Batch()
            tree.add_rows(overlay, batch, height=height, time_ms=height)
            store.write(batch, sync=True)
            tree.adopt(overlay)
            roots.append(tree.root)
    except (SimulatedCrash, DurabilityError):
        pass
    return roots


@pytest.mark.slow
def test_a_crash_at_each_write_reopens_at_the_last_synced_height() -> None:
    expected = run_until_it_stops(CrashStore(), Random(1))
    assert len(expected) == HEIGHTS + 1
    for write in range(1, 2 * HEIGHTS + 1):
        for side in ("before", "after", "full disk"):
            store = CrashStore()
            if side == "before":
                store.stop_before(write)
            elif side == "after":
                store.stop_after(write)
            else:
                store.fail_after(write - 1)
            roots = run_until_it_stops(store, Random(1))
            assert len(roots) <= HEIGHTS + (side == "after")
            found = store.crash(rng=Random(write))
            tree = StateTree.open(found, history_blocks=4, history_ms=0)
            synced = write // 2 if side == "after" else (write - 1) // 2
            assert (tree.height, tree.root) == (synced, expected[synced])
            report = check_state(found)
            assert (report.height, report.root) == (tree.height, tree.root)
            for height in range(tree.lowest_height, tree.height + 1):
                for n in range(30):
                    key = state_key("a", bytes([n]))
                    value, proof, root = tree.prove_at(height, key)
                    assert root == expected[height]
                    verify_state_proof(root, key, value, proof)


def test_an_interrupted_bulk_load_is_refused_and_can_be_done_again() -> None:
    values = [(state_key("a", n.to_bytes(2, "big")), b"v") for n in range(300)]
    expected = bulk_load(CrashStore(), values, height=5, time_ms=5).root
    for keep in (0, 1):
        store = CrashStore()
        store.stop_before(2)
        with pytest.raises(SimulatedCrash):
            bulk_load(store, values, height=5, time_ms=5)
        found = store.crash(keep=keep)
        if keep:
            with pytest.raises(InvalidInputError, match="not loaded to its end"):
                StateTree.open(found)
        tree = bulk_load(found, values[:200], height=6, time_ms=6)
        again = StateTree.open(found)
        assert (again.height, again.root, again.keys) == (6, tree.root, 200)
        assert tree.root != expected


def test_rows_changed_behind_the_tree_are_noticed_at_start_or_by_the_check() -> None:
    store = CrashStore()
    run_until_it_stops(store, Random(3))
    for prefix, at_start in ((b"s/h", True), (b"s/v", False), (b"s/u", False)):
        for key, value in list(store.iterate(prefix=prefix)):
            if not value or (prefix == b"s/u" and key[-1:] not in (b"v",)):
                continue
            damage = Batch()
            damage.put(key, value[:-1] + bytes([value[-1] ^ 1]))
            store.write(damage, sync=True)
            if at_start:
                with pytest.raises(InvalidInputError):
                    StateTree.open(store)
            with pytest.raises(InvalidInputError):
                check_state(store)
            mend = Batch()
            mend.put(key, value)
            store.write(mend, sync=True)
    check_state(store)
