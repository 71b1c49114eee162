"""The chain of seeds: its bytes, and that whoever follows it can check it."""

from __future__ import annotations

import hashlib

import pytest

from consensus import vrf
from consensus.beacon import next_seed, vrf_alpha
from ledger.ed25519 import KeyPair
from ledger.errors import UsageError
from ledger.genesis_state import BEACON_KEY, genesis_seed

SEED, OUTPUT = b"\x01" * 32, b"\x02" * 64


def test_the_bytes_are_those_that_the_record_states() -> None:
    assert genesis_seed(SEED) == hashlib.sha256(b"zynk/beacon-genesis/1\0" + SEED).digest()
    assert next_seed(SEED, OUTPUT) == hashlib.sha256(b"zynk/beacon/1\0" + SEED + OUTPUT).digest()
    alpha = b"zynk/beacon-alpha/1\0" + b"\x92\xc4\x20" + SEED + b"\xcd\x01\x00"
    assert vrf_alpha(SEED, 256) == alpha
    assert BEACON_KEY == b"beacon\0seed"


def test_every_input_counts() -> None:
    other = b"\x03" * 32
    seeds = [genesis_seed(SEED), genesis_seed(other), next_seed(SEED, OUTPUT)]
    seeds += [next_seed(other, OUTPUT), next_seed(SEED, b"\x03" * 64)]
    assert len(set(seeds)) == len(seeds)
    alphas = [vrf_alpha(SEED, 1), vrf_alpha(SEED, 2), vrf_alpha(other, 1)]
    assert len(set(alphas)) == len(alphas)


def test_wrong_lengths_are_our_own_mistake() -> None:
    with pytest.raises(UsageError):
        next_seed(SEED + b"\0", OUTPUT)
    with pytest.raises(UsageError):
        next_seed(SEED, OUTPUT[:32])
    with pytest.raises(UsageError):
        vrf_alpha(b"", 1)


def test_a_chain_of_proofs_is_followed_by_whoever_has_the_keys() -> None:
    proposers = [bytes([i]) * 32 for i in range(3)]
    proofs, seed = [], genesis_seed(SEED)
    for height in range(1, 9):
        proofs.append(vrf.prove(proposers[height % 3], vrf_alpha(seed, height)))
        seed = next_seed(seed, vrf.proof_to_output(proofs[-1]))

    followed = genesis_seed(SEED)
    for height, proof in enumerate(proofs, 1):
        key = KeyPair.from_seed(proposers[height % 3]).public_key
        followed = next_seed(followed, vrf.verify(key, vrf_alpha(followed, height), proof))
    assert followed == seed
