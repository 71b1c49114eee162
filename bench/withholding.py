"""`./dev bench withholding`: what a coalition gains by choosing which of its blocks becomes final.

Not a timing: a simulation with the node's own leader pick and seed chain (docs/adr/0009-beacon.md
has the reasoning and the figures).

Model. The coalition holds a fraction f < 1/3 of the stake, in a number of keys. The network is
synchronous, so an honest leader's block becomes final in its view. While the coalition leads the
first views of a height, it may withhold in each (the view times out) or propose; the block that
becomes final fixes the next seed. It knows its own outputs at once, hence the seed after each of
its options, and so on for as long as it leads. It does not know an honest leader's output.

    honest       propose in the first view
    greedy       the first option that makes it lead the next height too
    farsighted   the option that begins the longest run of heights led; the best for its share

The second table is another game with the same beacon: a proposer puts stake changes into its
blocks, which count `lag` heights later. If it already knows that seed, it tries changes until the
pick is its own.

SHA-512 of (key, alpha) stands in for the VRF output; --real-vrf proves instead (slow).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from consensus import vrf
from consensus.beacon import next_seed, vrf_alpha
from consensus.leader import leader
from ledger.ed25519 import KeyPair
from ledger.genesis_state import genesis_seed
from ledger.validator_set import Validator, ValidatorSet

TOTAL_POWER = 960_000
HONEST_KEYS = 16
FRACTIONS = (Fraction(1, 10), Fraction(1, 5), Fraction(3, 10), Fraction(1, 3))
COALITION_KEYS = (1, 4, 64)
LAGS = (1, 2, 3, 4, 8)
CHANGES_TRIED_MAX = 1000

Output = Callable[[bytes, bytes], bytes]
"""(public key, alpha) -> 64 B."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The coalition proposes in `view`, and `seed` is the next height's."""

    view: int
    seed: bytes


class World:
    """A validator set with a coalition in it."""

    def __init__(self, fraction: Fraction, keys: int, *, real_vrf: bool = False) -> None:
        pairs = [KeyPair.from_seed(bytes([i]) * 32) for i in range(keys + HONEST_KEYS)]
        self._seeds = {pair.public_key: pair.seed for pair in pairs}
        self._output = self._prove if real_vrf else _stand_in
        self.coalition = frozenset(pair.public_key for pair in pairs[:keys])
        share = fraction * TOTAL_POWER / keys
        honest = (1 - fraction) * TOTAL_POWER / HONEST_KEYS
        self.validators = ValidatorSet.of(
            Validator(public_key=key, power=math.floor(share if key in self.coalition else honest))
            for key in self._seeds
        )

    def _prove(self, key: bytes, alpha: bytes) -> bytes:
        return vrf.proof_to_output(vrf.prove(self._seeds[key], alpha))

    def leads(self, seed: bytes) -> bool:
        return leader(seed, 1, self.validators, self.validators) in self.coalition

    def seed_after(self, seed: bytes, height: int, proposer: bytes) -> bytes:
        return next_seed(seed, self._output(proposer, vrf_alpha(seed, height)))

    def options(self, seed: bytes, height: int) -> list[Option]:
        """One a key (its output does not depend on the view), up to the first honest leader."""
        found: dict[bytes, Option] = {}
        view = 1
        while (key := leader(seed, view, self.validators, self.validators)) in self.coalition:
            if key not in found:
                found[key] = Option(view=view, seed=self.seed_after(seed, height, key))
            view += 1
        return list(found.values())


def _stand_in(key: bytes, alpha: bytes) -> bytes:
    return hashlib.sha512(key + alpha).digest()


# --- strategies: the options to take from this height on, empty if an honest validator leads ---


def honest(world: World, seed: bytes, height: int) -> list[Option]:
    return world.options(seed, height)[:1]


def greedy(world: World, seed: bytes, height: int) -> list[Option]:
    options = world.options(seed, height)
    return ([option for option in options if world.leads(option.seed)] or options)[:1]


def farsighted(world: World, seed: bytes, height: int) -> list[Option]:
    best: list[Option] = []
    for option in world.options(seed, height):
        path = [option, *farsighted(world, option.seed, height + 1)]
        if len(path) > len(best):
            best = path
    return best


