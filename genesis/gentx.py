"""A validator's entry in a genesis document, signed by all its keys.

The operator signs the whole entry, and each of the three keys shows that somebody has it:

    operator     sign_bytes("gentx", chain_id, [name, operator, consensus key, VRF key, cosign key,
                                                commission_ppm, bond])
    each key     possession_sign_bytes(chain_id, operator, role, key), as on chain

The entry is made on the operator's machine (`zynk genesis gentx`) and travels as a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ledger import codec
from ledger.accounts import encode_account_id
from ledger.ed25519 import KeyPair, is_valid_signature
from ledger.errors import InvalidInputError
from ledger.staking_genesis import GenesisStake
from ledger.staking_messages import ROLES, possession_sign_bytes

SIGNERS = ("operator", *ROLES)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisValidator:
    """What a validator begins with, and the four signatures (64 B) in the order of `SIGNERS`."""

    stake: GenesisStake
    signatures: tuple[bytes, ...]

    def to_value(self) -> dict[str, Any]:
        """The JSON object."""
        stake = self.stake
        return {
            "name": stake.name,
            "operator": encode_account_id(stake.operator),
            "consensus_key": encode_account_id(stake.consensus_key),
            "vrf_key": encode_account_id(stake.vrf_key),
            "cosign_key": encode_account_id(stake.cosign_key),
            "commission_ppm": stake.commission_ppm,
            "bond": str(stake.bond),
            "signatures": {
                name: signature.hex()
                for name, signature in zip(SIGNERS, self.signatures, strict=True)
            },
        }


def sign_genesis_validator(
    stake: GenesisStake,
    chain_id: str,
    *,
    operator: KeyPair,
    consensus: KeyPair,
    vrf: KeyPair,
    cosign: KeyPair,
) -> GenesisValidator:
    """The entry, signed. The keys are those that `stake` names."""
    messages = _messages(stake, chain_id)
    keys = (operator, consensus, vrf, cosign)
    return GenesisValidator(
        stake=stake,
        signatures=tuple(
            key.sign(message) for key, (_, message) in zip(keys, messages, strict=True)
        ),
    )


def verify_genesis_validator(validator: GenesisValidator, chain_id: str, what: str) -> None:
    """Check the four signatures. Raises InvalidInputError that names the signer; `what` is the
    entry's place in the document."""
    messages = _messages(validator.stake, chain_id)
    for name, (key, message), signature in zip(
        SIGNERS, messages, validator.signatures, strict=True
    ):
        if not is_valid_signature(key, message, signature):
            raise InvalidInputError(
                f"genesis field {what}.signatures.{name} is wrong",
                expected=f"a signature of {encode_account_id(key)} for chain {chain_id}",
                got="another",
            )


def _messages(stake: GenesisStake, chain_id: str) -> tuple[tuple[bytes, bytes], ...]:
    """(public key, what it signs), in the order of `SIGNERS`."""
    entry = codec.sign_bytes(
        "gentx",
        chain_id,
        [
            stake.name,
            stake.operator,
            stake.consensus_key,
            stake.vrf_key,
            stake.cosign_key,
            stake.commission_ppm,
            stake.bond,
        ],
    )
    keys = (stake.consensus_key, stake.vrf_key, stake.cosign_key)
    return (
        (stake.operator, entry),
        *(
            (key, possession_sign_bytes(chain_id, stake.operator, role, key))
            for role, key in zip(ROLES, keys, strict=True)
        ),
    )
