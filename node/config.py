"""Node configuration: one TOML file, parsed once into frozen slices.

Nothing here affects consensus: that lives in genesis and the on-chain parameters. Unknown keys are
refused, so that a typing error never passes for a setting.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from ledger.errors import InvalidInputError, UsageError

CONFIG_FILE = "config.toml"
GENESIS_FILE = "genesis.json"
VALIDATOR_KEY_FILE = "keys/validator.json"
VALIDATOR_NEXT_KEY_FILE = "keys/validator-next.json"
GUARD_NEXT_FILE = "guard/sign-next.guard"
"""The key that votes once the chain knows it, and its guard (zynk keys rotate)."""
VRF_KEY_FILE = "keys/vrf.json"
VRF_NEXT_KEY_FILE = "keys/vrf-next.json"
COSIGN_KEY_FILE = "keys/cosign.json"
LOG_KEY_FILE = "keys/log.json"
LOG_GUARD_FILE = "guard/log.guard"
"""What signs checkpoints as this node, and the size and root that were signed last."""
OPERATOR_KEY_FILE = "keys/operator.json"
"""The account that owns a validator. A node never needs it; a real operator keeps it elsewhere."""
P2P_KEY_FILE = "keys/p2p.json"
ANCHOR_KEY_FILE = "keys/anchor.json"
FAUCET_KEY_FILE = "keys/faucet.json"
GUARD_FILE = "guard/sign.guard"
DATA_FOLDER = "data"
CHAIN_FOLDER = "data/chain"
FORK_PROOF_FILE = "fork-proof.bin"
"""Written when two final blocks of one height were seen; while it lies here the node does not
vote."""
READY_FILE = "node.json"
"""Written when the node listens: pid and real addresses. Removed at a clean stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcSettings:
    """Where JSON-RPC, REST and metrics listen."""

    host: str = "127.0.0.1"
    port: int = 26657
    origins_allowed: tuple[str, ...] = ()
    """Web origins that may POST and open WebSockets."""
    calls_per_s_per_ip_max: int = 5_000
    """Cost of calls (docs/rpc.md, "Limits"); 0: no limit."""
    connections_max: int = 1024
    body_bytes_max: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class P2PSettings:
    """Where libp2p listens and whom it dials first (multiaddrs ending in /p2p/<peer id>)."""

    host: str = "127.0.0.1"
    port: int = 26656
    peers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusSettings:
    """Local timing, milliseconds; never hashed."""

    view_timeout_base_ms: int = 1000
    view_timeout_min_ms: int = 600
    view_timeout_max_ms: int = 10_000
    retry_ms: int = 250
    block_interval_min_ms: int = 20
    heartbeat_ms: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MempoolSettings:
    """Bounds of pending txs."""

    count_max: int = 20_000
    bytes_max: int = 32 * 1024 * 1024
    account_txs_max: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """`copies`: how many of `p2p.peers` must keep a batch's leaves before it is anchored; all of
    them if they are fewer. `witnesses`: who outside is asked to cosign each published checkpoint
    (C2SP tlog-witness), as `<submission URL> <verifier key>`."""

    copies: int = 2
    witnesses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`level`: debug, info, warning, error. `format`: text or json."""

    level: str = "info"
    format: str = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """The whole file; `home` is the folder it lies in."""

    home: Path
    moniker: str = "node"
    rpc: RpcSettings = field(default_factory=RpcSettings)
    p2p: P2PSettings = field(default_factory=P2PSettings)
    consensus: ConsensusSettings = field(default_factory=ConsensusSettings)
    mempool: MempoolSettings = field(default_factory=MempoolSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    log: LogSettings = field(default_factory=LogSettings)


_SLICES: dict[str, type] = {
    "rpc": RpcSettings,
    "p2p": P2PSettings,
    "consensus": ConsensusSettings,
    "mempool": MempoolSettings,
    "audit": AuditSettings,
    "log": LogSettings,
}


def load_config(home: Path) -> NodeConfig:
    """Read `home`/config.toml. Raises UsageError (no home) or InvalidInputError (bad setting)."""
    path = home / CONFIG_FILE
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise UsageError(
            "no node lives here", expected=f"{path} (zynk init --home {home})", got="no such file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError("configuration is not TOML", got=f"{path}: {error}") from error
    return parse_config(home, document)


def parse_config(home: Path, document: dict[str, Any]) -> NodeConfig:
    """Build the typed slices. Raises InvalidInputError that names the setting."""
    values: dict[str, Any] = {"home": home}
    for name, value in document.items():
        if name in _SLICES:
            if not isinstance(value, dict):
                raise InvalidInputError(f"[{name}] is malformed", expected="a table")
            values[name] = _SLICES[name](**_read_slice(name, _SLICES[name], value))
        elif name == "moniker" and isinstance(value, str):
            values[name] = value
        else:
            raise InvalidInputError(
                "unknown setting", expected="moniker, " + ", ".join(_SLICES), got=name
            )
    return NodeConfig(**values)


def render_config(config: NodeConfig) -> str:
    """The TOML text of a configuration; inverse of `parse_config`."""
    lines = [f'moniker = "{config.moniker}"']
    for name in _SLICES:
        lines.append(f"\n[{name}]")
        settings = getattr(config, name)
        lines += [
            f"{f.name} = {_render(getattr(settings, f.name))}" for f in dataclasses.fields(settings)
        ]
    return "\n".join(lines) + "\n"


def _read_slice(name: str, kind: type, table: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    result: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            raise InvalidInputError(
                f"unknown setting in [{name}]", expected=", ".join(hints), got=key
            )
        if hints[key] == tuple[str, ...]:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise InvalidInputError(f"{name}.{key} is malformed", expected="a list of text")
            value = tuple(value)
        elif type(value) is not hints[key]:
            raise InvalidInputError(
                f"{name}.{key} is malformed", expected=hints[key].__name__, got=repr(value)
            )
        elif type(value) is int and value < 0:
            raise InvalidInputError(f"{name}.{key} is negative", got=str(value))
        result[key] = value
    return result


def _render(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
