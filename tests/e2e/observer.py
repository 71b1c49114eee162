"""Somebody at the table who writes down everything that validators sign.

A real libp2p peer without a vote: it dials every validator, receives what they broadcast, checks
each signature, and keeps every statement. `P2PLink` catches what a handler raises, so nothing here
raises: what is wrong goes to `faults`, and `check` is what fails the test.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from consensus.messages import CertificateMessage, Final, Propose, Vote, decode_message
from consensus.statement import Statement, StatementKind, statement_sign_bytes
from ledger.block import PROTOCOL_VERSION
from ledger.ed25519 import is_valid_signature
from ledger.errors import InvalidInputError
from ledger.genesis_state import GenesisState
from node import wire
from node.devnet import Devnet
from p2p.config import P2PConfig
from p2p.link import P2PLink
from tests.e2e.network import genesis_of, until
from tests.e2e.signed import SignedBook


class Observer:
    """Implements `P2PEvents`. `new[key]` counts the statements of a validator that were never
    seen before they arrived here."""

    def __init__(self, genesis: GenesisState, home: Path, peers: Sequence[str] = ()) -> None:
        self.book = SignedBook(genesis)
        self.faults: list[str] = []
        self.new: Counter[bytes] = Counter()
        self._chain_id = genesis.chain_id
        home.mkdir(parents=True, exist_ok=True)
        self.link = P2PLink(
            P2PConfig(
                identity_seed=os.urandom(32),
                listen_host="127.0.0.1",
                listen_port=0,
                chain_id=genesis.chain_id,
                genesis_hash=genesis.genesis_hash,
                protocol_version=PROTOCOL_VERSION,
                home=home,
                peers=tuple(peers),
                validators=tuple(peer.rsplit("/", 1)[-1] for peer in peers),
            ),
            self,
        )

    @classmethod
    def of(cls, devnet: Devnet) -> Self:
        """An observer of running validators."""
        infos = [node.ready_info() for node in devnet.nodes]
        peers = [info["p2p"] for info in infos if info is not None]
        return cls(genesis_of(devnet), devnet.folder / "observer", peers)

    async def __aenter__(self) -> Self:
        await self.link.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.link.stop()

    @property
    def count(self) -> int:
        """Statements that arrived here first, of all validators."""
        return self.new.total()

    async def until_heard(self, keys: Iterable[bytes], count: int = 1) -> None:
        """Until each validator has said `count` new things from now on. Raises ZynkError."""
        wanted = {key: self.new[key] + count for key in keys}
        await until(
            f"new statements of {', '.join(key.hex()[:8] for key in wanted)} arrive",
            lambda: all(self.new[key] >= target for key, target in wanted.items()),
        )

    def check(self) -> None:
        """Fails the test if anything was wrong up to now."""
        assert self.faults == [], self.faults[:10]
        assert self.book.conflicts == [], self.book.conflicts[:10]
        assert self.link.stats().get("event_errors", 0) == 0, "a handler of the observer failed"

    # --- P2PEvents ---

    def on_peer_up(self, peer: str, height: int) -> None:
        pass

    def on_peer_down(self, peer: str) -> None:
        pass

    def on_restarted(self) -> None:
        self.faults.append("the observer's own p2p process died")

    def on_gossip(self, peer: str, topic: str, payload: bytes) -> None:
        pass

    def on_frame(self, peer: str, channel: int, payload: bytes) -> None:
        if channel != wire.CHANNEL_CONSENSUS:
            return
        try:
            self._read(payload)
        except InvalidInputError as error:
            self.faults.append(f"{peer} sent what no validator may: {error}")

    def _read(self, payload: bytes) -> None:
        if payload[:1] == bytes([wire.TAG_COMPACT]):
            compact = wire.CompactProposal.decode(payload[1:])
            self._note_propose(compact, compact.header.hash)
        elif payload[:1] == bytes([wire.TAG_CONSENSUS]):
            match decode_message(payload[1:]):
                case Vote() as vote:
                    statement = Statement(
                        kind=StatementKind(int(vote.kind)),
                        height=vote.height,
                        view=vote.view,
                        block_hash=vote.block_hash,
                    )
                    self._note(vote.signer, statement, vote.signature)
                case Propose() as propose:  # whole, to a peer that asks for it
                    self._note_propose(propose, propose.block.hash)
                case CertificateMessage() | Final() as message:
                    self.book.note_certificate(message.certificate, "certificate on the wire")
        elif not payload:
            raise InvalidInputError("an empty frame")

    def _note_propose(self, propose: Propose | wire.CompactProposal, block_hash: bytes) -> None:
        statement = Statement(
            kind=StatementKind.PROPOSE,
            height=propose.height,
            view=propose.view,
            block_hash=block_hash,
        )
        self._note(propose.signer, statement, propose.signature)
        for certificate in propose.justify:
            self.book.note_certificate(certificate, "justify of a proposal")

    def _note(self, signer: bytes, statement: Statement, signature: bytes) -> None:
        if not self.book.is_validator(signer):
            raise InvalidInputError("a statement of no validator", got=signer.hex())
        if self.book.knows(signer, statement):
            return
        message = statement_sign_bytes(self._chain_id, statement)
        if not is_valid_signature(signer, message, signature):
            raise InvalidInputError("a forged statement", got=str(statement))
        self.book.note(signer, statement, "wire")
        self.new[signer] += 1
