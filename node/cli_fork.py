"""`zynk inspect fork`: who made a fork, read from a proof file and nothing else but the genesis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from consensus.evidence import Evidence
from consensus.fork_proof import (
    FORK_PROOF_BYTES_MAX,
    ForkProof,
    compute_culprit_power_min,
    verify_fork_proof,
)
from genesis.document import GenesisDocument
from ledger.validator_set import ValidatorSet
from node.cli_output import json_option, show, show_table, trust_option
from node.files import read_small


@click.command("fork")
@click.argument("proof_path", metavar="PROOF", type=click.Path(path_type=Path))
@trust_option(required=True)
@json_option
def inspect_fork(proof_path: Path, trust_path: Path, as_json: bool) -> None:
    """Check a fork proof and name each validator that made the fork, and the power it held.

    A halted node leaves its proof in its home. Exit code 0 only if the proof holds: it shows two
    final blocks at one height, and names more than a third of the power.
    """
    proof = ForkProof.decode(read_small(proof_path, "fork proof", FORK_PROOF_BYTES_MAX))
    genesis = GenesisDocument.parse(trust_path.read_bytes()).to_state()
    culprits = verify_fork_proof(proof, genesis.validators, genesis.chain_id)
    validators = proof.voters(genesis.validators)
    rows = [
        _row(validators, signer, culprits[signer]) for signer in _in_order(culprits, validators)
    ]
    named = sum(row["power"] for row in rows)
    data = {
        "chain_id": genesis.chain_id,
        "height": proof.height,
        "blocks": [
            {"hash": c.block_hash.hex(), "view": c.view} for c in (proof.first, proof.second)
        ],
        "total_power": validators.total_power,
        "named_power": named,
        "named_power_min": compute_culprit_power_min(validators),
        "culprits": rows,
    }
    if as_json:
        show(True, data, [])
        return
    show(
        False,
        data,
        [
            ("chain", genesis.chain_id),
            ("height", proof.height),
            *((f"block {i}", f"{c['hash']}, final in view {c['view']}") for i, c in _blocks(data)),
            ("named", f"{len(rows)} validators with {named} of {validators.total_power} power"),
        ],
    )
    show_table(
        False,
        data,
        ("validator", "power", "share", "signed in one view"),
        [(r["validator"], r["power"], f"{r['share']:.1%}", r["contradiction"]) for r in rows],
    )


def _blocks(data: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(data["blocks"], start=1))


def _in_order(culprits: dict[bytes, Evidence], validators: ValidatorSet) -> list[bytes]:
    return [v.public_key for v in validators.validators if v.public_key in culprits]


def _row(validators: ValidatorSet, signer: bytes, evidence: Evidence) -> dict[str, Any]:
    power = validators.power_of(signer)
    said = (evidence.first, evidence.second)
    text = " and ".join(f"{s.kind.name.lower()} {s.block_hash.hex()[:16]}".strip() for s in said)
    return {
        "validator": signer.hex(),
        "power": power,
        "share": power / validators.total_power,
        "view": evidence.first.view,
        "contradiction": f"{text} (view {evidence.first.view})",
        "evidence": evidence.encode().hex(),
    }
