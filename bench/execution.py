"""Execution alone: transfers a second on one core, signatures already checked.

Measured: `Executor.execute` of blocks of transfers (fee, nonce, transfer, result, results root)
with `StateTree.compute`, over a tree of many accounts, and then the same with the commit (encoding
of rows and one synced LevelDB batch). Payers and recipients are drawn at random, so that reads
miss what the block has touched.

    python -m bench.execution [--json] [--accounts N] [--txs N] [--blocks N] [--payload BYTES]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable

from ledger.accounts import TransferBody, TransferHandler, account_key
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind
from ledger.chain import Chain
from ledger.codec import Value, encode, hash_tagged
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.genesis_state import GenesisState
from ledger.params import ChainParams
from ledger.store import LevelStore
from ledger.tx import Message, Tx
from ledger.validator_set import Validator, ValidatorSet

CHAIN_ID = "bench-1"
FEE_UZYNK = 2000


class NoLog:
    """An audit log that stays empty: transfers append nothing to it."""

    def append(self, frontier: bytes, entries: list[bytes]) -> bytes:
        raise InvalidInputError("transfers append nothing")

    def size_and_root(self, frontier: bytes) -> tuple[int, bytes]:
        return 0, hash_tagged("empty", b"")


def make_genesis(ids: Iterable[bytes], proposer: bytes) -> GenesisState:
    """Each account holds 1e12 uzynk."""
    return GenesisState(
        chain_id=CHAIN_ID,
        genesis_hash=bytes(32),
        params=ChainParams(),
        validators=ValidatorSet.of([Validator(public_key=proposer, power=1)]),
        accounts=tuple((account_id, 10**12) for account_id in ids),
        time_ms=1,
    )


def make_tx(payer: bytes, nonce: int, to: bytes, payload: bytes) -> Tx:
    """A transfer with a made-up signature: execution does not look at it."""
    body = TransferBody(to=to, amount=1, memo=payload).encode()
    message = Message("bank/transfer", body)
    fields: list[Value] = [
        CHAIN_ID,
        payer,
        nonce,
        FEE_UZYNK,
        10_000,
        [[message.type, body]],
        bytes(64),
    ]
    return Tx.decode(encode(fields))


def run(options: argparse.Namespace, folder: str) -> dict[str, object]:
    """Build, judge-free, `blocks` blocks; time execution and commit of each."""
    rng = random.Random(1)
    ids = [hash_tagged("bench-account", i.to_bytes(8, "big")) for i in range(options.accounts)]
    proposer = KeyPair.from_seed(bytes(32)).public_key
    store = LevelStore.open(os.path.join(folder, "db"))
    chain = Chain.open(
        store, make_genesis(ids, proposer), {"bank/transfer": TransferHandler()}, NoLog()
    )
    assert chain.tree.get(account_key(ids[0])) is not None
    gc.collect()
    gc.freeze()
    nonces: dict[bytes, int] = dict.fromkeys(ids, 0)
    execute_s: list[float] = []
    execute_cpu_s: list[float] = []
    commit_s: list[float] = []
    for _ in range(options.blocks):
        txs = []
        for _ in range(options.txs):
            payer, to = rng.choice(ids), rng.choice(ids)
            txs.append(make_tx(payer, nonces[payer], to, rng.randbytes(options.payload)))
            nonces[payer] += 1
        started, started_cpu = time.perf_counter(), time.process_time()
        block = chain.build(view=1, facts=chain.plain_facts(proposer), time_ms=0, candidates=txs)
        execute_s.append(time.perf_counter() - started)
        execute_cpu_s.append(time.process_time() - started_cpu)
        assert len(block.txs) == options.txs, "every tx was admissible"
        commit_s.append(_commit(chain, block))
    store.close()
    execute = statistics.median(execute_s)
    commit = statistics.median(commit_s)
    return {
        # By CPU time: what one core does, whatever else runs on the machine.
        "execute_tx_s": round(options.txs / statistics.median(execute_cpu_s)),
        "execute_wall_tx_s": round(options.txs / execute),
        "execute_and_commit_tx_s": round(options.txs / (execute + commit)),
        "execute_ms": round(1000 * execute, 1),
        "commit_ms": round(1000 * commit, 1),
        "accounts": options.accounts,
        "txs_per_block": options.txs,
        "payload_bytes": options.payload,
        "blocks": options.blocks,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
    }


def _commit(chain: Chain, block: Block) -> float:
    certificate = Certificate(VoteKind.FINALIZE, block.height, 1, block.hash, b"\x80", (bytes(64),))
    started = time.perf_counter()
    chain.commit(block, certificate)
    return time.perf_counter() - started


def main() -> None:
    """See the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--txs", type=int, default=1000)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--payload", type=int, default=300)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="zynk-bench-")
    try:
        result = run(options, folder)
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
