"""The shortest chain of handoffs from a validator set that a verifier trusts to a later one.

The sets that voted are stages: a stage is a run of heights with one set. Steps (`ledger.finality`
has the rules) go from a stage to the next, by the last header of the stage (adjacent); or to any
later one, by the first header of that stage (a skip), if that header's signers hold more than 1/3
of the power of the set that the step begins from. Between stages of equal sets no step is needed.

Taking the furthest skip each time is not the shortest way: a stage further on may reach less far,
since its validators need not outlast those of the stages before it. So stages are searched breadth
first, which is shortest by construction and looks at each pair of stages at most once.

With more than `SEARCH_STAGES_MAX` changes that would be too much work for one answer. Then a skip
over all of them is tried, and if it does not carry the heights are cut in two, as a bisecting
light client would do. What comes out is always valid, and the shortest within each searched part.

Answers come from the event loop, so the work behind them is kept, refusals too. What is final does
not change; and the cuts are at the heights with the most trailing zero bits, so that answers
between any two heights share all parts but those at their ends: with the rest kept, an answer
costs at most two searches. A call makes at most `SEARCHES_MAX` new ones (each some 20 ms with 100
validators); if that is not enough it says so, and the next call goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from ledger.block import Header
from ledger.certificate import Certificate
from ledger.errors import InvalidInputError
from ledger.finality import FINALITY_PROOF_BYTES_MAX, HANDOFFS_MAX, Handoff
from ledger.validator_set import ValidatorSet

SEARCH_STAGES_MAX = 64
SEARCHES_MAX = 8
HANDOFFS_BYTES_MAX = FINALITY_PROOF_BYTES_MAX - 64 * 1024
"""Leaves room for the proven header and its certificate."""
WAYS_KEPT_MAX = 4096
PAIRS_KEPT_MAX = 2**16
STAGES_KEPT_MAX = 512
HANDOFFS_KEPT_MAX = 512
"""Whole ones, with a certificate and a set: 40 KB each with 256 validators."""

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


_Step = tuple[int, bool]
"""(height of the header, whether it is a skip to the set that voted on it)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """The set that voted on a height, and those of it that signed there."""

    validators: ValidatorSet
    signers: frozenset[bytes]


