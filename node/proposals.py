"""Completing compact proposals: from the mempool, else from the peer that sent them.

Bounded: at most `PENDING_MAX` proposals wait for txs, `PENDING_PER_PEER_MAX` of one peer. When
there is no room, the oldest of the peer with the most goes: a signature is checked only once a
proposal is whole, so a flood of made-up ones must push out nobody else's. Nothing here judges a
proposal; consensus does, once it is whole. One lost here comes again with the core's retry.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from consensus.messages import Propose
from ledger.block import Block
from ledger.codec import hash_tagged
from ledger.errors import InvalidInputError
from node import wire
from node.txpool import TxPool
from p2p.link import P2PLink

PENDING_MAX = 32
PENDING_PER_PEER_MAX = 8
OWN_BLOCKS_MAX = 8

_Pending = tuple[wire.CompactProposal, dict[bytes, bytes]]
"""The proposal and the txs of it that are here, by id."""


class ProposalExchange:
    """Both sides of compact proposals. All calls are on the event loop."""

    def __init__(
        self,
        *,
        link: P2PLink,
        txpool: TxPool,
        on_complete: Callable[[str, Propose], None],
        on_offence: Callable[[str, str], None],
    ) -> None:
        self.tx_requests_total = 0
        self._link = link
        self._txpool = txpool
        self._on_complete = on_complete
        self._on_offence = on_offence
        self._own: OrderedDict[bytes, Block] = OrderedDict()
        self._pending: OrderedDict[tuple[str, bytes], _Pending] = OrderedDict()

    @property
    def pending_count(self) -> int:
        """Proposals that wait for txs."""
        return len(self._pending)

    def remember(self, block: Block) -> None:
        """Keep a block that we proposed, to serve its txs."""
        self._own[block.hash] = block
        self._own.move_to_end(block.hash)
        if len(self._own) > OWN_BLOCKS_MAX:
            self._own.popitem(last=False)

    def on_compact(self, peer: str, compact: wire.CompactProposal) -> None:
        """A compact proposal of a validator at a height that matters."""
        # What the mempool has now is kept: a commit may take it out before the rest arrives.
        held = {tx_id: tx for tx_id in compact.tx_ids if (tx := self._txpool.find(tx_id))}
        missing = compact.missing(held.get)
        if not missing:
            self._on_complete(peer, compact.complete(held.get))
            return
        block_hash = compact.header.hash
        self._pending.pop((peer, block_hash), None)  # said again: it is now the newest
        self._make_room(peer)
        self._pending[peer, block_hash] = (compact, held)
        self.tx_requests_total += 1
        request = wire.BlockTxRequest(block_hash=block_hash, tx_ids=tuple(missing))
        self._link.send(peer, wire.CHANNEL_CONSENSUS, request.encode())

    def _make_room(self, peer: str) -> None:
        counts = Counter(owner for owner, _ in self._pending)
        if counts[peer] >= PENDING_PER_PEER_MAX:
            crowd = peer
        elif len(self._pending) >= PENDING_MAX:
            crowd = counts.most_common(1)[0][0]
        else:
            return
        del self._pending[next(key for key in self._pending if key[0] == crowd)]

    def on_message(self, peer: str, tag: int, body: bytes) -> None:
        """Requests and answers. Raises InvalidInputError."""
        if tag == wire.TAG_BLOCK_TX_REQUEST:
            self._serve(peer, wire.BlockTxRequest.decode(body))
        elif tag == wire.TAG_BLOCK_TXS:
            self._complete(peer, wire.BlockTxs.decode(body))
        else:
            raise InvalidInputError(
                "consensus message is unknown", expected="0x00..0x03", got=hex(tag)
            )

    def on_commit(self, height: int) -> None:
        """Drop what is settled."""
        for key in [k for k, (c, _) in self._pending.items() if c.height <= height]:
            del self._pending[key]

    def _serve(self, peer: str, request: wire.BlockTxRequest) -> None:
        block = self._own.get(request.block_hash)
        if block is None:
            return
        tx_by_id = dict(zip(block.tx_ids, block.txs, strict=True))
        txs = [tx_by_id[i] for i in dict.fromkeys(request.tx_ids) if i in tx_by_id]
        answer = wire.BlockTxs(block_hash=request.block_hash, txs=tuple(txs))
        self._link.send(peer, wire.CHANNEL_CONSENSUS, answer.encode())

    def _complete(self, peer: str, answer: wire.BlockTxs) -> None:
        pending = self._pending.pop((peer, answer.block_hash), None)
        if pending is None:
            return
        compact, held = pending
        held.update((hash_tagged("tx", tx), tx) for tx in answer.txs)
        self._on_complete(peer, compact.complete(held.get))
