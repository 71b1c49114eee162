"""Liars about the view they are in."""

from __future__ import annotations

from consensus.inputs import Input, StartHeight
from consensus.messages import Status
from consensus.statement import status_sign_bytes
from ledger.certificate import VoteKind
from tests.sim.adversaries.pen import Byzantine
from tests.sim.plan import CHAIN_ID


class FalseViews(Byzantine):
    """Claims to be in views far ahead."""

    def step(self, event: Input) -> None:
        super().step(event)
        if isinstance(event, StartHeight):
            for view in (3, 50, 10_000, 2**31):
                signature = self.sim.scheme.signer(self.key)(
                    status_sign_bytes(CHAIN_ID, event.height, view)
                )
                self.sim.broadcast(
                    self.index,
                    Status(
                        height=event.height,
                        view=view,
                        need=tuple(range(1, 20)),
                        signer=self.key,
                        signature=signature,
                    ),
                )
                self.sim.broadcast(
                    self.index, self.signed_vote(VoteKind.NULLIFY, event.height, view, b"")
                )
