"""Answers about governance: proposals with their tallies. Each follows from the state rows that
come with it (node/answer_view.py): ids have no gaps up to the last, which `gov | open` names, so
that none is left out; the tally of an open one is made of the votes of all candidates.
"""

from __future__ import annotations

from ledger.governance_proposal import CancelChange, Change, ParamsChange, Proposal, UpgradeChange
from ledger.governance_rows import list_proposals, proposal_key
from node.answer_view import AnswerView
from rpc.errors import not_found

ROWS_PER_PAGE_MAX = 2048
"""A page ends with the proposal that reads past this; the tally of one reads 2 rows a candidate."""


def proposals_json(view: AnswerView, cursor: int | None, limit: int) -> dict[str, object]:
    """A page of proposals, newest first; the cursor is the id of the last one shown."""
    page: list[dict[str, object]] = []
    last = 0
    for proposal in list_proposals(view, before_id=cursor or None, count=limit):
        page.append(_proposal(view, proposal))
        last = proposal.id
        if view.rows_count > ROWS_PER_PAGE_MAX:
            break
    return view.answer(proposals=page, next_cursor=last if last > 1 else None)


def one_proposal_json(view: AnswerView, proposal_id: int) -> dict[str, object]:
    """One proposal. Raises RpcError if there is none."""
    found = list(list_proposals(view, before_id=proposal_id + 1, count=1))
    if not found or found[0].id != proposal_id:
        raise not_found("proposal", got=str(proposal_id))
    return view.answer(**_proposal(view, found[0]))


def _proposal(view: AnswerView, proposal: Proposal) -> dict[str, object]:
    """With the tally so far, if it is open; its row has the tally once it is closed."""
    tally = proposal.tally
    return {
        "id": proposal.id,
        "proposer": proposal.proposer.hex(),
        "deposit": str(proposal.deposit),
        "title": proposal.body.title,
        "summary": proposal.body.summary,
        "change": _change_json(proposal.body.change),
        "status": proposal.status.name.lower(),
        "code": proposal.code,
        "opened_height": proposal.opened_height,
        "end_ms": proposal.end_ms,
        "closed_height": proposal.closed_height,
        "yes": str(tally.yes),
        "no": str(tally.no),
        "abstain": str(tally.abstain),
        "bonded": str(tally.bonded),
        **view.item_row(proposal_key(proposal.id)),
    }


def _change_json(change: Change) -> dict[str, object]:
    match change:
        case ParamsChange():
            return {"params": dict(change.values)}
        case UpgradeChange():
            upgrade = change.upgrade
            return {
                "upgrade": {
                    "height": upgrade.height,
                    "version": upgrade.version,
                    "info": upgrade.info,
                }
            }
        case CancelChange():
            return {"cancel_upgrade": {"height": change.height}}
