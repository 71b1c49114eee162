"""What a node does for the readers of its log: signs checkpoints, collects cosignatures, of outside
witnesses too, and serves both with the log's tiles."""

from __future__ import annotations

import time
from collections.abc import Sequence

from audit.cosignatures import Board
from audit.tree_store import LogTree
from audit.witness import Witness
from ledger.chain import Chain
from node import config as cfg
from node.cosigning import Cosigning
from node.keys import load_key
from node.log_files import LogFiles
from node.log_guard import open_log_signer
from node.witness import WitnessPusher
from p2p.link import P2PLink
from rpc.witness_client import WitnessClient


class LogService:
    """One a node; `start` before peers come up."""

    def __init__(
        self,
        chain: Chain,
        log_tree: LogTree,
        cosigning: Cosigning,
        witnesses: Sequence[Witness] = (),
    ) -> None:
        self.cosigning = cosigning
        self.files = LogFiles(chain, log_tree, lambda: cosigning.published_note)
        self._client = WitnessClient()
        self.pushers = [WitnessPusher(found, log_tree, self._client.post) for found in witnesses]
        cosigning.on_published = self._offer

    @classmethod
    def open(
        cls,
        config: cfg.NodeConfig,
        chain: Chain,
        log_tree: LogTree,
        link: P2PLink,
        passphrase: str | None,
    ) -> LogService:
        """With the keys and the guard in the node's home. Raises UsageError for a key file that can
        not be read, InvalidInputError for a malformed witness, DurabilityError."""
        witnesses = [Witness.parse(text) for text in config.audit.witnesses]
        key, guard, reason = open_log_signer(config.home, chain.chain_id, passphrase)
        path = config.home / cfg.COSIGN_KEY_FILE
        cosigning = Cosigning(
            chain=chain,
            log_tree=log_tree,
            log_key=key,
            guard=guard,
            reason=reason,
            cosign_key=load_key(path, passphrase) if path.exists() else None,
            link=link,
            wall_ms=lambda: time.time_ns() // 1_000_000,
        )
        return cls(chain, log_tree, cosigning, witnesses)

    def start(self) -> None:
        self.cosigning.start()
        for pusher in self.pushers:
            pusher.start()

    async def stop(self) -> None:
        await self.cosigning.stop()
        for pusher in self.pushers:
            await pusher.stop()
        await self._client.close()

    def metrics(self) -> dict[str, int]:
        return {
            **self.cosigning.metrics(),
            "audit_witness_cosignatures_total": sum(p.cosigned_total for p in self.pushers),
            "audit_witness_failures_total": sum(p.failures_total for p in self.pushers),
        }

    def _offer(self, board: Board) -> None:
        for pusher in self.pushers:
            pusher.offer(board)
