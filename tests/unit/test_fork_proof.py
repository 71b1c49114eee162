"""A fork proof is judged by its bytes and a trusted validator set alone, and names the guilty."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from consensus.evidence import verify_evidence
from consensus.fork_proof import (
    BETWEEN_MAX,
    ForkProof,
    IncompleteForkProofError,
    compute_culprit_power_min,
    verify_fork_proof,
)
from genesis.document import GenesisDocument
from genesis.network import GeneratedNetwork, generate_network
from ledger.block import PROTOCOL_VERSION, Header
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import Handoff
from ledger.validator_set import Validator, ValidatorSet
from node.cli_node import inspect

CHAIN = "zynk-forked"
PAIRS = [KeyPair.from_seed(bytes([i]) * 32) for i in range(1, 6)]
POWERS = (3, 2, 2, 1, 1)
SET = ValidatorSet.of(
    Validator(public_key=k.public_key, power=p) for k, p in zip(PAIRS, POWERS, strict=True)
)
NEXT = ValidatorSet.of(Validator(public_key=k.public_key, power=1) for k in PAIRS[:4])
ZERO = b"\0" * 32


def header(
    height: int = 5, salt: bytes = b"", voters: ValidatorSet = SET, **changes: object
) -> Header:
    fields: dict[str, object] = {
        "protocol_version": PROTOCOL_VERSION,
        "chain_id": CHAIN,
        "height": height,
        "time_ms": 1,
        "parent_hash": ZERO,
        "origin_view": 1,
        "proposer": PAIRS[0].public_key,
        "vrf_proof": salt,
        "body_hash": ZERO,
        "state_root": ZERO,
        "audit_size": 0,
        "audit_root": ZERO,
        "results_root": ZERO,
        "validators_hash": voters.hash,
        "next_validators_hash": voters.hash,
    }
    return Header(**{**fields, **changes})  # type: ignore[arg-type]  # the fields above, by name


def certify(
    kind: VoteKind,
    block_hash: bytes,
    signers: tuple[int, ...],
    *,
    view: int = 1,
    height: int = 5,
    voters: ValidatorSet = SET,
    chain_id: str = CHAIN,
) -> Certificate:
    signed = vote_sign_bytes(chain_id, kind, height, view, block_hash)
    votes = {PAIRS[i].public_key: PAIRS[i].sign(signed) for i in signers}
    return Certificate.of(kind, height, view, block_hash, votes, voters)


A, B = header(), header(salt=b"b")
LEFT, RIGHT = (0, 1, 2), (0, 1, 3, 4)  # 7 of 9 both; they share 5
FIRST = certify(VoteKind.FINALIZE, A.hash, LEFT)
LATER = certify(VoteKind.FINALIZE, B.hash, RIGHT, view=3)
NULLIFIED = certify(VoteKind.NULLIFY, b"", RIGHT)
NOTARIZED = certify(VoteKind.NOTARIZE, B.hash, RIGHT)
GUILTY = {PAIRS[0].public_key, PAIRS[1].public_key}


def verify(proof: ForkProof) -> set[bytes]:
    """Through its bytes, as a third party would."""
    culprits = verify_fork_proof(ForkProof.decode(proof.encode()), SET, CHAIN)
    for signer, evidence in culprits.items():
        assert evidence.signer == signer
        verify_evidence(evidence, CHAIN)
    return set(culprits)


@pytest.mark.parametrize(
    ("second", "between"),
    [
        (certify(VoteKind.FINALIZE, B.hash, RIGHT), []),
        (LATER, [NULLIFIED]),
        (LATER, [NOTARIZED]),
        (LATER, [NULLIFIED, certify(VoteKind.NULLIFY, b"", RIGHT, view=2)]),
    ],
    ids=["F/F' in one view", "F/X", "F/N'", "views in between"],
)
def test_the_members_of_both_quorums_are_named(
    second: Certificate, between: list[Certificate]
) -> None:
    assert verify(ForkProof.of(A, FIRST, second, between)) == GUILTY
    assert verify(ForkProof.of(B, second, FIRST, between)) == GUILTY


def test_the_least_power_named_is_what_two_quorums_share() -> None:
    assert compute_culprit_power_min(SET) == 5
    for total in range(1, 40):
        one = ValidatorSet.of([Validator(public_key=bytes(32), power=total)])
        least = next(p for p in range(total + 1) if one.has_quorum(p))
        assert compute_culprit_power_min(one) == 2 * least - total
        assert 3 * compute_culprit_power_min(one) > total


def test_a_fork_whose_guilty_are_hidden_is_called_incomplete() -> None:
    with pytest.raises(IncompleteForkProofError):
        verify(ForkProof.of(A, FIRST, LATER, []))
    with pytest.raises(IncompleteForkProofError):
        verify(ForkProof.of(A, FIRST, LATER, [certify(VoteKind.NULLIFY, b"", RIGHT, view=2)]))


def _forgeries() -> dict[str, ForkProof]:
    good = ForkProof.of(A, FIRST, LATER, [NULLIFIED])
    other_height = certify(VoteKind.NULLIFY, b"", RIGHT, height=6)
    outsiders = ValidatorSet.of(Validator(public_key=k.public_key, power=1) for k in PAIRS[:3])
    theirs = header(voters=outsiders)
    return {
        "one block, two views": replace(
            good, second=certify(VoteKind.FINALIZE, A.hash, RIGHT, view=3)
        ),
        "a notarization is no finalization": replace(good, second=NOTARIZED),
        "minority": replace(good, second=certify(VoteKind.FINALIZE, B.hash, (0, 1, 3), view=3)),
        "signature of another message": replace(
            good, second=replace(LATER, signatures=NULLIFIED.signatures)
        ),
        "another height": replace(
            good, second=certify(VoteKind.FINALIZE, B.hash, RIGHT, view=3, height=6)
        ),
        "header of neither block": replace(good, header=header(salt=b"c")),
        "another chain": replace(
            good, second=certify(VoteKind.FINALIZE, B.hash, RIGHT, view=3, chain_id="zynk-other")
        ),
        "between is of another height": replace(good, between=(other_height,)),
        "between is a minority": replace(
            good, between=(certify(VoteKind.NULLIFY, b"", (1, 2, 3)),)
        ),
        "a set that nobody handed over to": ForkProof.of(
            theirs,
            certify(VoteKind.FINALIZE, theirs.hash, LEFT, voters=outsiders),
            certify(VoteKind.FINALIZE, B.hash, LEFT, voters=outsiders),
            [],
        ),
    }


@pytest.mark.parametrize("name", _forgeries())
def test_what_shows_no_fork_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        verify(_forgeries()[name])
    assert not isinstance(caught.value, IncompleteForkProofError)


def test_certificates_between_have_one_order() -> None:
    good = ForkProof.of(A, FIRST, LATER, [NULLIFIED, NOTARIZED])
    assert ForkProof.of(A, FIRST, LATER, [NOTARIZED, NULLIFIED]) == good
    for between in (good.between[::-1], good.between[:1] * 2):
        with pytest.raises(InvalidInputError):
            ForkProof.decode(replace(good, between=between).encode())


def test_a_proof_is_bounded_and_keeps_what_names_the_guilty() -> None:
    far = certify(VoteKind.FINALIZE, B.hash, RIGHT, view=100)
    many = [certify(VoteKind.NULLIFY, b"", RIGHT, view=v) for v in range(1, 120)]
    proof = ForkProof.of(A, FIRST, far, many)
    assert len(proof.between) == BETWEEN_MAX
    assert verify(proof) == GUILTY


def test_handoffs_lead_to_the_set_of_the_height() -> None:
    handing = header(height=4, next_validators_hash=NEXT.hash)
    handoff = Handoff(
        header=handing,
        certificate=certify(VoteKind.FINALIZE, handing.hash, LEFT, height=4),
        next_validators=NEXT,
    )
    one, other = header(voters=NEXT), header(voters=NEXT, salt=b"b")
    proof = ForkProof.of(
        one,
        certify(VoteKind.FINALIZE, one.hash, (0, 1, 2), voters=NEXT),
        certify(VoteKind.FINALIZE, other.hash, (1, 2, 3), voters=NEXT),
        [],
    )
    named = {PAIRS[1].public_key, PAIRS[2].public_key}
    assert verify(replace(proof, handoffs=(handoff,))) == named
    with pytest.raises(InvalidInputError):
        verify(proof)
    late = replace(handing, height=5)
    with pytest.raises(InvalidInputError):
        verify(
            replace(
                proof,
                handoffs=(
                    replace(
                        handoff,
                        header=late,
                        certificate=certify(VoteKind.FINALIZE, late.hash, LEFT),
                    ),
                ),
            )
        )


# --- `zynk inspect fork` ---


def network() -> tuple[GeneratedNetwork, ForkProof]:
    """A network of four whose validators 1 and 2 finalized two blocks of height 5."""
    made = generate_network(4, CHAIN, genesis_time_ms=1, entropy=b"entropy of a fork" * 4)
    validators = made.document.to_state().validators
    one, other = header(voters=validators), header(voters=validators, salt=b"b")
    sides = []
    for block, signers in ((one, (0, 1, 2)), (other, (1, 2, 3))):
        signed = vote_sign_bytes(CHAIN, VoteKind.FINALIZE, 5, 1, block.hash)
        keys = [made.nodes[i].validator_key for i in signers]
        votes = {k.public_key: k.sign(signed) for k in keys}
        sides.append(Certificate.of(VoteKind.FINALIZE, 5, 1, block.hash, votes, validators))
    return made, ForkProof.of(one, sides[0], sides[1], [])


def inspect_fork(folder: Path, document: GenesisDocument, data: bytes, *options: str) -> Result:
    (folder / "fork.proof").write_bytes(data)
    (folder / "genesis.json").write_bytes(document.encode())
    arguments = ["fork", str(folder / "fork.proof"), "--trust", str(folder / "genesis.json")]
    return CliRunner().invoke(inspect, [*arguments, *options])


def test_the_command_names_each_culprit_and_the_power_it_held(tmp_path: Path) -> None:
    made, proof = network()
    result = inspect_fork(tmp_path, made.document, proof.encode(), "--json")
    assert result.exit_code == 0
    shown = json.loads(result.stdout.splitlines()[-1])
    guilty = {made.nodes[i].validator_key.public_key.hex() for i in (1, 2)}
    assert {c["validator"] for c in shown["culprits"]} == guilty
    assert shown["height"] == 5
    total = shown["total_power"]
    assert shown["named_power"] == sum(c["power"] for c in shown["culprits"])
    assert 3 * shown["named_power"] > total
    text = inspect_fork(tmp_path, made.document, proof.encode())
    assert text.exit_code == 0
    assert all(key in text.stdout for key in guilty)
    assert "25.0%" in text.stdout


def test_the_command_refuses_what_is_no_proof(tmp_path: Path) -> None:
    made, proof = network()
    broken = replace(proof, second=replace(proof.second, view=2))
    for data in (b"ForkProof(height=5)", broken.encode(), proof.encode() + b"\0"):
        result = inspect_fork(tmp_path, made.document, data)
        assert isinstance(result.exception, InvalidInputError)
    missing = CliRunner().invoke(
        inspect, ["fork", str(tmp_path / "none"), "--trust", str(tmp_path / "genesis.json")]
    )
    assert isinstance(missing.exception, UsageError)
