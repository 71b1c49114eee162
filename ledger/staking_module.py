"""Staking's part of each block (adr/0008).

begin: inflation since the parent; unbonding that is due is paid.
end: the marked validators are judged again, which gives the set of the height after the next; the
     block's fees and inflation are given to the set that voted on it; who has another power in the
     set of the next height is settled.

A block without staking messages and a change of set writes three rows, whatever the number of
validators and delegators.
"""

from __future__ import annotations

from ledger.execution import BlockContext
from ledger.staking_candidates import change_set_in_force, refresh_candidates
from ledger.staking_rewards import distribute, mint_inflation, write_distribution
from ledger.staking_unbonding import release_due


class StakingModule:
    """The `BlockModule` of staking. Holds no state."""

    def begin(self, context: BlockContext) -> None:
        """Mint and release."""
        mint_inflation(context)
        release_due(context)

    def end(self, context: BlockContext) -> None:
        """Candidates, rewards, the set in force. The executor has moved the sets up."""
        refresh_candidates(context)
        write_distribution(context.state, change_set_in_force(context, distribute(context)))
