"""Proof that a validator broke the rules: two statements that no honest validator signs both.

An `Evidence` names one signer and two of its signed statements about one (height, view) that
`is_conflict` (rule 21). It needs nothing else to be judged than the chain id.
Wire: [height, view, signer, kind_a, hash_a, signature_a, kind_b, hash_b, signature_b],
with (kind_a, hash_a) < (kind_b, hash_b).

`consensus/fork_proof.py` finds such pairs in the certificates of two finalizations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from consensus.statement import Statement, StatementKind, is_conflict, statement_sign_bytes
from ledger import codec
from ledger.certificate import VIEW_MAX, Certificate, SignatureCheck
from ledger.ed25519 import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, is_valid_signature
from ledger.errors import InvalidInputError
from ledger.validator_set import ValidatorSet

EVIDENCE_WIRE_BYTES_MAX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Two contradicting statements of one signer, with their signatures."""

    signer: bytes
    first: Statement
    first_signature: bytes
    second: Statement
    second_signature: bytes

    @classmethod
    def of(
        cls,
        signer: bytes,
        one: tuple[Statement, bytes],
        other: tuple[Statement, bytes],
    ) -> Evidence:
        """Put the pair in its canonical order."""
        first, second = sorted((one, other), key=lambda s: (s[0].kind, s[0].block_hash))
        return cls(
            signer=signer,
            first=first[0],
            first_signature=first[1],
            second=second[0],
            second_signature=second[1],
        )

    @classmethod
    def decode(cls, data: bytes) -> Evidence:
        """Inverse of `encode`. Checks the form, not the signatures. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=EVIDENCE_WIRE_BYTES_MAX), 9, "evidence")
        height = codec.read_int(v[0], "evidence height")
        view = codec.read_int(v[1], "evidence view", VIEW_MAX)
        signer = codec.read_bytes(v[2], "evidence signer", length=PUBLIC_KEY_BYTES)
        first, second = (
            Statement(
                kind=_read_kind(v[i]),
                height=height,
                view=view,
                block_hash=codec.read_bytes(
                    v[i + 1],
                    "evidence hash",
                    length=0 if v[i] == StatementKind.NULLIFY else codec.HASH_BYTES,
                ),
            )
            for i in (3, 6)
        )
        if (first.kind, first.block_hash) >= (second.kind, second.block_hash):
            raise InvalidInputError("evidence is not in order")
        if not is_conflict(first, second):
            raise InvalidInputError("evidence holds no contradiction")
        return cls(
            signer=signer,
            first=first,
            first_signature=codec.read_bytes(v[5], "signature", length=SIGNATURE_BYTES),
            second=second,
            second_signature=codec.read_bytes(v[8], "signature", length=SIGNATURE_BYTES),
        )

    def encode(self) -> bytes:
        a, b = self.first, self.second
        return codec.encode(
            [
                a.height,
                a.view,
                self.signer,
                int(a.kind),
                a.block_hash,
                self.first_signature,
                int(b.kind),
                b.block_hash,
                self.second_signature,
            ]
        )


def _read_kind(value: object) -> StatementKind:
    kind = codec.read_int(value, "statement kind", 4)
    if kind == 0:
        raise InvalidInputError("statement kind is unknown", expected="1..4", got="0")
    return StatementKind(kind)


def verify_evidence(
    evidence: Evidence, chain_id: str, is_valid: SignatureCheck = is_valid_signature
) -> None:
    """Check that the pair contradicts itself and that the signer signed both.

    Raises InvalidInputError.
    """
    if not is_conflict(evidence.first, evidence.second):
        raise InvalidInputError("evidence holds no contradiction")
    for statement, signature in (
        (evidence.first, evidence.first_signature),
        (evidence.second, evidence.second_signature),
    ):
        if not is_valid(evidence.signer, statement_sign_bytes(chain_id, statement), signature):
            raise InvalidInputError("evidence has a bad signature", got=statement.kind.name)


def find_evidence(
    certificates: Iterable[Certificate], validators: ValidatorSet
) -> dict[bytes, Evidence]:
    """Who contradicted itself in these (verified) certificates of one height, by signer.

    Raises InvalidInputError for a malformed certificate.
    """
    said: dict[tuple[bytes, int], list[tuple[Statement, bytes]]] = {}
    found: dict[bytes, Evidence] = {}
    for certificate in certificates:
        statement = Statement.of_certificate(certificate)
        for signer, signature in certificate.signed_by(validators):
            others = said.setdefault((signer, certificate.view), [])
            for other in others:
                if is_conflict(other[0], statement):
                    found.setdefault(signer, Evidence.of(signer, other, (statement, signature)))
            others.append((statement, signature))
    return found
