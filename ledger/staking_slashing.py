"""Punishing a validator (adr/0008). Called by block modules, before the txs of a block.

Each changes the validator's record alone: delegators pay through the price of their shares, stake
that has left pays when it is next touched or released. Rewards are untouched: a slash moves neither
shares nor the power in force.
"""

from __future__ import annotations

from dataclasses import replace

from ledger.accounts import encode_account_id
from ledger.errors import InvalidInputError
from ledger.execution import BlockContext
from ledger.params import PPM
from ledger.pools import BONDED_KEY, burn
from ledger.staking_candidates import put_validator
from ledger.staking_events import tell
from ledger.staking_record import SlashEvent, ValidatorRecord
from ledger.staking_rows import read_validator


def slash_double_sign(context: BlockContext, operator: bytes, offence_height: int) -> int:
    """Burn, jail for ever, and record it for the stake that has left; the uzynk burned.

    The offence was made under a key of the validator at `offence_height`. Whoever was slashed
    before is not again; an earlier offence makes stake pay that left before the one recorded.
    Raises InvalidInputError if there is no such validator, or no stake answers for this offence
    that does not for the one recorded.
    """
    before = _require(context, operator)
    if not before.answers_more_for(offence_height):
        raise InvalidInputError(
            "validator was slashed for a double sign before", got=encode_account_id(operator)
        )
    if before.slash is not None:
        earlier = replace(before.slash, offence_height=offence_height)
        put_validator(context.state, operator, replace(before, slash=earlier), before)
        tell(context, "stake.slash-extended", offence=offence_height, operator=operator)
        return 0
    ppm = context.params.slash_double_sign_ppm
    slash = SlashEvent(
        offence_height=offence_height,
        slashed_height=context.height,
        ppm=ppm,
        slashed_ms=context.time_ms,
    )
    burned = before.tokens * ppm // PPM
    _punish(context, operator, before, replace(before, slash=slash), burned, "double-sign")
    return burned


def slash_downtime(context: BlockContext, operator: bytes) -> int:
    """Burn and jail for `downtime_jail_ms`; the uzynk burned. A jailed validator is let be.
    Raises InvalidInputError if there is no such validator."""
    before = _require(context, operator)
    if before.is_jailed:
        return 0
    params = context.params
    jailed = replace(before, jailed_until_ms=context.time_ms + params.downtime_jail_ms)
    burned = before.tokens * params.slash_downtime_ppm // PPM
    _punish(context, operator, before, jailed, burned, "downtime")
    return burned


def jail(context: BlockContext, operator: bytes, until_ms: int) -> None:
    """Take a validator out of the candidates until its operator frees it, not before `until_ms`.
    Raises InvalidInputError if there is no such validator."""
    before = _require(context, operator)
    after = replace(before, jailed_until_ms=max(before.jailed_until_ms, until_ms))
    put_validator(context.state, operator, after, before)
    tell(context, "stake.jailed", operator=operator, until=after.jailed_until_ms)


def _require(context: BlockContext, operator: bytes) -> ValidatorRecord:
    record = read_validator(context.state, operator)
    if record is None:
        raise InvalidInputError("no such validator", got=encode_account_id(operator))
    return record


def _punish(
    context: BlockContext,
    operator: bytes,
    before: ValidatorRecord,
    after: ValidatorRecord,
    burned: int,
    reason: str,
) -> None:
    burn(context.state, BONDED_KEY, burned)
    after = replace(after, tokens=before.tokens - burned)
    put_validator(context.state, operator, after, before)
    tell(context, "stake.slashed", amount=burned, operator=operator, reason=reason)
    until = "for ever" if after.is_tombstoned else str(after.jailed_until_ms)
    tell(context, "stake.jailed", operator=operator, until=until)
