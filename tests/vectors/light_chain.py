"""A chain of headers for light clients: real hashes and signatures, no blocks behind them.

A plan lists the stages: (validator set, how many heights it votes on). Headers are made at once,
certificates when they are asked for, by as many validators as a quorum needs, drawn anew for each
height; so 10,000 heights of 100 validators cost well under a second until they are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

from ledger.block import PROTOCOL_VERSION, Header
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.codec import hash_tagged
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.finality import FinalityProof
from ledger.handoffs import Handoffs
from ledger.light import LightBlock, TrustPoint
from ledger.validator_set import Validator, ValidatorSet

CHAIN_ID = "light-1"
GENESIS_TIME_MS = 1_700_000_000_000
BLOCK_MS = 1000
DAY_MS = 24 * 3600 * 1000
Plan = Sequence[tuple[ValidatorSet, int]]


@cache
def key_of(number: int) -> KeyPair:
    """The numbered validator's key."""
    return KeyPair.from_seed(hash_tagged("light-test-key", number.to_bytes(4, "big")))


def set_of(numbers: Sequence[int], powers: Sequence[int] | None = None) -> ValidatorSet:
    """The numbered validators, each of power 1 unless `powers` says else."""
    return ValidatorSet.of(
        Validator(public_key=key_of(n).public_key, power=1 if powers is None else powers[i])
        for i, n in enumerate(numbers)
    )


def sign(
    header: Header,
    validators: ValidatorSet,
    signers: Sequence[KeyPair],
    *,
    kind: VoteKind = VoteKind.FINALIZE,
    view: int = 1,
    chain_id: str = CHAIN_ID,
) -> Certificate:
    """A certificate over `header` by `signers`, whatever their power."""
    message = vote_sign_bytes(chain_id, kind, header.height, view, header.hash)
    signatures = {key.public_key: key.sign(message) for key in signers}
    return Certificate.of(kind, header.height, view, header.hash, signatures, validators)


class LightChain:
    """See the module docstring. Heights are 1..`height`; it is a `ledger.handoffs.FinalHeaders`."""

    def __init__(self, plan: Plan, *, seed: int, key_count: int, fork_from: int = 0) -> None:
        """Chains of equal plans differ from height `fork_from` on if their seeds do (0: all)."""
        self._seed = seed
        self._keys = {key_of(n).public_key: key_of(n) for n in range(key_count)}
        sets = [validators for validators, count in plan for _ in range(count)]
        self.height = len(sets)
        sets.append(sets[-1])
        self.sets = sets
        self._set_by_hash = {s.hash: s for s in sets}
        self._headers: list[Header] = []
        self._certificates: dict[int, Certificate] = {}
        parent = bytes(32)
        for i in range(self.height):
            salt = seed if i + 1 >= fork_from else 0
            header = make_header(i + 1, parent, sets[i], sets[i + 1], salt)
            self._headers.append(header)
            parent = header.hash
        self._changes = [
            h.height for h in self._headers if h.validators_hash != h.next_validators_hash
        ]
        self._handoffs = Handoffs(self)

    def header(self, height: int) -> Header:
        if not 1 <= height <= self.height:
            raise InvalidInputError("no header at this height", got=str(height))
        return self._headers[height - 1]

    def certificate(self, height: int) -> Certificate:
        if height not in self._certificates:
            validators = self.sets[height - 1]
            drawn = list(validators.validators)
            Random(f"{self._seed}/{height}").shuffle(drawn)
            signers, power = [], 0
            for validator in drawn:
                if validators.has_quorum(power):
                    break
                signers.append(self._keys[validator.public_key])
                power += validator.power
            self._certificates[height] = sign(self.header(height), validators, signers)
        return self._certificates[height]

    def validators_by_hash(self, set_hash: bytes) -> ValidatorSet:
        return self._set_by_hash[set_hash]

    def handoff_heights(self, first: int, last: int, count_max: int) -> list[int]:
        return [h for h in self._changes if first <= h <= last][:count_max]

    def last_handoff_height(self, last: int) -> int:
        return max((h for h in self._changes if h <= last), default=0)

    def finality(self, height: int, trusted_height: int) -> FinalityProof:
        """With the fewest steps."""
        return FinalityProof(
            header=self.header(height),
            certificate=self.certificate(height),
            handoffs=self._handoffs.find(trusted_height, height),
        )

    def light_block(self, height: int) -> LightBlock:
        return LightBlock(
            header=self.header(height),
            certificate=self.certificate(height),
            validators=self.sets[height - 1],
            next_validators=self.sets[height],
        )

    def trust(self, height: int, *, trusting_period_ms: int = 14 * DAY_MS) -> TrustPoint:
        """The trust point of a height; 0 is genesis."""
        return TrustPoint(
            chain_id=CHAIN_ID,
            height=height,
            time_ms=GENESIS_TIME_MS + height * BLOCK_MS,
            validators=self.sets[height],
            trusting_period_ms=trusting_period_ms,
            header_hash=self.header(height).hash if height else b"",
        )


def make_header(
    height: int, parent: bytes, validators: ValidatorSet, following: ValidatorSet, salt: int
) -> Header:
    return Header(
        protocol_version=PROTOCOL_VERSION,
        chain_id=CHAIN_ID,
        height=height,
        time_ms=GENESIS_TIME_MS + height * BLOCK_MS,
        parent_hash=parent,
        origin_view=1,
        proposer=validators.validators[height % len(validators)].public_key,
        vrf_proof=b"",
        body_hash=hash_tagged("light-test-body", b"%d/%d" % (salt, height)),
        state_root=bytes(32),
        audit_size=0,
        audit_root=bytes(32),
        results_root=bytes(32),
        validators_hash=validators.hash,
        next_validators_hash=following.hash,
    )
