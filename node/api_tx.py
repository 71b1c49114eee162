"""Answers about txs: what became of one, and the proof of its result."""

from __future__ import annotations

from ledger import merkle
from ledger.chain import Chain
from ledger.errors import ZynkError
from ledger.finality import FinalityProof
from node.tx_waits import Dropped, Fate
from rpc.errors import mempool_full, tx_refused
from rpc.params import text_of_bytes


def fate_json(chain: Chain, tx_id: bytes, fate: Fate) -> dict[str, object]:
    """A tx that is final, or no longer pending here."""
    if isinstance(fate, Dropped):
        return {"tx_id": tx_id.hex(), "status": "dropped", "reason": fate.reason}
    return final_json(chain, tx_id, fate.height, fate.index)


def final_json(chain: Chain, tx_id: bytes, height: int, index: int) -> dict[str, object]:
    """A final tx with its result."""
    result = chain.results(height)[index]
    return {
        "tx_id": tx_id.hex(),
        "status": "finalized",
        "height": height,
        "index": index,
        "code": result.code or "ok",
        "message": result.message,
        "fee": str(result.fee),
        "events": [
            {"type": event.type, "attributes": dict(event.attributes)} for event in result.events
        ],
    }


def proven_json(
    chain: Chain, tx_id: bytes, height: int, index: int, finality: FinalityProof
) -> dict[str, object]:
    """`final_json` with the RFC 6962 inclusion of the result under the header's results root."""
    results = chain.all_results(height)
    leaves = [merkle.compute_leaf_hash(result.leaf_bytes()) for result in results]
    return {
        **final_json(chain, tx_id, height, index),
        "proof": {
            "result": text_of_bytes(results[index].leaf_bytes()),
            "index": index,
            "size": len(results),
            "path": [h.hex() for h in merkle.compute_inclusion_proof(leaves, index)],
            "finality": text_of_bytes(finality.encode()),
        },
    }


def as_tx_error(error: ZynkError) -> ZynkError:
    """A refusal of the mempool as the RPC tells it."""
    code = getattr(error, "code", "")
    if isinstance(code, str) and code.startswith("mempool/full"):
        return mempool_full(error.message, expected=error.expected, got=error.got)
    if isinstance(code, str) and code:
        refused = tx_refused(code, error.message, expected=error.expected, got=error.got)
        refused.retry = error.retry
        return refused
    return error
