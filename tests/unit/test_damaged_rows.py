"""A row of the node's own store that does not decode is damage: never the asker's wrong input."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from audit.batch import Batch, encode_group, read_batch, read_group
from audit.pipeline import Pipeline
from audit.rows import BATCH, GROUP, IN_FLIGHT, u64
from ledger import block_rows
from ledger.errors import DamagedStoreError, InvalidInputError
from ledger.store import Batch as WriteBatch
from ledger.store import MemoryStore, Store
from rpc.errors import RpcCode, as_rpc_error
from tests.unit.chain_fixture import FAUCET, advance, open_chain, transfer


def put(store: Store, key: bytes, value: bytes) -> None:
    batch = WriteBatch()
    batch.put(key, value)
    store.write(batch, sync=False)


def assert_only_damage(store: Store, key: bytes, read: Callable[[], object]) -> None:
    """Each truncation of the row, and bytes behind it, are told as damage."""
    whole = store.get(key)
    assert whole is not None
    read()
    for size in range(0, len(whole), max(1, len(whole) // 200)):
        put(store, key, whole[:size])
        with pytest.raises(DamagedStoreError, match="is damaged"):
            read()
    put(store, key, whole + b"\0")
    with pytest.raises(DamagedStoreError):
        read()
    put(store, key, whole)
    read()


@pytest.mark.parametrize(
    ("prefix", "read"),
    [
        (block_rows.HEADER, block_rows.read_header),
        (block_rows.BODY, block_rows.read_block),
        (block_rows.CERTIFICATE, block_rows.read_certificate),
        (block_rows.RESULTS, block_rows.read_results),
    ],
)
def test_a_damaged_row_of_a_block_is_told_as_damage(
    prefix: bytes, read: Callable[[Store, int], object]
) -> None:
    store = MemoryStore()
    advance(open_chain(store), [transfer(FAUCET, 0, bytes(32), 1)])
    assert_only_damage(store, block_rows.height_key(prefix, 1), lambda: read(store, 1))
    with pytest.raises(InvalidInputError, match="at this height"):
        read(store, 2)


def test_a_damaged_place_of_a_tx_is_told_as_damage() -> None:
    store = MemoryStore()
    tx = transfer(FAUCET, 0, bytes(32), 1)
    advance(open_chain(store), [tx])
    key = block_rows.TX + tx.id
    assert_only_damage(store, key, lambda: block_rows.read_tx_location(store, tx.id))
    put(store, key, b"\x92\xc0\xc0")  # well-formed, but two nils
    with pytest.raises(DamagedStoreError):
        block_rows.read_tx_location(store, tx.id)


def test_damaged_rows_of_the_audit_pipeline_are_told_as_damage() -> None:
    store = MemoryStore()
    put(store, GROUP + u64(1), encode_group(bytes(32), 5, [b"leaf"]))
    put(store, BATCH + u64(1), Batch(stream=bytes(32), groups=((1, 1),), root=bytes(32)).encode())
    assert_only_damage(store, GROUP + u64(1), lambda: read_group(store, 1))
    assert_only_damage(store, BATCH + u64(1), lambda: read_batch(store, 1))
    put(store, IN_FLIGHT, b"?")
    with pytest.raises(DamagedStoreError):
        Pipeline(store)


def test_damage_is_an_internal_error_to_the_caller() -> None:
    error = DamagedStoreError("the stored header is damaged", got="header is truncated")
    for carries_tx in (False, True):
        found = as_rpc_error(error, carries_tx=carries_tx)
        assert (found.code, found.reason) == (RpcCode.INTERNAL_ERROR, "store-damaged")
