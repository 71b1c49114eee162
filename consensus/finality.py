"""Finalising a height, and what happens when another block is final too (rules 15 and 17).

A fork needs 1/3 of the power to be Byzantine. Who notices one signs nothing more, and halts with a
`ForkProof`. The finalizations alone prove that there is a fork; who made it can be hidden in the
certificates that only the other side holds. So a forked node shows its certificates of that height
to every peer, takes in theirs, and halts again with each proof that names more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from consensus.catchup import on_body_request
from consensus.context import Context
from consensus.effects import Broadcast, Finalise, Halt, SendTo
from consensus.finals import FinalHeight, FinalHeights, certificates_of, take_in
from consensus.fork_proof import ForkProof, find_culprits
from consensus.inputs import Input, PeerUp, Received, TimerId
from consensus.messages import BodyRequest, CertificateMessage, ConsensusMessage, Status
from consensus.views import arm_retry
from ledger.block import Header
from ledger.certificate import Certificate, VoteKind, verify_certificate
from ledger.errors import InvalidInputError
from ledger.validator_set import ValidatorSet

REASON_FORK = "the chain has forked; see the fork proof"
REASON_ORPHAN = "a block is final whose parent is not the block that is final here"


@dataclass(slots=True, kw_only=True)
class Fork:
    """What a halted node knows of the forked height. `first` finalizes `header`."""

    header: Header
    first: Certificate
    second: Certificate
    validators: ValidatorSet
    certificates: dict[tuple[int, int, bytes], Certificate] = field(default_factory=dict)
    named_power: int = 0

    def proof(self) -> ForkProof:
        return ForkProof.of(self.header, self.first, self.second, self.certificates.values())

    def add(self, certificates: Iterable[Certificate]) -> ForkProof | None:
        """Take in verified certificates of the height; the proof if it names more than before.
        Only views between the two finalizations bear on it, so nothing else is kept."""
        low, high = sorted((self.first.view, self.second.view))
        for certificate in certificates:
            if low <= certificate.view <= high:
                slot = (certificate.view, int(certificate.kind), certificate.block_hash)
                self.certificates.setdefault(slot, certificate)
        proof = self.proof()
        culprits = find_culprits(proof, self.validators)
        named_power = sum(self.validators.power_of(signer) for signer in culprits)
        if named_power <= self.named_power:
            return None
        self.named_power = named_power
        return proof


Forks = dict[int, Fork]
"""By height. One, as a rule: the height at which this node saw the fork."""


def finalise_if_ready(c: Context) -> bool:
    """Rule 15: with a finalization and its body, hand the block over. True if it was."""
    s = c.s
    if s.final is None or s.is_finalised or s.is_orphan:
        return False
    for timer in (TimerId.VIEW, TimerId.PROPOSE, TimerId.HEARTBEAT, TimerId.JUDGE):
        c.out.cancel_timer(timer)
    block = s.blocks.get(s.final.block_hash)
    if block is None:
        if s.wanted_body != s.final.block_hash:
            s.wanted_body = s.final.block_hash
            c.out.persist_certificate(s.final)
            request = BodyRequest(height=s.height, block_hash=s.final.block_hash)
            c.out.emit(Broadcast(message=request))
            arm_retry(c)
        return False
    c.out.cancel_timer(TimerId.RETRY)
    s.is_finalised = True
    started_ms = s.view_started_ms.get(s.final.view)
    if started_ms is not None:
        c.base_ms = c.timing.next_base_ms(c.base_ms, max(c.now_ms - started_ms, 0))
    c.out.emit(Finalise(block=block, certificate=s.final))
    c.out.emit(Broadcast(message=CertificateMessage(certificate=s.final)))
    return True


def find_fork(c: Context) -> Fork | None:
    """A second finalization of the height in work, whose first is not committed yet."""
    s = c.s
    if s.final is None or s.is_finalised:
        return None
    for certificate in s.book.finalized.values():
        if certificate.block_hash != s.final.block_hash:
            for first, second in ((s.final, certificate), (certificate, s.final)):
                block = s.blocks.get(first.block_hash)
                if block is not None:
                    return Fork(
                        header=block.header, first=first, second=second, validators=s.validators
                    )
            return None  # neither body is here: the one asked for brings the header
    return None


def find_orphan(c: Context) -> Certificate | None:
    """The finalization of another parent, carried by a block that is final in this height.

    Raises InvalidInputError if the block does not follow our chain and carries none: then more
    than 2/3 of the power finalised what no honest node can have voted for.
    """
    s = c.s
    block = None if s.final is None else s.blocks.get(s.final.block_hash)
    if block is None or block.header.parent_hash == s.parent_hash:
        return None
    other = parent_finalization(block.parent_certificate, s.height - 1)
    if other.block_hash != block.header.parent_hash:
        raise InvalidInputError("block carries a finalization of another block than its parent")
    return other


def fork_of(final: FinalHeight) -> Fork:
    """The fork at a height that is final here and of which another block is final too."""
    second = final.other_finalization()
    assert second is not None, "the caller found two finalizations"
    return Fork(
        header=final.header,
        first=final.certificate,
        second=second,
        validators=final.validators,
    )


def find_other_fork(
    c: Context, forks: Forks, finals: FinalHeights, event: Input
) -> FinalHeight | None:
    """Another height that the event shows forked as well. Peers that saw the fork there have its
    certificates to show, and need those that are here."""
    if not isinstance(event, Received):
        return None
    message = event.message
    final = finals.get(message.height)
    if message.height in forks or final is None or not isinstance(message, CertificateMessage):
        return None
    take_in(c, event.peer, final, message)
    return final if final.other_finalization() is not None else None


def halt(c: Context, forks: Forks, fork: Fork, certificates: Iterable[Certificate]) -> None:
    """Rule 15: stop, export the proof, and show all peers what this node holds."""
    best = max((other.named_power for other in forks.values()), default=-1)
    forks[fork.header.height] = fork
    fork.add(certificates)
    if fork.named_power > best:
        c.out.emit(Halt(reason=REASON_FORK, fork_proof=fork.proof()))
    for certificate in fork.proof().certificates:
        c.out.emit(Broadcast(message=CertificateMessage(certificate=certificate)))


def on_input_when_forked(c: Context, forks: Forks, event: Input) -> None:
    """Give and take certificates of the forked heights, and give what is final here to who asks for
    a body: without one of the two blocks nobody can prove the fork. Nothing else happens any more.
    """
    if not isinstance(event, PeerUp | Received):
        return
    peer = event.peer
    if isinstance(event, Received) and isinstance(event.message, BodyRequest):
        on_body_request(c, peer, event.message)
        return
    if isinstance(event, Received) and event.message.height in forks:
        _take_in_when_forked(c, forks, event.message)
    is_asking = isinstance(event, PeerUp) or isinstance(event.message, Status)
    if is_asking and c.limit(peer, "fork"):
        for fork in forks.values():
            for certificate in fork.proof().certificates:
                c.out.emit(SendTo(peer=peer, message=CertificateMessage(certificate=certificate)))


def _take_in_when_forked(c: Context, forks: Forks, message: ConsensusMessage) -> None:
    fork = forks[message.height]
    found: list[Certificate] = []
    for certificate in certificates_of(message):
        try:
            verify_certificate(certificate, fork.validators, c.chain_id, c.signatures)
        except InvalidInputError:
            continue
        found.append(certificate)
    best = max(other.named_power for other in forks.values())
    proof = fork.add(found)
    if proof is not None and fork.named_power > best:
        c.out.emit(Halt(reason=REASON_FORK, fork_proof=proof))


def parent_finalization(certificate: Certificate | None, height: int) -> Certificate:
    """Rule 17: the finalization of `height` carried by a block of the next height.

    Raises InvalidInputError if there is none.
    """
    if (
        certificate is None
        or certificate.kind is not VoteKind.FINALIZE
        or certificate.height != height
    ):
        raise InvalidInputError("block carries no finalization of its parent")
    return certificate
