"""What the node tells the p2p part, and what it is told about peers. No I/O, no libp2p here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PeerId = str  # base58 text of the identity multihash, "12D3Koo..."

CHANNEL_CONSENSUS = 0
CHANNEL_TX = 1
CHANNEL_SYNC_REQUEST = 2
CHANNEL_SYNC_RESPONSE = 3
CHANNEL_LOG = 4
CHANNEL_COUNT = 5

SEED_BYTES = 32
GENESIS_HASH_BYTES = 32
CHAIN_ID_CHARS_MAX = 64
FRAME_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class P2PConfig:
    """Settings of one node's p2p process. Sizes in bytes, times in seconds.

    `peers` are multiaddrs that end in `/p2p/<peer id>`; `validators` are peer ids that are
    dialled first and never backed off for long. `listen_port` 0 takes a free port, which a
    restarted process keeps.
    """

    identity_seed: bytes
    listen_host: str
    listen_port: int
    chain_id: str
    genesis_hash: bytes
    protocol_version: int
    home: Path
    peers: tuple[str, ...] = ()
    validators: tuple[str, ...] = ()
    frame_bytes_max: int = FRAME_BYTES_MAX
    gossip_bytes_max: int = 900 << 10
    gossip_per_peer_per_s_max: int = 100
    validator_frames_per_s_max: int = 4_000
    validator_bytes_per_s_max: int = 64 << 20
    stranger_frames_per_s_max: int = 500
    stranger_bytes_per_s_max: int = 4 << 20
    strangers_frames_per_s_max: int = 2_000  # all who are no validator's peer, together
    strangers_bytes_per_s_max: int = 16 << 20
    strangers_held_bytes_max: int = 64 << 20  # unfinished messages of theirs
    link_queue_bytes_max: int = 64 << 20
    peer_queue_bytes_max: int = 16 << 20  # twice a peer: votes, and the rest
    connections_max: int = 128
    connections_per_ip_max: int = 64
    handshakes_per_ip_max: int = 16
    handshake_timeout_s: float = 5.0
    hello_timeout_s: float = 10.0
    ping_interval_s: float = 4.0
    dead_after_s: float = 12.0
    write_timeout_s: float = 10.0
    dial_timeout_s: float = 5.0
    dials_max: int = 8
    redial_max_s: float = 60.0
    redial_validator_max_s: float = 3.0
    other_chain_backoff_s: float = 600.0
    quarantine_s: float = 60.0
    book_peers_max: int = 1000
    start_timeout_s: float = 30.0


def fields_of_config(config: P2PConfig) -> dict[str, Any]:
    """The config as plain values, for the link."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    values["home"] = str(config.home)
    return values


def config_of_fields(values: dict[str, Any]) -> P2PConfig:
    """Inverse of `fields_of_config`; lists become tuples again."""
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    plain["home"] = Path(values["home"])
    return P2PConfig(**plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerInfo:
    """A connected peer that passed the handshake.

    `height` is the newest it told (hello, then each ping), `last_seen_s` the age of its last
    byte in seconds, `rtt_ms` -1 until measured.
    """

    peer: PeerId
    addr: str
    inbound: bool
    height: int
    last_seen_s: float
    bytes_in: int
    bytes_out: int
    rtt_ms: float
