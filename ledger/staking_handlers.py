"""The staking messages of delegators, and the table of all (adr/0008).

`check` refuses a body that can be right in no state. `apply` fails a tx with one of these codes,
stable and the same on every node; nothing of the tx remains but fee and nonce.

| code | meaning |
| --- | --- |
| stake/no-validator | the account is no validator's operator |
| stake/exists | create: the operator has a validator already |
| stake/not-operator | the body names another operator than the payer |
| stake/key-used | the consensus key is or was somebody's |
| stake/keys-equal | the validator's keys would not all differ |
| stake/bond-too-small | create: less than `self_bond_min`, or than one unit of power |
| stake/commission-change | more than `commission_change_ppm_max` from the day's start |
| stake/retired | the validator has retired |
| stake/tombstoned | the validator was slashed for a double sign |
| stake/not-jailed | unjail: it is free |
| stake/jailed | unjail: the time is not over |
| stake/no-delegation | the account has nothing with that validator |
| stake/too-few-shares | it has fewer shares |
| stake/hop-open | redelegate: it has fewer shares that are under no hop |
| stake/too-many-hops | redelegate: 7 hops into that delegation are open |
| stake/too-many-entries | undelegate: 8 entries of that stake wait already |
| stake/queue-full | undelegate: the block takes in no more entries; a later one may |
| stake/worthless | the shares are worth less than 1 uzynk, or a slash took all tokens |
| stake/overflow | the validator's shares would pass 2^64-1 |

Also `bank/insufficient-balance`.
"""

from __future__ import annotations

from dataclasses import replace

from ledger.accounts import debit
from ledger.execution import ExecutionContext, TxFailure, TxHandler
from ledger.params import read_params
from ledger.pools import BONDED_KEY, add_to_pool
from ledger.staking_delegations import (
    close_stake,
    open_stake,
    pay_rewards,
    put_tokens,
    require_in_service,
    require_shares,
    take_free,
    take_under_hops,
)
from ledger.staking_events import tell
from ledger.staking_messages import AmountBody, RedelegateBody, SettleBody, WithdrawBody
from ledger.staking_operator import (
    CreateHandler,
    EditHandler,
    KeysHandler,
    RetireHandler,
    UnjailHandler,
)
from ledger.staking_rows import HOPS_MAX, Hop, UnbondingEntry
from ledger.staking_unbonding import append_unbonding


def stake_handlers(chain_id: str) -> dict[str, TxHandler]:
    """All staking messages of a chain, by type."""
    handlers: tuple[TxHandler, ...] = (
        CreateHandler(chain_id),
        EditHandler(),
        KeysHandler(chain_id),
        DelegateHandler(),
        UndelegateHandler(),
        RedelegateHandler(),
        WithdrawHandler(),
        UnjailHandler(),
        RetireHandler(),
        SettleHandler(),
    )
    return {handler.type: handler for handler in handlers}


class DelegateHandler:
    """`stake/delegate`: the payer bonds uzynk to a validator."""

    type = "stake/delegate"

    def weight_of(self, body: bytes) -> int:
        """Rows: validator, delegation, account, pool."""
        return 3

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError."""
        AmountBody.decode(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure."""
        wanted = AmountBody.decode(body)
        stake = open_stake(context, wanted.operator, context.payer)
        require_in_service(stake.record)
        after = put_tokens(stake, wanted.amount)
        debit(context, context.payer, wanted.amount)
        add_to_pool(context.state, BONDED_KEY, wanted.amount)
        close_stake(context, after)
        tell(
            context,
            "stake.delegated",
            account=context.payer,
            amount=wanted.amount,
            operator=wanted.operator,
            shares=after.delegation.shares - stake.delegation.shares,
        )


