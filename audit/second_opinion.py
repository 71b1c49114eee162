"""Inclusion paths judged by pymerkle, an implementation that shares no code with ours.

pymerkle's proof object says where each sibling goes (`rule`, 0: on the right, 1: on the left) and
starts its path with the leaf hash itself. The rule follows from index and size alone; pymerkle
derives its own from the `index` and `size` that it is told to expect, and refuses another. Its
index counts from one. Expected index, size and algorithm are always given: left out, pymerkle
believes the proof's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from pymerkle.proof import InclusionProof, InvalidProof

from audit.tiles import compute_inclusion_ranges
from ledger.errors import InvalidInputError

ALGORITHM = "sha256"


def verify_inclusion_by_pymerkle(
    root_hash: bytes, tree_size: int, leaf_index: int, leaf_hash: bytes, path: Sequence[bytes]
) -> None:
    """The same question as `ledger.merkle.verify_inclusion_proof`. Raises InvalidInputError."""
    if not 0 <= leaf_index < tree_size:
        raise InvalidInputError(
            "leaf index is outside the tree", expected=f"< {tree_size}", got=str(leaf_index)
        )
    sides = [
        1 if start < leaf_index else 0
        for start, _ in compute_inclusion_ranges(leaf_index, tree_size)
    ]
    proof = InclusionProof(
        algorithm=ALGORITHM,
        security=True,
        size=tree_size,
        index=leaf_index + 1,
        rule=[*sides, 0],
        path=[leaf_hash, *path],
    )
    try:
        proof.verify(
            leaf_hash,
            root_hash,
            index=leaf_index + 1,
            size=tree_size,
            algorithm=ALGORITHM,
            security=True,
        )
    except InvalidProof as error:
        raise InvalidInputError("pymerkle refuses the inclusion proof", got=str(error)) from error
