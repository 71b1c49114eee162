"""The shortest chain of handoffs from a validator set that a verifier trusts to a later one.

The sets that voted are stages: a stage is a run of heights with one set. Steps (`ledger.finality`
has the rules) go from a stage to the next, by the last header of the stage (adjacent); or to any
later one, by the first header of that stage (a skip), if that header's signers hold more than 1/3
of the power of the set that the step begins from. Between stages of equal sets no step is needed.

Taking the furthest skip each time is not the shortest way: a stage further on may reach less far,
since its validators need not outlast those of the stages before it. So stages are searched breadth
first, which is shortest by construction and looks at each pair of stages at most once.

With more than `SEARCH_STAGES_MAX` changes that would be too much work for one answer. Then a skip
over all of them is tried, and if it does not carry the heights are cut in half, as a bisecting
light client would do. What comes out is always valid, and the shortest within each searched part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ledger.block import Header
from ledger.certificate import Certificate
from ledger.errors import InvalidInputError
from ledger.finality import FINALITY_PROOF_BYTES_MAX, Handoff, compute_overlap
from ledger.validator_set import ValidatorSet

SEARCH_STAGES_MAX = 64
SEARCHES_MAX = 16
KEPT_MAX = 64
HANDOFFS_BYTES_MAX = FINALITY_PROOF_BYTES_MAX - 64 * 1024
"""Leaves room for the proven header and its certificate."""

CanSkip = Callable[[int, int], bool]
"""(from stage, to stage) -> may a verifier that trusts the one skip to the other?"""


class FinalHeaders(Protocol):
    """The final blocks of a chain. All of it raises InvalidInputError for what is not kept."""

    def header(self, height: int) -> Header: ...

    def certificate(self, height: int) -> Certificate: ...

    def validators_by_hash(self, set_hash: bytes) -> ValidatorSet: ...

    def handoff_heights(self, first: int, last: int, count_max: int) -> list[int]:
        """The first `count_max` heights in first..last whose headers name another next set."""

    def last_handoff_height(self, last: int) -> int:
        """The highest such height up to `last`; 0 if there is none."""


class Handoffs:
    """Finds steps, and keeps those it found: they stay the same until the set changes again."""

    def __init__(self, chain: FinalHeaders, bytes_max: int = HANDOFFS_BYTES_MAX) -> None:
        self._chain = chain
        self._bytes_max = bytes_max
        self._kept: dict[tuple[int, int], tuple[Handoff, ...]] = {}

    def find(self, trusted_height: int, height: int) -> tuple[Handoff, ...]:
        """The steps from the set that header `trusted_height` names for the next height (0:
        genesis) to the one that voted on `height`; none if `height` is not later than that.

        Raises InvalidInputError if what lies between is not kept here, or takes too many searches.
        """
        changed = self._chain.last_handoff_height(height - 1)
        if changed <= trusted_height:
            return ()
        key = trusted_height, changed
        if key not in self._kept:
            if len(self._kept) >= KEPT_MAX:
                self._kept.pop(next(iter(self._kept)))
            found = tuple(_Finder(self._chain).find(trusted_height, changed + 1))
            if sum(map(_count_bytes, found)) > self._bytes_max:
                raise _too_many_changes()
            self._kept[key] = found
        return self._kept[key]

    def find_to_voters(self, height: int) -> tuple[Handoff, ...]:
        """The steps from the genesis set to the one that votes on `height`, which may be the next
        one: all by headers below it, so that they hold whichever block is final there. Raises
        InvalidInputError."""
        below = height - 1
        if below == 0:
            return ()
        steps, header = self.find(0, below), self._chain.header(below)
        if header.next_validators_hash == header.validators_hash:
            return steps
        return (*steps, adjacent_handoff(self._chain, below))


class _Finder:
    def __init__(self, chain: FinalHeaders) -> None:
        self._chain = chain
        self._searches = 0

    def find(self, trusted_height: int, height: int) -> list[Handoff]:
        changes = self._chain.handoff_heights(trusted_height + 1, height - 1, SEARCH_STAGES_MAX + 1)
        if not changes:
            return []
        if len(changes) <= SEARCH_STAGES_MAX:
            return self._search(changes)
        skip = self._skip(height)
        if _carries(skip, self._set_at(trusted_height + 1)):
            return [skip]
        middle = (trusted_height + 1 + height) // 2
        return self.find(trusted_height, middle) + self.find(middle - 1, height)

    def _search(self, changes: Sequence[int]) -> list[Handoff]:
        """`changes` are the last heights of all stages but the last."""
        self._searches += 1
        if self._searches > SEARCHES_MAX:
            raise _too_many_changes()
        sets = [self._set_at(changes[0]), *(self._set_at(height + 1) for height in changes)]
        skips: dict[int, Handoff] = {}

        def can_skip(stage: int, other: int) -> bool:
            if other not in skips:
                skips[other] = self._skip(changes[other - 1] + 1)
            return _carries(skips[other], sets[stage])

        return [
            adjacent_handoff(self._chain, changes[stage]) if other == stage + 1 else skips[other]
            for stage, other in plan_steps([s.hash for s in sets], can_skip)
        ]

    def _set_at(self, height: int) -> ValidatorSet:
        return self._chain.validators_by_hash(self._chain.header(height).validators_hash)

    def _skip(self, height: int) -> Handoff:
        return Handoff(
            header=self._chain.header(height),
            certificate=self._chain.certificate(height),
            next_validators=self._set_at(height),
        )


def adjacent_handoff(chain: FinalHeaders, height: int) -> Handoff:
    """The step by which a final header hands over to the set of the next height."""
    header = chain.header(height)
    return Handoff(
        header=header,
        certificate=chain.certificate(height),
        next_validators=chain.validators_by_hash(header.next_validators_hash),
    )


def plan_steps(set_hashes: Sequence[bytes], can_skip: CanSkip) -> list[tuple[int, int]]:
    """The fewest steps (from stage, to stage) from the first stage to the last, given the set of
    each. To the next stage there is always a step; `can_skip` says where else."""
    last = len(set_hashes) - 1
    came_from: dict[int, int] = {}

    def reach(stage: int, origin: int) -> list[int]:
        """`stage` is reached, and with it, for nothing, the later ones with the same set."""
        found = [stage]
        came_from[stage] = origin
        for twin in range(stage + 1, last + 1):
            if twin not in came_from and set_hashes[twin] == set_hashes[stage]:
                came_from[twin] = stage
                found.append(twin)
        return found

    level = reach(0, 0)
    while last not in came_from:
        following: list[int] = []
        for stage in level:
            for other in range(last, stage, -1):
                if other not in came_from and (other == stage + 1 or can_skip(stage, other)):
                    following += reach(other, stage)
        level = following
    steps = []
    while last:
        if set_hashes[last] != set_hashes[came_from[last]]:
            steps.append((came_from[last], last))
        last = came_from[last]
    return steps[::-1]


def _carries(skip: Handoff, trusted: ValidatorSet) -> bool:
    signers = skip.next_validators
    return signers.hash != trusted.hash and trusted.has_third(
        compute_overlap(skip.certificate, signers, trusted)
    )


def _count_bytes(handoff: Handoff) -> int:
    certificate = handoff.certificate
    signatures = sum(map(len, certificate.signatures)) + 2 * len(certificate.signatures)
    frame_bytes_max = 256
    return (
        len(handoff.header.encoded)
        + len(handoff.next_validators.encoded)
        + signatures
        + frame_bytes_max
    )


def _too_many_changes() -> InvalidInputError:
    return InvalidInputError(
        "the validators changed too often since the trusted height",
        expected="a later trusted height",
    )
