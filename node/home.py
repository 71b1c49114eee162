"""A node's home folder: config.toml, genesis.json, keys/, guard/, data/.

Making a home is the only thing that makes a sign guard, besides the explicit `zynk guard create`:
a node that finds none refuses to vote (docs/protocol.md, "Sign guard").
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from consensus.guard import VIEW_END
from genesis.document import GenesisAccount, GenesisDocument
from genesis.network import generate_network
from ledger.ed25519 import KeyPair
from ledger.errors import DurabilityError, UsageError
from ledger.params import ChainParams
from node import config as cfg
from node.files import sync_folder
from node.guard import GuardFile
from node.keys import generate_key, read_public_key, save_key
from node.log_guard import create_log_signer


def create_home(
    config: cfg.NodeConfig,
    document: GenesisDocument,
    *,
    validator_key: KeyPair,
    vrf_key: KeyPair,
    cosign_key: KeyPair,
    p2p_key: KeyPair,
    anchor_key: KeyPair,
    operator_key: KeyPair | None = None,
    faucet_key: KeyPair | None = None,
    passphrase: str | None = None,
) -> None:
    """Write a whole home. Raises UsageError if one is there already."""
    home = config.home
    if (home / cfg.CONFIG_FILE).exists():
        raise UsageError("a node lives here already", expected="a new folder", got=str(home))
    home.mkdir(parents=True, exist_ok=True)
    write_synced(home / cfg.GENESIS_FILE, document.encode())
    save_key(home / cfg.VALIDATOR_KEY_FILE, validator_key, passphrase)
    save_key(home / cfg.VRF_KEY_FILE, vrf_key, passphrase)
    save_key(home / cfg.COSIGN_KEY_FILE, cosign_key, passphrase)
    save_key(home / cfg.P2P_KEY_FILE, p2p_key, passphrase)
    save_key(home / cfg.ANCHOR_KEY_FILE, anchor_key, passphrase)
    if operator_key is not None:
        save_key(home / cfg.OPERATOR_KEY_FILE, operator_key, passphrase)
    if faucet_key is not None:
        save_key(home / cfg.FAUCET_KEY_FILE, faucet_key, passphrase)
    create_guard(home, document.chain_id, validator_key.public_key)
    create_log_signer(home, document.chain_id, passphrase)
    write_synced(home / cfg.CONFIG_FILE, cfg.render_config(config).encode())


def create_guard(home: Path, chain_id: str, public_key: bytes, floor_height: int = 0) -> None:
    """Make a sign guard under which nothing up to `floor_height` is signed. Raises UsageError if
    there is one."""
    path = home / cfg.GUARD_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    floor = (floor_height, VIEW_END) if floor_height else (0, 0)
    GuardFile.create(path, chain_id, public_key, floor=floor).close()


def create_next_keys(home: Path, chain_id: str, passphrase: str | None) -> tuple[Path, Path]:
    """Next voting key, its empty guard, and next VRF key. Raises UsageError if there are some."""
    consensus, vrf = home / cfg.VALIDATOR_NEXT_KEY_FILE, home / cfg.VRF_NEXT_KEY_FILE
    if consensus.exists() or vrf.exists():
        raise UsageError(
            "a rotation is under way", expected="zynk keys rotate --finish first", got=str(home)
        )
    key = generate_key()
    # The guard first: a key without one would never vote.
    GuardFile.create(home / cfg.GUARD_NEXT_FILE, chain_id, key.public_key).close()
    save_key(consensus, key, passphrase)
    save_key(vrf, generate_key(), passphrase)
    return consensus, vrf


def finish_rotation(home: Path, require_in_force: Callable[[bytes], None]) -> list[str]:
    """Put the next keys and guard in the place of the old ones, which are kept under `.old`.
    `require_in_force` raises UsageError unless the chain has the voting key that it gets in force:
    the old one is what the node votes with until then. Raises UsageError also if there is no next
    key or the node is running; then nothing has changed."""
    pairs = (
        (cfg.GUARD_NEXT_FILE, cfg.GUARD_FILE),
        (cfg.VALIDATOR_NEXT_KEY_FILE, cfg.VALIDATOR_KEY_FILE),
        (cfg.VRF_NEXT_KEY_FILE, cfg.VRF_KEY_FILE),
    )
    present = [(home / next_, home / old) for next_, old in pairs if (home / next_).exists()]
    if not present:
        raise UsageError("no rotation is under way", got=str(home))
    if (home / cfg.READY_FILE).exists():
        raise UsageError("the node is running", expected="a stopped node", got=str(home))
    voting = home / cfg.VALIDATOR_NEXT_KEY_FILE
    if not voting.exists():  # an earlier call was cut short: it is in place already
        voting = home / cfg.VALIDATOR_KEY_FILE
    require_in_force(read_public_key(voting))
    for next_, old in present:
        if old.exists():
            old.replace(old.with_name(old.name + ".old"))
        next_.replace(old)
        sync_folder(old.parent)
    return [str(old) for _, old in present]


def create_network_homes(
    folder: Path,
    *,
    validators: int,
    chain_id: str,
    entropy: bytes,
    genesis_time_ms: int,
    config: Callable[[int, Path, list[bytes]], cfg.NodeConfig],
    params: ChainParams | None = None,
    powers: tuple[int, ...] | None = None,
    extra_accounts: Sequence[tuple[bytes, int]] = (),
) -> list[Path]:
    """A home a validator, `folder`/node0 and on; `config(index, home, p2p seeds)` gives each its
    configuration. The first home holds the faucet key as well."""
    network = generate_network(
        validators,
        chain_id,
        genesis_time_ms=genesis_time_ms,
        entropy=entropy,
        params=params,
        powers=powers,
        extra_accounts=tuple(GenesisAccount(id=i, balance=b) for i, b in extra_accounts),
    )
    seeds = [node.p2p_seed for node in network.nodes]
    homes = [folder / f"node{index}" for index in range(validators)]
    for index, (home, keys) in enumerate(zip(homes, network.nodes, strict=True)):
        create_home(
            config(index, home, seeds),
            network.document,
            validator_key=keys.validator_key,
            vrf_key=keys.vrf_key,
            cosign_key=keys.cosign_key,
            operator_key=keys.operator_key,
            p2p_key=KeyPair.from_seed(keys.p2p_seed),
            anchor_key=keys.anchor_key,
            faucet_key=network.faucet_key if index == 0 else None,
        )
    return homes


def write_synced(path: Path, data: bytes) -> None:
    """Write a file by a synced temporary and an atomic rename. Raises DurabilityError."""
    scratch = path.with_name(path.name + ".tmp")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise DurabilityError("file could not be written", got=f"{path}: {error}") from error
