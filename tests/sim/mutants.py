"""The core and its runtime with one rule broken each. The simulator must notice every one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from consensus.context import Context
from consensus.core import Core
from consensus.effects import Effect, Persist, SetTimer
from consensus.inputs import Recovered, TimerId
from consensus.messages import Propose
from consensus.rules import OwnStatements, Rules
from consensus.statement import StatementKind
from ledger.certificate import SignatureCheck
from ledger.validator_set import ValidatorSet
from tests.sim.adversaries import Byzantine, FreshLeader, Mute, OneShotNotarizer
from tests.sim.node import Node
from tests.sim.plan import Plan


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


MUTANTS: dict[str, Callable[[Plan], Plan]] = {
    "finalize after nullify": _with_rules(FinalizeAfterNullify),
    "nullify after finalize": _with_rules(NullifyAfterFinalize),
    "finalize without own notarize": _with_rules(FinalizeWithoutOwnNotarize),
    "counts heads instead of stake": _with_rules(HeadsForStake),
    "forgets votes in a crash": _with_node(ForgetsVotes),
    "proposal not durable": _with_node(ForgetsProposals),
    "no retry": _with_node(NeverRetries),
    "unverified justify": _against(FreshLeader, _with_rules(UnverifiedJustify), loss=0.5),
    "certificates not durable": _against(
        OneShotNotarizer, _with_node(ForgetsCertificates), crash=0.05, skewed=False
    ),
    "own votes not recounted": _against(Mute, _with_node(DoesNotRecount), crash=0.05, skewed=False),
}
