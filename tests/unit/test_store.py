"""The stores mean the same, and fail the way the doc says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ledger.errors import DurabilityError, InvalidInputError, UsageError
from ledger.store import Batch, CrashStore, LevelStore, MemoryStore, SimulatedCrash, Store

KEYS = [b"a", b"a\x00", b"a\xff", b"a\xff\xff", b"b", b"ba", b"\xff", b"\xff\xff"]


def make_batch(**rows: bytes | None) -> Batch:
    batch = Batch()
    for key, value in rows.items():
        if value is None:
            batch.delete(key.encode())
        else:
            batch.put(key.encode(), value)
    return batch


@pytest.fixture(params=["level", "memory", "crash"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store
    if request.param == "level":
        made = LevelStore.open(tmp_path / "db")
    else:
        made = MemoryStore() if request.param == "memory" else CrashStore()
    yield made
    made.close()


def test_a_batch_is_applied_in_order(store: Store) -> None:
    batch = Batch()
    batch.put(b"k", b"1")
    batch.delete(b"k")
    batch.put(b"k", b"2")
    batch.put(b"gone", b"")
    batch.delete(b"gone")
    batch.delete(b"never")
    assert len(batch) == 6
    assert list(batch)[:2] == [(b"k", b"1"), (b"k", None)]
    store.write(batch, sync=True)
    assert store.get(b"k") == b"2"
    assert store.get(b"gone") is None
    assert store.size_bytes() > 0


def test_iterate_gives_exactly_the_rows_of_prefix_and_start_in_both_directions(
    store: Store,
) -> None:
    batch = Batch()
    for key in KEYS:
        batch.put(key, b"v" + key)
    store.write(batch, sync=False)
    for prefix in [b"", *KEYS, b"c", b"\xff\xff\xff"]:
        expected = [(key, b"v" + key) for key in sorted(KEYS) if key.startswith(prefix)]
        assert list(store.iterate(prefix=prefix)) == expected
        assert list(store.iterate(prefix=prefix, reverse=True)) == expected[::-1]
        for start in [*KEYS, b"0", b"a\x01"]:
            above = [row for row in expected if row[0] >= start]
            below = [row for row in expected if row[0] <= start]
            assert list(store.iterate(prefix=prefix, start=start)) == above
            assert list(store.iterate(prefix=prefix, start=start, reverse=True)) == below[::-1]


def test_iteration_and_views_do_not_see_later_writes(store: Store) -> None:
    store.write(make_batch(a=b"1", b=b"1"), sync=True)
    rows = store.iterate(prefix=b"")
    view = store.view()
    store.write(make_batch(a=b"2", b=None, c=b"2"), sync=True)
    assert list(rows) == [(b"a", b"1"), (b"b", b"1")]
    assert view.get(b"a") == b"1"
    assert view.get(b"c") is None
    assert list(view.iterate(prefix=b"b")) == [(b"b", b"1")]
    view.close()
    assert store.get(b"b") is None


def test_a_closed_store_is_misuse(store: Store) -> None:
    store.close()
    with pytest.raises(UsageError):
        store.get(b"a")
    with pytest.raises(UsageError):
        store.iterate(prefix=b"")
    with pytest.raises(UsageError):
        store.write(Batch(), sync=True)
    with pytest.raises(UsageError):
        store.view()


def test_level_store_keeps_rows_over_a_reopen(tmp_path: Path) -> None:
    store = LevelStore.open(tmp_path / "db")
    store.write(make_batch(a=b"1"), sync=True)
    store.close()
    store = LevelStore.open(tmp_path / "db", create=False)
    assert store.get(b"a") == b"1"
    store.close()


def test_level_store_names_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no store in"):
        LevelStore.open(tmp_path / "db", create=False)
    with pytest.raises(UsageError):
        LevelStore.open(tmp_path / "no" / "parent")


@pytest.mark.slow
def test_level_store_names_a_folder_in_use_by_another_process(tmp_path: Path) -> None:
    code = (
        "import plyvel,sys; db=plyvel.DB(sys.argv[1], create_if_missing=True);"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(UsageError, match="in use by another process") as caught:
            LevelStore.open(tmp_path / "db")
        assert caught.value.retry
        other.communicate(b"")


def test_level_store_names_damage(tmp_path: Path) -> None:
    store = LevelStore.open(tmp_path / "db")
    store.write(make_batch(a=b"1"), sync=True)
    store.close()
    (tmp_path / "db" / "CURRENT").write_bytes(b"MANIFEST-999999\n")
    with pytest.raises(InvalidInputError, match="damaged"):
        LevelStore.open(tmp_path / "db")


def test_an_unsynced_suffix_can_be_lost_but_never_a_middle_write() -> None:
    for keep in range(4):
        store = CrashStore()
        store.write(make_batch(a=b"0"), sync=False)
        store.write(make_batch(b=b"1"), sync=True)
        for number in range(3):
            store.write(make_batch(**{f"c{number}": b"2", "a": b"3"}), sync=False)
        assert store.unsynced == 3
        found = store.crash(keep=keep)
        assert [row for row, _ in found.iterate(prefix=b"c")] == [b"c0", b"c1", b"c2"][:keep]
        assert found.get(b"a") == (b"3" if keep else b"0")
        assert found.get(b"b") == b"1"
        assert found.crash().get(b"b") == b"1"
        with pytest.raises(UsageError):
            store.get(b"a")


def test_a_seed_decides_what_a_crash_keeps() -> None:
    def survivors(seed: int) -> int:
        store = CrashStore()
        for number in range(10):
            store.write(make_batch(**{str(number): b""}), sync=False)
        return len(list(store.crash(rng=Random(seed)).iterate(prefix=b"")))

    counts = [survivors(seed) for seed in range(40)]
    assert counts == [survivors(seed) for seed in range(40)]
    assert len(set(counts)) > 5


def test_a_full_disk_fails_this_write_and_all_after_it() -> None:
    store = CrashStore()
    store.fail_after(1)
    store.write(make_batch(a=b"1"), sync=True)
    for _ in range(2):
        with pytest.raises(DurabilityError):
            store.write(make_batch(a=b"2"), sync=True)
    assert store.get(b"a") == b"1"
    assert store.crash().get(b"a") == b"1"


def test_the_process_can_be_stopped_on_either_side_of_a_write() -> None:
    store = CrashStore()
    store.stop_before(2)
    store.write(make_batch(a=b"1"), sync=True)
    with pytest.raises(SimulatedCrash):
        store.write(make_batch(a=b"2"), sync=True)
    found = store.crash()
    assert found.get(b"a") == b"1"
    found.stop_after(1)
    with pytest.raises(SimulatedCrash):
        found.write(make_batch(a=b"3"), sync=True)
    assert found.crash().get(b"a") == b"3"
