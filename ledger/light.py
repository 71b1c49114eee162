"""The light client: whom to trust, for how long, and what a proof is worth now.

A `TrustPoint` is a header that is trusted: its height and time, and the validator set that it
names for the next height. It comes from a genesis file, by a header's hash, or from one that was
verified from an older trust point. Everything here is a pure function of bytes, a trust point and
the time `now_ms`.

- `judge` says what a finality proof is worth: see `Verdict`. Checks that go on from there raise
  instead (`verify_trusted`, `verify_age`), and `verdict_of` reads the verdict off the error.
- `verify_sequential` follows each height; `Bisection` skips as far as it may, and asks for a header
  half way where too few of the trusted validators signed.
- `compare` looks at two answers about one height: two different headers, both final, are an attack,
  and the two proofs are what names the culprits.

The trusting period must be shorter than the unbonding time, so that whoever signed can still be
slashed while it is believed (`ledger.finality`). A header may be ahead of our clock by at most
`clock_drift_max_ms`.

Wire of a light block: [header, certificate, validator_set bin, next validator_set bin].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from ledger import codec
from ledger.block import Header
from ledger.certificate import Certificate
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import (
    CannotTellError,
    FinalityProof,
    Handoff,
    TooLittleOverlapError,
    verify_final_header,
    verify_finality,
    verify_handoff,
)
from ledger.params import DAY_MS
from ledger.validator_set import VALIDATOR_SET_BYTES_MAX, ValidatorSet

CLOCK_DRIFT_MAX_MS = 10_000
LIGHT_BLOCK_BYTES_MAX = 64 * 1024
BISECTION_BLOCKS_MAX = 8192


class Verdict(StrEnum):
    """What a proof is worth."""

    VALID = "valid"
    VALID_BUT_EXPIRED_TRUST = "valid-but-expired-trust"
    """Right by the trust point, which is older than the trusting period: its validators may have
    unbonded and sold their keys."""
    TOO_OLD = "too-old"
    """Right, but the header is older than was asked for: there may be newer state."""
    WRONG = "wrong"
    """It contradicts itself, the trust point or the rules: whoever sent it is faulty."""
    CANNOT_TELL = "cannot-tell"
    """Nothing can be said: no answer, no trust that reaches it, another protocol version."""


class TooOldError(InvalidInputError):
    """Right, but older than was asked for."""


class ExpiredTrustError(InvalidInputError):
    """Right by a trust point that is older than the trusting period."""


def verdict_of(error: InvalidInputError) -> Verdict:
    """What is said of a proof that was refused with this error."""
    match error:
        case CannotTellError():
            return Verdict.CANNOT_TELL
        case TooOldError():
            return Verdict.TOO_OLD
        case ExpiredTrustError():
            return Verdict.VALID_BUT_EXPIRED_TRUST
        case _:
            return Verdict.WRONG


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict, why, and the header, if it was read. Only with VALID may it be relied on."""

    verdict: Verdict
    reason: str
    header: Header | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPoint:
    """A trusted height (0: genesis). `validators` votes on the next height; `header_hash` is 32 B,
    the genesis hash at height 0, or empty if it is not known."""

    chain_id: str
    height: int
    time_ms: int
    validators: ValidatorSet
    trusting_period_ms: int
    header_hash: bytes = b""
    clock_drift_max_ms: int = CLOCK_DRIFT_MAX_MS

    def is_expired(self, now_ms: int) -> bool:
        """True once the trusting period is over."""
        return now_ms > self.time_ms + self.trusting_period_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class LightBlock:
    """A header, its certificate, the set that voted on it and the one that votes after it."""

    header: Header
    certificate: Certificate
    validators: ValidatorSet
    next_validators: ValidatorSet

    @classmethod
    def decode(cls, data: bytes) -> LightBlock:
        """Inverse of `encode`. Raises InvalidInputError, also if the sets are not the header's."""
        value = codec.decode(data, bytes_max=LIGHT_BLOCK_BYTES_MAX)
        header, certificate, *sets = codec.read_array(value, 4, "light block")
        block = cls(
            header=Header.from_value(header),
            certificate=Certificate.from_value(certificate),
            validators=_read_set(sets[0]),
            next_validators=_read_set(sets[1]),
        )
        if (block.validators.hash, block.next_validators.hash) != (
            block.header.validators_hash,
            block.header.next_validators_hash,
        ):
            raise InvalidInputError("light block carries validator sets that its header names not")
        return block

    def encode(self) -> bytes:
        return codec.encode(
            [
                self.header.to_value(),
                self.certificate.to_value(),
                self.validators.encoded,
                self.next_validators.encoded,
            ]
        )


