"""A naive twin of staking: fractions, no shares, and a loop over every stake for every slash.

It knows accounts by number. A stake is a list of lots: first what is under no hop, then one lot for
each hop. Rewards go to each delegator in each block. The one thing that it copies from the real
rules is when a slash of hopped stake is *taken*: what a hop owes is known at once (`ghost`), but
counts in the validator, and earns, until the stake is touched.

Every rounding of the real thing is below 1 uzynk a step. `err` of a validator bounds what its
stakes may differ by, `slack` of an account what its rewards may.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from ledger.params import DAY_MS, PPM, ChainParams
from ledger.staking_record import POWER_UNIT

YEAR_MS = 365 * DAY_MS
GRID = 2**128
ZERO = Fraction(0)


def on_grid(value: Fraction) -> Fraction:
    """To 2^-128, so that denominators stay short; nothing to what is compared."""
    return Fraction(int(value * GRID), GRID)


@dataclass
class Lot:
    """`weight` tokens in a validator, `ghost` of them burned but not taken yet. With a hop: from
    `source`, which it left at `height`, liable until `until_ms`; `paid` once it has burned."""

    weight: Fraction
    source: int = -1
    height: int = 0
    until_ms: int = 0
    ghost: Fraction = ZERO
    paid: bool = False


@dataclass
class Leaving:
    """A stake in the queue; `via` as a lot's hop. `paid`: the validators that it has paid for."""

    delegator: int
    operator: int
    value: Fraction
    height: int
    due_ms: int
    err: Fraction
    via: Lot | None = None
    ghost: Fraction = ZERO
    paid: set[int] = field(default_factory=set)
    is_entry: bool = True
    """False for less than 1 uzynk, which does not wait."""


@dataclass
class TwinValidator:
    consensus: int
    vrf: int
    cosign: int
    commission: int
    day_ms: int
    next_vrf: int = -1
    next_vrf_height: int = 0
    day_commission: int = 0
    lots: dict[int, list[Lot]] = field(default_factory=dict)
    commission_owed: Fraction = ZERO
    limbo: Fraction = ZERO
    jailed_until: int = 0
    retired: bool = False
    key_end: int | None = None
    """The last height of its consensus key: it has retired, and the set does without it."""
    offences: list[int] = field(default_factory=list)
    slashed: tuple[int, int] = (0, 0)
    """Height and time of the slash, if there are offences."""
    worthless: bool = False
    err: Fraction = ZERO
    commission_slack: Fraction = ZERO

    @property
    def weight(self) -> Fraction:
        return sum((lot.weight for lots in self.lots.values() for lot in lots), ZERO)

    @property
    def tokens(self) -> Fraction:
        return ZERO if self.worthless else self.weight

    def value(self, delegator: int) -> Fraction:
        """What a stake is worth after every slash that it owes."""
        lots = [] if self.worthless else self.lots.get(delegator, [])
        return sum((lot.weight - lot.ghost for lot in lots), ZERO)


