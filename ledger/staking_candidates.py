"""From stakes to validator sets (adr/0008).

    validators | candidates    [[operator, consensus key, power], ...]
    validators | short         the same, of who lacks nothing but self-bond: a change of parameters
                               may make them candidates
    validators | touched       operators (32 B each, one after the other) whose candidacy may have
                               changed; there only while a block runs

Whoever changes a validator calls `put_validator`, which marks it; at the end of the block the
marked ones are judged again, and the first `validators_max` candidates vote on the height after
the next. One block costs what it touched, not what there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ledger.accounts import ACCOUNT_ID_BYTES, StateReader
from ledger.execution import BlockContext, StateView
from ledger.params import ChainParams
from ledger.staking_record import ValidatorRecord, tokens_of_shares
from ledger.staking_rewards import Distribution, settle
from ledger.staking_rows import (
    CANDIDATES_KEY,
    CANDIDATES_MAX,
    SHORT_KEY,
    Candidate,
    consensus_key_key,
    encode_candidates,
    encode_key_owner,
    read_candidates,
    read_consensus_key,
    read_delegation,
    read_validator,
    validator_key,
)
from ledger.state import state_key
from ledger.validator_rows import LAST_KEY, NEXT_KEY, SET_KEY
from ledger.validator_set import Validator, ValidatorSet

TOUCHED_KEY = state_key("validators", b"touched")
KEY_DELAY = 2
"""A set made at the end of a block votes on the height after the next."""


def put_validator(
    state: StateView, operator: bytes, record: ValidatorRecord, before: ValidatorRecord | None
) -> None:
    """Write a validator; mark it if what decides on its candidacy differs from `before`."""
    state.put(validator_key(operator), record.encode())
    if before is None or _deciding(record) != _deciding(before):
        touch(state, operator)


def _deciding(record: ValidatorRecord) -> tuple[object, ...]:
    """With the shares, since the price of a share decides on the self-bond."""
    return record.tokens, record.shares, record.consensus_key, record.is_jailed, record.retired


def touch(state: StateView, operator: bytes) -> None:
    """Have a validator judged again when the block ends."""
    touched = state.get(TOUCHED_KEY) or b""
    at = touched.find(operator)
    while at % ACCOUNT_ID_BYTES and at >= 0:  # found across two others
        at = touched.find(operator, at + 1)
    if at < 0:
        state.put(TOUCHED_KEY, touched + operator)


def touch_candidates(state: StateView) -> None:
    """The parameters have changed: have everybody judged again whose candidacy hangs on them."""
    for candidate in (*read_candidates(state), *read_candidates(state, SHORT_KEY)):
        touch(state, candidate.operator)


def judge_candidacy(
    state: StateReader, operator: bytes, params: ChainParams
) -> tuple[Candidate, bool] | None:
    """The candidate that a validator is now, and whether its self-bond is large enough; None if it
    would be none whatever the parameters."""
    record = read_validator(state, operator)
    if record is None or record.is_jailed or record.retired or record.bonded_power < 1:
        return None
    own = read_delegation(state, operator, operator)
    if own is None:
        return None
    has_bond = tokens_of_shares(record, own.shares) >= params.self_bond_min
    return Candidate(operator, record.consensus_key, record.bonded_power), has_bond


def order_candidates(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Power descending, then operator; at most 512."""
    return sorted(candidates, key=lambda c: (-c.power, c.operator))[:CANDIDATES_MAX]


