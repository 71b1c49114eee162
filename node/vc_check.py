"""The verifier's side of credentials: all checks of one, its status list and the list's anchor.

    credential: form, issuer, key at the proof's time, signature, period, whether the key is settled
    status:     the list by the same checks, its anchor's receipt, the credential's bit, and whose
                stream the anchor is in
    ages:       of the issuer's answer, of the list by its own signature, of the trust point

Ages come last, so that what is wrong or revoked is called so however old the evidence is.

Everything is judged from what is at hand; nothing is fetched here. Of a credential that can be
revoked nothing can be told without its list: silence is no answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit.leaf import encode_stream_text, hash_chunks
from audit.receipt import Receipt
from audit.stream import StreamRecord, stream_key
from audit.verify import verify_receipt
from did import strict_json
from did.credential import Checks, Step, Verdict, credential_checks, read_issuer, run_checks
from did.data_integrity import format_date_time, read_proof
from did.document_at import ProvenHistory, verify_history_answer
from did.status_list import StatusEntry, is_set, read_bits, read_status_entry
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import CannotTellError
from ledger.light import TooOldError, format_span, verdict_of, verify_age
from ledger.light import Verdict as Worth
from node.checkpoint import Trust, verify_row


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusEvidence:
    """A status list credential, the receipt of its hash, and an answer of `audit_stream` about the
    stream that the receipt is of, if there is one; `age_max_ms` None accepts any age."""

    status_list: Mapping[str, Any]
    receipt: bytes
    stream: Mapping[str, Any] | None
    age_max_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialVerdict:
    """`is_revoked` only where the list says so and its signature and anchor hold."""

    verdict: Verdict
    is_revoked: bool = False

    def to_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "ok": self.verdict.is_ok,
            "verdict": self.verdict.worth.value,
            "revoked": self.is_revoked,
            "reason": self.verdict.reason,
            "steps": [{"name": s.name, "ok": s.is_ok, "text": s.text} for s in self.verdict.steps],
        }


def check_credential(
    credential: Mapping[str, Any],
    *,
    answers: Sequence[Mapping[str, Any]],
    trust: Trust,
    status: StatusEvidence | None,
    max_age_ms: int | None = None,
) -> CredentialVerdict:
    """Judge a credential and its status; the issuer's answer may be `max_age_ms` old (None: any
    age). Raises nothing for bad data: it is the verdict."""
    now_ms = trust.now_ms()
    try:
        history = pick_history(answers, credential, trust, now_ms)
    except InvalidInputError as error:
        step = Step(name="answer", is_ok=False, text=str(error))
        return CredentialVerdict(verdict=Verdict(worth=verdict_of(error), steps=(step,)))
    steps = tuple(Step(name="answer", is_ok=True, text=text) for text in history.steps)
    checks: Checks = [
        *credential_checks(credential, documents=history, now_ms=now_ms),
        ("status", lambda: _check_entry(credential, status)),
    ]
    found = Verdict(worth=Worth.VALID, steps=steps).then(run_checks(checks))
    ages: Checks = [("answer-age", lambda: _check_answer_age(history, now_ms, max_age_ms))]
    entry = read_status_entry(credential) if found.is_ok else None
    if entry is not None and status is not None:
        judged = _judge_status(credential, entry, status, history, trust, now_ms)
        found = found.then(judged.verdict)
        if judged.is_revoked:
            return CredentialVerdict(verdict=found, is_revoked=True)
        ages.append(("list-age", lambda: _check_list_age(status, judged.receipt, now_ms)))
    ages.append(("trust", lambda: _check_trust(trust, history, now_ms)))
    return CredentialVerdict(verdict=found.then(run_checks(ages)) if found.is_ok else found)


def pick_history(
    answers: Sequence[Mapping[str, Any]],
    credential: Mapping[str, Any],
    trust: Trust,
    now_ms: int,
) -> ProvenHistory:
    """The newest proven history of the credential's issuer among the answers; those about other
    DIDs, and those that this trust says nothing about, are passed over. Raises InvalidInputError if
    one is wrong, CannotTellError if there is none."""
    issuer = read_issuer(credential)
    proven: list[ProvenHistory] = []
    untold = CannotTellError(
        "no answer about the issuer is at hand",
        expected=f"--answer FILE or --rpc URL, about {issuer[:120]}",
    )
    for answer in answers:
        if answer["did"] != issuer:
            continue
        try:
            found = verify_history_answer(
                answer, trusted=trust.point, chain_id=trust.chain_id, now_ms=now_ms
            )
        except CannotTellError as error:
            untold = error
        else:
            proven.append(found)
    if not proven:
        raise untold
    return max(proven, key=lambda history: history.height)


def _check_entry(credential: Mapping[str, Any], status: StatusEvidence | None) -> str:
    entry = read_status_entry(credential)
    if entry is None:
        return "It has no status entry: its issuer can not revoke it."
    if status is None:
        raise CannotTellError(
            "the credential can be revoked, and its status list is not at hand",
            expected=f"--status-list FILE with {entry.list_id[:200]}",
        )
    return f"Its status is entry {entry.index} of {entry.list_id}."


# --- the status list ---


@dataclass(frozen=True, slots=True, kw_only=True)
class _Status:
    """What the list showed. `receipt` is there unless it could not be read."""

    verdict: Verdict
    is_revoked: bool = False
    receipt: Receipt | None = None


def _judge_status(
    credential: Mapping[str, Any],
    entry: StatusEntry,
    status: StatusEvidence,
    history: ProvenHistory,
    trust: Trust,
    now_ms: int,
) -> _Status:
    status_list = status.status_list
    of_list = credential_checks(status_list, documents=history, now_ms=now_ms)
    found = run_checks(
        [
            ("list-issuer", lambda: _check_list_issuer(credential, status_list)),
            *((f"list-{name}", check) for name, check in of_list),
            ("list-entry", lambda: _check_list_entry(status_list, entry)),
        ]
    )
    if not found.is_ok:
        return _Status(verdict=found)
    anchored = verify_receipt(
        status.receipt,
        multihash=hash_chunks([strict_json.encode(status_list)]),
        trusted=trust.point,
        chain_id=trust.chain_id,
        now_ms=now_ms,
    )
    steps = [
        Step(name=f"anchor-{s.name}", is_ok=s.is_ok, text=s.text)
        for s in anchored.steps
        if s.name != "trust"  # judged once, at the end
    ]
    worth = Worth.VALID if anchored.is_right else anchored.worth
    found = found.then(Verdict(worth=worth, steps=tuple(steps)))
    receipt = anchored.receipt
    if not found.is_ok or receipt is None:
        return _Status(verdict=found, receipt=receipt)
    step, is_revoked = _read_revocation(status_list, entry, receipt)
    found = found.then(Verdict(worth=Worth.WRONG if is_revoked else Worth.VALID, steps=(step,)))
    if not is_revoked:
        owner = ("list-stream", lambda: _check_stream(credential, status, receipt, trust))
        found = found.then(run_checks([owner]))
    return _Status(verdict=found, is_revoked=is_revoked, receipt=receipt)


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


def _read_revocation(
    status_list: Mapping[str, Any], entry: StatusEntry, receipt: Receipt
) -> tuple[Step, bool]:
    is_revoked = is_set(read_bits(status_list, entry), entry.index)
    text = (
        f"REVOKED: entry {entry.index} of the status list is set"
        if is_revoked
        else f"Entry {entry.index} of the status list is not set: not revoked as of that list"
    )
    text += f", anchored at {format_date_time(receipt.anchor.time_ms)}."
    return Step(name="revocation", is_ok=not is_revoked, text=text), is_revoked


def _check_stream(
    credential: Mapping[str, Any], status: StatusEvidence, receipt: Receipt, trust: Trust
) -> str:
    """The stream that the list is anchored in must be the issuer's. Its owner never changes, so a
    proof of any age does."""
    stream, issuer = receipt.leaf.stream, read_issuer(credential)
    if status.stream is None:
        raise CannotTellError(
            "whose stream the status list is anchored in is not at hand",
            expected="LIST.zstream beside the list, or --rpc URL",
            got=encode_stream_text(stream),
        )
    row, _ = verify_row(trust, status.stream.get("proof"), stream_key(stream))
    owner = "nobody" if row is None else StreamRecord.decode(row).owner
    if owner != issuer:
        raise InvalidInputError(
            "the status list is anchored in somebody else's stream",
            expected=issuer[:120],
            got=owner[:120],
        )
    return f"Stream {encode_stream_text(stream)}, in which the list is anchored, is the issuer's."


# --- ages ---


def _check_answer_age(history: ProvenHistory, now_ms: int, max_age_ms: int | None) -> str:
    return _check_age("the answer about the issuer", history.time_ms, now_ms, max_age_ms)


def _check_list_age(status: StatusEvidence, receipt: Receipt | None, now_ms: int) -> str:
    """By the time that the list's signature names, or of its anchor if that is earlier: a list can
    be signed with a later date than it was made, but not anchored so."""
    signed_ms = read_proof(status.status_list).created_ms
    at_ms = signed_ms if receipt is None else min(signed_ms, receipt.anchor.time_ms)
    return _check_age("the status list", at_ms, now_ms, status.age_max_ms)


def _check_age(what: str, time_ms: int, now_ms: int, max_age_ms: int | None) -> str:
    age = format_span(max(0, now_ms - time_ms))
    if max_age_ms is None:
        return f"{what.capitalize()} is {age} old, and any age is allowed."
    limit = format_span(max_age_ms)
    if now_ms - time_ms > max_age_ms:
        raise TooOldError(
            f"{what} is too old: there may be a newer one",
            expected=f"at most {limit}",
            got=age,
            retry=True,
        )
    return f"{what.capitalize()} is {age} old; at most {limit} is allowed."


def _check_trust(trust: Trust, history: ProvenHistory, now_ms: int) -> str:
    verify_age(history.time_ms, trust.point, now_ms=now_ms, max_age_ms=None)
    period = format_span(trust.point.trusting_period_ms)
    return f"The trust point is younger than the trusting period of {period}."
