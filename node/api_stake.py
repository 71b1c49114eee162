"""Answers about stake: validators, delegations, what is unbonding. Each item comes with the state
row that it was read from and that row's proof; one finality proof serves them all.

Lists are read at the tip by their rows' prefix; every figure that is computed (status, stake in
uzynk, rewards so far) follows from the rows shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from consensus.liveness import read_misses
from ledger.accounts import encode_account_id
from ledger.chain import Chain
from ledger.staking_record import SCALE_BITS, ValidatorRecord, tokens_of_shares
from ledger.staking_rewards import read_distribution, settle
from ledger.staking_rows import (
    DELEGATION_PREFIX,
    VALIDATOR_PREFIX,
    Delegation,
    UnbondingEntry,
    delegation_key,
    read_candidates,
    read_delegation,
    read_unbonding,
    read_validator,
    unbonding_key,
    validator_key,
)
from ledger.staking_unbonding import compute_released, read_queue
from ledger.views import ProvenView
from rpc.errors import not_found
from rpc.params import text_of_bytes

ENTRIES_SCANNED_MAX = 10_000


def validators_json(chain: Chain, view: ProvenView, cursor: int, limit: int) -> dict[str, object]:
    """A page of all validators there ever were, by power."""
    operators = [key[len(VALIDATOR_PREFIX) :] for key, _ in chain.tree.iterate(VALIDATOR_PREFIX)]
    active = {v.public_key for v in chain.validators.validators}
    rank = {c.operator: n for n, c in enumerate(read_candidates(view))}
    operators.sort(key=lambda operator: (rank.get(operator, len(rank)), operator))
    page = operators[cursor : cursor + limit]
    return {
        "height": view.height,
        "validators": [validator_json(chain, view, operator, active) for operator in page],
        "next_cursor": _next_cursor(cursor, limit, len(operators)),
        "finality": text_of_bytes(view.finality.encode()),
    }


def validator_json(
    chain: Chain, view: ProvenView, operator: bytes, active: set[bytes]
) -> dict[str, object]:
    """One validator. Raises RpcError if there is none."""
    record = read_validator(view, operator)
    if record is None:
        raise not_found("validator", got=encode_account_id(operator))
    misses = read_misses(view, operator)
    window = chain.params.downtime_window
    slash = record.slash
    return {
        "operator": operator.hex(),
        "public_key": record.consensus_key.hex(),
        "vrf_key": record.vrf_key.hex(),
        "cosign_key": record.cosign_key.hex(),
        "name": record.name,
        "url": record.url,
        "details": record.details,
        "status": _status(record, active, view.time_ms),
        "power": str(chain.validators.power_of(record.consensus_key)),
        "tokens": str(record.tokens),
        "shares": str(record.shares),
        "self_bond": str(_self_bond(view, operator, record)),
        "commission_ppm": record.commission_ppm,
        "commission_owed": str(_settled(view, record).commission_owed),
        "jailed_until_ms": record.jailed_until_ms,
        "missed": misses.count_at(view.height, window),
        "missed_window": window,
        "slash": None
        if slash is None
        else {
            "offence_height": slash.offence_height,
            "slashed_height": slash.slashed_height,
            "ppm": slash.ppm,
        },
        **proven_row(view, validator_key(operator)),
    }


def delegations_json(
    chain: Chain,
    view: ProvenView,
    account: bytes | None,
    validator: bytes | None,
    cursor: int,
    limit: int,
) -> dict[str, object]:
    """A page of delegations, of an account, to a validator, both, or all."""
    pairs = _delegations(chain, account, validator)
    page = list(islice(pairs, cursor, cursor + limit + 1))
    found = []
    for operator, delegator in page[:limit]:
        delegation = read_delegation(view, operator, delegator)
        record = read_validator(view, operator)
        assert delegation is not None, "the pair was just found"
        assert record is not None, "a validator is never deleted"
        found.append(_delegation_json(view, operator, delegator, record, delegation))
    return {
        "height": view.height,
        "delegations": found,
        "next_cursor": cursor + limit if len(page) > limit else None,
        "finality": text_of_bytes(view.finality.encode()),
    }


def _delegations(
    chain: Chain, account: bytes | None, validator: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    """(operator, delegator) of what is delegated at the tip."""
    if account is not None:
        for key, _ in chain.tree.iterate(VALIDATOR_PREFIX + (validator or b"")):
            operator = key[len(VALIDATOR_PREFIX) :]
            if chain.tree.get(delegation_key(operator, account)) is not None:
                yield operator, account
        return
    for key, _ in chain.tree.iterate(DELEGATION_PREFIX + (validator or b"")):
        pair = key[len(DELEGATION_PREFIX) :]
        yield pair[:32], pair[32:]


def _delegation_json(
    view: ProvenView,
    operator: bytes,
    delegator: bytes,
    record: ValidatorRecord,
    delegation: Delegation,
) -> dict[str, object]:
    settled = _settled(view, record)
    rewards = delegation.shares * (settled.index - delegation.index) >> SCALE_BITS
    return {
        "delegator": delegator.hex(),
        "validator": operator.hex(),
        "amount": str(tokens_of_shares(record, delegation.shares)),
        "shares": str(delegation.shares),
        "free_shares": str(delegation.free_shares),
        "rewards": str(rewards),
        "hops": [
            {"source": h.source.hex(), "until_ms": h.until_ms, "shares": str(h.shares)}
            for h in delegation.hops
        ],
        **proven_row(view, delegation_key(operator, delegator)),
    }


def unbonding_json(
    view: ProvenView, account: bytes | None, cursor: int, limit: int
) -> dict[str, object]:
    """A page of the unbonding queue, of an account or all; the cursor is a queue position."""
    head, tail = read_queue(view)
    found: list[dict[str, object]] = []
    position = max(cursor, head)
    end = min(tail, position + ENTRIES_SCANNED_MAX)
    while position < end and len(found) < limit:
        entry = read_unbonding(view, position)
        if entry is not None and account in (None, entry.delegator):
            found.append(_entry_json(view, position, entry))
        position += 1
    return {
        "height": view.height,
        "entries": found,
        "next_cursor": position if position < tail else None,
        "finality": text_of_bytes(view.finality.encode()),
    }


def _entry_json(view: ProvenView, seq: int, entry: UnbondingEntry) -> dict[str, object]:
    return {
        "seq": seq,
        "delegator": entry.delegator.hex(),
        "validator": entry.operator.hex(),
        "amount": str(compute_released(view, entry)),
        "due_ms": entry.due_ms,
        **proven_row(view, unbonding_key(seq)),
    }


def _status(record: ValidatorRecord, active: set[bytes], time_ms: int) -> str:
    """active | standby | jailed | may-unjail | tombstoned | retired."""
    if record.is_tombstoned:
        return "tombstoned"
    if record.retired:
        return "retired"
    if record.is_jailed:
        return "jailed" if time_ms < record.jailed_until_ms else "may-unjail"
    return "active" if record.consensus_key in active else "standby"


def _settled(view: ProvenView, record: ValidatorRecord) -> ValidatorRecord:
    return settle(record, read_distribution(view))[0]


def _self_bond(view: ProvenView, operator: bytes, record: ValidatorRecord) -> int:
    own = read_delegation(view, operator, operator)
    return 0 if own is None else tokens_of_shares(record, own.shares)


def proven_row(view: ProvenView, key: bytes) -> dict[str, object]:
    """The `row` member of an item: state key, value and proof."""
    value, state_proof = view.prove(key)
    return {
        "row": {
            "key": text_of_bytes(key),
            "value": None if value is None else text_of_bytes(value),
            "state_proof": text_of_bytes(state_proof),
        }
    }


def _next_cursor(cursor: int, limit: int, total: int) -> int | None:
    return cursor + limit if cursor + limit < total else None