def _read_set(value: object) -> ValidatorSet:
    data = codec.read_bytes(value, "validator set", maximum=VALIDATOR_SET_BYTES_MAX)
    return ValidatorSet.decode(data)


def trust_header(
    data: bytes, header_hash: bytes, chain_id: str, *, trusting_period_ms: int
) -> TrustPoint:
    """The trust point of a header that is trusted by its hash; `data` is its light block.

    Raises InvalidInputError if that is another header or not final.
    """
    block = LightBlock.decode(data)
    if block.header.hash != header_hash:
        raise InvalidInputError(
            "the header is not the trusted one",
            expected=header_hash.hex(),
            got=block.header.hash.hex(),
        )
    verify_final_header(block.header, block.certificate, block.validators, chain_id)
    return TrustPoint(
        chain_id=chain_id,
        height=block.header.height,
        time_ms=block.header.time_ms,
        validators=block.next_validators,
        trusting_period_ms=trusting_period_ms,
        header_hash=block.header.hash,
    )


# --- what a proof is worth ---


def judge(
    proof: bytes, trust: TrustPoint, *, now_ms: int, max_age_ms: int | None = None
) -> Judgement:
    """Judge a finality proof's wire bytes; empty bytes are no answer. Never raises for bad data.

    A header that is too old is TOO_OLD even where the trust has expired as well.
    """
    if not proof:
        return Judgement(verdict=Verdict.CANNOT_TELL, reason="there is no proof")
    try:
        decoded = FinalityProof.decode(proof)
    except InvalidInputError as error:
        return Judgement(verdict=Verdict.WRONG, reason=str(error))
    return judge_decoded(decoded, trust, now_ms=now_ms, max_age_ms=max_age_ms)


def judge_decoded(
    proof: FinalityProof, trust: TrustPoint, *, now_ms: int, max_age_ms: int | None = None
) -> Judgement:
    """As `judge`, for a proof that is well-formed."""
    try:
        _verify_from(proof, trust, now_ms)
        verify_age(proof.header.time_ms, trust, now_ms=now_ms, max_age_ms=max_age_ms)
    except InvalidInputError as error:
        return Judgement(verdict=verdict_of(error), reason=str(error), header=proof.header)
    return Judgement(verdict=Verdict.VALID, reason="", header=proof.header)


Trusted = ValidatorSet | TrustPoint
"""What a check begins with: a set that is trusted whatever the time, or a trust point, whose height
and time are judged as well."""


def verify_trusted(
    proof: FinalityProof, trusted: Trusted, chain_id: str, *, now_ms: int | None
) -> Header:
    """The proof's header, which may now be relied on; how old it and the trust point are is for
    `verify_age`. `now_ms` (Unix ms) is needed with a trust point.

    Steps at or below the height of the trust point are left out: they lead to what is trusted
    already, so a proof that begins at genesis does for a later trust point too, wherever it leads
    on from there. Raises InvalidInputError, or CannotTellError where the proof does not.
    """
    if isinstance(trusted, ValidatorSet):
        return verify_finality(proof, trusted, chain_id)
    if now_ms is None:
        raise UsageError("a trust point is judged at a time", expected="now_ms")
    later = tuple(step for step in proof.handoffs if step.header.height > trusted.height)
    is_whole = len(later) == len(proof.handoffs)
    try:
        return _verify_from(replace(proof, handoffs=later), trusted, now_ms)
    except InvalidInputError as error:
        if is_whole or isinstance(error, CannotTellError):
            raise
        raise CannotTellError(
            "the proof begins below the trust point and does not lead on from it",
            expected=f"a proof from height {trusted.height}",
            got=error.message,
        ) from error


def _verify_from(proof: FinalityProof, trust: TrustPoint, now_ms: int) -> Header:
    """See `verify_trusted`, with all steps. Raises InvalidInputError."""
    header = proof.header
    first = proof.handoffs[0].header if proof.handoffs else header
    is_known = header.height == trust.height and not proof.handoffs and trust.header_hash != b""
    if not is_known and min(first.height, header.height) <= trust.height:
        raise CannotTellError("the proof begins at or below the trusted height")
    if is_known and header.hash != trust.header_hash:
        raise InvalidInputError("the header is not the trusted one of this height")
    if is_known and header.validators_hash != trust.validators.hash:
        raise CannotTellError("who signed the trusted header is not known here")
    if not is_known:
        _check_next(first, trust)
    verify_finality(proof, trust.validators, trust.chain_id)
    if not is_known:
        check_times(first, trust, now_ms)
        check_times(header, trust, now_ms)
    return header


