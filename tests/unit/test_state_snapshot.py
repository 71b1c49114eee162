"""Snapshots restore the same tree, and nothing but it."""

from __future__ import annotations

import pytest

from ledger.errors import InvalidInputError, UsageError
from ledger.state import StateTree, state_key
from ledger.state.bulk import bulk_load
from ledger.state.snapshot import (
    Manifest,
    choose_bits,
    decode_chunk,
    decode_manifest,
    open_export,
    restore,
    verify_manifest,
)
from ledger.store import Batch, MemoryStore


def make_tree(keys: int) -> tuple[MemoryStore, StateTree]:
    store = MemoryStore()
    values = [(state_key("t", n.to_bytes(2, "big")), b"v%d" % n) for n in range(keys)]
    return store, bulk_load(store, values, height=9, time_ms=99)


@pytest.mark.parametrize("keys", [0, 1, 2, 5, 40, 700])
@pytest.mark.parametrize("bits", [0, 1, 2, 4])
def test_a_restored_tree_has_the_height_root_and_values(keys: int, bits: int) -> None:
    source, tree = make_tree(keys)
    export = open_export(tree, bits=bits)
    manifest = decode_manifest(export.manifest.encode())
    assert manifest == export.manifest
    verify_manifest(manifest, height=9, root=tree.root)
    chunks = list(export.chunks(group_bytes_max=5000))
    assert chunks == list(export.chunks())
    assert [part for part, _ in chunks] == sorted({part for part, _ in chunks})
    target = MemoryStore()
    assert list(restore(target, manifest, chunks))[-1:] == ([keys] if keys else [])
    again = StateTree.open(target)
    assert (again.height, again.time_ms, again.root) == (9, 99, tree.root)
    assert list(again.iterate(b"")) == list(tree.iterate(b""))
    assert list(target.iterate(prefix=b"")) == list(source.iterate(prefix=b""))


def test_an_export_goes_on_seeing_its_height() -> None:
    store, tree = make_tree(50)
    export = open_export(tree)
    root = tree.root
    overlay = tree.compute({state_key("t", b"\0\1"): None, b"new\0": b"1"})
    batch = Batch()
    tree.add_rows(overlay, batch, height=10, time_ms=100)
    with pytest.raises(UsageError):
        open_export(tree)
    store.write(batch, sync=True)
    tree.adopt(overlay)
    target = MemoryStore()
    list(restore(target, export.manifest, export.chunks()))
    assert StateTree.open(target).root == root != tree.root
    export.close()


def test_every_flipped_byte_of_a_manifest_or_chunk_is_refused() -> None:
    _, tree = make_tree(40)
    export = open_export(tree, bits=2)
    data = export.manifest.encode()
    for at in range(len(data)):
        broken = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            manifest = decode_manifest(broken)
            verify_manifest(manifest, height=9, root=tree.root)
        except InvalidInputError:
            continue
        # Claims that the root does not cover: the time, and the number of keys.
        assert (manifest.time_ms, manifest.keys) != (99, 40)
    for part, chunk in export.chunks():
        for at in range(len(chunk)):
            broken = chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
            with pytest.raises(InvalidInputError):
                decode_chunk(export.manifest, part, broken)
            with pytest.raises(InvalidInputError):
                decode_chunk(export.manifest, part, chunk[:at])
        with pytest.raises(InvalidInputError):
            decode_chunk(export.manifest, part ^ 1, chunk)
        with pytest.raises(InvalidInputError):
            decode_chunk(export.manifest, part, chunk + b"\0")


def test_a_missing_or_bad_chunk_leaves_a_store_without_a_state() -> None:
    _, tree = make_tree(40)
    export = open_export(tree, bits=2)
    chunks = list(export.chunks())
    missing = MemoryStore()
    with pytest.raises(InvalidInputError, match="not the one expected"):
        list(restore(missing, export.manifest, chunks[1:]))
    bad = MemoryStore()
    with pytest.raises(InvalidInputError):
        list(restore(bad, export.manifest, [*chunks[:2], (2, chunks[3][1])]))
    for store in (missing, bad):
        assert store.get(b"s/m") is None
        list(restore(store, export.manifest, chunks))
        assert StateTree.open(store).root == tree.root
        with pytest.raises(UsageError, match="has a state"):
            list(restore(store, export.manifest, chunks))


def test_a_manifest_that_lies_about_single_leaves_is_refused() -> None:
    _, tree = make_tree(2)
    manifest = open_export(tree, bits=4).manifest
    assert manifest.singles != bytes(2)
    lie = Manifest(
        height=9,
        time_ms=99,
        root=tree.root,
        bits=4,
        keys=2,
        hashes=manifest.hashes,
        singles=bytes(2),
    )
    with pytest.raises(InvalidInputError):
        verify_manifest(lie, height=9, root=tree.root)


def test_bits_follow_the_number_of_keys() -> None:
    assert [choose_bits(keys, 20) for keys in (0, 1000, 3000, 10**6, 10**9)] == [0, 0, 2, 10, 16]
    assert choose_bits(10**6, 4) == 4
    _, tree = make_tree(5)
    with pytest.raises(UsageError):
        open_export(tree, bits=9)
