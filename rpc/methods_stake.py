"""Stakes and evidence: their methods."""

from __future__ import annotations

from rpc.errors import RpcCode
from rpc.method_parts import (
    CURSOR,
    LIMIT,
    NEXT_CURSOR,
    ROW,
    ROWS,
    TRUSTED,
)
from rpc.params import (
    HEX32,
    Param,
    Schema,
    blob,
)
from rpc.registry import Method
from rpc.results import (
    AMOUNT,
    COUNT,
    HEX,
    TEXT,
    array,
    or_null,
    record,
)

EVIDENCE_BYTES_MAX = 512
"""As consensus.evidence."""

_STAKED_VALIDATOR_MEMBERS: dict[str, Schema] = {
    "operator": HEX,
    "public_key": HEX,
    "vrf_key": HEX,
    "cosign_key": HEX,
    "name": TEXT,
    "status": {
        "type": "string",
        "enum": ["active", "standby", "jailed", "may-unjail", "tombstoned", "retired"],
    },
    "power": AMOUNT,
    "tokens": AMOUNT,
    "shares": AMOUNT,
    "self_bond": AMOUNT,
    "commission_ppm": COUNT,
    "commission_owed": AMOUNT,
    "jailed_until_ms": COUNT,
    "missed": COUNT,
    "missed_window": COUNT,
    "slash": or_null(record(offence_height=COUNT, slashed_height=COUNT, ppm=COUNT)),
    "row": ROW,
}
_STAKED_VALIDATOR = record(**_STAKED_VALIDATOR_MEMBERS)
_OF_ACCOUNT = Param(name="account", kind=HEX32, description="Whose; absent: everybody's.")
STAKE_METHODS = (
    Method(
        name="stake_validators",
        summary="All validators with their stake: candidates by power, then the others; proven.",
        bind=lambda api: api.stake_validators,
        params=(CURSOR, LIMIT, TRUSTED),
        cost=10,
        result=record(
            height=COUNT,
            validators=array(_STAKED_VALIDATOR),
            candidates=COUNT,
            listed=array(HEX),
            next_cursor=NEXT_CURSOR,
            **ROWS,
        ),
    ),
    Method(
        name="stake_validator",
        summary="One validator: keys, stake, commission, status, heights missed; proven.",
        bind=lambda api: api.stake_validator,
        params=(
            Param(name="operator", kind=HEX32, description="Its account.", required=True),
            TRUSTED,
        ),
        result=record(height=COUNT, **_STAKED_VALIDATOR_MEMBERS, **ROWS),
        errors=(RpcCode.NOT_FOUND,),
    ),
    Method(
        name="stake_delegations",
        summary="Stakes bonded to validators, and rewards so far; proven.",
        bind=lambda api: api.stake_delegations,
        params=(
            _OF_ACCOUNT,
            Param(name="validator", kind=HEX32, description="To whom; absent: to all."),
            CURSOR,
            LIMIT,
            TRUSTED,
        ),
        cost=10,
        result=record(
            {"listed": array(HEX)},
            height=COUNT,
            delegations=array(
                record(
                    delegator=HEX,
                    validator=HEX,
                    amount=AMOUNT,
                    shares=AMOUNT,
                    free_shares=AMOUNT,
                    rewards=AMOUNT,
                    row=ROW,
                )
            ),
            next_cursor=NEXT_CURSOR,
            **ROWS,
        ),
    ),
    Method(
        name="stake_unbonding",
        summary="Undelegated stakes that wait for their time, in the order of the queue; proven.",
        bind=lambda api: api.stake_unbonding,
        params=(_OF_ACCOUNT, CURSOR, LIMIT, TRUSTED),
        cost=10,
        result=record(
            height=COUNT,
            entries=array(
                record(
                    seq=COUNT,
                    delegator=HEX,
                    validator=HEX,
                    amount=AMOUNT,
                    due_ms=COUNT,
                    row=ROW,
                )
            ),
            next_cursor=NEXT_CURSOR,
            **ROWS,
        ),
    ),
)

EVIDENCE_METHODS = (
    Method(
        name="evidence_submit",
        summary="Hand in two statements of a validator that contradict each other.",
        bind=lambda api: api.evidence_submit,
        params=(
            Param(
                name="evidence",
                kind=blob(EVIDENCE_BYTES_MAX),
                description="The evidence's wire bytes.",
                required=True,
            ),
        ),
        result=record(operator=HEX, height=COUNT),
        errors=(RpcCode.EVIDENCE_REFUSED,),
        cost=20,
    ),
)
