"""Finality proofs: a header, its certificate, and handoffs from a trusted set."""

from __future__ import annotations

import dataclasses

import pytest

from ledger.block import PROTOCOL_VERSION, Header
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.finality import FinalityProof, Handoff, verify_finality
from ledger.validator_set import Validator, ValidatorSet

CHAIN = "test-1"
KEYS = {k.public_key: k for k in (KeyPair.from_seed(bytes([i]) * 32) for i in range(12))}


def set_of(first: int) -> ValidatorSet:
    keys = list(KEYS)[first : first + 4]
    return ValidatorSet.of(Validator(public_key=key, power=1) for key in keys)


ONE, TWO, THREE = set_of(0), set_of(4), set_of(8)


def header_of(height: int, validators: ValidatorSet, next_set: ValidatorSet) -> Header:
    return Header(
        protocol_version=PROTOCOL_VERSION,
        chain_id=CHAIN,
        height=height,
        time_ms=height,
        parent_hash=bytes(32),
        origin_view=1,
        proposer=validators.validators[0].public_key,
        vrf_proof=b"",
        body_hash=bytes(32),
        state_root=b"\1" * 32,
        audit_size=0,
        audit_root=bytes(32),
        results_root=bytes(32),
        validators_hash=validators.hash,
        next_validators_hash=next_set.hash,
    )


def sign(
    header: Header, validators: ValidatorSet, *, kind: VoteKind = VoteKind.FINALIZE, count: int = 3
) -> Certificate:
    message = vote_sign_bytes(CHAIN, kind, header.height, 1, header.hash)
    signers = [v.public_key for v in validators.validators[:count]]
    signatures = {key: KEYS[key].sign(message) for key in signers}
    return Certificate.of(kind, header.height, 1, header.hash, signatures, validators)


def handoff_of(height: int, validators: ValidatorSet, next_set: ValidatorSet) -> Handoff:
    header = header_of(height, validators, next_set)
    return Handoff(header=header, certificate=sign(header, validators), next_validators=next_set)


HEADER = header_of(9, THREE, THREE)
HANDOFFS = (handoff_of(3, ONE, TWO), handoff_of(5, TWO, THREE))
PROOF = FinalityProof(header=HEADER, certificate=sign(HEADER, THREE), handoffs=HANDOFFS)


def test_a_proof_leads_from_the_trusted_set_to_the_header() -> None:
    assert verify_finality(PROOF, ONE, CHAIN) == HEADER
    assert FinalityProof.decode(PROOF.encode()) == PROOF
    short = dataclasses.replace(PROOF, handoffs=HANDOFFS[1:])
    assert verify_finality(short, TWO, CHAIN) == HEADER
    none = dataclasses.replace(PROOF, handoffs=())
    assert verify_finality(none, THREE, CHAIN) == HEADER


def test_a_proof_needs_the_set_it_begins_with() -> None:
    for trusted in (TWO, THREE):
        with pytest.raises(InvalidInputError):
            verify_finality(PROOF, trusted, CHAIN)


@pytest.mark.parametrize("handoffs", [(), HANDOFFS[:1], HANDOFFS[::-1], (HANDOFFS[1],)])
def test_a_missing_or_turned_handoff_is_refused(handoffs: tuple[Handoff, ...]) -> None:
    with pytest.raises(InvalidInputError):
        verify_finality(dataclasses.replace(PROOF, handoffs=handoffs), ONE, CHAIN)


def test_handoffs_of_the_same_height_are_refused() -> None:
    handoffs = (handoff_of(3, ONE, TWO), handoff_of(3, TWO, THREE))
    with pytest.raises(InvalidInputError, match="order"):
        verify_finality(dataclasses.replace(PROOF, handoffs=handoffs), ONE, CHAIN)


def test_a_handoff_to_a_set_that_its_header_does_not_name_is_refused() -> None:
    bad = dataclasses.replace(HANDOFFS[1], next_validators=ONE)
    with pytest.raises(InvalidInputError, match="does not name"):
        verify_finality(dataclasses.replace(PROOF, handoffs=(HANDOFFS[0], bad)), ONE, CHAIN)


def test_another_chain_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="another chain"):
        verify_finality(PROOF, ONE, "test-2")


@pytest.mark.parametrize(
    "certificate",
    [
        sign(HEADER, THREE, kind=VoteKind.NOTARIZE),
        sign(HEADER, THREE, count=2),
        sign(header_of(8, THREE, THREE), THREE),
        sign(dataclasses.replace(HEADER, state_root=bytes(32)), THREE),
        sign(HEADER, TWO),
    ],
)
def test_a_certificate_that_does_not_finalize_the_header_is_refused(
    certificate: Certificate,
) -> None:
    with pytest.raises(InvalidInputError):
        verify_finality(dataclasses.replace(PROOF, certificate=certificate), ONE, CHAIN)


@pytest.mark.slow
def test_a_proof_with_any_single_byte_changed_is_refused() -> None:
    data = FinalityProof(
        header=HEADER, certificate=PROOF.certificate, handoffs=HANDOFFS[1:]
    ).encode()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x01
        with pytest.raises(InvalidInputError):
            verify_finality(FinalityProof.decode(bytes(changed)), TWO, CHAIN)