Strategy = Callable[[World, bytes, int], list[Option]]
STRATEGIES: tuple[Strategy, ...] = (honest, greedy, farsighted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of `heights` heights."""

    heights: int
    led: int
    error: float
    """Standard error of `share`, from the runs of led heights between honest ones."""
    withheld: int
    timeouts: int
    """Waiting for withheld views, in base timeouts: view v waits 2^(v-1)."""

    @property
    def share(self) -> float:
        return self.led / self.heights


def simulate(world: World, strategy: Strategy, heights: int) -> Outcome:
    """Play `heights` heights from a fixed genesis."""
    seed = genesis_seed(bytes(32))
    led = withheld = timeouts = run = 0
    runs = []
    plan: list[Option] = []
    for height in range(1, heights + 1):
        plan = plan or strategy(world, seed, height)
        if plan:
            option = plan.pop(0)
            seed = option.seed
            run += 1
            withheld += option.view - 1
            timeouts += 2 ** (option.view - 1) - 1
        else:
            seed = world.seed_after(seed, height, _leader(seed, world.validators))
            runs.append(run)
            led, run = led + run, 0
    led += run
    share = led / heights
    spread = sum((r - share * (r + 1)) ** 2 for r in runs)
    return Outcome(
        heights=heights,
        led=led,
        error=math.sqrt(spread) / heights,
        withheld=withheld,
        timeouts=timeouts,
    )


def compute_share_bound(fraction: float) -> float:
    """The share of a farsighted coalition of unlimited keys, in closed form.

    Its options are a Galton-Watson tree: k of them with probability (1-f) f^k. The run it gets is
    the tree's depth D, P(D >= n) = f^n (p - f) / (p^(n+1) - f^(n+1)) with p = 1 - f, and an honest
    height ends each run: the share is E[D] / (1 + E[D]).
    """
    f, p = fraction, 1 - fraction
    depth = sum(f**n * (p - f) / (p ** (n + 1) - f ** (n + 1)) for n in range(1, 200))
    return depth / (1 + depth)


def simulate_stake_changes(fraction: Fraction, lag: int, heights: int) -> float:
    """The share of heights that one key leads (in view 1) if it adds dust to its own stake in the
    blocks it proposes, which counts `lag` heights later."""
    world = World(fraction, 1)
    (key,) = world.coalition
    changed: dict[int, ValidatorSet] = {}

    def proposer(seed: bytes, height: int) -> bytes:
        return _leader(seed, changed.get(height, world.validators))

    seed, led = genesis_seed(bytes(32)), 0
    for height in range(1, heights + 1):
        first = proposer(seed, height)
        led += first == key
        known, at = seed, height
        while at < height + lag and proposer(known, at) == key:
            known, at = world.seed_after(known, at, key), at + 1
        if at == height + lag:
            changed[at] = _change_stake(world, key, known)
        seed = world.seed_after(seed, height, first)
        changed.pop(height, None)
    return led / heights


def _leader(seed: bytes, validators: ValidatorSet) -> bytes:
    """Of view 1, where the voting powers weigh the pick."""
    return leader(seed, 1, validators, validators)


def _change_stake(world: World, key: bytes, seed: bytes) -> ValidatorSet:
    """The least dust that makes `key` lead the height with `seed`."""
    for dust in range(CHANGES_TRIED_MAX):
        found = ValidatorSet.of(
            Validator(public_key=v.public_key, power=v.power + (dust if v.public_key == key else 0))
            for v in world.validators.validators
        )
        if _leader(seed, found) == key:
            return found
    return world.validators


# --- output ---


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--heights", type=int, default=200_000)
    parser.add_argument("--real-vrf", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = _measure_withholding(options.heights, real_vrf=options.real_vrf)
    changes = _measure_stake_changes(options.heights // 10)
    if options.json:
        print(json.dumps({"bench": "withholding", "withholding": rows, "stake_changes": changes}))


def _measure_withholding(heights: int, *, real_vrf: bool) -> list[dict[str, float | str]]:
    print("stake  keys  strategy     share of blocks    gain  withheld  waiting  bound")
    rows: list[dict[str, float | str]] = []
    for fraction in FRACTIONS:
        for keys in COALITION_KEYS:
            world = World(fraction, keys, real_vrf=real_vrf)
            for strategy in STRATEGIES:
                found = simulate(world, strategy, heights)
                stake, bound = float(fraction), compute_share_bound(float(fraction))
                print(
                    f"{stake:.3f}  {keys:>4}  {strategy.__name__:<11}  {found.share:.4f} ± "
                    f"{found.error:.4f}  {found.share / stake - 1:>+7.1%}  "
                    f"{found.withheld / heights:>8.4f}  {found.timeouts / heights:>7.4f}  "
                    f"{bound:.4f}",
                    flush=True,
                )
                rows.append(
                    {
                        "stake": stake,
                        "keys": keys,
                        "strategy": strategy.__name__,
                        "share": found.share,
                        "error": found.error,
                        "withheld_per_height": found.withheld / heights,
                        "timeouts_per_height": found.timeouts / heights,
                        "bound": bound,
                    }
                )
    return rows


def _measure_stake_changes(heights: int) -> list[dict[str, float]]:
    print("\nstake  lag  share of blocks of one key that changes its stake")
    rows: list[dict[str, float]] = []
    for fraction in FRACTIONS:
        for lag in LAGS:
            share = simulate_stake_changes(fraction, lag, heights)
            print(f"{float(fraction):.3f}  {lag:>3}  {share:.4f}", flush=True)
            rows.append({"stake": float(fraction), "lag": lag, "share": share})
    return rows


if __name__ == "__main__":
    main()
