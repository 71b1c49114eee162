"""Whom tests of the world in `tests.vectors.did_world` trust, and when they judge."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ledger.light import TrustPoint
from ledger.params import DAY_MS
from ledger.validator_set import ValidatorSet
from node.checkpoint import Trust
from node.light_trust import TrustRoot, save_trust
from tests.unit.genesis_fixture import document_of
from tests.vectors.did_world import NET, START_MS, VALIDATOR_KEYS, VALIDATORS, World, key

GENESIS_MS = START_MS - 1000


def trust_of(
    world: World, age_ms: int = 2_000, *, period_ms: int = 14 * DAY_MS, chain_id: str = NET
) -> Trust:
    """The world's genesis, judged by `age_ms` after its newest block."""
    point = TrustPoint(
        chain_id=chain_id,
        height=0,
        time_ms=GENESIS_MS,
        validators=VALIDATORS,
        trusting_period_ms=period_ms,
    )
    return Trust(point=point, source="the test", at_ms=world.time_ms + age_ms)


def write_genesis(folder: Path, chain_id: str = NET) -> Path:
    """The genesis file of the world's validators; its trusting period is 14 days."""
    path = folder / "genesis.json"
    document = document_of(
        chain_id, VALIDATOR_KEYS, (4, 3, 2, 1), {key("payer").public_key: 1}, GENESIS_MS
    )
    path.write_bytes(document.encode())
    return path


def write_state(path: Path, world: World, validators: ValidatorSet = VALIDATORS) -> Path:
    """What `zynk light` keeps once it has verified the world's newest block."""
    header = world.header()
    point = TrustPoint(
        chain_id=NET,
        height=header.height,
        time_ms=header.time_ms,
        validators=validators,
        trusting_period_ms=14 * DAY_MS,
        header_hash=header.hash,
    )
    root = TrustRoot(
        chain_id=NET, root=bytes(32), height=0, trusting_period_ms=14 * DAY_MS, point=None
    )
    save_trust(path, root, point)
    return path


def at(world: World, age_ms: int = 2_000) -> tuple[str, str]:
    """The option `--at` for `age_ms` after the newest block."""
    moment = datetime.fromtimestamp((world.time_ms + age_ms) // 1000, UTC)
    return "--at", moment.strftime("%Y-%m-%dT%H:%M:%SZ")
