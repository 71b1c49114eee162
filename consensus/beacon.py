"""The beacon: a chain of seeds, one a height, that nobody can choose (docs/adr/0009-beacon.md).

    seed_1     = H("beacon-genesis", genesis hash)
    output_H   = ECVRF output of the proposer of block H over alpha(seed_H, H)
    seed_{H+1} = H("beacon", seed_H | output_H)

`seed_H` picks the leaders of height H (`consensus.leader`); block H carries the proof of
`output_H`. The view is not part of alpha: a proposer has one output a height, however many views
it leads.
"""

from __future__ import annotations

from consensus.vrf import OUTPUT_BYTES, verify
from ledger.codec import HASH_BYTES, encode, hash_tagged
from ledger.errors import InvalidInputError, UsageError
from ledger.execution import BlockContext
from ledger.genesis_state import BEACON_KEY
from ledger.staking_rows import read_consensus_key, read_validator, vrf_key_at

SEED_BYTES = HASH_BYTES

_ALPHA_PREFIX = b"zynk/beacon-alpha/1\0"


def next_seed(seed: bytes, vrf_output: bytes) -> bytes:
    """The seed (32 B) of the height after one with `seed`, whose block has `vrf_output` (64 B)."""
    _check_length(seed, SEED_BYTES, "seed")
    _check_length(vrf_output, OUTPUT_BYTES, "VRF output")
    return hash_tagged("beacon", seed + vrf_output)


def vrf_alpha(seed: bytes, height: int) -> bytes:
    """What the proposer of `height` proves: "zynk/beacon-alpha/1" 00 encode([seed, height])."""
    _check_length(seed, SEED_BYTES, "seed")
    return _ALPHA_PREFIX + encode([seed, height])


class BeaconModule:
    """A `BlockModule`: checks the proposer's proof, and moves the seed to the next height."""

    def begin(self, context: BlockContext) -> None:
        """Raises InvalidInputError for a proposer without a VRF key, and for a false proof."""
        state, facts = context.state, context.facts
        seed = state.get(BEACON_KEY)
        assert seed is not None, "every chain has a seed"
        place = read_consensus_key(state, facts.proposer)
        record = None if place is None else read_validator(state, place.operator)
        if record is None:
            raise InvalidInputError("proposer is no validator", got=facts.proposer.hex())
        key = vrf_key_at(record, context.height)
        output = verify(key, vrf_alpha(seed, context.height), facts.vrf_proof)
        state.put(BEACON_KEY, next_seed(seed, output))

    def end(self, context: BlockContext) -> None:
        """Nothing falls due after the txs."""


def _check_length(data: bytes, length: int, what: str) -> None:
    if len(data) != length:
        raise UsageError(f"bad {what}", expected=f"{length} B", got=f"{len(data)} B")
