"""`zynk inspect fork`: who made a fork, read from a proof file and what the reader trusts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from consensus.evidence import Evidence
from consensus.fork_proof import compute_culprit_power_min, verify_fork_proof
from ledger.validator_set import ValidatorSet
from node.cli_output import json_option, show, show_table
from node.files import read_small
from node.light_follow import ATTACK_BYTES_MAX, decode_fork_proof
from node.light_fork import begin_at_trust_point
from node.light_trust import load_trust_root


@click.command("fork")
@click.argument("proof_path", metavar="PROOF", type=click.Path(path_type=Path))
@click.option(
    "--trust",
    "trust_path",
    envvar="ZYNK_TRUST",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The network's genesis file, or the trust point of the light client (or ZYNK_TRUST).",
)
@json_option
def inspect_fork(proof_path: Path, trust_path: Path, as_json: bool) -> None:
    """Check a fork proof and name each validator that made the fork, and the power it held.

    A halted node leaves its proof in its home, a light client that found an attack its attack
    file. Exit code 0 only if the proof holds: it shows two final blocks at one height, and names
    more than a third of the power.
    """
    proof = decode_fork_proof(read_small(proof_path, "fork proof", ATTACK_BYTES_MAX))
    root = load_trust_root(trust_path, None)
    if root.point is None:
        proof, trusted = begin_at_trust_point(proof, root.root)
    else:
        trusted = root.point.validators
    culprits = verify_fork_proof(proof, trusted, root.chain_id)
    validators = proof.voters(trusted)
    rows = [
        _row(validators, signer, culprits[signer]) for signer in _in_order(culprits, validators)
    ]
    named = sum(row["power"] for row in rows)
    data = {
        "chain_id": root.chain_id,
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
            ("chain", root.chain_id),
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
