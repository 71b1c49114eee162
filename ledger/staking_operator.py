"""The staking messages of operators: create, edit, keys, unjail, retire.

The payer of the tx is the operator. Failure codes: `ledger.staking_handlers`.
"""

from __future__ import annotations

from dataclasses import replace

from ledger.accounts import debit, encode_account_id
from ledger.execution import ExecutionContext, StateView, TxFailure
from ledger.params import DAY_MS, ChainParams, read_params
from ledger.pools import BONDED_KEY, add_to_pool
from ledger.staking_candidates import KEY_DELAY, end_consensus_key, put_validator
from ledger.staking_delegations import require_in_service, require_validator
from ledger.staking_events import tell
from ledger.staking_messages import (
    ROLES,
    CreateBody,
    EditBody,
    KeysBody,
    check_empty,
    verify_possession,
)
from ledger.staking_record import POWER_UNIT, ValidatorRecord, vrf_key_at
from ledger.staking_rewards import read_distribution, settle_now
from ledger.staking_rows import (
    Delegation,
    KeyOwner,
    consensus_key_key,
    delegation_key,
    encode_key_owner,
    read_consensus_key,
    read_validator,
)


class CreateHandler:
    """`stake/create`: the payer becomes the operator of a validator and bonds to it."""

    type = "stake/create"

    def __init__(self, chain_id: str) -> None:
        self._chain_id = chain_id

    def weight_of(self, body: bytes) -> int:
        """Three signatures, three rows."""
        return 6

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError, also for a proof of possession that does not verify."""
        wanted = CreateBody.decode(body)
        for role, key, proof in zip(ROLES, wanted.keys, wanted.proofs, strict=True):
            verify_possession(self._chain_id, wanted.operator, role, key, proof)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure."""
        wanted = CreateBody.decode(body)
        state, operator = context.state, wanted.operator
        _require_payer(context, operator)
        if read_validator(state, operator) is not None:
            raise TxFailure("stake/exists", "the operator has a validator already")
        least = max(POWER_UNIT, read_params(state).self_bond_min)
        if wanted.bond < least:
            raise TxFailure(
                "stake/bond-too-small",
                "the bond is too small",
                expected=f"at least {least} uzynk",
                got=f"{wanted.bond} uzynk",
            )
        consensus, vrf, cosign = wanted.keys
        _claim_consensus_key(state, consensus, operator, context.height)
        debit(context, operator, wanted.bond)
        add_to_pool(state, BONDED_KEY, wanted.bond)
        name, url, details = wanted.description
        record = ValidatorRecord(
            consensus_key=consensus,
            vrf_key=vrf,
            cosign_key=cosign,
            name=name,
            url=url,
            details=details,
            commission_ppm=wanted.commission_ppm,
            commission_day_ppm=wanted.commission_ppm,
            commission_day_ms=context.time_ms,
            tokens=wanted.bond,
            shares=wanted.bond,
            settled_index=read_distribution(state).index,
        )
        put_validator(state, operator, record, None)
        own = Delegation(shares=wanted.bond, index=0)
        state.put(delegation_key(operator, operator), own.encode())
        tell(
            context,
            "stake.created",
            amount=wanted.bond,
            key=consensus,
            operator=operator,
        )


class EditHandler:
    """`stake/edit`: the validator's description or commission changes."""

    type = "stake/edit"

    def weight_of(self, body: bytes) -> int:
        """One row."""
        return 2

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError."""
        EditBody.decode(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure."""
        wanted = EditBody.decode(body)
        before = after = require_validator(context.state, context.payer)
        if wanted.description is not None:
            name, url, details = wanted.description
            after = replace(after, name=name, url=url, details=details)
        if wanted.commission_ppm is not None:
            # What was earned so far is the old commission's.
            after = settle_now(context.state, after)
            params = read_params(context.state)
            after = _with_commission(after, wanted.commission_ppm, context.time_ms, params)
        put_validator(context.state, context.payer, after, before)
        tell(context, "stake.edited", commission=after.commission_ppm, operator=context.payer)