class Twin:
    def __init__(
        self, params: ChainParams, bonds: tuple[int, ...], balances: dict[int, int], start_ms: int
    ) -> None:
        self.params = params
        self.height = 0
        self.start_ms = self.time_ms = start_ms
        self.balances = {number: Fraction(n) for number, n in balances.items()}
        self.slack = dict.fromkeys(balances, ZERO)
        self.validators: dict[int, TwinValidator] = {}
        self.leaving: list[Leaving] = []
        self.owed: dict[tuple[int, int], Fraction] = {}
        self.pot = self.fees = ZERO
        self.reached: dict[str, int] = {}
        for number, bond in enumerate(bonds):
            self.add_validator(number, number, 100_000, 0, bond)
        first = {number: bond // POWER_UNIT for number, bond in enumerate(bonds)}
        ranked = sorted(first.items(), key=lambda item: -item[1])[: params.validators_max]
        self.sets = [dict(ranked)] * 2  # vote on the next height, and on the one after it

    def add_validator(
        self, operator: int, keys: int, commission: int, day_ms: int, bond: int
    ) -> None:
        self.validators[operator] = TwinValidator(
            consensus=keys,
            vrf=keys,
            cosign=keys,
            commission=commission,
            day_ms=day_ms,
            day_commission=commission,
            lots={operator: [Lot(Fraction(bond))]},
        )

    # --- a block ---

    def supply(self) -> Fraction:
        """All there is; burned stake that is not taken yet counts."""
        total = self.pot + self.fees + sum(self.balances.values()) + sum(self.owed.values())
        for validator in self.validators.values():
            total += validator.tokens + validator.commission_owed + validator.limbo
        return total + sum((entry.value + entry.ghost for entry in self.leaving), ZERO)

    def begin(self, step_ms: int) -> None:
        """After the block's punishments, at its height and time."""
        if self.height == 1:
            self.start_ms = self.time_ms
        else:
            self._mint(step_ms)
        while self.leaving and self.leaving[0].due_ms <= self.time_ms:
            entry = self.leaving.pop(0)
            self.balances[entry.delegator] += entry.value
            self.slack[entry.delegator] += entry.err + 3

    def _mint(self, step_ms: int) -> None:
        rate = self.params.inflation_ppm
        for _ in range((self.time_ms - step_ms - self.start_ms) // YEAR_MS):
            rate = rate * (PPM - self.params.inflation_decay_ppm) // PPM
        rate = max(rate, self.params.inflation_ppm_min)
        self.pot += on_grid(self.supply() * rate * step_ms / (PPM * YEAR_MS))

    def end(self, following: dict[int, int]) -> None:
        """Rewards to each delegator of who voted; `following` votes on the height after the
        next."""
        voted, voting = self.sets
        pot, self.pot, self.fees = self.pot + self.fees, ZERO, ZERO
        total = sum(voted.values())
        for operator, power in voted.items():
            self._reward(operator, pot * power / total)
        for operator, validator in self.validators.items():
            if voted.get(operator, 0) != voting.get(operator, 0):
                self.pot, validator.limbo = self.pot + validator.limbo, ZERO
        self.sets = [voting, following]
        for operator, validator in self.validators.items():
            if validator.retired and operator not in following and validator.key_end is None:
                validator.key_end = self.height + 1

    def _reward(self, operator: int, earned: Fraction) -> None:
        validator = self.validators[operator]
        commission = on_grid(earned * validator.commission / PPM)
        validator.commission_owed += commission
        validator.commission_slack += 3
        weight = validator.weight
        if not weight:
            validator.limbo += earned - commission
            return
        doubt = min(Fraction(1), on_grid(4 * validator.err / weight))
        for delegator, lots in validator.lots.items():
            part = sum((lot.weight for lot in lots), ZERO) / weight
            key = (operator, delegator)
            self.owed[key] = self.owed.get(key, ZERO) + on_grid((earned - commission) * part)
            self.slack[delegator] += 3 + on_grid(earned * doubt)

    # --- punishment ---

    def slash_double_sign(self, operator: int, offence: int) -> bool:
        """False if it changes nothing. What is bonded pays at the first evidence; what had left by
        then, whenever evidence shows an offence that it backed, and once."""
        validator, ppm = self.validators[operator], self.params.slash_double_sign_ppm
        if validator.offences and offence >= min(validator.offences):
            return False
        again = ", by later evidence" if validator.offences else ""
        if not validator.offences:
            validator.slashed = self.height, self.time_ms
            self._burn_bonded(validator, ppm)
        validator.offences.append(offence)
        for holder in self.validators.values():
            for lots in holder.lots.values():
                for lot in lots[1:]:
                    if lot.source != operator or lot.paid:
                        continue
                    if self._backed(validator, offence, lot.height, lot.until_ms):
                        lot.ghost += on_grid((lot.weight - lot.ghost) * ppm / PPM)
                        lot.paid = True
                        self._count(f"hop{again}")
        for entry in self.leaving:
            ways = [("unbonding", entry.operator, entry.height, entry.due_ms)]
            if entry.via is not None:
                via = entry.via
                ways.append(("hop, then unbonding", via.source, via.height, via.until_ms))
            for what, source, height, until_ms in ways:
                if source != operator or operator in entry.paid:
                    continue
                if self._backed(validator, offence, height, until_ms):
                    burned = on_grid(entry.value * ppm / PPM)
                    entry.value, entry.ghost = entry.value - burned, entry.ghost + burned
                    entry.paid.add(operator)
                    self._count(what + again)
        return True

    @staticmethod
    def _backed(validator: TwinValidator, offence: int, left: int, until_ms: int) -> bool:
        """Stake that left at `left` voted at the offence, was gone at the slash, and liable."""
        slashed_height, slashed_ms = validator.slashed
        return offence <= left + 1 and left < slashed_height and slashed_ms < until_ms

    def slash_downtime(self, operator: int) -> None:
        validator = self.validators[operator]
        if not validator.offences and not validator.jailed_until:
            validator.jailed_until = self.time_ms + self.params.downtime_jail_ms
            self._burn_bonded(validator, self.params.slash_downtime_ppm)

    def _burn_bonded(self, validator: TwinValidator, ppm: int) -> None:
        state = "jailed" if validator.jailed_until else "bonded"
        self._count("retired" if validator.retired else state)
        validator.err += 1
        if ppm == PPM:
            validator.worthless = validator.worthless or bool(validator.lots)
            return
        for lots in validator.lots.values():
            for lot in lots:
                lot.weight = on_grid(lot.weight * (PPM - ppm) / PPM)
                lot.ghost = on_grid(lot.ghost * (PPM - ppm) / PPM)

    def _count(self, what: str) -> None:
        self.reached[what] = self.reached.get(what, 0) + 1

    # --- messages: each gives the code, and does it if that is "" ---

    def touch(self, operator: int, delegator: int) -> None:
        validator = self.validators[operator]
        self.pot, validator.limbo = self.pot + validator.limbo, ZERO
        self.balances[delegator] += self.owed.pop((operator, delegator), ZERO)
        if delegator not in validator.lots:
            return
        free, *hops = validator.lots[delegator]
        kept = [free]
        for lot in hops:
            validator.err += 2 if lot.ghost else 0
            lot.weight, lot.ghost = lot.weight - lot.ghost, ZERO
            if self.is_open(lot):
                kept.append(lot)
            else:
                free.weight += lot.weight
        validator.lots[delegator] = kept
        self._drop_if_empty(validator, delegator)

    def is_open(self, hop: Lot) -> bool:
        return not hop.paid and self.time_ms < hop.until_ms

    def _drop_if_empty(self, validator: TwinValidator, delegator: int) -> None:
        if not any(lot.weight for lot in validator.lots[delegator]):
            del validator.lots[delegator]
        if not validator.lots:
            validator.err, validator.worthless = ZERO, False

    def refuse_entry(self, operator: int) -> str:
        """Why nothing can be bonded to a validator now."""
        validator = self.validators.get(operator)
        if validator is None:
            return "stake/no-validator"
        if validator.retired:
            return "stake/retired"
        if validator.offences:
            return "stake/tombstoned"
        return ""

    def put(self, operator: int, delegator: int, hop: Lot) -> None:
        """Into the first lot, or as a lot of its own if it is a hop."""
        validator = self.validators[operator]
        lots = validator.lots.setdefault(delegator, [Lot(ZERO)])
        validator.err += 1
        if hop.source < 0:
            lots[0].weight += hop.weight
        else:
            lots.append(hop)

    def take(
        self, operator: int, delegator: int, sizes: list[int], shares: int
    ) -> list[tuple[Fraction, Lot]]:
        """`shares` out of lots that have `sizes` shares; (value, lot) of each part."""
        validator = self.validators[operator]
        lots = validator.lots[delegator]
        assert len(lots) == len(sizes), (operator, delegator, lots, sizes)
        taken = []
        for lot, size in zip(list(lots), sizes, strict=True):
            part = min(size, shares)
            if not part:
                continue
            shares -= part
            weight = lot.weight if part == size else on_grid(lot.weight * part / size)
            lot.weight -= weight
            validator.err += 1
            taken.append((ZERO if validator.worthless else weight, lot))
            if part == size and lot.source >= 0:
                lots.remove(lot)
        self._drop_if_empty(validator, delegator)
        return taken