class UndelegateHandler:
    """`stake/undelegate`: shares leave a validator and wait in the queue."""

    type = "stake/undelegate"

    def weight_of(self, body: bytes) -> int:
        """As a delegation, with up to 8 entries, each of which is paid later."""
        return 16

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError."""
        AmountBody.decode(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Shares under no hop go first. Raises TxFailure."""
        wanted = AmountBody.decode(body)
        params = read_params(context.state)
        stake = open_stake(context, wanted.operator, context.payer)
        require_shares(stake, wanted.amount)
        free = min(wanted.amount, stake.delegation.free_shares)
        stake, tokens = take_free(stake, free)
        stake, under_hops = take_under_hops(stake, wanted.amount - free)
        plain = UnbondingEntry(
            delegator=context.payer,
            operator=wanted.operator,
            amount=tokens,
            height=context.height,
            due_ms=context.time_ms + params.unbonding_ms,
        )
        entries = [plain]
        for hop, amount in under_hops:
            entries.append(
                replace(
                    plain,
                    amount=amount,
                    via=hop.source,
                    via_height=hop.height,
                    via_until_ms=hop.until_ms,
                )
            )
        total = sum(entry.amount for entry in entries)
        add_to_pool(context.state, BONDED_KEY, -total)
        for entry in entries:
            if entry.amount:
                append_unbonding(context.state, entry)
        close_stake(context, stake)
        tell(
            context,
            "stake.undelegated",
            account=context.payer,
            amount=total,
            due=plain.due_ms,
            operator=wanted.operator,
            shares=wanted.amount,
        )


class RedelegateHandler:
    """`stake/redelegate`: shares of one validator become shares of another, at once."""

    type = "stake/redelegate"

    def weight_of(self, body: bytes) -> int:
        """Two stakes."""
        return 6

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError."""
        RedelegateBody.decode(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure."""
        wanted = RedelegateBody.decode(body)
        params = read_params(context.state)
        source = open_stake(context, wanted.source, context.payer)
        require_shares(source, wanted.shares)
        free = source.delegation.free_shares
        if wanted.shares > free:
            raise TxFailure(
                "stake/hop-open",
                "the other shares came by a hop that is not over",
                expected=f"at most {free}",
                got=str(wanted.shares),
            )
        source, tokens = take_free(source, wanted.shares)
        if not tokens:
            raise TxFailure("stake/worthless", "the shares are worth less than 1 uzynk")
        close_stake(context, source)
        before = open_stake(context, wanted.destination, context.payer)
        require_in_service(before.record)
        hops = before.delegation.hops
        if len(hops) >= HOPS_MAX:
            raise TxFailure(
                "stake/too-many-hops", "too many hops are open", expected=f"at most {HOPS_MAX}"
            )
        after = put_tokens(before, tokens)
        gained = after.delegation.shares - before.delegation.shares
        hop = Hop(
            source=wanted.source,
            height=context.height,
            until_ms=context.time_ms + params.unbonding_ms,
            shares=gained,
        )
        close_stake(
            context, replace(after, delegation=replace(after.delegation, hops=(*hops, hop)))
        )
        tell(
            context,
            "stake.redelegated",
            account=context.payer,
            amount=tokens,
            operator=wanted.destination,
            shares=gained,
            source=wanted.source,
            until=hop.until_ms,
        )


class WithdrawHandler:
    """`stake/withdraw`: the payer's rewards with a validator; its operator's commission too."""

    type = "stake/withdraw"

    def weight_of(self, body: bytes) -> int:
        """As a delegation."""
        return 3

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError."""
        WithdrawBody.decode(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure."""
        operator = WithdrawBody.decode(body).operator
        stake = open_stake(context, operator, context.payer)
        if operator == context.payer:
            owed = stake.record.commission_owed
            stake = replace(stake, record=replace(stake.record, commission_owed=0))
            pay_rewards(context, operator, operator, owed, "stake.commission-paid")
        elif not stake.held:
            raise TxFailure("stake/no-delegation", "the account has nothing with that validator")
        close_stake(context, stake)


class SettleHandler:
    """`stake/settle`: anybody brings anybody's stake up to date: rewards are paid to the
    delegator, slashes that are due are taken."""

    type = "stake/settle"

    def weight_of(self, body: bytes) -> int:
        """As a delegation."""
        return 3

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError."""
        SettleBody.decode(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure."""
        wanted = SettleBody.decode(body)
        stake = open_stake(context, wanted.operator, wanted.delegator)
        if not stake.held:
            raise TxFailure("stake/no-delegation", "the account has nothing with that validator")
        close_stake(context, stake)
