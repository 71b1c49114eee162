"""Genesis entries of validators with given consensus keys; their other keys follow from those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

from genesis.document import GenesisAccount, GenesisDocument
from genesis.gentx import GenesisValidator, sign_genesis_validator
from ledger.ed25519 import KeyPair
from ledger.params import ChainParams
from ledger.staking_genesis import GenesisStake
from ledger.staking_record import POWER_UNIT


def validator_of(key: KeyPair, power: int, chain_id: str, name: str) -> GenesisValidator:
    """An entry that bonds what gives `power`; the consensus key is the operator's account too."""
    vrf, cosign = (
        KeyPair.from_seed(sha256(role + key.seed).digest()) for role in (b"vrf", b"cosign")
    )
    stake = GenesisStake(
        operator=key.public_key,
        consensus_key=key.public_key,
        vrf_key=vrf.public_key,
        cosign_key=cosign.public_key,
        name=name,
        commission_ppm=0,
        bond=power * POWER_UNIT,
    )
    return sign_genesis_validator(
        stake, chain_id, operator=key, consensus=key, vrf=vrf, cosign=cosign
    )


def document_of(
    chain_id: str,
    keys: Sequence[KeyPair],
    powers: Sequence[int],
    balances: Mapping[bytes, int],
    genesis_time_ms: int = 0,
) -> GenesisDocument:
    """A document whose validators are `keys`, with `powers`; `balances` of further accounts."""
    return GenesisDocument(
        chain_id=chain_id,
        genesis_time_ms=genesis_time_ms,
        params=ChainParams(),
        validators=tuple(
            validator_of(key, power, chain_id, f"v{i}")
            for i, (key, power) in enumerate(zip(keys, powers, strict=True))
        ),
        accounts=(
            *(
                GenesisAccount(id=key.public_key, balance=power * POWER_UNIT)
                for key, power in zip(keys, powers, strict=True)
            ),
            *(GenesisAccount(id=i, balance=b) for i, b in balances.items()),
        ),
    )
