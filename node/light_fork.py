"""Who made a fork that a light client met: two endpoints prove two headers of one height.

The fork began at the first height where they differ. There, and for certain nowhere above, both
blocks have one validator set, so that the two finalizations and the certificates that the endpoints
keep of that height make a fork proof (consensus/fork_proof.py). The height is searched by halves
for as long as both answer; every header on the way is verified from the trusted head.

The proof's handoffs lead from where the trust began (the root), so that whoever trusts the same can
check it. From a genesis they are those that a node writes. A trust point names a header only by its
hash: there the first step is that header itself with the set that it hands over to, and
`begin_at_trust_point` holds the one against the hash.

What can not be had: if a side names a set that no common header handed over to (an invention,
signed by more than 1/3 of the trusted power) and does not show where it left the common chain, the
sides have no set in common and there is no fork proof; the two finality proofs are all there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from consensus.fork_proof import BETWEEN_MAX, ForkProof, verify_fork
from ledger.certificate import Certificate, verify_certificate
from ledger.errors import InvalidInputError
from ledger.finality import FinalityProof, Handoff
from ledger.light import Attack, LightBlock, TrustPoint, Verdict, judge
from ledger.validator_set import ValidatorSet
from node.light_source import Source
from node.light_trust import TrustRoot
from rpc.errors import RpcConnectionError, RpcError

_FAULTS = (InvalidInputError, RpcConnectionError, RpcError)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sides:
    """Two verified, final headers of one height."""

    first: FinalityProof
    second: FinalityProof

    @property
    def height(self) -> int:
        return self.first.header.height


async def find_fork(
    attack: Attack, sources: tuple[Source, Source], root: TrustRoot, now_ms: int
) -> ForkProof:
    """The fork proof of what the two sources showed. It shows a fork to whoever trusts `root`; who
    is guilty it names as far as the sources gave the certificates.

    Raises InvalidInputError, RpcError or RpcConnectionError if it can not be made.
    """
    sides = await _find_first_difference(
        _Sides(first=attack.first, second=attack.second), attack.trust, sources, now_ms
    )
    failure: Exception = InvalidInputError("there is no source")
    for source in sources:
        try:
            bare = ForkProof(
                header=sides.first.header,
                first=sides.first.certificate,
                second=sides.second.certificate,
                handoffs=await _find_handoffs(source, root, sides.height),
            )
            validators = _verify_from_root(bare, root)
        except _FAULTS as error:
            failure = error
            continue
        known = await _find_certificates(sources, sides.height, validators, root.chain_id)
        proof = ForkProof.of(bare.header, bare.first, bare.second, known)
        return replace(proof, handoffs=bare.handoffs)
    raise failure


def begin_at_trust_point(proof: ForkProof, header_hash: bytes) -> tuple[ForkProof, ValidatorSet]:
    """For a reader that trusts the header of the proof's first step, by its hash: the proof after
    that step, and the set that it begins at. Raises InvalidInputError."""
    first = proof.handoffs[0] if proof.handoffs else None
    if first is None or first.header.hash != header_hash:
        raise InvalidInputError(
            "the fork proof does not begin at the trust point",
            expected=f"a first step by header {header_hash.hex()}",
            got="no step" if first is None else first.header.hash.hex(),
        )
    if first.next_validators.hash != first.header.next_validators_hash:
        raise InvalidInputError("the first step carries a set that the trusted header names not")
    return replace(proof, handoffs=proof.handoffs[1:]), first.next_validators


def _verify_from_root(proof: ForkProof, root: TrustRoot) -> ValidatorSet:
    """The set of the forked height. Raises InvalidInputError if the proof shows no fork."""
    if root.point is None:
        proof, trusted = begin_at_trust_point(proof, root.root)
    else:
        trusted = root.point.validators
    return verify_fork(proof, trusted, root.chain_id)


async def _find_first_difference(
    sides: _Sides, trust: TrustPoint, sources: tuple[Source, Source], now_ms: int
) -> _Sides:
    """Or the lowest that both sources show."""
    same = trust.height
    while sides.height - same > 1:
        middle = (same + sides.height) // 2
        try:
            first = await _final_header(sources[0], middle, trust, now_ms)
            second = await _final_header(sources[1], middle, trust, now_ms)
        except _FAULTS:
            break
        if first.header.hash == second.header.hash:
            same = middle
        else:
            sides = _Sides(first=first, second=second)
    return sides


async def _final_header(
    source: Source, height: int, trust: TrustPoint, now_ms: int
) -> FinalityProof:
    data = await source.finality(height, trust.height)
    judgement = judge(data, trust, now_ms=now_ms)
    if judgement.verdict is not Verdict.VALID:
        raise InvalidInputError(f"no header to compare: {judgement.reason}", got=str(height))
    proof = FinalityProof.decode(data)
    if proof.header.height != height:
        raise InvalidInputError("the answer is about another height", expected=str(height))
    return proof


async def _find_handoffs(source: Source, root: TrustRoot, height: int) -> tuple[Handoff, ...]:
    """From the root to the set that votes on `height`, all by headers below it, which both sides
    share. Not verified."""
    below, steps = height - 1, []
    if root.point is None:
        steps.append(_step_after(await source.light_block(root.height)))
    if below > root.height:
        steps += FinalityProof.decode(await source.finality(below, root.height)).handoffs
        last = _step_after(await source.light_block(below))
        if last.header.next_validators_hash != last.header.validators_hash:
            steps.append(last)
    return tuple(steps)


def _step_after(data: bytes) -> Handoff:
    block = LightBlock.decode(data)
    return Handoff(
        header=block.header,
        certificate=block.certificate,
        next_validators=block.next_validators,
    )


async def _find_certificates(
    sources: Sequence[Source], height: int, validators: ValidatorSet, chain_id: str
) -> list[Certificate]:
    """What the sources keep of `height`. A false one would spoil the proof: it is left out."""
    found = []
    for source in sources:
        try:
            shown = (await source.certificates(height))[:BETWEEN_MAX]
        except _FAULTS:
            continue
        for data in shown:
            try:
                certificate = Certificate.decode(data)
                verify_certificate(certificate, validators, chain_id)
            except InvalidInputError:
                continue
            if certificate.height == height:
                found.append(certificate)
    return found
