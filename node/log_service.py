"""What a node does for the readers of its log: signs checkpoints, collects cosignatures, and serves
both with the log's tiles."""

from __future__ import annotations

import time

from audit.tree_store import LogTree
from ledger.chain import Chain
from node import config as cfg
from node.cosigning import Cosigning
from node.keys import load_key
from node.log_files import LogFiles
from node.log_guard import open_log_signer
from p2p.link import P2PLink


class LogService:
    """One a node; `start` before peers come up."""

    def __init__(self, chain: Chain, log_tree: LogTree, cosigning: Cosigning) -> None:
        self.cosigning = cosigning
        self.files = LogFiles(chain, log_tree, lambda: cosigning.published_note)

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
        not be read, DurabilityError."""
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
        return cls(chain, log_tree, cosigning)

    def start(self) -> None:
        self.cosigning.start()

    async def stop(self) -> None:
        await self.cosigning.stop()