def _check_next(header: Header, trust: TrustPoint) -> None:
    """Raise InvalidInputError if `header` is that of the next height and not the trusted header's
    successor: there is nothing to skip, so more than 1/3 of the trusted power is not enough."""
    if header.height != trust.height + 1:
        return
    if trust.header_hash and header.parent_hash != trust.header_hash:
        raise InvalidInputError("the header does not follow the trusted one")
    if header.validators_hash != trust.validators.hash:
        raise InvalidInputError("the header names another set than the trusted one before it")


def check_times(header: Header, trust: TrustPoint, now_ms: int) -> None:
    """Raise InvalidInputError unless `header` is later than the trust point and not from the
    future."""
    if header.time_ms <= trust.time_ms:
        raise InvalidInputError(
            "the header is not later than the trust point",
            expected=f"> {trust.time_ms} ms",
            got=f"{header.time_ms} ms",
        )
    if header.time_ms > now_ms + trust.clock_drift_max_ms:
        raise InvalidInputError(
            "the header is from the future; is this clock right?",
            expected=f"<= {now_ms + trust.clock_drift_max_ms} ms",
            got=f"{header.time_ms} ms",
        )


def verify_age(time_ms: int, trusted: Trusted, *, now_ms: int, max_age_ms: int | None) -> None:
    """Judge a header of `time_ms` that holds by `trusted`: raises TooOldError if it is more than
    `max_age_ms` old, else ExpiredTrustError if the trust point is past its trusting period."""
    if max_age_ms is not None and now_ms - time_ms > max_age_ms:
        raise TooOldError(
            "the header is too old",
            expected=f"at most {format_span(max_age_ms)}",
            got=format_span(now_ms - time_ms),
            retry=True,
        )
    if isinstance(trusted, TrustPoint):
        _check_trust(trusted, now_ms)


def format_span(span_ms: int) -> str:
    """A length of time in words, in the largest unit that it fills twice."""
    for unit, unit_ms in (("days", DAY_MS), ("hours", 3_600_000), ("minutes", 60_000)):
        if span_ms >= 2 * unit_ms:
            return f"{span_ms // unit_ms} {unit}"
    return f"{span_ms / 1000:g} s"


def _cannot_tell(reason: str, header: Header | None = None) -> Judgement:
    return Judgement(verdict=Verdict.CANNOT_TELL, reason=reason, header=header)


# --- following the chain ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A height was verified: the new trust point, and why for whoever trusts the old one."""

    trust: TrustPoint
    proof: FinalityProof


def verify_sequential(
    blocks: Iterable[LightBlock], trust: TrustPoint, *, now_ms: int
) -> TrustPoint:
    """Follow the heights after the trust point one by one; the last, now trusted.

    Raises InvalidInputError for a missing height, a broken chain of hashes, a header that is not
    final, a time that does not increase or is in the future, or an expired trust point.
    """
    for block in blocks:
        header = block.header
        _check_trust(trust, now_ms)
        if header.height != trust.height + 1:
            raise InvalidInputError(
                "a height is missing", expected=str(trust.height + 1), got=str(header.height)
            )
        if trust.header_hash and header.parent_hash != trust.header_hash:
            raise InvalidInputError("the header does not follow the one before it")
        verify_final_header(header, block.certificate, trust.validators, trust.chain_id)
        check_times(header, trust, now_ms)
        trust = _advance(trust, block)
    return trust


def _check_trust(trust: TrustPoint, now_ms: int) -> None:
    if trust.is_expired(now_ms):
        raise ExpiredTrustError(
            "the trust point is older than the trusting period; a newer one is needed",
            expected=f"at most {format_span(trust.trusting_period_ms)}",
            got=format_span(now_ms - trust.time_ms),
        )


