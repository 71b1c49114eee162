"""Governance: their methods."""

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
    Param,
    Schema,
    integer,
)
from rpc.registry import Method
from rpc.results import (
    AMOUNT,
    ANY_OBJECT,
    COUNT,
    HEX,
    TEXT,
    array,
    record,
)

_PROPOSAL_MEMBERS: dict[str, Schema] = {
    "id": COUNT,
    "proposer": HEX,
    "deposit": AMOUNT,
    "title": TEXT,
    "summary": TEXT,
    "change": ANY_OBJECT,
    "status": {"type": "string", "enum": ["open", "passed", "rejected", "no_quorum", "failed"]},
    "code": TEXT,
    "opened_height": COUNT,
    "end_ms": COUNT,
    "closed_height": COUNT,
    "yes": AMOUNT,
    "no": AMOUNT,
    "abstain": AMOUNT,
    "bonded": AMOUNT,
    "row": ROW,
}
_PROPOSAL = record(**_PROPOSAL_MEMBERS)
GOV_METHODS = (
    Method(
        name="gov_proposals",
        summary="Proposals, newest first, with their tallies; proven.",
        bind=lambda api: api.gov_proposals,
        params=(CURSOR, LIMIT, TRUSTED),
        cost=10,
        result=record(height=COUNT, proposals=array(_PROPOSAL), next_cursor=NEXT_CURSOR, **ROWS),
    ),
    Method(
        name="gov_proposal",
        summary="One proposal: what it changes, and its tally so far; proven.",
        bind=lambda api: api.gov_proposal,
        params=(
            Param(
                name="proposal",
                kind=integer(1, 2**53 - 1),
                description="Its id.",
                required=True,
            ),
            TRUSTED,
        ),
        result=record(height=COUNT, **_PROPOSAL_MEMBERS, **ROWS),
        errors=(RpcCode.NOT_FOUND,),
    ),
)
