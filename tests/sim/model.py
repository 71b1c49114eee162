"""The voting rules without a network: every set of votes that honest validators can reach.

The model grants the adversary everything that a network could: any message lost, late or shown to
some only, Byzantine validators that sign all there is, and leaders that propose two blocks in every
view. What is left are the rules by which an honest validator votes (`consensus.rules.Rules`, the
predicates of the real core) and what justifies a proposal (rule 6).

Why this is exhaustive, view by view. Whether a vote of view v may be given depends on the voter's
own votes of v and on certificates of views up to v; so any run can be reordered to give all votes
of view 1, then of 2, and so on, without changing a vote. And all that later views need to know of
the views up to v is

    all_nullified   whether views 1..v all have nullifications: a fresh block is justified
    open_hashes     blocks with a notarization in some p <= v and nullifications of p+1..v
    finalized       blocks with a finalization

so the search is over these, and each step over all choices of votes of one view. Byzantine power is
counted for every certificate: more certificates only allow more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, combinations_with_replacement, product

from consensus.rules import OwnStatements, Rules
from consensus.statement import Statement, StatementKind, is_conflict
from ledger.validator_set import Validator, ValidatorSet

BLOCKS_PER_VIEW = 2
Votes = tuple[bytes, bool, bytes]
"""(notarized hash or b"", nullified?, finalized hash or b"")."""


@dataclass(frozen=True, slots=True)
class State:
    """What matters after some views; see the module docstring."""

    all_nullified: bool = True
    open_hashes: frozenset[bytes] = frozenset()
    finalized: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class Result:
    """`vote_sets`: choices of votes of one view examined; `states`: distinct states reached."""

    vote_sets: int = 0
    states: int = 0
    fork: State | None = None
    framed: list[Votes] = field(default_factory=list)


def block_hash(view: int, number: int) -> bytes:
    return bytes([view, number]) * 16


def justified_hashes(state: State, view: int) -> frozenset[bytes]:
    """Rule 6: what may be proposed in `view`, after a state of the views below it."""
    fresh = {block_hash(view, n) for n in range(BLOCKS_PER_VIEW) if state.all_nullified}
    return state.open_hashes | fresh


def choices(rules: Rules, view: int, hashes: frozenset[bytes]) -> list[Votes]:
    """All that one honest validator may have voted in a view in which `hashes` are proposed; its
    finalize vote needs the notarization of that hash as well, which the caller checks."""
    found: set[Votes] = set()
    stack: list[tuple[Statement, ...]] = [()]
    while stack:
        said = stack.pop()
        own = OwnStatements()
        for statement in said:
            own.add(statement)
        votes = (own.notarized.get(view, b""), view in own.nullified, own.finalized.get(view, b""))
        if votes in found and said:
            continue
        found.add(votes)
        stack += [(*said, statement) for statement in _allowed(rules, own, view, hashes)]
    return sorted(found)


def _allowed(
    rules: Rules, own: OwnStatements, view: int, hashes: frozenset[bytes]
) -> Iterator[Statement]:
    def say(kind: StatementKind, shown: bytes) -> Statement:
        return Statement(kind=kind, height=1, view=view, block_hash=shown)

    if rules.may_notarize(own, view):
        yield from (say(StatementKind.NOTARIZE, shown) for shown in sorted(hashes))
    # The adversary decides which notarizations a validator knows when its timer expires.
    if rules.may_nullify(own, view, is_notarized=False):
        yield say(StatementKind.NULLIFY, b"")
    for shown in sorted(hashes):
        if rules.may_finalize(own, view, shown):
            yield say(StatementKind.FINALIZE, shown)


def is_framed(votes: Votes) -> bool:
    """True if these votes of one validator are evidence against it."""
    notarized, nullified, finalized = votes
    said = [Statement(kind=StatementKind.NULLIFY, height=1, view=1, block_hash=b"")] * nullified
    for kind, shown in (
        (StatementKind.NOTARIZE, notarized),
        (StatementKind.FINALIZE, finalized),
    ):
        if shown:
            said.append(Statement(kind=kind, height=1, view=1, block_hash=shown))
    return any(is_conflict(a, b) for a, b in combinations(said, 2))


class Model:
    """One validator set with one choice of who is Byzantine."""

    def __init__(self, powers: tuple[int, ...], byzantine: tuple[int, ...], rules: Rules) -> None:
        keys = [bytes([i + 1]) * 32 for i in range(len(powers))]
        self.validators = ValidatorSet.of(
            Validator(public_key=k, power=p) for k, p in zip(keys, powers, strict=True)
        )
        self.rules = rules
        self.byzantine_count = len(byzantine)
        self.byzantine_power = sum(powers[i] for i in byzantine)
        honest = sorted(powers[i] for i in range(len(powers)) if i not in byzantine)
        self.groups = [(power, honest.count(power)) for power in sorted(set(honest))]
        self._quorums: dict[tuple[int, int], bool] = {}

    def has_quorum(self, power: int, count: int) -> bool:
        """With the Byzantine votes added."""
        slot = (power, count)
        if slot not in self._quorums:
            signers = [bytes([i]) * 32 for i in range(count + self.byzantine_count)]
            self._quorums[slot] = self.rules.has_quorum(
                self.validators, signers, power + self.byzantine_power
            )
        return self._quorums[slot]

    def hashes(self, state: State, view: int) -> frozenset[bytes]:
        """What leaders may propose."""
        return justified_hashes(state, view)

    def steps(self, state: State, view: int, result: Result) -> Iterator[State]:
        """Every state after `view`. Validators of equal power are interchangeable."""
        options = choices(self.rules, view, self.hashes(state, view))
        result.framed += [votes for votes in options if is_framed(votes)]
        groups = [combinations_with_replacement(options, count) for _, count in self.groups]
        for chosen in product(*groups):
            result.vote_sets += 1
            after = self._after(state, chosen)
            if after is not None:
                yield after

    def _after(self, state: State, chosen: tuple[tuple[Votes, ...], ...]) -> State | None:
        """The state that these votes lead to; None if one of them was not possible."""
        tallies: dict[tuple[str, bytes], tuple[int, int]] = {}
        for (power, _), votes_of_group in zip(self.groups, chosen, strict=True):
            for notarized, nullified, finalized in votes_of_group:
                slots = (("N", notarized), ("F", finalized), ("X", b"x" if nullified else b""))
                for slot in slots:
                    if slot[1]:
                        known = tallies.get(slot, (0, 0))
                        tallies[slot] = (known[0] + power, known[1] + 1)
        certified = {slot for slot, tally in tallies.items() if self.has_quorum(*tally)}
        for kind, shown in tallies:
            if kind == "F" and ("N", shown) not in certified:
                return None
        is_nullified = ("X", b"x") in certified
        notarized_now = frozenset(h for kind, h in certified if kind == "N")
        return State(
            all_nullified=state.all_nullified and is_nullified,
            open_hashes=notarized_now | (state.open_hashes if is_nullified else frozenset()),
            finalized=state.finalized | {h for kind, h in certified if kind == "F"},
        )

    def explore(self, views: int) -> Result:
        """All states of up to `views` views; stops at the first fork or framed validator."""
        result = Result()
        frontier = {State()}
        for view in range(1, views + 1):
            following: set[State] = set()
            for state in frontier:
                for after in self.steps(state, view, result):
                    if len(after.finalized) > 1:
                        result.fork = after
                    following.add(after)
                if result.fork is not None or result.framed:
                    result.states += len(following)
                    return result
            result.states += len(following)
            frontier = {_canonical(state) for state in following}
        return result


@lru_cache(maxsize=200_000)
def _canonical(state: State) -> State:
    """The two fresh blocks of a view differ in name only: take the smaller naming."""
    views = sorted({h[0] for h in state.open_hashes | state.finalized})

    def renamed(hashes: frozenset[bytes], swaps: tuple[bool, ...]) -> tuple[bytes, ...]:
        swapped = dict(zip(views, swaps, strict=True))
        return tuple(sorted(block_hash(h[0], h[1] ^ swapped[h[0]]) for h in hashes))

    namings = [
        (renamed(state.open_hashes, swaps), renamed(state.finalized, swaps))
        for swaps in product((False, True), repeat=len(views))
    ]
    open_hashes, finalized = min(namings)
    return State(state.all_nullified, frozenset(open_hashes), frozenset(finalized))


def byzantine_choices(powers: tuple[int, ...], *, below_a_third: bool) -> list[tuple[int, ...]]:
    """One choice for each multiset of Byzantine powers: those below 1/3 that can't grow, or the
    smallest from 1/3 on."""
    total = sum(powers)

    def is_below(chosen: tuple[int, ...]) -> bool:
        return 3 * sum(powers[i] for i in chosen) < total

    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for count in range(1, len(powers)):
        for chosen in combinations(range(len(powers)), count):
            rest = [i for i in range(len(powers)) if i not in chosen]
            if below_a_third:
                fits = is_below(chosen) and not any(is_below((*chosen, i)) for i in rest)
            else:
                fits = not is_below(chosen) and all(
                    is_below(tuple(x for x in chosen if x != i)) for i in chosen
                )
            if fits:
                found.setdefault(tuple(sorted(powers[i] for i in chosen)), chosen)
    return sorted(found.values())