def _advance(trust: TrustPoint, block: LightBlock) -> TrustPoint:
    return replace(
        trust,
        height=block.header.height,
        time_ms=block.header.time_ms,
        validators=block.next_validators,
        header_hash=block.header.hash,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """On the way from a trust point to height `target`; feed it the light block it wants.

    `waiting` are blocks that are too far for the trust so far, nearest last; `steps` are those
    taken. Each answer is a new Bisection, `Reached`, or the Judgement that ended it.
    """

    start: TrustPoint
    trust: TrustPoint
    target: int
    waiting: tuple[LightBlock, ...] = ()
    steps: tuple[Handoff, ...] = ()
    blocks_count: int = 0

    @classmethod
    def begin(cls, trust: TrustPoint, target: int) -> Bisection:
        """Raises UsageError unless `target` is above the trusted height."""
        if target <= trust.height:
            raise UsageError("no way back", expected=f"> {trust.height}", got=str(target))
        return cls(start=trust, trust=trust, target=target)

    @property
    def wanted(self) -> int:
        """The height of the light block to feed next."""
        if not self.waiting:
            return self.target
        return (self.trust.height + self.waiting[-1].header.height) // 2

    def on_block(self, data: bytes, *, now_ms: int) -> Bisection | Reached | Judgement:
        """Take the light block of `wanted`, wire bytes; empty if there was no answer."""
        if not data:
            return _cannot_tell(f"no light block of height {self.wanted}")
        if self.blocks_count == BISECTION_BLOCKS_MAX:
            return _cannot_tell(f"height {self.target} needs more than {self.blocks_count} blocks")
        try:
            block = LightBlock.decode(data)
            if block.header.height != self.wanted:
                raise InvalidInputError(
                    "light block is of another height",
                    expected=str(self.wanted),
                    got=str(block.header.height),
                )
            _check_trust(self.trust, now_ms)
            return self._take((*self.waiting, block), now_ms)
        except CannotTellError as error:
            return _cannot_tell(str(error))
        except InvalidInputError as error:
            return Judgement(verdict=Verdict.WRONG, reason=str(error))

    def _take(self, waiting: tuple[LightBlock, ...], now_ms: int) -> Bisection | Reached:
        """Step to the nearest waiting blocks as long as they carry."""
        trust, steps = self.trust, self.steps
        while waiting:
            block = waiting[-1]
            check_times(block.header, trust, now_ms)
            try:
                steps += verify_step(block, trust)
            except TooLittleOverlapError:
                break
            trust, waiting = _advance(trust, block), waiting[:-1]
        if waiting:
            return replace(
                self,
                trust=trust,
                steps=steps,
                waiting=waiting,
                blocks_count=self.blocks_count + 1,
            )
        return Reached(
            trust=trust,
            proof=FinalityProof(
                header=block.header, certificate=block.certificate, handoffs=_before(steps, block)
            ),
        )


def verify_step(block: LightBlock, trust: TrustPoint) -> tuple[Handoff, ...]:
    """Check that `block` is final for whoever trusts `trust`, directly or by a skip; the handoffs
    that lead to the set after it. Raises InvalidInputError, or TooLittleOverlapError if it is too
    far. Times are the caller's duty."""
    header, certificate = block.header, block.certificate
    _check_next(header, trust)
    to_signers = Handoff(header=header, certificate=certificate, next_validators=block.validators)
    to_next = Handoff(header=header, certificate=certificate, next_validators=block.next_validators)
    is_change = block.next_validators != block.validators
    if header.validators_hash == trust.validators.hash:
        verify_handoff(to_next, trust.validators, trust.chain_id)
        return (to_next,) if is_change else ()
    verify_handoff(to_signers, trust.validators, trust.chain_id)
    return (to_signers, to_next) if is_change else (to_signers,)


def _before(steps: tuple[Handoff, ...], block: LightBlock) -> tuple[Handoff, ...]:
    """`steps` without that from the proven header itself to the set after it."""
    is_change = block.next_validators != block.validators
    return steps[:-1] if is_change else steps


# --- two answers about one height ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """Two different headers of one height, each final by the same trust point. Whoever signed
    both chains is a culprit: a fork proof names them."""

    trust: TrustPoint
    first: FinalityProof
    second: FinalityProof


def compare(
    first: FinalityProof, second: bytes, trust: TrustPoint, *, now_ms: int
) -> Judgement | Attack:
    """Hold a witness's finality proof (wire bytes; empty: no answer) against the verified `first`
    of the same height. VALID: they agree. Raises nothing for bad data."""
    judgement = judge(second, trust, now_ms=now_ms)
    if judgement.verdict is not Verdict.VALID or judgement.header is None:
        return judgement
    if judgement.header.height != first.header.height:
        return _cannot_tell("the witness answers about another height", judgement.header)
    if judgement.header.hash == first.header.hash:
        return judgement
    return Attack(trust=trust, first=first, second=FinalityProof.decode(second))
