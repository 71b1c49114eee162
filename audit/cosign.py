"""Cosignatures (C2SP tlog-cosignature, Ed25519): who else has seen the log at this head.

    signature = time u64 BE | Ed25519 over "cosignature/v1\\ntime <time>\\n<checkpoint body>"

with the time in seconds. A cosigner says: as of then, the largest consistent tree that I have seen
under this origin has this root. Validators cosign with the key that their staking record registers
for that, under the name `<origin>/validator/<operator>`; a consensus vote is no cosignature.

A checkpoint has a quorum if its cosigners hold more than 2/3 of the voting power of the validator
set that votes after the header with that head. Whose keys those are is state: `read_cosigners`
reads it, from a node's own tree or from rows that were proven to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from audit.checkpoint import Checkpoint, compute_origin
from audit.note import KeyType, Note, NoteKey, NoteSignature
from ledger.accounts import StateReader, encode_account_id
from ledger.ed25519 import SIGNATURE_BYTES, KeyPair, is_valid_signature
from ledger.errors import InvalidInputError
from ledger.staking_rows import read_consensus_key, read_validator
from ledger.validator_set import ValidatorSet

TIME_BYTES = 8
TIME_MAX_S = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigner:
    """A validator as one who cosigns: its operator account, registered key and voting power."""

    operator: bytes
    key: NoteKey
    power: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignerSet:
    """The cosigners of a validator set, and that set, which has the total power."""

    cosigners: tuple[Cosigner, ...]
    validators: ValidatorSet

    def find(self, operator: bytes) -> Cosigner | None:
        return next((found for found in self.cosigners if found.operator == operator), None)

    def find_key(self, public_key: bytes) -> Cosigner | None:
        """The first that cosigns with this key."""
        return next((found for found in self.cosigners if found.key.public_key == public_key), None)

    def power_of(self, operators: Iterable[bytes]) -> int:
        """Their power together; each counts once."""
        wanted = frozenset(operators)
        return sum(found.power for found in self.cosigners if found.operator in wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """What a note's verified cosignatures amount to."""

    checkpoint: Checkpoint
    time_s_by_operator: dict[bytes, int]
    power: int
    total_power: int
    has_quorum: bool


def cosigner_key(chain_id: str, operator: bytes, public_key: bytes) -> NoteKey:
    """What verifies the cosignatures of a validator."""
    name = f"{compute_origin(chain_id)}/validator/{encode_account_id(operator)}"
    return NoteKey(name=name, type=KeyType.COSIGNATURE, public_key=public_key)


def read_cosigners(state: StateReader, validators: ValidatorSet, chain_id: str) -> CosignerSet:
    """Those of the set that votes next, `validators`, by the state after a height. One whose
    records are missing (a chain without staking) is no cosigner, but counts in the total."""
    found = []
    for validator in validators.validators:
        owner = read_consensus_key(state, validator.public_key)
        record = None if owner is None else read_validator(state, owner.operator)
        if owner is not None and record is not None:
            key = cosigner_key(chain_id, owner.operator, record.cosign_key)
            found.append(Cosigner(operator=owner.operator, key=key, power=validator.power))
    return CosignerSet(cosigners=tuple(found), validators=validators)


def sign_cosignature(body: str, key: NoteKey, pair: KeyPair, time_s: int) -> NoteSignature:
    """A cosignature line of `key`, made with its secret."""
    signature = time_s.to_bytes(TIME_BYTES, "big") + pair.sign(_signed_message(body, time_s))
    return NoteSignature(name=key.name, key_id=key.key_id, signature=signature)


def verify_cosignature(body: str, key: NoteKey, signature: bytes) -> int:
    """The time (seconds) of a cosignature of `body`. Raises InvalidInputError."""
    if len(signature) != TIME_BYTES + SIGNATURE_BYTES:
        raise InvalidInputError("cosignature has a wrong length", got=f"{len(signature)} B")
    time_s = int.from_bytes(signature[:TIME_BYTES], "big")
    if not 0 < time_s <= TIME_MAX_S:
        raise InvalidInputError("cosignature has no time", got=str(time_s))
    if not is_valid_signature(
        key.public_key, _signed_message(body, time_s), signature[TIME_BYTES:]
    ):
        raise InvalidInputError("cosignature is not valid", got=key.name)
    return time_s


def verify_cosigned(note: Note, cosigners: CosignerSet, chain_id: str) -> Cosigned:
    """Who of `cosigners` cosigned the note's checkpoint, and what they weigh.

    Lines of unknown keys are passed over; a line that claims a known key and does not verify makes
    the whole note invalid. Raises InvalidInputError, also for a checkpoint of another chain's log.
    """
    checkpoint = Checkpoint.decode(note.text)
    origin = compute_origin(chain_id)
    if checkpoint.origin != origin:
        raise InvalidInputError(
            "checkpoint is of another log", expected=origin, got=checkpoint.origin
        )
    known = {(item.key.name, item.key.key_id): item for item in cosigners.cosigners}
    times: dict[bytes, int] = {}
    for line in note.signatures:
        cosigner = known.get((line.name, line.key_id))
        if cosigner is not None:
            time_s = verify_cosignature(note.text, cosigner.key, line.signature)
            times[cosigner.operator] = max(time_s, times.get(cosigner.operator, 0))
    power = cosigners.power_of(times)
    return Cosigned(
        checkpoint=checkpoint,
        time_s_by_operator=times,
        power=power,
        total_power=cosigners.validators.total_power,
        has_quorum=cosigners.validators.has_quorum(power),
    )


def verify_quorum(note: Note, cosigners: CosignerSet, chain_id: str) -> Cosigned:
    """`verify_cosigned`, and more than 2/3 of the power. Raises InvalidInputError."""
    found = verify_cosigned(note, cosigners, chain_id)
    if not found.has_quorum:
        raise InvalidInputError(
            "checkpoint has too few cosignatures",
            expected=f"more than 2/3 of the power {found.total_power}",
            got=str(found.power),
            retry=True,
        )
    return found


def find_witness_lines(note: Note, keys: Sequence[NoteKey]) -> list[tuple[NoteKey, int]]:
    """Which outside witnesses cosigned, and when (seconds). Raises InvalidInputError for a line
    that claims one of `keys` and does not verify."""
    return [
        (key, verify_cosignature(note.text, key, line.signature))
        for key in keys
        for line in note.signatures
        if line.is_of(key)
    ]


def _signed_message(body: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{body}".encode()
