"""Many DIDs resolved at one height, under one proof.

    {"results": [resolution result without its proof, ...],
     "proof": {"type": "ZynkStateMultiproof1",
               "records": [base64url of the `did` row or null, ...],
               "multiproof": base64url (`ledger.state.multiproof`),
               "header", "certificate", "handoffs": as in `did.resolver`}}

`results` and `records` are in the order of the DIDs. What is no DID of this method has its error,
the record null, and no part in the multiproof, which is empty if nothing else was asked for.
`did.verify_batch` checks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from did.multikey import encode_base64url
from did.record import Record, record_key
from did.resolver import encode_finality, find_malformed, head_result, not_found_result
from did.syntax import decode_did
from ledger.errors import InvalidInputError
from ledger.views import ProvenView

BATCH_PROOF_TYPE = "ZynkStateMultiproof1"
BATCH_DIDS_MAX = 100


def resolve_batch(view: ProvenView, dids: Sequence[str]) -> dict[str, Any]:
    """See the module docstring. Raises InvalidInputError for none, too many or repeated DIDs."""
    check_dids(dids)
    malformed = [find_malformed(did) for did in dids]
    keys = [
        record_key(decode_did(did)) for did, bad in zip(dids, malformed, strict=True) if bad is None
    ]
    rows, multiproof = view.prove_many(keys) if keys else ([], b"")
    left = iter(rows)
    results, records = [], []
    for did, bad in zip(dids, malformed, strict=True):
        row = None if bad is not None else next(left)
        records.append(None if row is None else encode_base64url(row))
        if row is not None:
            results.append(head_result(view, Record.decode(row)))
        else:
            results.append(not_found_result(did) if bad is None else bad)
    return {
        "results": results,
        "proof": {
            "type": BATCH_PROOF_TYPE,
            "records": records,
            "multiproof": encode_base64url(multiproof),
            **encode_finality(view.finality),
        },
    }


def check_dids(dids: Sequence[str]) -> None:
    """Raises InvalidInputError."""
    if not 1 <= len(dids) <= BATCH_DIDS_MAX:
        raise InvalidInputError(
            "wrong number of DIDs", expected=f"1..{BATCH_DIDS_MAX}", got=str(len(dids))
        )
    if len(set(dids)) != len(dids):
        raise InvalidInputError("a DID is given twice")
