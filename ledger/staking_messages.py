"""The bodies of staking messages: canonical arrays, judged without any state.

    stake/create      [operator, [consensus, vrf, cosign key], [proof, proof, proof],
                       [name, url, details], commission ppm, bond]
    stake/edit        [[name, url, details] or nil, commission ppm or nil], not both nil
    stake/keys        [operator, [key, proof] or nil for consensus, vrf, cosign], not all nil
    stake/delegate    [operator, amount]
    stake/undelegate  [operator, shares]
    stake/redelegate  [source operator, destination operator, shares]
    stake/withdraw    [operator]
    stake/settle      [operator, delegator]
    stake/unjail, stake/retire    []

Amounts (uzynk) and shares are 1 .. 2^64-1. A proof of possession is a signature by the key over
`sign_bytes("possession", chain_id, [operator, role, key])`, role `consensus`, `vrf` or `cosign`; it
keeps anyone from claiming a key that is not theirs, or using it for another operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger import codec
from ledger.accounts import ACCOUNT_ID_BYTES
from ledger.ed25519 import SIGNATURE_BYTES, KeyPair, is_valid_signature
from ledger.errors import InvalidInputError
from ledger.params import PPM
from ledger.staking_record import KEY_BYTES, VALIDATOR_BYTES_MAX, read_description

BODY_BYTES_MAX = VALIDATOR_BYTES_MAX
CONSENSUS, VRF, COSIGN = "consensus", "vrf", "cosign"
ROLES = (CONSENSUS, VRF, COSIGN)

Description = tuple[str, str, str]


def possession_sign_bytes(chain_id: str, operator: bytes, role: str, key: bytes) -> bytes:
    """What `key` (32 B) signs to become the `role` key of a validator."""
    return codec.sign_bytes("possession", chain_id, [operator, role, key])


def prove_possession(key: KeyPair, chain_id: str, operator: bytes, role: str) -> bytes:
    """The 64-byte proof."""
    return key.sign(possession_sign_bytes(chain_id, operator, role, key.public_key))


def verify_possession(chain_id: str, operator: bytes, role: str, key: bytes, proof: bytes) -> None:
    """Raises InvalidInputError."""
    if not is_valid_signature(key, possession_sign_bytes(chain_id, operator, role, key), proof):
        raise InvalidInputError(f"proof of possession of the {role} key does not verify")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateBody:
    """A new validator. `keys` and `proofs` in the order of ROLES."""

    operator: bytes
    keys: tuple[bytes, bytes, bytes]
    proofs: tuple[bytes, bytes, bytes]
    description: Description
    commission_ppm: int
    bond: int

    def encode(self) -> bytes:
        return codec.encode(
            [
                self.operator,
                self.keys,
                self.proofs,
                self.description,
                self.commission_ppm,
                self.bond,
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> CreateBody:
        """Inverse of `encode`. Raises InvalidInputError; the proofs are not verified."""
        operator, keys, proofs, description, commission, bond = _read(data, 6, "stake/create")
        consensus, vrf, cosign = (
            codec.read_bytes(key, "validator key", length=KEY_BYTES)
            for key in codec.read_array(keys, 3, "validator keys")
        )
        if len({consensus, vrf, cosign}) != 3:
            raise InvalidInputError("a validator's keys must differ")
        first, second, third = (
            codec.read_bytes(proof, "proof of possession", length=SIGNATURE_BYTES)
            for proof in codec.read_array(proofs, 3, "proofs of possession")
        )
        return cls(
            operator=_read_account(operator),
            keys=(consensus, vrf, cosign),
            proofs=(first, second, third),
            description=read_description(description),
            commission_ppm=codec.read_int(commission, "commission", PPM),
            bond=_read_amount(bond),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EditBody:
    """A change of description or commission; None leaves it."""

    description: Description | None = None
    commission_ppm: int | None = None

    def encode(self) -> bytes:
        return codec.encode([self.description, self.commission_ppm])

    @classmethod
    def decode(cls, data: bytes) -> EditBody:
        """Inverse of `encode`. Raises InvalidInputError."""
        description, commission = _read(data, 2, "stake/edit")
        if description is None and commission is None:
            raise InvalidInputError("stake/edit changes nothing")
        return cls(
            description=None if description is None else read_description(description),
            commission_ppm=(
                None if commission is None else codec.read_int(commission, "commission", PPM)
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key with its proof of possession."""

    key: bytes
    proof: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysBody:
    """New keys of a validator; None leaves the old one."""

    operator: bytes
    consensus: NewKey | None = None
    vrf: NewKey | None = None
    cosign: NewKey | None = None

    @property
    def by_role(self) -> tuple[tuple[str, NewKey], ...]:
        """The keys that change."""
        pairs = ((CONSENSUS, self.consensus), (VRF, self.vrf), (COSIGN, self.cosign))
        return tuple((role, new) for role, new in pairs if new is not None)

    def encode(self) -> bytes:
        items = [
            None if new is None else [new.key, new.proof]
            for new in (self.consensus, self.vrf, self.cosign)
        ]
        return codec.encode([self.operator, *items])

    @classmethod
    def decode(cls, data: bytes) -> KeysBody:
        """Inverse of `encode`. Raises InvalidInputError; the proofs are not verified."""
        operator, *items = _read(data, 4, "stake/keys")
        consensus, vrf, cosign = (None if item is None else _read_new_key(item) for item in items)
        body = cls(operator=_read_account(operator), consensus=consensus, vrf=vrf, cosign=cosign)
        if not body.by_role:
            raise InvalidInputError("stake/keys changes nothing")
        if len({new.key for _, new in body.by_role}) != len(body.by_role):
            raise InvalidInputError("a validator's keys must differ")
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountBody:
    """`stake/delegate` (uzynk) and `stake/undelegate` (shares)."""

    operator: bytes
    amount: int

    def encode(self) -> bytes:
        return codec.encode([self.operator, self.amount])

    @classmethod
    def decode(cls, data: bytes) -> AmountBody:
        """Inverse of `encode`. Raises InvalidInputError."""
        operator, amount = _read(data, 2, "stake")
        return cls(operator=_read_account(operator), amount=_read_amount(amount))


