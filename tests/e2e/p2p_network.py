"""Real p2p processes for the tests: nodes that record what they are told, and their ends."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from p2p.link import P2PConfig, P2PLink, peer_id_of_seed

CHAIN_ID = "test-chain"
TOPIC = f"tx/{CHAIN_ID}"


class Node:
    """A P2PEvents that keeps what it gets."""

    def __init__(self, config: P2PConfig, link: type[P2PLink] = P2PLink) -> None:
        self.config = config
        self.link = link(config, self)
        self.up: dict[str, int] = {}
        self.downs: list[str] = []
        self.frames: list[tuple[str, int, bytes]] = []
        self.gossip: list[tuple[str, str, bytes]] = []
        self.restarts = 0

    @property
    def peer(self) -> str:
        return self.link.peer_id

    def on_peer_up(self, peer: str, height: int) -> None:
        self.up[peer] = height

    def on_peer_down(self, peer: str) -> None:
        self.up.pop(peer, None)
        self.downs.append(peer)

    def on_frame(self, peer: str, channel: int, payload: bytes) -> None:
        self.frames.append((peer, channel, payload))

    def on_gossip(self, peer: str, topic: str, payload: bytes) -> None:
        self.gossip.append((peer, topic, payload))

    def on_restarted(self) -> None:
        self.restarts += 1


def make_config(number: int, home: Path, **changes: Any) -> P2PConfig:
    values: dict[str, Any] = {
        "identity_seed": bytes([number + 1]) * 32,
        "listen_host": "127.0.0.1",
        "listen_port": 0,
        "chain_id": CHAIN_ID,
        "genesis_hash": bytes(32),
        "protocol_version": 1,
        "home": home,
        **changes,
    }
    return P2PConfig(**values)


async def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait for a condition; the test fails if it does not come."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(poll(), timeout_s)


@asynccontextmanager
async def network(
    count: int, *, make: type[Node] = Node, link: type[P2PLink] = P2PLink, **changes: Any
) -> AsyncIterator[list[Node]]:
    """`count` nodes, each connected to each; all stopped at the end."""
    nodes: list[Node] = []
    validators = tuple(peer_id_of_seed(bytes([n + 1]) * 32) for n in range(count))
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number in range(count):
                home = Path(folder) / str(number)
                home.mkdir()
                config = make_config(number, home, **{"validators": validators, **changes})
                nodes.append(make(config, link))
            await asyncio.gather(*(node.link.start() for node in nodes))
            for number, node in enumerate(nodes):
                for other in nodes[:number]:
                    node.link.add_peer(other.link.listen_addr)
            await until(lambda: all(len(node.up) == count - 1 for node in nodes))
            yield nodes
        finally:
            await asyncio.gather(*(node.link.stop() for node in nodes))
