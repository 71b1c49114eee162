"""The core and its runtime with one rule broken each. The simulator must notice every one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

from consensus.context import Context
from consensus.core import Core
from consensus.effects import Effect, Persist, SetTimer
from consensus.inputs import Recovered, TimerId
from consensus.justify import CertificateBook
from consensus.leader import leader
from consensus.messages import Propose
from consensus.rules import OwnStatements, Rules
from consensus.statement import StatementKind
from ledger.certificate import SignatureCheck
from ledger.codec import hash_tagged
from ledger.validator_set import ValidatorSet
from tests.sim.adversaries import (
    Byzantine,
    FreshLeader,
    Mute,
    OneShotNotarizer,
    ShowsLastToOne,
    ShowsLateToTheSlow,
)
from tests.sim.crypto import StandIn
from tests.sim.node import Node
from tests.sim.plan import Plan, validator_sets


class FinalizeAfterNullify(Rules):
    def may_finalize(self, own: OwnStatements, view: int, block_hash: bytes) -> bool:
        return own.notarized.get(view) == block_hash and view not in own.finalized


class NullifyAfterFinalize(Rules):
    def may_nullify(self, own: OwnStatements, view: int, *, is_notarized: bool) -> bool:
        return view not in own.nullified


class FinalizeWithoutOwnNotarize(Rules):
    def may_finalize(self, own: OwnStatements, view: int, block_hash: bytes) -> bool:
        return view not in own.nullified and view not in own.finalized


class HeadsForStake(Rules):
    def has_quorum(self, validators: ValidatorSet, signers: Iterable[bytes], power: int) -> bool:
        return 3 * len(list(signers)) > 2 * len(validators)


class UnverifiedJustify(Rules):
    def verify_justify(
        self,
        propose: Propose,
        validators: ValidatorSet,
        chain_id: str,
        is_valid: SignatureCheck,
    ) -> None:
        pass

    def missing_for(self, propose: Propose, book: CertificateBook) -> tuple[int, ...]:
        return ()


class NoLaterView(Rules):
    """A notarized view is left when its timer expires, and not before."""

    def may_leave_notarized_view(self, *, expired: bool, later_view_seen: bool) -> bool:
        return expired


class AbsentAfterFinality(Rules):
    """Whoever hears that a block is final before it could notarize it says nothing."""

    def may_vote_after_commit(self, own: OwnStatements, view: int) -> bool:
        return False


class ForgetsVotes(Node):
    """Its guard is empty after a crash."""

    def recovered(self) -> Recovered:
        return replace(super().recovered(), guard=())


class ForgetsProposals(Node):
    """Its proposals are not on record."""

    def _write_guard(self, effect: Persist) -> None:
        kept = tuple(r for r in effect.guard if r.kind is not StatementKind.PROPOSE)
        super()._write_guard(replace(effect, guard=kept))


class ForgetsCertificates(Node):
    """Its certificates are not durable."""

    def _write_records(self, effect: Persist) -> None:
        super()._write_records(replace(effect, certificates=()))


class NeverRetries(Node):
    """Its retry timer does not run."""

    def _act(self, effect: Effect) -> None:
        if not (isinstance(effect, SetTimer) and effect.timer is TimerId.RETRY):
            super()._act(effect)


class _CoreWithoutRecount(Core):
    def _recount(self, c: Context, recovered: Recovered) -> None:
        pass


class DoesNotRecount(Node):
    """After a crash its own votes are known, but count for nothing and are not sent again."""

    core_type = _CoreWithoutRecount


def _with_rules(rules: Callable[[], Rules]) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, rules=rules, guard_enforced=False)


def _with_node(node_type: type[Node]) -> Callable[[Plan], Plan]:
    return lambda plan: replace(plan, node_type=node_type, guard_enforced=False)


def _against(
    adversary: type[Byzantine],
    mutate: Callable[[Plan], Plan],
    *,
    crash: float = 0.0,
    skewed: bool = False,
    loss: float = 0.2,
) -> Callable[[Plan], Plan]:
    """Four equal validators, one of them this adversary: where the rule is needed most."""

    def mutated(plan: Plan) -> Plan:
        return replace(
            mutate(plan),
            powers=(1, 1, 1, 1),
            byzantine={plan.seed % 4: adversary},
            sets="fixed",  # one of three would be a third of the power
            followers=0,
            late_votes=False,
            chaos_ms=700,
            crash_per_step=crash,
            skewed_clocks=skewed,
            loss=loss,
            delay_ms_max=60,
        )

    return mutated


SLOW, FAST, BYZANTINE = 0, 1, 2
LIVELOCK_POWERS = (65, 2, 33)
LIVELOCK_VIEWS = 12
LIVELOCK_SEEDS = 4


@cache
def _alternating_leaders(number: int) -> bytes:
    """A parent hash under which the Byzantine validator and the slow one lead in turns."""
    keys = [StandIn().public_key(i) for i in range(len(LIVELOCK_POWERS))]
    [validators] = validator_sets(Plan(seed=0, powers=LIVELOCK_POWERS), keys)
    while True:
        found = hash_tagged("alternating", number.to_bytes(8, "big"))
        if all(
            leader(found, view, validators, validators) == keys[BYZANTINE if view % 2 else SLOW]
            for view in range(1, LIVELOCK_VIEWS + 1)
        ):
            return found
        number += 1


def _kept_apart(mutate: Callable[[Plan], Plan]) -> Callable[[Plan], Plan]:
    """Clocks four times apart, and each quorum needs the slow validator and the fast one.

    In an odd view the Byzantine leader shows its block to the fast validator at once, and to the
    slow one when the fast one has nullified the view: the notarize vote of the slow one completes a
    notarization, but the fast one can't finalize any more, and moves on. The slow one, who leads
    the next view, stays with the notarization until its timer expires; by then the fast one has
    nullified that view too. Nothing but rule 11's second half brings the leader there in time."""

    def mutated(plan: Plan) -> Plan:
        return replace(
            mutate(plan),
            powers=LIVELOCK_POWERS,
            sets="fixed",
            byzantine={BYZANTINE: ShowsLateToTheSlow},
            clocks=(50, 200, 200),
            genesis_hash=_alternating_leaders(plan.seed % LIVELOCK_SEEDS * 1_000_000),
            chaos_ms=1,
            healed_heights=1,
            crash_per_step=0.0,
            followers=0,
            delay_ms_max=5,
        )

    return mutated


