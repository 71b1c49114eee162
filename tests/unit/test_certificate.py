"""Votes' sign bytes and certificates: quorum by power, every signature verified."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest

from ledger.certificate import Certificate, VoteKind, verify_certificate, vote_sign_bytes
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.validator_set import Validator, ValidatorSet

CHAIN = "test-1"
HASH = b"\7" * 32
KEYS = [KeyPair.from_seed(bytes([i]) * 32) for i in range(9)]


def set_of(*powers: int) -> tuple[ValidatorSet, list[KeyPair]]:
    """A set, and the keys in its order."""
    found = ValidatorSet.of(
        Validator(public_key=KEYS[i].public_key, power=p) for i, p in enumerate(powers)
    )
    by_key = {k.public_key: k for k in KEYS}
    return found, [by_key[v.public_key] for v in found.validators]


def certificate_of(
    validators: ValidatorSet,
    signers: Iterable[KeyPair],
    *,
    kind: VoteKind = VoteKind.FINALIZE,
    block_hash: bytes = HASH,
) -> Certificate:
    message = vote_sign_bytes(CHAIN, kind, 5, 3, block_hash)
    signatures = {k.public_key: k.sign(message) for k in signers}
    return Certificate.of(kind, 5, 3, block_hash, signatures, validators)


@pytest.mark.parametrize("kind", VoteKind)
def test_a_quorum_verifies_and_round_trips(kind: VoteKind) -> None:
    validators, keys = set_of(1, 1, 1, 1)
    block_hash = b"" if kind is VoteKind.NULLIFY else HASH
    for left_out in range(4):
        signers = [k for i, k in enumerate(keys) if i != left_out]
        certificate = certificate_of(validators, signers, kind=kind, block_hash=block_hash)
        verify_certificate(certificate, validators, CHAIN)
        assert Certificate.decode(certificate.encode()) == certificate
        assert certificate.signer_indexes(validators) == [i for i in range(4) if i != left_out]


def test_power_counts_and_heads_do_not() -> None:
    validators, keys = set_of(10, 1, 1, 1)
    verify_certificate(certificate_of(validators, keys[:1]), validators, CHAIN)
    with pytest.raises(InvalidInputError, match="quorum"):
        verify_certificate(certificate_of(validators, keys[1:]), validators, CHAIN)


def test_exactly_two_thirds_is_no_quorum() -> None:
    validators, keys = set_of(1, 1, 1)
    with pytest.raises(InvalidInputError, match="quorum"):
        verify_certificate(certificate_of(validators, keys[:2]), validators, CHAIN)


def test_strangers_are_left_out_of_a_certificate() -> None:
    validators, keys = set_of(1, 1, 1, 1)
    certificate = certificate_of(validators, [*keys[:2], KEYS[7], KEYS[8]])
    assert len(certificate.signatures) == 2


def test_each_bad_signature_is_found() -> None:
    validators, keys = set_of(1, 1, 1, 1)
    good = certificate_of(validators, keys)
    for index in range(4):
        for wrong in (bytes(64), good.signatures[(index + 1) % 4]):
            signatures = list(good.signatures)
            signatures[index] = wrong
            bad = dataclasses.replace(good, signatures=tuple(signatures))
            with pytest.raises(InvalidInputError, match=keys[index].public_key.hex()):
                verify_certificate(bad, validators, CHAIN)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": VoteKind.NOTARIZE},
        {"height": 6},
        {"view": 4},
        {"block_hash": b"\x08" * 32},
    ],
)
def test_a_certificate_does_not_carry_over_to_another_vote(changes: dict[str, object]) -> None:
    validators, keys = set_of(1, 1, 1, 1)
    bad = dataclasses.replace(certificate_of(validators, keys), **changes)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="signature"):
        verify_certificate(bad, validators, CHAIN)


def test_a_certificate_does_not_carry_over_to_another_chain_or_set() -> None:
    validators, keys = set_of(1, 1, 1, 1)
    certificate = certificate_of(validators, keys)
    with pytest.raises(InvalidInputError):
        verify_certificate(certificate, validators, "test-2")
    others = ValidatorSet.of(Validator(public_key=k.public_key, power=1) for k in KEYS[4:8])
    with pytest.raises(InvalidInputError):
        verify_certificate(certificate, others, CHAIN)


@pytest.mark.parametrize("bitmap", [b"", b"\xf0\0", b"\xf8", b"\xe0", b"\xff", b"\0"])
def test_a_bitmap_that_does_not_fit_is_refused(bitmap: bytes) -> None:
    validators, keys = set_of(1, 1, 1, 1)
    bad = dataclasses.replace(certificate_of(validators, keys), bitmap=bitmap)
    with pytest.raises(InvalidInputError):
        verify_certificate(bad, validators, CHAIN)


def test_signatures_too_many_or_too_few_are_refused() -> None:
    validators, keys = set_of(1, 1, 1, 1)
    good = certificate_of(validators, keys)
    for signatures in (good.signatures[:3], (*good.signatures, good.signatures[0]), ()):
        with pytest.raises(InvalidInputError):
            verify_certificate(dataclasses.replace(good, signatures=signatures), validators, CHAIN)


def test_quorum_is_checked_before_any_signature() -> None:
    validators, keys = set_of(1, 1, 1, 1)
    calls: list[bytes] = []

    def count(key: bytes, _message: bytes, _signature: bytes) -> bool:
        calls.append(key)
        return True

    with pytest.raises(InvalidInputError, match="quorum"):
        verify_certificate(certificate_of(validators, keys[:2]), validators, CHAIN, count)
    assert calls == []
    verify_certificate(certificate_of(validators, keys), validators, CHAIN, count)
    assert calls == [k.public_key for k in keys]


def test_every_vote_has_its_own_sign_bytes() -> None:
    votes = {
        vote_sign_bytes(chain, kind, height, view, block_hash)
        for chain in ("a", "b")
        for kind in VoteKind
        for height in (1, 2)
        for view in (1, 2)
        for block_hash in (b"", HASH)
    }
    assert len(votes) == 2 * 3 * 2 * 2 * 2
