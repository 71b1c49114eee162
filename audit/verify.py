"""The offline verifier: is this content in the log that these validators made final?

It needs the receipt, the content's multihash, and a validator set and chain id that its user
trusts: no network, no node. Each inclusion path is checked twice, by our own code and by pymerkle.
A verdict says, step by step and in words, what was checked; it is good only if every step held,
and what it is worth otherwise is one of `ledger.light.Verdict`.
What a receipt shows by itself is that the log contains the leaf and when; that nobody shows
somebody else another log of the same validators is the business of monitors and witnesses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from audit.leaf import compute_commitment, encode_stream_text, verify_multihash
from audit.receipt import Receipt, decode_receipt_json
from audit.second_opinion import verify_inclusion_by_pymerkle
from ledger.errors import InvalidInputError
from ledger.light import (
    TooOldError,
    Trusted,
    TrustPoint,
    format_span,
    verdict_of,
    verify_age,
    verify_trusted,
)
from ledger.light import Verdict as Worth
from ledger.merkle import compute_leaf_hash, verify_inclusion_proof

CLOCK_AHEAD_MAX_MS = 10_000
"""How far a header's time may be ahead of the verifier's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One check: `name` is stable, `text` is for people."""

    name: str
    is_ok: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`worth` is VALID only if every step holds; checking stops at the first that does not.
    `receipt` is what was read, None if it could not be."""

    worth: Worth
    steps: tuple[Step, ...]
    receipt: Receipt | None

    @property
    def is_ok(self) -> bool:
        return self.worth is Worth.VALID

    @property
    def is_right(self) -> bool:
        """It holds, though perhaps by a trust point that is past its trusting period."""
        return self.worth in (Worth.VALID, Worth.VALID_BUT_EXPIRED_TRUST)

    @property
    def reason(self) -> str:
        """Why the verdict is bad; "" if it is good."""
        return "" if self.is_ok else self.steps[-1].text

    def to_json(self) -> dict[str, object]:
        """The verdict for `--json`."""
        found: dict[str, object] = {
            "ok": self.is_ok,
            "verdict": self.worth.value,
            "reason": self.reason,
            "steps": [{"name": s.name, "ok": s.is_ok, "text": s.text} for s in self.steps],
        }
        if self.worth not in (Worth.WRONG, Worth.CANNOT_TELL) and self.receipt is not None:
            anchor = self.receipt.anchor
            found["stream"] = encode_stream_text(anchor.stream)
            found["anchored_height"] = anchor.height
            found["anchored_ms"] = anchor.time_ms
            found["log_index"] = self.receipt.log_index
        return found


def verify_receipt(
    receipt: bytes | str,
    *,
    multihash: bytes,
    trusted: Trusted,
    chain_id: str,
    salt: bytes | None = None,
    stream: bytes | None = None,
    max_age_ms: int | None = None,
    now_ms: int | None = None,
) -> Verdict:
    """Check a receipt (wire bytes, or its JSON twin as str or bytes) for a content.

    `multihash` is the content's. `salt` (32 B) opens a salted leaf. `stream`, if given, must be
    the leaf's. With `max_age_ms`, the final header may be at most that much older than `now_ms`,
    Unix milliseconds. With a trust point `now_ms` is needed, and its own age is the last step.
    Raises nothing for bad data: it is the verdict.
    """
    steps: list[Step] = []
    worth = Worth.VALID
    found: Receipt | None = None
    try:
        found = decode_any_receipt(receipt)
        steps.append(_held("form", "The receipt is complete and in its one canonical form."))
        for name, check in _checks(
            found, multihash, trusted, chain_id, salt, stream, max_age_ms, now_ms
        ):
            try:
                steps.append(_held(name, check()))
            except InvalidInputError as error:
                steps.append(Step(name=name, is_ok=False, text=str(error)))
                worth = verdict_of(error)
                break
    except InvalidInputError as error:
        steps.append(Step(name="form", is_ok=False, text=str(error)))
        worth = Worth.WRONG
    return Verdict(worth=worth, steps=tuple(steps), receipt=found)


def verify_membership(receipt: Receipt) -> None:
    """Check that the receipt's leaf is in its batch, and the batch in the log of its final header;
    content and finality are the caller's duty. Raises InvalidInputError."""
    _check_stream(receipt, None)
    _check_batch(receipt)
    _check_log(receipt)
    _check_time(receipt, None, None)


def decode_any_receipt(receipt: bytes | str) -> Receipt:
    """Read wire bytes or JSON, told apart by the first character. Raises InvalidInputError."""
    if isinstance(receipt, str) or receipt.lstrip()[:1] == b"{":
        return decode_receipt_json(receipt)
    return Receipt.decode(receipt)


def _held(name: str, text: str) -> Step:
    return Step(name=name, is_ok=True, text=text)


