"""A twin: a second node with the same validator key. No code of the node is changed: each of the
two obeys every rule and its own sign guard, and what their one key signs together does not.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from consensus.guard import decode_guard
from consensus.statement import Statement, is_conflict
from genesis.document import GenesisDocument
from ledger.chain import Chain
from ledger.execution import Event
from ledger.store import LevelStore
from ledger.tx_result import BLOCK_RESULT_ID
from node import config as cfg
from node.config import ConsensusSettings
from node.daemon import STORE_FOLDER
from node.devnet import Devnet, DevnetNode, pick_ports
from node.handlers import open_chain
from node.home import write_synced
from node.keys import generate_key, load_key, save_key
from p2p.identity import peer_id_of_seed
from p2p.peerbook import BOOK_NAME
from rpc.client import RpcClient
from tests.e2e.network import zynk


def add_twin(
    devnet: Devnet, index: int, peers: Iterable[int], timing: ConsensusSettings | None = None
) -> int:
    """Copy the home of a node that is not running: keys, guard and chain as they are now. The twin
    gets a p2p key, ports and if wanted timing of its own, and dials `peers`. Returns its index."""
    original = devnet.nodes[index]
    assert not original.is_running, "a guard is copied while nobody writes it"
    twin = len(devnet.nodes)
    home = devnet.folder / f"twin{twin}-of-{index}"
    leave = shutil.ignore_patterns(
        BOOK_NAME, cfg.READY_FILE, "node.log", Path(cfg.P2P_KEY_FILE).name
    )
    shutil.copytree(original.home, home, ignore=leave)
    save_key(home / cfg.P2P_KEY_FILE, generate_key())
    rpc_port = use_free_ports(home)
    if timing is not None:
        write_config(dataclasses.replace(cfg.load_config(home), consensus=timing))
    devnet.nodes.append(DevnetNode(index=twin, home=home, rpc_port=rpc_port))
    set_peers(devnet, twin, peers)
    return twin


def use_free_ports(home: Path) -> int:
    """Give the home of a node that is not running ports that are free; its RPC port."""
    p2p_port, rpc_port = pick_ports(2, prefer_default=False)
    config = cfg.load_config(home)
    config = dataclasses.replace(
        config,
        rpc=dataclasses.replace(config.rpc, port=rpc_port),
        p2p=dataclasses.replace(config.p2p, port=p2p_port),
    )
    write_config(config)
    return rpc_port


def write_config(config: cfg.NodeConfig) -> None:
    write_synced(config.home / cfg.CONFIG_FILE, cfg.render_config(config).encode())


def set_peers(devnet: Devnet, index: int, peers: Iterable[int]) -> None:
    """Whom a node dials from its next start on; whom it met before is forgotten."""
    home = devnet.nodes[index].home
    config = cfg.load_config(home)
    addresses = tuple(p2p_address(devnet, other) for other in peers if other != index)
    config = dataclasses.replace(config, p2p=dataclasses.replace(config.p2p, peers=addresses))
    write_config(config)
    (home / BOOK_NAME).unlink(missing_ok=True)


def p2p_address(devnet: Devnet, index: int) -> str:
    """Where a node listens, from its configuration."""
    home = devnet.nodes[index].home
    return f"/ip4/127.0.0.1/tcp/{cfg.load_config(home).p2p.port}/p2p/{peer_id(devnet, index)}"


def peer_id(devnet: Devnet, index: int) -> str:
    return peer_id_of_seed(load_key(devnet.nodes[index].home / cfg.P2P_KEY_FILE).seed)


def operator_of(devnet: Devnet, index: int) -> str:
    """A validator's operator account, in hex."""
    return load_key(devnet.nodes[index].home / cfg.OPERATOR_KEY_FILE).public_key.hex()


def contradictions(devnet: Devnet, one: int, other: int) -> list[int]:
    """The heights at which the key of two stopped nodes signed against itself, ascending, by what
    both sign guards hold: nothing is signed without a record there."""
    by_view: dict[tuple[int, int], list[Statement]] = {}
    for index in (one, other):
        for record in _guard_records(devnet.nodes[index].home):
            by_view.setdefault((record.height, record.view), []).append(record)
    return sorted(
        {
            height
            for (height, _), records in by_view.items()
            if any(is_conflict(a, b) for a, b in combinations(records, 2))
        }
    )


def _guard_records(home: Path) -> list[Statement]:
    key = load_key(home / cfg.VALIDATOR_KEY_FILE).public_key
    chain_id = GenesisDocument.parse((home / cfg.GENESIS_FILE).read_bytes()).chain_id
    window, _ = decode_guard((home / cfg.GUARD_FILE).read_bytes(), chain_id, key)
    return window.records()


@contextmanager
def stopped_chain(devnet: Devnet, index: int) -> Iterator[Chain]:
    """The chain in the store of a stopped node."""
    home = devnet.nodes[index].home
    genesis = GenesisDocument.parse((home / cfg.GENESIS_FILE).read_bytes()).to_state()
    store = LevelStore.open(home / cfg.DATA_FOLDER / STORE_FOLDER)
    try:
        yield open_chain(store, genesis)
    finally:
        store.close()


def block_events(chain: Chain, height: int) -> tuple[Event, ...]:
    """The events of the block's own result."""
    for result in chain.all_results(height):
        if result.tx_id == BLOCK_RESULT_ID:
            return result.events
    return ()


def inspect_home(devnet: Devnet, index: int) -> dict[str, Any]:
    """`zynk inspect` of a stopped node: supply, stakes and the whole state tree hold."""
    done = zynk("inspect", "--home", str(devnet.nodes[index].home), "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


async def ask(devnet: Devnet, index: int, method: str, **params: object) -> dict[str, Any]:
    """One RPC call of a node."""
    async with RpcClient(devnet.nodes[index].url) as client:
        answer: dict[str, Any] = await client.call(method, **params)
        return answer


async def powers_at(devnet: Devnet, index: int, height: int | None = None) -> dict[str, int]:
    """Voting power by public key (hex), of the set that votes on a height (None: the tip)."""
    answer = await ask(devnet, index, "chain_validators", height=height)
    return {v["public_key"]: int(v["power"]) for v in answer["validators"]}
