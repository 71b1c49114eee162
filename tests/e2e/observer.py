"""Somebody at the table who writes down everything that validators sign.

A real libp2p peer without a vote: it dials every validator, receives what they broadcast, checks
each signature, and keeps every statement, so that signing twice can not hide behind a restart.
"""

from __future__ import annotations

import os
from pathlib import Path

from consensus.messages import Propose, Vote, decode_message
from consensus.statement import Statement, StatementKind, is_conflict, statement_sign_bytes
from genesis.document import GenesisDocument
from ledger.block import PROTOCOL_VERSION
from ledger.ed25519 import is_valid_signature
from ledger.errors import InvalidInputError
from node import config as cfg
from node import wire
from node.devnet import Devnet
from p2p.config import P2PConfig
from p2p.link import P2PLink


class Observer:
    """Implements `P2PEvents`. `statements[signer]` holds what each validator signed."""

    def __init__(self, devnet: Devnet, home: Path) -> None:
        genesis_path = devnet.nodes[0].home / cfg.GENESIS_FILE
        self._genesis = GenesisDocument.parse(genesis_path.read_bytes()).to_state()
        self.statements: dict[bytes, dict[tuple[int, int], set[Statement]]] = {
            v.public_key: {} for v in self._genesis.validators.validators
        }
        self.conflicts: list[tuple[Statement, Statement]] = []
        home.mkdir(parents=True, exist_ok=True)
        infos = [node.ready_info() for node in devnet.nodes]
        self._link = P2PLink(
            P2PConfig(
                identity_seed=os.urandom(32),
                listen_host="127.0.0.1",
                listen_port=0,
                chain_id=self._genesis.chain_id,
                genesis_hash=self._genesis.genesis_hash,
                protocol_version=PROTOCOL_VERSION,
                home=home,
                peers=tuple(info["p2p"] for info in infos if info is not None),
                validators=tuple(
                    info["p2p"].rsplit("/", 1)[-1] for info in infos if info is not None
                ),
            ),
            self,
        )

    async def __aenter__(self) -> Observer:
        await self._link.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.stop()

    @property
    def count(self) -> int:
        """Statements seen, of all validators."""
        return sum(len(s) for views in self.statements.values() for s in views.values())

    def on_peer_up(self, peer: str, height: int) -> None:
        pass

    def on_peer_down(self, peer: str) -> None:
        pass

    def on_restarted(self) -> None:
        pass

    def on_gossip(self, peer: str, topic: str, payload: bytes) -> None:
        pass

    def on_frame(self, peer: str, channel: int, payload: bytes) -> None:
        if channel != wire.CHANNEL_CONSENSUS or not payload:
            return
        try:
            if payload[0] == wire.TAG_COMPACT:
                compact = wire.CompactProposal.decode(payload[1:])
                self._note(
                    StatementKind.PROPOSE,
                    compact.height,
                    compact.view,
                    compact.header.hash,
                    compact.signer,
                    compact.signature,
                )
            elif payload[0] == wire.TAG_CONSENSUS:
                message = decode_message(payload[1:])
                if isinstance(message, Vote):
                    self._note(
                        StatementKind(int(message.kind)),
                        message.height,
                        message.view,
                        message.block_hash,
                        message.signer,
                        message.signature,
                    )
                elif isinstance(message, Propose):
                    raise AssertionError("proposals travel in compact form")
        except InvalidInputError as error:
            raise AssertionError(f"a validator sent what is not a message: {error}") from error

    def _note(
        self,
        kind: StatementKind,
        height: int,
        view: int,
        block_hash: bytes,
        signer: bytes,
        signature: bytes,
    ) -> None:
        statement = Statement(kind=kind, height=height, view=view, block_hash=block_hash)
        known = self.statements[signer].setdefault((height, view), set())
        if statement in known:
            return
        message = statement_sign_bytes(self._genesis.chain_id, statement)
        assert is_valid_signature(signer, message, signature), statement
        self.conflicts += [(other, statement) for other in known if is_conflict(other, statement)]
        known.add(statement)
