"""A client in Go, on the packages of Go's checksum database, reads the log as it is served: note,
cosignatures, tiles, bundles, proofs. What is served wrong it refuses."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from audit.checkpoint import Checkpoint, log_note_key
from audit.note import Note
from ledger.store import Batch
from rpc.config import RpcConfig
from rpc.server import RpcServer
from tests.e2e.go_log_client import build_client, read_log
from tests.unit.test_audit_note import CHAIN_ID, LOG, ORIGIN, cosigned_note, cosigners
from tests.unit.test_rpc_fake import FakeNodeApi
from tests.unit.test_rpc_tiles import Log

pytestmark = pytest.mark.slow
LOG_KEY = log_note_key(CHAIN_ID, LOG.public_key).vkey
COSIGNER_KEYS = [cosigner.key.vkey for cosigner in cosigners().cosigners]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_client(tmp_path_factory.mktemp("go"))


def signed(log: Log, *cosigner_indexes: int, size: int | None = None) -> Note:
    size = len(log.entries) if size is None else size
    checkpoint = Checkpoint(origin=ORIGIN, tree_size=size, root_hash=log.tree.root(size))
    return cosigned_note(*cosigner_indexes, body=checkpoint.body())


async def serve_and_read(log: Log, client: Path) -> dict[str, object]:
    config = RpcConfig(port=0, calls_per_s_per_ip_max=0)
    server = RpcServer(FakeNodeApi(), config, audit_log=log.files)
    port = await server.start()
    try:
        found: dict[str, object] = await read_log(
            client, f"http://127.0.0.1:{port}", LOG_KEY, COSIGNER_KEYS
        )
    finally:
        await server.stop()
    return found


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 1000, 66_000])
def test_go_reads_and_proves_the_whole_log(client: Path, size: int) -> None:
    log = Log(size)
    log.note = signed(log, 0, 2).encode()
    found = asyncio.run(serve_and_read(log, client))
    known = [cosigners().cosigners[i].key.name for i in (0, 2)]
    assert found["signers"] == [ORIGIN, *known]
    assert (found["size"], found["entries"], found["unknown"]) == (size, size, 0)


def test_go_reads_an_older_checkpoint_of_a_log_that_has_grown(client: Path) -> None:
    log = Log(900)
    log.note = signed(log, size=300).encode()
    assert asyncio.run(serve_and_read(log, client))["size"] == 300


def test_go_refuses_what_does_not_fit(client: Path) -> None:
    log = Log(600)
    good = signed(log, 0).encode()
    log.note = good.replace("\n600\n", "\n599\n")
    with pytest.raises(AssertionError, match="invalid signature"):
        asyncio.run(serve_and_read(log, client))
    log.note = good
    batch = Batch()
    batch.put(b"a/e" + (7).to_bytes(8, "big"), b"another entry")
    log.store.write(batch, sync=False)
    with pytest.raises(AssertionError, match=re.escape("invalid")):
        asyncio.run(serve_and_read(log, client))
