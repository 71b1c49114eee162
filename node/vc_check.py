"""The verifier's side of credentials: all checks of one, its status list and the list's anchor.

    credential: form, issuer, key at the proof's time, signature, period
    status:     the list by the same checks, its anchor's receipt, the credential's bit

Everything is judged from what is at hand; nothing is fetched here. A credential that can be revoked
is refused without its list: silence is no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit.leaf import hash_chunks
from audit.verify import verify_receipt
from did import strict_json
from did.credential import Step, Verdict, credential_checks, read_issuer, run_checks
from did.data_integrity import format_date_time
from did.document_at import ProvenHistory, verify_history_answer
from did.status_list import StatusEntry, is_set, read_bits, read_status_entry
from ledger.errors import InvalidInputError, UsageError
from node.checkpoint import TrustPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEvidence:
    """A status list credential and the receipt of its hash; `age_max_ms` None accepts any."""

    status_list: Mapping[str, Any]
    receipt: bytes
    age_max_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialVerdict:
    """`is_revoked` only where the list says so and all else holds."""

    verdict: Verdict
    is_revoked: bool

    def to_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "ok": self.verdict.is_ok,
            "revoked": self.is_revoked,
            "reason": self.verdict.reason,
            "steps": [{"name": s.name, "ok": s.is_ok, "text": s.text} for s in self.verdict.steps],
        }


def pick_history(
    answers: Sequence[Mapping[str, Any]],
    credential: Mapping[str, Any],
    trust: TrustPoint,
    *,
    max_age_ms: int | None,
    now_ms: int,
) -> ProvenHistory:
    """The newest proven history of the credential's issuer among the answers; those about other
    DIDs are passed over. Raises InvalidInputError if one does not hold, or there is none."""
    issuer = read_issuer(credential)
    proven = [
        verify_history_answer(answer, trusted=trust.validators, chain_id=trust.chain_id)
        for answer in answers
        if answer["did"] == issuer
    ]
    if not proven:
        raise InvalidInputError(
            "no answer about the issuer is at hand",
            expected=f"--answer FILE or --rpc URL, about {issuer[:120]}",
        )
    newest = max(proven, key=lambda history: history.height)
    if max_age_ms is not None and newest.time_ms < now_ms - max_age_ms:
        raise InvalidInputError(
            "the answer about the issuer is stale",
            expected=f"at most {max_age_ms} ms old",
            got=f"{now_ms - newest.time_ms} ms",
            retry=True,
        )
    return newest


def check_credential(
    credential: Mapping[str, Any],
    *,
    answers: Sequence[Mapping[str, Any]],
    trust: TrustPoint,
    now_ms: int,
    status: StatusEvidence | None,
    max_age_ms: int | None = None,
) -> CredentialVerdict:
    """Judge a credential and its status. Raises nothing for bad data: it is the verdict."""
    try:
        history = pick_history(answers, credential, trust, max_age_ms=max_age_ms, now_ms=now_ms)
    except InvalidInputError as error:
        step = Step(name="answer", is_ok=False, text=str(error))
        return CredentialVerdict(verdict=Verdict(is_ok=False, steps=(step,)), is_revoked=False)
    proven = [Step(name="answer", is_ok=True, text=text) for text in history.steps]
    checks = [
        *credential_checks(credential, documents=history, now_ms=now_ms),
        ("status", lambda: _check_entry(credential, status)),
    ]
    found = run_checks(checks)
    steps, is_ok, is_revoked = [*proven, *found.steps], found.is_ok, False
    entry = read_status_entry(credential) if is_ok else None
    if entry is not None and status is not None:
        more, is_revoked = _check_status(credential, entry, status, history, trust, now_ms)
        steps += more
        is_ok = all(step.is_ok for step in more)
    return CredentialVerdict(
        verdict=Verdict(is_ok=is_ok, steps=tuple(steps)), is_revoked=is_revoked
    )


def _check_entry(credential: Mapping[str, Any], status: StatusEvidence | None) -> str:
    entry = read_status_entry(credential)
    if entry is None:
        return "It has no status entry: its issuer can not revoke it."
    if status is None:
        raise InvalidInputError(
            "the credential can be revoked, and its status list is not at hand",
            expected=f"--status-list FILE with {entry.list_id[:200]}",
        )
    return f"Its status is entry {entry.index} of {entry.list_id}."


def _check_status(
    credential: Mapping[str, Any],
    entry: StatusEntry,
    status: StatusEvidence,
    history: ProvenHistory,
    trust: TrustPoint,
    now_ms: int,
) -> tuple[list[Step], bool]:
    status_list = status.status_list
    listed = run_checks(
        [
            ("list-issuer", lambda: _check_list_issuer(credential, status_list)),
            *(
                (f"list-{name}", check)
                for name, check in credential_checks(status_list, documents=history, now_ms=now_ms)
            ),
            ("list-entry", lambda: _check_list_entry(status_list, entry)),
        ]
    )
    steps = list(listed.steps)
    if not listed.is_ok:
        return steps, False
    receipt = verify_receipt(
        status.receipt,
        multihash=hash_chunks([strict_json.encode(status_list)]),
        trusted=trust.validators,
        chain_id=trust.chain_id,
        max_age_ms=status.age_max_ms,
        now_ms=now_ms,
    )
    steps += [Step(name=f"anchor-{s.name}", is_ok=s.is_ok, text=s.text) for s in receipt.steps]
    if not receipt.is_ok:
        return steps, False
    is_revoked = is_set(read_bits(status_list, entry), entry.index)
    text = (
        f"REVOKED: entry {entry.index} of the status list is set"
        if is_revoked
        else f"Entry {entry.index} of the status list is not set: not revoked as of that list"
    )
    if receipt.receipt is not None:
        text += f", anchored at {format_date_time(receipt.receipt.anchor.time_ms)}."
    steps.append(Step(name="revocation", is_ok=not is_revoked, text=text))
    return steps, is_revoked


def _check_list_issuer(credential: Mapping[str, Any], status_list: Mapping[str, Any]) -> str:
    issuer = read_issuer(credential)
    if read_issuer(status_list) != issuer:
        raise InvalidInputError(
            "the status list is by somebody else",
            expected=issuer[:120],
            got=read_issuer(status_list)[:120],
        )
    return "The status list has the same issuer."


def _check_list_entry(status_list: Mapping[str, Any], entry: StatusEntry) -> str:
    bits = read_bits(status_list, entry)
    try:
        strict_json.encode(status_list)
    except UsageError as error:
        raise InvalidInputError("status list has no canonical form") from error
    return f"The list is the one that the entry names, of {len(bits) * 8} bits."