@dataclass(frozen=True, slots=True, kw_only=True)
class RedelegateBody:
    """`shares` of validator `source`, to become a stake with `destination`."""

    source: bytes
    destination: bytes
    shares: int

    def encode(self) -> bytes:
        return codec.encode([self.source, self.destination, self.shares])

    @classmethod
    def decode(cls, data: bytes) -> RedelegateBody:
        """Inverse of `encode`. Raises InvalidInputError."""
        source, destination, shares = _read(data, 3, "stake/redelegate")
        if source == destination:
            raise InvalidInputError("source and destination are one validator")
        return cls(
            source=_read_account(source),
            destination=_read_account(destination),
            shares=_read_amount(shares),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawBody:
    """Rewards of the payer with a validator."""

    operator: bytes

    def encode(self) -> bytes:
        return codec.encode([self.operator])

    @classmethod
    def decode(cls, data: bytes) -> WithdrawBody:
        """Inverse of `encode`. Raises InvalidInputError."""
        (operator,) = _read(data, 1, "stake/withdraw")
        return cls(operator=_read_account(operator))


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleBody:
    """Anybody's stake, to be brought up to date."""

    operator: bytes
    delegator: bytes

    def encode(self) -> bytes:
        return codec.encode([self.operator, self.delegator])

    @classmethod
    def decode(cls, data: bytes) -> SettleBody:
        """Inverse of `encode`. Raises InvalidInputError."""
        operator, delegator = _read(data, 2, "stake/settle")
        return cls(operator=_read_account(operator), delegator=_read_account(delegator))


def check_empty(data: bytes) -> None:
    """The body of `stake/unjail` and `stake/retire`. Raises InvalidInputError."""
    _read(data, 0, "stake")


def _read(data: bytes, length: int, what: str) -> list[object]:
    return codec.read_array(codec.decode(data, bytes_max=BODY_BYTES_MAX), length, what)


def _read_account(value: object) -> bytes:
    return codec.read_bytes(value, "account", length=ACCOUNT_ID_BYTES)


def _read_amount(value: object) -> int:
    if codec.read_int(value, "amount") == 0:
        raise InvalidInputError("amount is malformed", expected="at least 1", got="0")
    return codec.read_int(value, "amount")


def _read_new_key(value: object) -> NewKey:
    key, proof = codec.read_array(value, 2, "new key")
    return NewKey(
        key=codec.read_bytes(key, "validator key", length=KEY_BYTES),
        proof=codec.read_bytes(proof, "proof of possession", length=SIGNATURE_BYTES),
    )
