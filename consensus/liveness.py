"""Who missed a height: judged once everybody has had the time to show that it did not.

Block H names by its parent certificate who finalized H-1. Whoever is not in it is absent, until a
late vote (a finalize vote for the final block of one of the last `LATE_HEIGHTS` heights) in this or
a later block shows it. A leader chooses what its block carries, so one leader can leave a vote out;
`LATE_HEIGHTS` leaders in a row that all do are the fault of more than one. After that the absent
have missed the height.

    late vote = [height, view, signer bin32, signature bin64]: a finalize vote for the block that
                is final at `height`, of somebody still absent there; each is needed, or refused

State rows:
    liveness | pending     [[height, block hash, [absent consensus key, ...]], ...], ascending
    liveness | operator    [h, bitmap]: bit i (from the lowest) is set if height h - i was missed;
                           written on a miss only, gone when the validator is jailed for it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ledger import codec
from ledger.accounts import StateReader
from ledger.certificate import (
    VIEW_MAX,
    Certificate,
    SignatureCheck,
    VoteKind,
    vote_sign_bytes,
)
from ledger.ed25519 import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, is_valid_signature
from ledger.errors import InvalidInputError
from ledger.execution import BlockContext
from ledger.params import DOWNTIME_WINDOW_MAX, ChainParams
from ledger.staking_rows import read_consensus_key, read_validator
from ledger.staking_slashing import slash_downtime
from ledger.state import state_key
from ledger.validator_rows import LAST_KEY
from ledger.validator_set import VALIDATORS_MAX, ValidatorSet

LATE_HEIGHTS = 16
LATE_VOTE_BYTES_MAX = 256
PENDING_BYTES_MAX = (LATE_HEIGHTS + 2) * (VALIDATORS_MAX + 2) * 40
PENDING_KEY = state_key("liveness", b"pending")


@dataclass(frozen=True, slots=True, kw_only=True)
class LateVote:
    """A finalize vote that came after the certificate was made."""

    height: int
    view: int
    signer: bytes
    signature: bytes

    @classmethod
    def decode(cls, data: bytes) -> LateVote:
        """Inverse of `encode`. Raises InvalidInputError."""
        height, view, signer, signature = codec.read_array(
            codec.decode(data, bytes_max=LATE_VOTE_BYTES_MAX), 4, "late vote"
        )
        return cls(
            height=codec.read_int(height, "late vote height"),
            view=codec.read_int(view, "late vote view", VIEW_MAX),
            signer=codec.read_bytes(signer, "late vote signer", length=PUBLIC_KEY_BYTES),
            signature=codec.read_bytes(signature, "late vote signature", length=SIGNATURE_BYTES),
        )

    def encode(self) -> bytes:
        return codec.encode([self.height, self.view, self.signer, self.signature])


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingHeight:
    """A final height that is not judged yet, and who has not been seen to finalize it."""

    height: int
    block_hash: bytes
    absent: frozenset[bytes]


def read_pending(state: StateReader) -> list[PendingHeight]:
    """The heights that late votes may still be shown for, ascending."""
    row = state.get(PENDING_KEY)
    if row is None:
        return []
    found = []
    for item in codec.read_list(
        codec.decode(row, bytes_max=PENDING_BYTES_MAX), LATE_HEIGHTS + 2, "pending heights"
    ):
        height, block_hash, absent = codec.read_array(item, 3, "pending height")
        keys = codec.read_list(absent, VALIDATORS_MAX, "absent validators")
        found.append(
            PendingHeight(
                height=codec.read_int(height, "pending height"),
                block_hash=codec.read_bytes(block_hash, "pending block hash", length=32),
                absent=frozenset(codec.read_bytes(k, "absent key", length=32) for k in keys),
            )
        )
    return found


def wanted_votes(state: StateReader) -> dict[int, frozenset[bytes]]:
    """By height, whose finalize votes the next block may carry as late votes."""
    return {p.height: p.absent for p in read_pending(state) if p.absent}


class LivenessModule:
    """A `BlockModule`: counts misses, and jails who missed too many."""

    def __init__(self, is_valid: SignatureCheck = is_valid_signature) -> None:
        self._is_valid = is_valid

    def begin(self, context: BlockContext) -> None:
        """Raises InvalidInputError for a late vote that is not needed or not true."""
        before = context.state.get(PENDING_KEY)
        pending = read_pending(context.state)
        certificate = context.facts.parent_certificate
        if certificate is not None:
            pending.append(_pending_of(context, certificate))
        pending = self._take_late_votes(context, pending)
        while pending and pending[0].height + LATE_HEIGHTS < context.height:
            due = pending.pop(0)
            for key in sorted(due.absent):
                _note_miss(context, key, due.height)
        row = _encode_pending(pending)
        if row != before:
            context.state.put(PENDING_KEY, row)

    def end(self, context: BlockContext) -> None:
        """Nothing falls due after the txs."""

    def _take_late_votes(
        self, context: BlockContext, pending: list[PendingHeight]
    ) -> list[PendingHeight]:
        absent = {p.height: set(p.absent) for p in pending}
        hashes = {p.height: p.block_hash for p in pending}
        for data in context.facts.late_votes:
            vote = LateVote.decode(data)
            if vote.signer not in absent.get(vote.height, ()):
                raise InvalidInputError(
                    "late vote shows nothing new",
                    expected=f"a validator absent at one of the last {LATE_HEIGHTS} heights",
                    got=f"{vote.signer.hex()} at height {vote.height}",
                )
            message = _signed_bytes(context.chain_id, vote, hashes[vote.height])
            if not self._is_valid(vote.signer, message, vote.signature):
                raise InvalidInputError("late vote has a bad signature", got=vote.signer.hex())
            absent[vote.height].discard(vote.signer)
        return [
            PendingHeight(
                height=p.height, block_hash=p.block_hash, absent=frozenset(absent[p.height])
            )
            for p in pending
        ]


def late_vote_signatures(
    state: StateReader, chain_id: str, parent: tuple[int, bytes], late_votes: Iterable[bytes]
) -> list[tuple[bytes, bytes, bytes]]:
    """(key, message, signature) of those late votes that a block on `state` may carry, so that they
    can be checked beforehand, in threads. `parent` is the height and hash of the block that made
    `state`. What a block may not carry is left out, and the module refuses it by itself."""
    wanted = wanted_votes(state)
    hashes = {p.height: p.block_hash for p in read_pending(state)}
    row = state.get(LAST_KEY)
    if row is not None:
        wanted[parent[0]], hashes[parent[0]] = frozenset(_decode_set(row).index_by_key), parent[1]
    found: dict[tuple[int, bytes], tuple[bytes, bytes, bytes]] = {}
    for data in late_votes:
        try:
            vote = LateVote.decode(data)
        except InvalidInputError:
            return []
        if vote.signer in wanted.get(vote.height, ()):
            message = _signed_bytes(chain_id, vote, hashes[vote.height])
            found.setdefault((vote.height, vote.signer), (vote.signer, message, vote.signature))
    return list(found.values())


def _signed_bytes(chain_id: str, vote: LateVote, block_hash: bytes) -> bytes:
    return vote_sign_bytes(chain_id, VoteKind.FINALIZE, vote.height, vote.view, block_hash)


def _pending_of(context: BlockContext, certificate: Certificate) -> PendingHeight:
    row = context.state.get(LAST_KEY)
    assert row is not None, "every chain has the set that voted last"
    validators = _decode_set(row)
    signers = {validators.validators[i].public_key for i in certificate.signer_indexes(validators)}
    return PendingHeight(
        height=context.height - 1,
        block_hash=context.parent_hash,
        absent=frozenset(v.public_key for v in validators.validators) - signers,
    )


_last_set: tuple[bytes, ValidatorSet] | None = None


def _decode_set(row: bytes) -> ValidatorSet:
    """The set of a row; remembered, as it is the same in nearly every block."""
    global _last_set
    if _last_set is None or _last_set[0] != row:
        _last_set = (row, ValidatorSet.decode(row))
    return _last_set[1]


def _encode_pending(pending: Iterable[PendingHeight]) -> bytes:
    return codec.encode([[p.height, p.block_hash, sorted(p.absent)] for p in pending])


# --- misses ---


def missed_key(operator: bytes) -> bytes:
    """State row of a validator's misses."""
    return state_key("liveness", operator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Misses:
    """`bits`: bit i is set if height `height - i` was missed."""

    height: int
    bits: int

    @classmethod
    def decode(cls, data: bytes) -> Misses:
        """Inverse of `encode`. Raises InvalidInputError."""
        height, bits = codec.read_array(
            codec.decode(data, bytes_max=DOWNTIME_WINDOW_MAX // 8 + 32), 2, "misses"
        )
        bitmap = codec.read_bytes(bits, "missed heights", maximum=DOWNTIME_WINDOW_MAX // 8)
        return cls(
            height=codec.read_int(height, "missed height"), bits=int.from_bytes(bitmap, "big")
        )

    def encode(self) -> bytes:
        return codec.encode(
            [self.height, self.bits.to_bytes((self.bits.bit_length() + 7) // 8, "big")]
        )

    def after_miss(self, height: int, window: int) -> Misses:
        """With `height` missed as well; what fell out of the window is forgotten."""
        ahead = height - self.height
        bits = 1 if ahead >= window else (self.bits << ahead | 1) & ((1 << window) - 1)
        return Misses(height=height, bits=bits)

    def count_at(self, height: int, window: int) -> int:
        """How many of the `window` heights up to `height` were missed."""
        ahead = max(height - self.height, 0)
        return (self.bits & ((1 << max(window - ahead, 0)) - 1)).bit_count()


def read_misses(state: StateReader, operator: bytes) -> Misses:
    """None missed, if it has no row."""
    row = state.get(missed_key(operator))
    return Misses(height=0, bits=0) if row is None else Misses.decode(row)


def _note_miss(context: BlockContext, key: bytes, height: int) -> None:
    place = read_consensus_key(context.state, key)
    record = None if place is None else read_validator(context.state, place.operator)
    if place is None or record is None or record.is_jailed:
        return
    params: ChainParams = context.params
    misses = read_misses(context.state, place.operator).after_miss(height, params.downtime_window)
    if misses.bits.bit_count() <= params.downtime_missed_max:
        context.state.put(missed_key(place.operator), misses.encode())
        return
    context.state.delete(missed_key(place.operator))
    slash_downtime(context, place.operator)


WantedVotes = Callable[[int, frozenset[bytes]], Iterable[LateVote]]
"""(height, signers) -> what is known of their finalize votes."""
