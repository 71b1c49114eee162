"""Random staking, valid and hostile, on the real modules and on a naive twin with fractions.

An episode is a chain of its own: blocks of a few messages by a dozen accounts, jumps in time, and
punishments of validators whatever their stakes are doing. After each block every invariant must
hold, each amount must agree with the twin's within its rounding, and the sets must follow from the
tokens; each message must have had the code that the twin gave.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest

from ledger import codec
from ledger.errors import InvalidInputError
from ledger.execution import BlockContext
from ledger.params import DAY_MS, PPM
from ledger.staking_messages import (
    CONSENSUS,
    COSIGN,
    VRF,
    AmountBody,
    EditBody,
    KeysBody,
    NewKey,
    RedelegateBody,
    SettleBody,
    WithdrawBody,
    prove_possession,
)
from ledger.staking_record import POWER_UNIT, tokens_of_shares
from ledger.staking_rows import HOPS_MAX
from ledger.staking_slashing import slash_double_sign, slash_downtime
from tests.property.campaign import is_soak
from tests.property.staking_comparison import ACCOUNTS, Comparison
from tests.property.staking_twin import ZERO, Leaving, Lot, Twin
from tests.unit.staking_world import (
    BALANCE,
    CHAIN_ID,
    HANDLERS,
    PARAMS,
    START_MS,
    World,
    account,
    create_body,
    key_of,
)

SEED = os.environ.get("ZYNK_SEED", "1")
BUSY = 5
"""The account that sends most, so that its stakes become entangled."""
EPISODE_MESSAGES = 125
FIXED_EPISODES = 40
"""These alone reach every state and code."""
FRESH_EPISODES = 760 if is_soak() else 20
STEPS_MS = [1000] * 8 + [20_000] * 4 + [200_000] * 2 + [1_000_000, 30 * DAY_MS]
KINDS = {
    "delegate": 24,
    "undelegate": 18,
    "redelegate": 26,
    "withdraw": 6,
    "settle": 6,
    "create": 8,
    "edit": 5,
    "keys": 5,
    "unjail": 6,
    "retire": 2,
}
LEFT_STATES = ("unbonding", "hop", "hop, then unbonding")
STATES = {"bonded", "jailed", "retired", *LEFT_STATES}
STATES |= {f"{state}, by later evidence" for state in LEFT_STATES}
# All but `overflow`, which takes 2^64 shares, and `queue-full`: unit tests have them.
CODES = (
    "no-validator",
    "exists",
    "not-operator",
    "key-used",
    "keys-equal",
    "bond-too-small",
    "commission-change",
    "retired",
    "tombstoned",
    "not-jailed",
    "jailed",
    "no-delegation",
    "too-few-shares",
    "hop-open",
    "too-many-hops",
    "too-many-entries",
    "worthless",
)


class Episode:
    """One chain and its twin. `hopping`: mostly redelegations, by one account."""

    def __init__(self, seed: str, *, hopping: bool) -> None:
        rng = self.rng = random.Random(seed)
        self.params = replace(
            PARAMS,
            slash_double_sign_ppm=rng.choice([1, 50_000, 333_333, 500_000, 50_000, PPM]),
            slash_downtime_ppm=rng.choice([0, 100, 10_000, 100_000]),
            inflation_ppm=rng.choice([0, 70_000, PPM]),
            inflation_ppm_min=rng.choice([0, 10_000]),
            self_bond_min=rng.choice([1, 1_000_000, 500_000_000]),
        )
        self.kinds, self.busy = dict(KINDS), 0.4
        if hopping:
            self.kinds["redelegate"], self.busy = 150, 0.8
            self.params = replace(self.params, unbonding_ms=60 * DAY_MS)
        bonds = tuple(10**9 + 10**7 * (4 - i) for i in range(4))
        self.world = World(bonds, accounts=ACCOUNTS, params=self.params)
        balances = dict.fromkeys(range(ACCOUNTS), BALANCE)
        self.twin = Twin(self.params, bonds, balances, START_MS)
        self.next_key = 100
        self.comparison = Comparison(self.world, self.twin)
        self.decoyed: tuple[int, int] | None = None
        self.codes: Counter[str] = Counter()
        self.messages = 0

    def run(self) -> None:
        while self.messages < EPISODE_MESSAGES:
            step_ms = self.rng.choice(STEPS_MS)
            self.twin.height += 1
            self.twin.time_ms += step_ms
            self.world.begin(step_ms, self.punish)
            self.twin.begin(step_ms)
            for _ in range(self.rng.randint(0, 12)):
                self.message()
            self.world.end()
            self.comparison.sets()
            self.comparison.stakes()
            self.comparison.amounts(self.messages)

    def punish(self, context: BlockContext) -> None:
        """Before the block, as evidence and liveness would."""
        rng, twin = self.rng, self.twin
        if rng.random() < 0.12:
            operator, left = self.decoyed or self.some_offender()
            self.decoyed = (operator, left) if rng.random() < 0.4 else None
            offence = max(0, left + rng.choice([5, 3, 2] if self.decoyed else [1, 1, 0, -2, -5]))
            if twin.slash_double_sign(operator, offence):
                slash_double_sign(context, account(operator), offence)
            else:
                with pytest.raises(InvalidInputError):
                    slash_double_sign(context, account(operator), offence)
        if rng.random() < 0.2:
            operator = rng.choice(list(twin.validators))
            slash_downtime(context, account(operator))
            twin.slash_downtime(operator)

    def some_offender(self) -> tuple[int, int]:
        """Mostly one for which stake that has left still answers, and when it left."""
        twin = self.twin
        lots = [lot for v in twin.validators.values() for own in v.lots.values() for lot in own]
        lots += [entry.via for entry in twin.leaving if entry.via is not None]
        left = [(lot.source, lot.height) for lot in lots if lot.source >= 0]
        left += [(entry.operator, entry.height) for entry in twin.leaving]
        if left and self.rng.random() < 0.6:
            return self.rng.choice(left)
        return self.rng.choice(list(twin.validators)), twin.height

    def message(self) -> None:
        rng, twin = self.rng, self.twin
        payer = BUSY if rng.random() < self.busy else rng.randrange(ACCOUNTS)
        kind = rng.choices(list(self.kinds), weights=list(self.kinds.values()))[0]
        if rng.random() < 0.85:  # mostly, somebody who can
            if kind in ("edit", "keys", "unjail", "retire"):
                payer = rng.choice(list(twin.validators))
            elif kind != "create" and not any(payer in v.lots for v in twin.validators.values()):
                kind = "delegate"
        fee = rng.choice([0, 150, 10_000_000])
        if twin.balances[payer] < fee + 10:
            fee = 0
        twin.balances[payer] -= fee
        twin.fees += fee
        body, expected = getattr(self, f"do_{kind}")(payer)
        found = self.world.run(payer, f"stake/{kind}", body, fee=fee)
        assert found == expected, (kind, payer)
        self.codes[found] += 1
        self.messages += 1

    # --- drawing: a message, and the twin's verdict; the twin does it if it is right ---

    def some_operator(self) -> int:
        """A validator; now and then an account that is none."""
        rng, twin = self.rng, self.twin
        if rng.random() < 0.03:
            return ACCOUNTS - 1
        serving = [operator for operator in twin.validators if not twin.refuse_entry(operator)]
        return rng.choice(serving if serving and rng.random() < 0.8 else list(twin.validators))

    def some_stake(self, payer: int) -> int:
        """A validator with which the payer has something, mostly."""
        held = [o for o, v in self.twin.validators.items() if payer in v.lots]
        return self.rng.choice(held) if held and self.rng.random() < 0.9 else self.some_operator()

    def some_shares(self, held: int) -> int:
        rng = self.rng
        if rng.random() < 0.05:
            return held + rng.choice([1, 10**12])
        return rng.choice([1, held, held, rng.randint(1, held), (held + 1) // 2]) if held else 1

    def do_delegate(self, payer: int) -> tuple[bytes, str]:
        rng, twin, operator = self.rng, self.twin, self.some_operator()
        amount = rng.choice([1, 999_999, 10**6, 10**9, rng.randint(1, 10**10)])
        if rng.random() < 0.05:
            amount = 10**16
        code = twin.refuse_entry(operator)
        if not code and twin.validators[operator].worthless:
            code = "stake/worthless"
        if not code and twin.balances[payer] < amount:
            code = "bank/insufficient-balance"
        if not code:
            twin.touch(operator, payer)
            twin.balances[payer] -= amount
            twin.put(operator, payer, Lot(Fraction(amount)))
        return AmountBody(operator=account(operator), amount=amount).encode(), code

    def do_undelegate(self, payer: int) -> tuple[bytes, str]:
        twin, operator = self.twin, self.some_stake(payer)
        sizes, code = self.sizes(operator, payer)
        shares = self.some_shares(sum(sizes))
        if not code and shares > sum(sizes):
            code = "stake/too-few-shares"
        amounts = self.amounts(operator, payer, sizes, shares) if not code else []
        waiting = [e for e in twin.leaving if (e.operator, e.delegator) == (operator, payer)]
        if sum(e.is_entry for e in waiting) + sum(n > 0 for n in amounts) > HOPS_MAX + 1:
            code = "stake/too-many-entries"
        if not code:
            twin.touch(operator, payer)
            validator = twin.validators[operator]
            doubt = validator.err + 3
            parts = twin.take(operator, payer, sizes, shares)
            for (value, lot), amount in zip(parts, amounts, strict=True):
                twin.leaving.append(
                    Leaving(
                        payer,
                        operator,
                        value,
                        twin.height,
                        twin.time_ms + self.params.unbonding_ms,
                        doubt,
                        via=lot if lot.source >= 0 else None,
                        is_entry=amount > 0,
                    )
                )
        return AmountBody(operator=account(operator), amount=shares).encode(), code

    def amounts(self, operator: int, payer: int, sizes: list[int], shares: int) -> list[int]:
        """Whole uzynk for each part of `shares`: the price rises a little with each."""
        record = self.comparison.peek(operator, payer)[0].record
        tokens, total = record.tokens, record.shares
        found = []
        for size in sizes:
            part = min(size, shares)
            if part:
                found.append(part * tokens // total)
                shares, total, tokens = shares - part, total - part, tokens - found[-1]
        return found

    def sizes(self, operator: int, delegator: int) -> tuple[list[int], str]:
        """Shares of each lot (the free one first), or why there are none."""
        if operator not in self.twin.validators:
            return [], "stake/no-validator"
        delegation = self.comparison.peek(operator, delegator)[0].delegation
        if not delegation.shares:
            return [], "stake/no-delegation"
        return [delegation.free_shares, *(hop.shares for hop in delegation.hops)], ""

    def do_redelegate(self, payer: int) -> tuple[bytes, str]:
        twin, source, target = self.twin, self.some_stake(payer), self.some_operator()
        free = [
            o for o, v in twin.validators.items() if payer in v.lots and v.lots[payer][0].weight
        ]
        if free and self.rng.random() < 0.8:
            source = self.rng.choice(free)
        if self.rng.random() < 0.7:  # gather hops, so that there are too many some time
            serving = [o for o in twin.validators if o != source and not twin.refuse_entry(o)]
            lots = {o: len(twin.validators[o].lots.get(payer, [])) for o in serving}
            target = max(lots, key=lambda o: lots[o], default=target)
        if source == target:
            target = next(o for o in twin.validators if o != source)
        sizes, code = self.sizes(source, payer)
        shares = self.some_shares(sizes[0] if sizes else 0)
        if not code:
            code = self.refuse_hop(source, target, payer, sizes, shares)
        if not code:
            twin.touch(source, payer)
            doubt = twin.validators[source].err
            ((value, _),) = twin.take(source, payer, sizes, shares)
            twin.touch(target, payer)
            until_ms = twin.time_ms + self.params.unbonding_ms
            twin.put(target, payer, Lot(value, source, twin.height, until_ms))
            twin.validators[target].err += doubt
        body = RedelegateBody(source=account(source), destination=account(target), shares=shares)
        return body.encode(), code

    def refuse_hop(
        self, source: int, target: int, payer: int, sizes: list[int], shares: int
    ) -> str:
        twin = self.twin
        if shares > sum(sizes):
            return "stake/too-few-shares"
        if shares > sizes[0]:
            return "stake/hop-open"
        if not tokens_of_shares(self.comparison.peek(source, payer)[0].record, shares):
            return "stake/worthless"
        code = twin.refuse_entry(target)
        if code:
            return code
        lots = twin.validators[target].lots.get(payer, [])
        if sum(twin.is_open(lot) for lot in lots[1:]) >= HOPS_MAX:
            return "stake/too-many-hops"
        return "stake/worthless" if twin.validators[target].worthless else ""

    def do_withdraw(self, payer: int) -> tuple[bytes, str]:
        twin, operator = self.twin, self.some_stake(payer)
        code = "" if operator in twin.validators else "stake/no-validator"
        if not code and payer not in twin.validators[operator].lots and payer != operator:
            code = "stake/no-delegation"
        if not code:
            twin.touch(operator, payer)
            if payer == operator:
                validator = twin.validators[operator]
                twin.balances[payer] += validator.commission_owed
                twin.slack[payer] += validator.commission_slack
                validator.commission_owed = validator.commission_slack = ZERO
        return WithdrawBody(operator=account(operator)).encode(), code

    def do_settle(self, payer: int) -> tuple[bytes, str]:
        twin, operator = self.twin, self.some_operator()
        delegator = self.rng.choice([payer, self.rng.randrange(ACCOUNTS)])
        code = "" if operator in twin.validators else "stake/no-validator"
        if not code and delegator not in twin.validators[operator].lots:
            code = "stake/no-delegation"
        if not code:
            twin.touch(operator, delegator)
        body = SettleBody(operator=account(operator), delegator=account(delegator))
        return body.encode(), code

    def do_create(self, payer: int) -> tuple[bytes, str]:
        rng, twin = self.rng, self.twin
        named = payer if rng.random() < 0.9 else (payer + 1) % ACCOUNTS
        self.next_key += 1
        keys = self.next_key if rng.random() < 0.9 else 0  # 0: taken, even if rotated away
        least = max(POWER_UNIT, self.params.self_bond_min)
        bond = rng.choice([least - 1, least, least + 1, 10**9, 10**9, 10**9])
        code = ""
        if named != payer:
            code = "stake/not-operator"
        elif payer == ACCOUNTS - 1:
            keys, code = 0, "stake/key-used"  # this one never gets to be a validator
            bond = 10**9
        elif payer in twin.validators:
            code = "stake/exists"
        elif bond < least:
            code = "stake/bond-too-small"
        elif keys == 0:
            code = "stake/key-used"
        elif twin.balances[payer] < bond:
            code = "bank/insufficient-balance"
        commission = rng.choice([0, 100_000, PPM])
        if not code:
            twin.balances[payer] -= bond
            twin.add_validator(payer, keys, commission, twin.time_ms, bond)
        body = create_body(account(named), keys, bond=bond, commission=commission)
        return body.encode(), code

    def do_edit(self, payer: int) -> tuple[bytes, str]:
        rng, twin = self.rng, self.twin
        if payer not in twin.validators:
            return EditBody(description=("a", "b", "c")).encode(), "stake/no-validator"
        validator = twin.validators[payer]
        new = validator.commission + rng.choice([-10_001, -10_000, -7000, 0, 7000, 10_000, 10_001])
        new = min(max(new, 0), PPM)
        start, start_ms = validator.day_commission, validator.day_ms
        if twin.time_ms - start_ms >= DAY_MS:
            start, start_ms = validator.commission, twin.time_ms
        code = "stake/commission-change" if abs(new - start) > 10_000 else ""
        if not code:
            validator.commission = new
            validator.day_commission, validator.day_ms = start, start_ms
            validator.commission_slack += 1
            self.twin.pot, validator.limbo = self.twin.pot + validator.limbo, ZERO
        return EditBody(commission_ppm=new).encode(), code

    def do_keys(self, payer: int) -> tuple[bytes, str]:
        rng, twin = self.rng, self.twin
        roles = rng.sample([CONSENSUS, VRF, COSIGN], rng.randint(1, 3))
        self.next_key += 1
        numbers = dict.fromkeys(roles, self.next_key)
        code = twin.refuse_entry(payer)
        if not code:
            validator = twin.validators[payer]
            counts = validator.next_vrf_height and twin.height >= validator.next_vrf_height
            present = validator.next_vrf if counts else validator.vrf
            if VRF in roles and rng.random() < 0.2:
                numbers[VRF], code = present, "stake/keys-equal"
            elif CONSENSUS in roles and rng.random() < 0.2:
                numbers[CONSENSUS], code = 0, "stake/key-used"
        if not code:
            validator.consensus = numbers.get(CONSENSUS, validator.consensus)
            validator.cosign = numbers.get(COSIGN, validator.cosign)
            if VRF in roles:
                validator.vrf, validator.next_vrf = present, numbers[VRF]
                validator.next_vrf_height = twin.height + self.params.vrf_key_delay
        new = {
            role: NewKey(
                key=key_of(role, number).public_key,
                proof=prove_possession(key_of(role, number), CHAIN_ID, account(payer), role),
            )
            for role, number in numbers.items()
        }
        body = KeysBody(
            operator=account(payer),
            consensus=new.get(CONSENSUS),
            vrf=new.get(VRF),
            cosign=new.get(COSIGN),
        )
        return body.encode(), code

    def do_unjail(self, payer: int) -> tuple[bytes, str]:
        twin = self.twin
        code = twin.refuse_entry(payer)
        if not code:
            validator = twin.validators[payer]
            if not validator.jailed_until:
                code = "stake/not-jailed"
            elif twin.time_ms < validator.jailed_until:
                code = "stake/jailed"
            else:
                validator.jailed_until = 0
        return codec.encode([]), code

    def do_retire(self, payer: int) -> tuple[bytes, str]:
        validator = self.twin.validators.get(payer)
        if validator is None:
            return codec.encode([]), "stake/no-validator"
        code = "stake/retired" if validator.retired else ""
        validator.retired = True
        return codec.encode([]), code


@pytest.mark.slow
def test_random_staking_agrees_with_the_naive_twin() -> None:
    """And every state of a stake was slashed, and every code came up."""
    codes: Counter[str] = Counter()
    reached: Counter[str] = Counter()
    seeds = [f"1/{number}" for number in range(FIXED_EPISODES)]
    seeds += [f"{SEED}/fresh/{number}" for number in range(FRESH_EPISODES)]
    for number, seed in enumerate(seeds):
        episode = Episode(seed, hopping=number % 4 == 0)
        try:
            episode.run()
        except Exception as error:
            raise AssertionError(f"ZYNK_SEED={SEED}, episode {seed}") from error
        codes += episode.codes
        reached += Counter(episode.twin.reached)
    expected = {f"stake/{code}" for code in CODES} | {"", "bank/insufficient-balance"}
    assert set(codes) == expected, codes
    print(codes, reached)  # shown on failure
    assert set(reached) == STATES, reached


assert set(KINDS) == {kind.removeprefix("stake/") for kind in HANDLERS}
