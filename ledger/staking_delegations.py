"""Touching a stake: what one account has with one validator (adr/0008).

Every message about a stake opens it, changes it and closes it. Opening settles the validator, pays
the rewards owed to the delegator's balance, and ends hops: one whose source was slashed burns its
fraction of the shares, one whose time is over goes. Nothing but the pools, the balance and the
distribution is written before closing.

Shares: x tokens buy `x * shares div tokens` (x, if there are none), s shares give
`s * tokens div shares`. Both go down, so that the rest stays with those who stay. It follows that
tokens <= shares always, and that one token buys at least one share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ledger import codec
from ledger.accounts import StateReader, credit, encode_account_id
from ledger.execution import ExecutionContext, TxFailure
from ledger.governance_rows import take_leaving_shares
from ledger.params import PPM
from ledger.pools import BONDED_KEY, REWARDS_KEY, add_to_pool, burn
from ledger.staking_candidates import put_validator
from ledger.staking_events import tell
from ledger.staking_record import SCALE_BITS, SlashEvent, ValidatorRecord, tokens_of_shares
from ledger.staking_rewards import settle_now
from ledger.staking_rows import Delegation, Hop, delegation_key, read_delegation, read_validator


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """An open stake: validator and delegation as they will be, and the validator as it was.
    `held`: the delegation was there."""

    operator: bytes
    delegator: bytes
    before: ValidatorRecord
    record: ValidatorRecord
    delegation: Delegation
    held: bool

    def changed(self, *, tokens: int, shares: int, hops: tuple[Hop, ...]) -> Stake:
        """With `tokens` and `shares` more (negative: less) in validator and delegation."""
        record, held = self.record, self.delegation
        return replace(
            self,
            record=replace(record, tokens=record.tokens + tokens, shares=record.shares + shares),
            delegation=replace(held, shares=held.shares + shares, hops=hops),
        )


def require_validator(state: StateReader, operator: bytes) -> ValidatorRecord:
    """Raises TxFailure `stake/no-validator`."""
    record = read_validator(state, operator)
    if record is None:
        raise TxFailure("stake/no-validator", "no such validator", got=encode_account_id(operator))
    return record


def require_in_service(record: ValidatorRecord) -> None:
    """Raises TxFailure `stake/retired` or `stake/tombstoned`."""
    if record.retired:
        raise TxFailure("stake/retired", "the validator has retired")
    if record.is_tombstoned:
        raise TxFailure("stake/tombstoned", "the validator was slashed for a double sign")


def open_stake(context: ExecutionContext, operator: bytes, delegator: bytes) -> Stake:
    """Raises TxFailure `stake/no-validator`. A stake that is not there has no shares."""
    state = context.state
    before = require_validator(state, operator)
    record = settle_now(state, before)
    found = read_delegation(state, operator, delegator)
    held = found or Delegation(shares=0, index=record.index)
    if found is not None:
        owed = held.shares * (record.index - held.index)
        amount = owed >> SCALE_BITS
        record = replace(record, dust=record.dust + owed - (amount << SCALE_BITS))
        held = replace(held, index=record.index)
        pay_rewards(context, operator, delegator, amount, "stake.rewarded")
    stake = Stake(
        operator=operator,
        delegator=delegator,
        before=before,
        record=record,
        delegation=held,
        held=found is not None,
    )
    return _end_hops(context, stake)


def pay_rewards(
    context: ExecutionContext, operator: bytes, account: bytes, amount: int, event: str
) -> None:
    """Move `amount` from the rewards to a balance, and tell."""
    if not amount:
        return
    add_to_pool(context.state, REWARDS_KEY, -amount)
    credit(context, account, amount)
    tell(context, event, account=account, amount=amount, operator=operator)


def _end_hops(context: ExecutionContext, stake: Stake) -> Stake:
    kept: list[Hop] = []
    for hop in stake.delegation.hops:
        slash = _read_slash(context.state, hop.source)
        if slash is not None and slash.reaches(hop.height, hop.until_ms):
            stake = _burn_hop(context, stake, hop, slash)
        elif context.time_ms < hop.until_ms:
            kept.append(hop)  # an earlier offence of its source may still come to light
    return replace(stake, delegation=replace(stake.delegation, hops=tuple(kept)))


def _read_slash(state: StateReader, operator: bytes) -> SlashEvent | None:
    record = read_validator(state, operator)
    assert record is not None, "a validator is never deleted"
    return record.slash


def _burn_hop(context: ExecutionContext, stake: Stake, hop: Hop, slash: SlashEvent) -> Stake:
    shares = hop.shares * slash.ppm // PPM
    tokens = tokens_of_shares(stake.record, shares)
    burn(context.state, BONDED_KEY, tokens)
    tell(
        context,
        "stake.slashed",
        account=stake.delegator,
        amount=tokens,
        operator=stake.operator,
        source=hop.source,
    )
    return stake.changed(tokens=-tokens, shares=-shares, hops=())


def put_tokens(stake: Stake, tokens: int) -> Stake:
    """`tokens` more, bought at the present price. Raises TxFailure `stake/worthless` or
    `stake/overflow`."""
    record = stake.record
    if record.shares and not record.tokens:
        raise TxFailure("stake/worthless", "a slash took all the tokens of the validator's shares")
    shares = tokens * record.shares // record.tokens if record.shares else tokens
    if record.shares + shares > codec.U64_MAX:
        raise TxFailure(
            "stake/overflow", "the validator's shares would pass their limit", expected="< 2^64"
        )
    return stake.changed(tokens=tokens, shares=shares, hops=stake.delegation.hops)


def require_shares(stake: Stake, shares: int) -> None:
    """Raises TxFailure `stake/no-delegation` or `stake/too-few-shares`."""
    held = stake.delegation.shares
    if not held:
        raise TxFailure("stake/no-delegation", "the account has nothing with that validator")
    if shares > held:
        raise TxFailure(
            "stake/too-few-shares",
            "the account has not so many shares",
            expected=f"at most {held}",
            got=str(shares),
        )


def take_free(stake: Stake, shares: int) -> tuple[Stake, int]:
    """Give up `shares` that are under no hop; (stake, tokens)."""
    tokens = tokens_of_shares(stake.record, shares)
    return stake.changed(tokens=-tokens, shares=-shares, hops=stake.delegation.hops), tokens


def take_under_hops(stake: Stake, shares: int) -> tuple[Stake, list[tuple[Hop, int]]]:
    """Give up `shares` that are under hops, the oldest first; (stake, tokens by hop)."""
    taken: list[tuple[Hop, int]] = []
    while shares:
        hop, *others = stake.delegation.hops
        part = min(shares, hop.shares)
        tokens = tokens_of_shares(stake.record, part)
        left = [replace(hop, shares=hop.shares - part)] if part < hop.shares else []
        stake = stake.changed(tokens=-tokens, shares=-part, hops=(*left, *others))
        taken.append((hop, tokens))
        shares -= part
    return stake, taken


def close_stake(context: ExecutionContext, stake: Stake) -> None:
    """Write validator and delegation; open votes hold no more shares than there are now."""
    state = context.state
    take_leaving_shares(state, stake.operator, stake.delegator, stake.delegation.shares)
    put_validator(state, stake.operator, stake.record, stake.before)
    key = delegation_key(stake.operator, stake.delegator)
    if stake.delegation.shares:
        state.put(key, stake.delegation.encode())
    elif stake.held:
        state.delete(key)
