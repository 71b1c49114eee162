"""The first validators: stakes of the genesis to state rows and a validator set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger import codec
from ledger.accounts import ACCOUNT_ID_BYTES
from ledger.errors import InvalidInputError
from ledger.params import PPM, ChainParams
from ledger.pools import BONDED_KEY, POOL_KEYS
from ledger.staking_candidates import order_candidates
from ledger.staking_record import KEY_BYTES, POWER_UNIT, ValidatorRecord, read_description
from ledger.staking_rewards import DISTRIBUTION_KEY, Distribution
from ledger.staking_rows import (
    CANDIDATES_KEY,
    CANDIDATES_MAX,
    QUEUE_KEY,
    Candidate,
    Delegation,
    KeyOwner,
    consensus_key_key,
    delegation_key,
    encode_candidates,
    encode_key_owner,
    validator_key,
)
from ledger.validator_set import Validator, ValidatorSet


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisStake:
    """A first validator: `operator` account, three Ed25519 keys (32 B each) and `bond` uzynk of its
    own. The caller has seen the proofs of possession, and takes the bond from the operator's
    balance."""

    operator: bytes
    consensus_key: bytes
    vrf_key: bytes
    cosign_key: bytes
    name: str
    commission_ppm: int
    bond: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisStaking:
    """The set of heights 1 and 2, the state rows (all pools among them), and the uzynk in them."""

    validators: ValidatorSet
    rows: dict[bytes, bytes]
    pooled: int


def genesis_staking(stakes: Sequence[GenesisStake], params: ChainParams) -> GenesisStaking:
    """Raises InvalidInputError for a stake that could not be a candidate."""
    if not 1 <= len(stakes) <= CANDIDATES_MAX:
        raise InvalidInputError(
            "genesis has a wrong number of stakes",
            expected=f"1..{CANDIDATES_MAX}",
            got=str(len(stakes)),
        )
    for stake in stakes:
        _check(stake, params)
    for what, values in (
        ("operator", {stake.operator for stake in stakes}),
        ("consensus key", {stake.consensus_key for stake in stakes}),
    ):
        if len(values) != len(stakes):
            raise InvalidInputError(f"genesis names a validator's {what} twice")
    pooled = sum(stake.bond for stake in stakes)
    if pooled > codec.U64_MAX:
        raise InvalidInputError("genesis supply is out of range", expected="< 2^64 uzynk")
    candidates = order_candidates(
        Candidate(s.operator, s.consensus_key, s.bond // POWER_UNIT) for s in stakes
    )
    active = candidates[: params.validators_max]
    validators = ValidatorSet.of(
        Validator(public_key=c.consensus_key, power=c.power) for c in active
    )
    powers = {c.operator: c.power for c in active}
    rows = {key: codec.encode(0) for key in POOL_KEYS}
    rows[BONDED_KEY] = codec.encode(pooled)
    rows[QUEUE_KEY] = codec.encode([0, 0])
    rows[CANDIDATES_KEY] = encode_candidates(candidates)
    rows[DISTRIBUTION_KEY] = Distribution(power=validators.total_power).encode()
    for stake in stakes:
        rows.update(_validator_rows(stake, powers.get(stake.operator, 0)))
    return GenesisStaking(validators=validators, rows=rows, pooled=pooled)


def _check(stake: GenesisStake, params: ChainParams) -> None:
    keys = (stake.consensus_key, stake.vrf_key, stake.cosign_key)
    if len(stake.operator) != ACCOUNT_ID_BYTES or any(len(key) != KEY_BYTES for key in keys):
        raise InvalidInputError("genesis stake is malformed", expected="32 B account and keys")
    if len(set(keys)) != len(keys):
        raise InvalidInputError("genesis stake uses one key twice", got=stake.name)
    read_description([stake.name, "", ""])
    codec.read_int(stake.commission_ppm, "commission", PPM)
    least = max(POWER_UNIT, params.self_bond_min)
    if stake.bond < least:
        raise InvalidInputError(
            "genesis bond is too small", expected=f"at least {least} uzynk", got=str(stake.bond)
        )


def _validator_rows(stake: GenesisStake, power: int) -> dict[bytes, bytes]:
    record = ValidatorRecord(
        consensus_key=stake.consensus_key,
        vrf_key=stake.vrf_key,
        cosign_key=stake.cosign_key,
        name=stake.name,
        commission_ppm=stake.commission_ppm,
        commission_day_ppm=stake.commission_ppm,
        commission_day_ms=0,
        tokens=stake.bond,
        shares=stake.bond,
        power=power,
    )
    return {
        validator_key(stake.operator): record.encode(),
        consensus_key_key(stake.consensus_key): encode_key_owner(KeyOwner(stake.operator, 1, None)),
        delegation_key(stake.operator, stake.operator): Delegation(
            shares=stake.bond, index=0
        ).encode(),
    }
