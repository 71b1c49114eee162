"""The sign guard on a real file system: what it refuses, what it survives."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from consensus.guard import GuardRecord, GuardUnusableError
from consensus.statement import StatementKind
from ledger.errors import DurabilityError, UsageError
from node.guard import GuardFile

CHAIN = "zynk-test"
KEY = b"\x01" * 32
A, B = b"\xaa" * 32, b"\xbb" * 32


def record(kind: StatementKind, height: int, view: int, block_hash: bytes = b"") -> GuardRecord:
    return GuardRecord(kind=kind, height=height, view=view, block_hash=block_hash)


N, X, F, P = (
    StatementKind.NOTARIZE,
    StatementKind.NULLIFY,
    StatementKind.FINALIZE,
    StatementKind.PROPOSE,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guard"


def test_records_are_there_after_opening_again(path: Path) -> None:
    with GuardFile.create(path, CHAIN, KEY) as guard:
        guard.append([record(P, 5, 1, A), record(N, 5, 1, A)])
        guard.append([record(F, 5, 1, A)])
        guard.append([record(X, 6, 2)])
    with GuardFile.open(path, CHAIN, KEY) as guard:
        assert guard.records_at(5) == (record(P, 5, 1, A), record(N, 5, 1, A), record(F, 5, 1, A))
        assert guard.highest() == (6, 2)
        assert guard.floor == (0, 0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (record(N, 1, 1, A), record(N, 1, 1, B)),
        (record(F, 1, 1, A), record(F, 1, 1, B)),
        (record(P, 1, 1, A), record(P, 1, 1, B)),
        (record(F, 1, 1, A), record(X, 1, 1)),
        (record(X, 1, 1), record(F, 1, 1, A)),
        (record(X, 1, 1), record(N, 1, 1, A)),
        (record(N, 1, 1, A), record(F, 1, 1, B)),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_contradiction_is_refused_and_nothing_is_written(
    path: Path, first: GuardRecord, second: GuardRecord, at_once: bool
) -> None:
    with GuardFile.create(path, CHAIN, KEY) as guard:
        if not at_once:
            guard.append([first])
        size = path.stat().st_size
        with pytest.raises(UsageError, match="against the sign guard"):
            guard.append([first, second])
        assert path.stat().st_size == size
        guard.append([first])
        assert guard.records_at(1) == (first,)


def test_nullify_after_notarize_and_a_repeated_record_are_accepted(path: Path) -> None:
    with GuardFile.create(path, CHAIN, KEY) as guard:
        guard.append([record(N, 1, 1, A), record(X, 1, 1), record(N, 1, 1, A)])
        size = path.stat().st_size
        guard.append([record(X, 1, 1)])
        assert path.stat().st_size == size


def test_a_missing_guard_says_what_to_do(path: Path) -> None:
    with pytest.raises(GuardUnusableError, match="there is no sign guard"):
        GuardFile.open(path, CHAIN, KEY)
    assert not path.exists()


def test_creating_over_an_existing_guard_is_refused(path: Path) -> None:
    GuardFile.create(path, CHAIN, KEY).close()
    before = path.read_bytes()
    with pytest.raises(GuardUnusableError, match="forget"):
        GuardFile.create(path, CHAIN, KEY)
    assert path.read_bytes() == before


def test_each_truncation_that_is_not_a_whole_slot_is_refused(path: Path) -> None:
    with GuardFile.create(path, CHAIN, KEY) as guard:
        guard.append([record(N, 1, 1, A), record(F, 1, 1, A)])
    whole = path.read_bytes()
    for size in range(len(whole)):
        if size % 64 == 0 and size > 0:
            continue
        path.write_bytes(whole[:size])
        with pytest.raises(GuardUnusableError, match="does not vote"):
            GuardFile.open(path, CHAIN, KEY)


def test_each_changed_byte_is_refused(path: Path) -> None:
    with GuardFile.create(path, CHAIN, KEY, floor=(1, 0)) as guard:
        guard.append([record(N, 1, 1, A), record(X, 1, 1)])
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(GuardUnusableError):
            GuardFile.open(path, CHAIN, KEY)


def test_a_guard_of_another_chain_or_key_is_refused(path: Path) -> None:
    GuardFile.create(path, CHAIN, KEY).close()
    for chain, key in (("other", KEY), (CHAIN, b"\x02" * 32)):
        with pytest.raises(GuardUnusableError, match="another chain or key"):
            GuardFile.open(path, chain, key)


def test_two_holders_of_one_guard_are_refused_also_after_compaction(path: Path) -> None:
    with GuardFile.create(path, CHAIN, KEY) as guard:
        for _ in range(2):
            with pytest.raises(GuardUnusableError, match="another process"):
                GuardFile.open(path, CHAIN, KEY)
            guard.compact_below(1)
    GuardFile.open(path, CHAIN, KEY).close()


def test_nothing_is_signed_at_or_below_the_floor(path: Path) -> None:
    with GuardFile.create(path, CHAIN, KEY) as guard:
        guard.append([record(N, 7, 3, A)])
        guard.set_floor(guard.highest())
    with GuardFile.open(path, CHAIN, KEY) as guard:
        assert guard.floor == (7, 3)
        for height, view in ((7, 3), (7, 1), (6, 9)):
            with pytest.raises(UsageError, match="floor"):
                guard.append([record(N, height, view, A)])
        guard.append([record(N, 7, 4, A)])


def test_compaction_keeps_what_is_above_and_shuts_what_is_below(path: Path) -> None:
    with GuardFile.create(path, CHAIN, KEY) as guard:
        for height in range(1, 20):
            guard.append([record(N, height, 1, A), record(F, height, 1, A)])
        size = path.stat().st_size
        guard.compact_below(18)
        assert path.stat().st_size < size
        guard.append([record(X, 20, 1)])
    with GuardFile.open(path, CHAIN, KEY) as guard:
        assert guard.records_at(18) == (record(N, 18, 1, A), record(F, 18, 1, A))
        assert guard.records_at(17) == ()
        assert guard.highest() == (20, 1)
        with pytest.raises(UsageError, match="floor"):
            guard.append([record(N, 17, 99, B)])


def test_a_full_disk_means_no_vote_and_the_guard_stays_whole(path: Path) -> None:
    guard = GuardFile.create(path, CHAIN, KEY)
    guard.append([record(N, 1, 1, A)])
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, hard))  # room for half a slot
    try:
        with pytest.raises(DurabilityError, match="does not vote"):
            guard.append([record(F, 1, 1, A)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(DurabilityError, match="start the node again"):
        guard.append([record(F, 1, 1, A)])
    guard.close()
    assert path.stat().st_size == size
    with GuardFile.open(path, CHAIN, KEY) as again:
        assert again.records_at(1) == (record(N, 1, 1, A),)


def test_a_failed_sync_means_no_vote_now_or_later(path: Path) -> None:
    GuardFile.create(path, CHAIN, KEY).close()

    def failing_sync(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    with GuardFile.open(path, CHAIN, KEY, sync=failing_sync) as guard:
        for _ in range(2):
            with pytest.raises(DurabilityError, match="Input/output error"):
                guard.append([record(N, 1, 1, A)])
        assert guard.records_at(1) == ()


def test_the_guard_is_private_and_not_inherited(path: Path) -> None:
    with GuardFile.create(path, CHAIN, KEY):
        assert path.stat().st_mode & 0o777 == 0o600
        inheritable = [
            fd
            for fd in map(int, os.listdir("/proc/self/fd"))
            if os.path.exists(f"/proc/self/fd/{fd}")
            and "guard" in os.readlink(f"/proc/self/fd/{fd}")
            and os.get_inheritable(fd)
        ]
        assert inheritable == []
