"""Answers about governance: proposals with their tallies, each with its state row and proof."""

from __future__ import annotations

from ledger.governance_proposal import CancelChange, Change, ParamsChange, Proposal, UpgradeChange
from ledger.governance_rows import list_proposals, proposal_key
from ledger.views import ProvenView
from node.api_stake import proven_row
from rpc.errors import not_found
from rpc.params import text_of_bytes


def proposals_json(view: ProvenView, cursor: int | None, limit: int) -> dict[str, object]:
    """A page of proposals, newest first; the cursor is the id of the last one shown."""
    page = list(list_proposals(view, before_id=cursor or None, count=limit))
    last = page[-1].id if page else 0
    return {
        "height": view.height,
        "proposals": [proposal_json(view, proposal) for proposal in page],
        "next_cursor": last if last > 1 else None,
        "finality": text_of_bytes(view.finality.encode()),
    }


def one_proposal_json(view: ProvenView, proposal_id: int) -> dict[str, object]:
    """One proposal. Raises RpcError if there is none."""
    found = list(list_proposals(view, before_id=proposal_id + 1, count=1))
    if not found or found[0].id != proposal_id:
        raise not_found("proposal", got=str(proposal_id))
    return {
        "height": view.height,
        **proposal_json(view, found[0]),
        "finality": text_of_bytes(view.finality.encode()),
    }


def proposal_json(view: ProvenView, proposal: Proposal) -> dict[str, object]:
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
        **proven_row(view, proposal_key(proposal.id)),
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
