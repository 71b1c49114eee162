"""Checking the answer about many DIDs (`did.batch`), offline."""

from __future__ import annotations

from collections.abc import Sequence

from did import strict_json
from did.batch import BATCH_PROOF_TYPE, check_dids
from did.multikey import decode_base64url
from did.record import RECORD_BYTES_MAX, Record, record_key
from did.resolver import find_malformed, not_found_result
from did.syntax import decode_did
from did.verify import (
    ANSWER_BYTES_MAX,
    Outcome,
    Verdict,
    check_age,
    decode_finality,
    encode_plain,
    expect_head,
    outcome_of,
)
from ledger.errors import InvalidInputError
from ledger.light import Trusted, verify_trusted
from ledger.state import verify_state_multiproof
from ledger.state.multiproof import MULTIPROOF_BYTES_MAX

_PROOF_MEMBERS = {"type", "records", "multiproof", "header", "certificate", "handoffs"}


def verify_batch(
    answer: object,
    *,
    dids: Sequence[str],
    trusted: Trusted,
    chain_id: str,
    max_age_ms: int | None,
    now_ms: int | None,
) -> list[Verdict | None]:
    """Check the answer for `dids`, in their order. None where there is no DID of this method, and
    so nothing to prove. Raises InvalidInputError naming the first thing that is wrong."""
    check_dids(dids)
    plain = strict_json.decode(encode_plain(answer), bytes_max=ANSWER_BYTES_MAX)
    if type(plain) is not dict or plain.keys() != {"results", "proof"}:
        raise InvalidInputError("batch answer is malformed", expected="results and proof")
    results, proof = plain["results"], plain["proof"]
    if type(proof) is not dict or proof.keys() != _PROOF_MEMBERS:
        raise InvalidInputError("batch proof is malformed", expected=", ".join(_PROOF_MEMBERS))
    if proof["type"] != BATCH_PROOF_TYPE:
        raise InvalidInputError("proof has another type", expected=BATCH_PROOF_TYPE)
    shown = proof["records"]
    for items in (results, shown):
        if type(items) is not list or len(items) != len(dids):
            raise InvalidInputError("batch answer has a wrong count", expected=str(len(dids)))
    header = verify_trusted(decode_finality(proof), trusted, chain_id, now_ms=now_ms)
    check_age(header, max_age_ms, now_ms)
    records = _verify_records(dids, shown, header.state_root, proof["multiproof"])
    verdicts: list[Verdict | None] = []
    for did, result, record in zip(dids, results, records, strict=True):
        malformed = find_malformed(did)
        if malformed is not None:
            expected = malformed
        elif record is None:
            expected = not_found_result(did)
        else:
            document = result.get("didDocument") if type(result) is dict else None
            expected = expect_head(record, document, [])
        if encode_plain(result) != encode_plain(expected):
            raise InvalidInputError("answer says something that its proof does not show", got=did)
        verdicts.append(
            None
            if malformed is not None
            else Verdict(
                did=did,
                outcome=Outcome.NOT_FOUND if record is None else outcome_of(expected),
                height=header.height,
                time_ms=header.time_ms,
                record=record,
                version_id=None if record is None else record.version_id,
                steps=(f"block {header.height} is final; its state proves the record, or none",),
            )
        )
    return verdicts


def _verify_records(
    dids: Sequence[str], shown: Sequence[object], state_root: bytes, multiproof: object
) -> list[Record | None]:
    rows: dict[bytes, bytes | None] = {}
    records: list[Record | None] = []
    for did, text in zip(dids, shown, strict=True):
        row = None if text is None else decode_base64url(text, bytes_max=RECORD_BYTES_MAX)
        record = None if row is None else Record.decode(row)
        if find_malformed(did) is None:
            identifier = decode_did(did)
            rows[record_key(identifier)] = row
            if record is not None and record.did != identifier:
                raise InvalidInputError("record is of another DID", expected=did)
        elif record is not None:
            raise InvalidInputError("record for what is no DID", got=did)
        records.append(record)
    proof = decode_base64url(multiproof, bytes_max=MULTIPROOF_BYTES_MAX)
    if rows:
        verify_state_multiproof(state_root, rows, proof)
    elif proof:
        raise InvalidInputError("multiproof of nothing")
    return records