class Handoffs:
    """Finds steps, and keeps what it found."""

    def __init__(self, chain: FinalHeaders, bytes_max: int = HANDOFFS_BYTES_MAX) -> None:
        self._chain = chain
        self._bytes_max = bytes_max
        self._searches_left: int | None = None  # in this call; None: no bound
        self._answer = lru_cache(WAYS_KEPT_MAX)(self._compute_answer)
        self._way = lru_cache(WAYS_KEPT_MAX)(self._compute_way)
        self._carries = lru_cache(PAIRS_KEPT_MAX)(self._compute_carries)
        self._stage = lru_cache(STAGES_KEPT_MAX)(self._load_stage)
        self._handoff = lru_cache(HANDOFFS_KEPT_MAX)(self._load_handoff)
        self._count_bytes = lru_cache(PAIRS_KEPT_MAX)(lambda s: _count_bytes(self._handoff(s)))

    def find(self, trusted_height: int, height: int) -> tuple[Handoff, ...]:
        """The steps from the set that header `trusted_height` names for the next height (0:
        genesis) to the one that voted on `height`; none if `height` is not later than that.

        Raises InvalidInputError if what lies between is not kept here, or if the steps do not fit
        a proof; with `retry` if finding them takes more work than one call may cause.
        """
        return self._find(trusted_height, height, SEARCHES_MAX)

    def _find(
        self, trusted_height: int, height: int, searches_max: int | None
    ) -> tuple[Handoff, ...]:
        changed = self._chain.last_handoff_height(height - 1)
        if changed <= trusted_height:
            return ()
        self._searches_left = searches_max
        steps = self._answer(self._first_height(trusted_height + 1), changed + 1)
        if steps is None:
            raise InvalidInputError(
                "the validators changed too often since the trusted height",
                expected="a later trusted height",
            )
        return tuple(map(self._handoff, steps))

    def find_to_voters(self, height: int) -> tuple[Handoff, ...]:
        """The steps from the genesis set to the one that votes on `height`, which may be the next
        one: all by headers below it, so that they hold whichever block is final there. For a fork
        proof, whatever work it takes. Raises InvalidInputError."""
        below = height - 1
        if below == 0:
            return ()
        steps, header = self._find(0, below, None), self._chain.header(below)
        if header.next_validators_hash == header.validators_hash:
            return steps
        return (*steps, adjacent_handoff(self._chain, below))

    def _first_height(self, height: int) -> int:
        """Of the stage that `height` is in, so that all of its heights share their answers."""
        first = self._chain.last_handoff_height(height - 1) + 1
        try:
            self._chain.header(first)
        except InvalidInputError:  # not kept any more
            return height
        return first

    def _compute_answer(self, low: int, high: int) -> tuple[_Step, ...] | None:
        """As `_compute_way`; None also if the steps have too many bytes."""
        steps = self._way(low, high)
        room = self._bytes_max
        for step in steps or ():
            room -= self._count_bytes(step)
            if room < 0:
                return None
        return steps

    def _compute_way(self, low: int, high: int) -> tuple[_Step, ...] | None:
        """From the set that voted on `low` to the one that voted on `high`; None if that takes too
        many steps."""
        changes = self._chain.handoff_heights(low, high - 1, SEARCH_STAGES_MAX + 1)
        if not changes:
            return ()
        if len(changes) <= SEARCH_STAGES_MAX:
            return self._search(low, changes)
        if self._carries(low, high):
            return ((high, True),)
        middle = high - 1
        while middle & (middle - 1) > low:
            middle &= middle - 1
        left = self._way(low, middle)
        right = None if left is None else self._way(middle, high)
        if left is None or right is None or len(left) + len(right) > HANDOFFS_MAX:
            return None
        return left + right

    def _search(self, low: int, changes: Sequence[int]) -> tuple[_Step, ...]:
        """`changes` are the last heights of all stages but the last."""
        if self._searches_left is not None:
            if self._searches_left == 0:
                raise InvalidInputError(
                    "the steps from the trusted height are still being worked out",
                    expected="the same question again, or a later trusted height",
                    retry=True,
                )
            self._searches_left -= 1
        firsts = [low, *(height + 1 for height in changes)]
        steps = plan_steps(
            [self._stage(first).validators.hash for first in firsts],
            lambda stage, other: self._carries(firsts[stage], firsts[other]),
        )
        return tuple(
            (changes[stage], False) if other == stage + 1 else (firsts[other], True)
            for stage, other in steps
        )

    def _compute_carries(self, low: int, high: int) -> bool:
        """Whether those who signed `high` hold enough power in the set that voted on `low`."""
        trusted, later = self._stage(low).validators, self._stage(high)
        if trusted.hash == later.validators.hash:
            return False
        powers = trusted.power_by_key
        return trusted.has_third(sum(powers[key] for key in later.signers & powers.keys()))

    def _load_stage(self, height: int) -> _Stage:
        validators = self._set_at(height)
        signed = self._chain.certificate(height).signer_indexes(validators)
        return _Stage(
            validators=validators,
            signers=frozenset(validators.validators[i].public_key for i in signed),
        )

    def _load_handoff(self, step: _Step) -> Handoff:
        height, is_skip = step
        if not is_skip:
            return adjacent_handoff(self._chain, height)
        return Handoff(
            header=self._chain.header(height),
            certificate=self._chain.certificate(height),
            next_validators=self._set_at(height),
        )

    def _set_at(self, height: int) -> ValidatorSet:
        return self._chain.validators_by_hash(self._chain.header(height).validators_hash)


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