def _with_commission(
    record: ValidatorRecord, ppm: int, time_ms: int, params: ChainParams
) -> ValidatorRecord:
    start_ppm, start_ms = record.commission_day_ppm, record.commission_day_ms
    if time_ms >= start_ms + DAY_MS:
        start_ppm, start_ms = record.commission_ppm, time_ms
    change_max = params.commission_change_ppm_max
    if abs(ppm - start_ppm) > change_max:
        raise TxFailure(
            "stake/commission-change",
            "the commission would move too far in a day",
            expected=f"{max(0, start_ppm - change_max)}..{start_ppm + change_max} ppm",
            got=f"{ppm} ppm",
        )
    return replace(
        record, commission_ppm=ppm, commission_day_ppm=start_ppm, commission_day_ms=start_ms
    )


class KeysHandler:
    """`stake/keys`: the validator's keys change; stake, jail and liability stay."""

    type = "stake/keys"

    def __init__(self, chain_id: str) -> None:
        self._chain_id = chain_id

    def weight_of(self, body: bytes) -> int:
        """The signatures, and up to three rows. Raises InvalidInputError as `check` does."""
        return 2 + len(KeysBody.decode(body).by_role)

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError, also for a proof of possession that does not verify."""
        wanted = KeysBody.decode(body)
        for role, new in wanted.by_role:
            verify_possession(self._chain_id, wanted.operator, role, new.key, new.proof)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure."""
        wanted = KeysBody.decode(body)
        state, operator, height = context.state, wanted.operator, context.height
        _require_payer(context, operator)
        before = require_validator(state, operator)
        require_in_service(before)
        after = before
        if wanted.consensus is not None:
            after = replace(after, consensus_key=wanted.consensus.key)
        if wanted.cosign is not None:
            after = replace(after, cosign_key=wanted.cosign.key)
        if wanted.vrf is not None:
            after = replace(
                after,
                vrf_key=vrf_key_at(before, height),
                next_vrf_key=wanted.vrf.key,
                next_vrf_height=height + read_params(state).vrf_key_delay,
            )
        _require_distinct(after)
        if wanted.consensus is not None:
            _claim_consensus_key(state, wanted.consensus.key, operator, height)
            end_consensus_key(state, before.consensus_key, height)
        put_validator(state, operator, after, before)
        keys = {f"{role}_key": new.key for role, new in wanted.by_role}
        tell(context, "stake.keys-changed", operator=operator, **keys)


class UnjailHandler:
    """`stake/unjail`: a jailed validator may be active again."""

    type = "stake/unjail"

    def weight_of(self, body: bytes) -> int:
        """One row."""
        return 2

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError."""
        check_empty(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure."""
        before = require_validator(context.state, context.payer)
        require_in_service(before)
        if not before.is_jailed:
            raise TxFailure("stake/not-jailed", "the validator is free")
        if context.time_ms < before.jailed_until_ms:
            raise TxFailure(
                "stake/jailed",
                "the time in jail is not over",
                expected=f"block time {before.jailed_until_ms} or later",
                got=str(context.time_ms),
            )
        after = replace(before, jailed_until_ms=0)
        put_validator(context.state, context.payer, after, before)
        tell(context, "stake.unjailed", operator=context.payer)


class RetireHandler:
    """`stake/retire`: the validator leaves for good; its stake goes the usual ways."""

    type = "stake/retire"

    def weight_of(self, body: bytes) -> int:
        """One row."""
        return 2

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError."""
        check_empty(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure."""
        before = require_validator(context.state, context.payer)
        if before.retired:
            raise TxFailure("stake/retired", "the validator has retired")
        put_validator(context.state, context.payer, replace(before, retired=True), before)
        tell(context, "stake.retired", operator=context.payer)


def _require_payer(context: ExecutionContext, operator: bytes) -> None:
    """The proofs of possession are for the operator that the body names."""
    if operator != context.payer:
        raise TxFailure(
            "stake/not-operator",
            "the payer is another account",
            expected=encode_account_id(operator),
            got=encode_account_id(context.payer),
        )


def _require_distinct(record: ValidatorRecord) -> None:
    keys = [record.consensus_key, record.vrf_key, record.cosign_key]
    if record.next_vrf_key:
        keys.append(record.next_vrf_key)
    if len(set(keys)) != len(keys):
        raise TxFailure("stake/keys-equal", "the validator's keys would not all differ")


def _claim_consensus_key(state: StateView, key: bytes, operator: bytes, height: int) -> None:
    if read_consensus_key(state, key) is not None:
        raise TxFailure("stake/key-used", "the consensus key is or was somebody's")
    owner = KeyOwner(operator, height + KEY_DELAY, None)
    state.put(consensus_key_key(key), encode_key_owner(owner))