def _checks(
    receipt: Receipt,
    multihash: bytes,
    trusted: Trusted,
    chain_id: str,
    salt: bytes | None,
    stream: bytes | None,
    max_age_ms: int | None,
    now_ms: int | None,
) -> list[tuple[str, Callable[[], str]]]:
    checks = [
        ("content", lambda: _check_content(receipt, multihash, salt)),
        ("stream", lambda: _check_stream(receipt, stream)),
        ("batch", lambda: _check_batch(receipt)),
        ("log", lambda: _check_log(receipt)),
        ("finality", lambda: _check_finality(receipt, trusted, chain_id, now_ms)),
        ("time", lambda: _check_time(receipt, max_age_ms, now_ms)),
    ]
    if isinstance(trusted, TrustPoint):
        checks.append(("trust", lambda: _check_trust(receipt, trusted, now_ms)))
    return checks


def _check_content(receipt: Receipt, multihash: bytes, salt: bytes | None) -> str:
    name = verify_multihash(multihash)
    leaf = receipt.leaf
    if leaf.commitment is None:
        if leaf.multihash != multihash:
            raise InvalidInputError(
                "the receipt is for another content",
                expected=multihash.hex(),
                got=leaf.multihash.hex(),
            )
        return f"The content's {name} hash {multihash[2:].hex()} is the leaf's."
    if salt is None:
        raise InvalidInputError("the leaf is salted; its salt is needed to compare the content")
    if compute_commitment(salt, multihash) != leaf.commitment:
        raise InvalidInputError("content and salt do not open the leaf's commitment")
    return f"The content's {name} hash and the salt open the leaf's commitment."


def _check_stream(receipt: Receipt, stream: bytes | None) -> str:
    text = encode_stream_text(receipt.leaf.stream)
    if receipt.anchor.stream != receipt.leaf.stream:
        raise InvalidInputError("leaf and anchor belong to different streams")
    if stream is not None and receipt.leaf.stream != stream:
        raise InvalidInputError(
            "the receipt is for another stream", expected=encode_stream_text(stream), got=text
        )
    return f"Leaf and anchor belong to stream {text}."


def _check_batch(receipt: Receipt) -> str:
    anchor = receipt.anchor
    _verify_twice(
        anchor.batch_root,
        anchor.count,
        receipt.batch_index,
        compute_leaf_hash(receipt.leaf_bytes),
        receipt.batch_path,
    )
    return (
        f"The leaf is number {receipt.batch_index} of the {anchor.count} in batch {anchor.seq} of "
        f"submitter {anchor.submitter.hex()} (own check and pymerkle)."
    )


def _check_log(receipt: Receipt) -> str:
    header = receipt.finality.header
    _verify_twice(
        header.audit_root,
        header.audit_size,
        receipt.log_index,
        compute_leaf_hash(receipt.anchor_bytes),
        receipt.log_path,
    )
    return (
        f"The batch's anchor is entry {receipt.log_index} of the {header.audit_size} in the log "
        f"with root {header.audit_root.hex()} (own check and pymerkle)."
    )


def _verify_twice(
    root_hash: bytes, tree_size: int, leaf_index: int, leaf_hash: bytes, path: tuple[bytes, ...]
) -> None:
    verify_inclusion_proof(root_hash, tree_size, leaf_index, leaf_hash, path)
    verify_inclusion_by_pymerkle(root_hash, tree_size, leaf_index, leaf_hash, path)


def _check_finality(receipt: Receipt, trusted: Trusted, chain_id: str, now_ms: int | None) -> str:
    header = verify_trusted(receipt.finality, trusted, chain_id, now_ms=now_ms)
    count = len(receipt.finality.handoffs)
    return (
        f"That log is in the header of block {header.height} of chain {chain_id}, which "
        f"{len(receipt.finality.certificate.signatures)} validators with more than 2/3 of the "
        f"stake made final; {count} handoff(s) lead to them from the trusted set."
    )


def _check_time(receipt: Receipt, max_age_ms: int | None, now_ms: int | None) -> str:
    header, anchor = receipt.finality.header, receipt.anchor
    if anchor.height > header.height or anchor.time_ms > header.time_ms:
        raise InvalidInputError("the anchor claims to be younger than the header that holds it")
    text = f"It was anchored in block {anchor.height} at {anchor.time_ms} ms of Unix time"
    if max_age_ms is None:
        return text + "."
    if now_ms is None:
        raise InvalidInputError("a maximum age was asked for without the time now")
    if header.time_ms > now_ms + CLOCK_AHEAD_MAX_MS:
        raise InvalidInputError(
            "the header is from the future; is this clock right?",
            expected=f"<= {now_ms + CLOCK_AHEAD_MAX_MS} ms",
            got=f"{header.time_ms} ms",
        )
    if now_ms - header.time_ms > max_age_ms:
        raise TooOldError(
            "the receipt is too old",
            expected=f"at most {format_span(max_age_ms)}",
            got=format_span(now_ms - header.time_ms),
        )
    return text + f", and the header is {format_span(max(0, now_ms - header.time_ms))} old."


def _check_trust(receipt: Receipt, trust: TrustPoint, now_ms: int | None) -> str:
    assert now_ms is not None  # finality was judged at a time
    verify_age(receipt.finality.header.time_ms, trust, now_ms=now_ms, max_age_ms=None)
    period = format_span(trust.trusting_period_ms)
    return f"The trust point is younger than the trusting period of {period}."
