"""A chain of one validator with very many DIDs, made without a network: the fast path to a large
state for measurements.

Every block is a real one: signed creates, the validator's VRF proof and its finalize vote,
executed and committed as a node does it, but without RPC, gossip and consensus in between. A node
then starts from the home and serves it; a block's time is the real one, so that a head is recent.

The DIDs are listed in the home, so that a chain can be grown further: after a stop, or after a node
has served it. This is for a chain whose only key is at hand; on a network, DIDs come by `did/op`
messages alone (docs/bulk-load.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from audit.tree_store import commit_rows
from consensus.beacon import vrf_alpha
from consensus.vrf import prove
from did.build import create_operation
from did.control import Control
from did.handler import MESSAGE_TYPE
from did.operation import decode_operation
from genesis.document import GenesisDocument
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.chain import Chain
from ledger.codec import hash_tagged
from ledger.ed25519 import KeyPair
from ledger.execution import BlockFacts
from ledger.fees import sign_tx
from ledger.params import ChainParams
from ledger.store import LevelStore
from ledger.tx import MESSAGES_MAX, Message, Tx
from node import config as cfg
from node.daemon import STORE_FOLDER
from node.handlers import open_chain
from node.identity import make_document
from node.keys import load_key

TXS_PER_BLOCK = 75
"""With 16 creates of some 750 B each, below the 1 MiB of a block."""
VALID_BLOCKS = 1000
LISTING_FILE = "bench-dids.txt"
"""In the home: the DIDs that were created, one a line."""


def load_dids(home: Path, count: int, *, progress: Callable[[float], None]) -> list[str]:
    """Create DIDs until the chain of `home`, whose one validator must not be running, has `count`.
    Returns them as text. `progress` is told the share that is done. Another process signs the next
    block's operations while this one executes a block."""
    genesis = GenesisDocument.parse((home / cfg.GENESIS_FILE).read_bytes()).to_state()
    folder = home / cfg.DATA_FOLDER / STORE_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    listing = home / LISTING_FILE
    dids = listing.read_text().split() if listing.exists() else []
    per_block = TXS_PER_BLOCK * MESSAGES_MAX
    store = LevelStore.open(folder)
    try:
        chain = open_chain(store, genesis, commit_rows)
        writer = _Writer(chain, home)
        # Far enough ahead for the last block, and no further than a node accepts.
        exp_height = chain.height + count // per_block + VALID_BLOCKS
        with ProcessPoolExecutor(1) as pool, listing.open("a") as lines:

            def begin(first: int) -> Future[list[tuple[str, bytes]]]:
                end = min(count, first + per_block)
                return pool.submit(make_creates, chain.chain_id, exp_height, first, end)

            coming = begin(len(dids))
            while len(dids) < count:
                made = coming.result()
                coming = begin(len(dids) + len(made))
                writer.write_block([operation for _, operation in made])
                new = [did for did, _ in made]
                lines.writelines(did + "\n" for did in new)
                dids += new
                progress(len(dids) / count)
    finally:
        store.close()
    return dids[:count]


def make_creates(net: str, exp_height: int, first: int, end: int) -> list[tuple[str, bytes]]:
    """(DID as text, signed create) of the DIDs number `first` to `end - 1`."""
    made = []
    for number in range(first, end):
        key = KeyPair.from_seed(hash_tagged("bench-did", number.to_bytes(8, "big")))
        operation = create_operation(
            net=net,
            exp_height=exp_height,
            document=make_document([key.public_key]),
            control=Control.of([key.public_key]),
            signers=[key],
        )
        made.append((decode_operation(operation).did_text, operation))
    return made


class _Writer:
    """The validator of `home`, alone with its chain."""

    def __init__(self, chain: Chain, home: Path) -> None:
        self._chain = chain
        self._voter = load_key(home / cfg.VALIDATOR_KEY_FILE)
        self._vrf_seed = load_key(home / cfg.VRF_KEY_FILE).seed
        self._payer = load_key(home / cfg.FAUCET_KEY_FILE)
        self._nonce = chain.account(self._payer.public_key).nonce

    def write_block(self, operations: list[bytes]) -> None:
        """Execute and commit one block with them."""
        txs = [
            self._tx(operations[at : at + MESSAGES_MAX])
            for at in range(0, len(operations), MESSAGES_MAX)
        ]
        chain = self._chain
        height = chain.height + 1
        facts = BlockFacts(
            proposer=self._voter.public_key,
            vrf_proof=prove(self._vrf_seed, vrf_alpha(chain.seed, height)),
            parent_certificate=chain.head_certificate,
        )
        now_ms = time.time_ns() // 1_000_000
        block = chain.build(view=1, time_ms=now_ms, facts=facts, candidates=txs)
        assert len(block.txs) == len(txs), "every tx fits and can be paid"
        chain.commit(block, self._certify(block))

    def _tx(self, operations: list[bytes]) -> Tx:
        params: ChainParams = self._chain.params
        tx = sign_tx(
            self._payer,
            chain_id=self._chain.chain_id,
            nonce=self._nonce,
            valid_until=self._chain.height + min(VALID_BLOCKS, params.tx_valid_blocks_max),
            messages=[Message(MESSAGE_TYPE, operation) for operation in operations],
            params=params,
        )
        self._nonce += 1
        return tx

    def _certify(self, block: Block) -> Certificate:
        chain = self._chain
        message = vote_sign_bytes(
            chain.chain_id, VoteKind.FINALIZE, block.height, block.header.origin_view, block.hash
        )
        return Certificate.of(
            VoteKind.FINALIZE,
            block.height,
            block.header.origin_view,
            block.hash,
            {self._voter.public_key: self._voter.sign(message)},
            chain.validators,
        )