def _shown_last(mutate: Callable[[Plan], Plan]) -> Callable[[Plan], Plan]:
    """Nothing is lost and nobody crashes, but one leader shows its proposals to one validator
    last."""

    def mutated(plan: Plan) -> Plan:
        return replace(
            mutate(plan),
            powers=(1, 1, 1, 1),
            byzantine={plan.seed % 4: ShowsLastToOne},
            sets="fixed",
            chaos_ms=1,
            healed_heights=24,
            followers=0,
            late_votes=True,
            nobody_absent=True,
            skewed_clocks=False,
            delay_ms_max=15,
        )

    return mutated


MUTANTS: dict[str, Callable[[Plan], Plan]] = {
    "finalize after nullify": _with_rules(FinalizeAfterNullify),
    "nullify after finalize": _with_rules(NullifyAfterFinalize),
    "finalize without own notarize": _with_rules(FinalizeWithoutOwnNotarize),
    "counts heads instead of stake": _with_rules(HeadsForStake),
    "forgets votes in a crash": _with_node(ForgetsVotes),
    "proposal not durable": _with_node(ForgetsProposals),
    "no retry": _with_node(NeverRetries),
    "no later-view rule": _kept_apart(_with_rules(NoLaterView)),
    "unverified justify": _against(FreshLeader, _with_rules(UnverifiedJustify), loss=0.5),
    "certificates not durable": _against(
        OneShotNotarizer, _with_node(ForgetsCertificates), crash=0.05, skewed=False
    ),
    "own votes not recounted": _against(Mute, _with_node(DoesNotRecount), crash=0.05, skewed=False),
    "absent after finality": _shown_last(_with_rules(AbsentAfterFinality)),
}