def refresh_candidates(context: BlockContext) -> None:
    """Judge the marked validators, and write the lists and the set of the height after the next
    where they differ."""
    state = context.state
    touched = state.get(TOUCHED_KEY)
    if touched is None:
        return
    state.delete(TOUCHED_KEY)
    listed = {c.operator: c for c in read_candidates(state)}
    short = {c.operator: c for c in read_candidates(state, SHORT_KEY)}
    for at in range(0, len(touched), ACCOUNT_ID_BYTES):
        operator = touched[at : at + ACCOUNT_ID_BYTES]
        listed.pop(operator, None)
        short.pop(operator, None)
        judged = judge_candidacy(state, operator, context.params)
        if judged is not None:
            candidate, has_bond = judged
            (listed if has_bond else short)[operator] = candidate
    candidates = _write_list(state, CANDIDATES_KEY, listed)
    _write_list(state, SHORT_KEY, short)
    following = state.get(NEXT_KEY)
    assert following is not None, "genesis wrote the sets"
    chosen = [Validator(public_key=c.consensus_key, power=c.power) for c in candidates]
    chosen = chosen[: context.params.validators_max] or _present_keys(state, following)
    encoded = ValidatorSet.of(chosen).encoded
    if encoded != following:
        state.put(NEXT_KEY, encoded)
    _end_retired_keys(context, touched, following, {v.public_key for v in chosen})


def _write_list(
    state: StateView, key: bytes, by_operator: dict[bytes, Candidate]
) -> list[Candidate]:
    candidates = order_candidates(by_operator.values())
    row = encode_candidates(candidates)
    if row != (state.get(key) or encode_candidates([])):
        state.put(key, row)
    return candidates


def _present_keys(state: StateReader, following: bytes) -> list[Validator]:
    """Nobody may be active: the set stays, under the keys that its validators have now."""
    kept = []
    for operator, power in _power_by_operator(state, following).items():
        record = read_validator(state, operator)
        assert record is not None, "a validator is never deleted"
        kept.append(Validator(public_key=record.consensus_key, power=power))
    return kept


def _end_retired_keys(
    context: BlockContext, touched: bytes, before: bytes, chosen: set[bytes]
) -> None:
    """Whoever has retired, and is not in the set any more, has a last height. It retires in a block
    that touches it, or was in the set until now because nobody else could be."""
    state = context.state
    operators = [
        touched[at : at + ACCOUNT_ID_BYTES] for at in range(0, len(touched), ACCOUNT_ID_BYTES)
    ]
    for validator in ValidatorSet.decode(before).validators:
        if validator.public_key not in chosen:
            owner = read_consensus_key(state, validator.public_key)
            assert owner is not None, "each key that ever was in a set has its row"
            operators.append(owner.operator)
    for operator in operators:
        record = read_validator(state, operator)
        if record is not None and record.retired and record.consensus_key not in chosen:
            end_consensus_key(state, record.consensus_key, context.height)


def end_consensus_key(state: StateView, key: bytes, height: int) -> None:
    """A set made at the end of block `height` does without `key`: it votes on the height after
    that for the last time. A key ends once."""
    owner = read_consensus_key(state, key)
    assert owner is not None, "the key of a validator has its row"
    if owner.last is None:
        ended = owner._replace(last=height + KEY_DELAY - 1)
        state.put(consensus_key_key(key), encode_key_owner(ended))


def change_set_in_force(context: BlockContext, distribution: Distribution) -> Distribution:
    """The next height has its own set: settle whose power it changes. Returns the distribution
    that counts from now on; not written yet."""
    state = context.state
    voted, voting = state.get(LAST_KEY), state.get(SET_KEY)
    assert voted is not None, "genesis wrote the sets"
    assert voting is not None, "genesis wrote the sets"
    if voted == voting:
        return distribution
    before, after = _power_by_operator(state, voted), _power_by_operator(state, voting)
    for operator in [*after, *(o for o in before if o not in after)]:
        power = after.get(operator, 0)
        if power == before.get(operator, 0):
            continue
        record = read_validator(state, operator)
        assert record is not None, "a validator is never deleted"
        record, distribution = settle(record, distribution)
        state.put(validator_key(operator), replace(record, power=power).encode())
    return replace(distribution, power=sum(after.values()))


def _power_by_operator(state: StateReader, encoded: bytes) -> dict[bytes, int]:
    powers = {}
    for validator in ValidatorSet.decode(encoded).validators:
        owner = read_consensus_key(state, validator.public_key)
        assert owner is not None, "each key that ever was in a set has its row"
        powers[owner.operator] = validator.power
    return powers
