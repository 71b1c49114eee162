"""Evidence in blocks: judged from state alone, each validator punished once.

A block carries `Evidence` wire bytes (consensus.evidence). Each must be true (both signatures), of
a consensus key that a validator held at that height, not older than `evidence_window_ms`, and about
a validator that was not slashed for a double sign before, or only for later ones: evidence that
changes nothing makes a block invalid, so that nobody can fill blocks with it.

The age of a height is taken from the block time at every `EPOCH_HEIGHTS`th height, rounded to the
young side: an offence may be judged some heights too late, never refused too early.

State rows:
    time | epoch u64     block time of the epoch's first height, ms u64; epoch = height div 1024
    time | oldest        the first epoch whose row is kept, u64
"""

from __future__ import annotations

from consensus.evidence import Evidence, verify_evidence
from ledger.accounts import StateReader, encode_account_id
from ledger.certificate import SignatureCheck
from ledger.ed25519 import is_valid_signature
from ledger.errors import InvalidInputError
from ledger.execution import BlockContext
from ledger.params import ChainParams
from ledger.staking_rows import read_consensus_key, read_validator
from ledger.staking_slashing import slash_double_sign
from ledger.state import state_key

EPOCH_HEIGHTS = 1024
OLDEST_KEY = state_key("time", b"oldest")
FORGOTTEN_PER_EPOCH_MAX = 4


def epoch_key(epoch: int) -> bytes:
    """State row of an epoch's block time."""
    return state_key("time", epoch.to_bytes(8, "big"))


def judge_evidence(
    state: StateReader,
    evidence: Evidence,
    *,
    chain_id: str,
    height: int,
    time_ms: int,
    params: ChainParams,
    is_valid: SignatureCheck = is_valid_signature,
) -> bytes:
    """The operator that `evidence` convicts in a block of `height` and `time_ms`.

    Raises InvalidInputError if it convicts nobody there; `retry` is set if it may in a later block.
    """
    offence_height = evidence.first.height
    if not 1 <= offence_height <= height:
        raise InvalidInputError(
            "evidence is about a height that is not reached",
            expected=f"1..{height}",
            got=str(offence_height),
            retry=offence_height > height,
        )
    operator = find_offender(state, evidence)
    check_punishable(state, operator, offence_height, time_ms=time_ms, params=params)
    verify_evidence(evidence, chain_id, is_valid)
    return operator


def find_offender(state: StateReader, evidence: Evidence) -> bytes:
    """The operator whose consensus key the signer was at that height. Raises InvalidInputError.

    A key that may vote on a height is in the state two heights before: if nobody is found at
    `state` height H for an offence at H + 2 or below, nobody ever will be.
    """
    place = read_consensus_key(state, evidence.signer)
    if place is None or not place.may_vote_at(evidence.first.height):
        raise InvalidInputError(
            "evidence is about nobody who was a validator then", got=evidence.signer.hex()
        )
    return place.operator


def check_punishable(
    state: StateReader, operator: bytes, offence_height: int, *, time_ms: int, params: ChainParams
) -> None:
    """Raises InvalidInputError if an offence of that operator burns nothing any more."""
    record = read_validator(state, operator)
    if record is None or not record.answers_more_for(offence_height):
        raise InvalidInputError("the offender was punished before", got=encode_account_id(operator))
    made_ms = latest_time_ms(state, offence_height)
    if made_ms is not None and time_ms - made_ms > params.evidence_window_ms:
        raise InvalidInputError(
            "evidence is too old",
            expected=f"at most {params.evidence_window_ms} ms",
            got=f"{time_ms - made_ms} ms",
        )


def latest_time_ms(state: StateReader, height: int) -> int | None:
    """A time at or after that of `height`'s block; None if that is less than an epoch ago.

    What is older than any row kept counts as of time 0.
    """
    epoch = height // EPOCH_HEIGHTS + 1
    row = state.get(epoch_key(epoch))
    if row is not None:
        return int.from_bytes(row, "big")
    oldest = state.get(OLDEST_KEY)
    return 0 if oldest is not None and epoch < int.from_bytes(oldest, "big") else None


class AccountabilityModule:
    """A `BlockModule`: punishes, and keeps the times that evidence is judged by."""

    def __init__(self, is_valid: SignatureCheck = is_valid_signature) -> None:
        self._is_valid = is_valid

    def begin(self, context: BlockContext) -> None:
        """Raises InvalidInputError for evidence that convicts nobody."""
        if context.height % EPOCH_HEIGHTS == 0:
            _note_time(context)
        for data in context.facts.evidence:
            evidence = Evidence.decode(data)
            operator = judge_evidence(
                context.state,
                evidence,
                chain_id=context.chain_id,
                height=context.height,
                time_ms=context.time_ms,
                params=context.params,
                is_valid=self._is_valid,
            )
            slash_double_sign(context, operator, offence_height=evidence.first.height)

    def end(self, context: BlockContext) -> None:
        """Nothing falls due after the txs."""


def _note_time(context: BlockContext) -> None:
    """Keep this epoch's time; let go of those past the window."""
    state, epoch = context.state, context.height // EPOCH_HEIGHTS
    state.put(epoch_key(epoch), context.time_ms.to_bytes(8, "big"))
    row = state.get(OLDEST_KEY)
    oldest = epoch if row is None else int.from_bytes(row, "big")
    for _ in range(FORGOTTEN_PER_EPOCH_MAX):
        made = state.get(epoch_key(oldest))
        if made is None or oldest >= epoch:
            break
        if context.time_ms - int.from_bytes(made, "big") <= context.params.evidence_window_ms:
            break
        state.delete(epoch_key(oldest))
        oldest += 1
    state.put(OLDEST_KEY, oldest.to_bytes(8, "big"))
