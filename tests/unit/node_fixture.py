"""Fakes of what surrounds the node's parts: a link that records what is sent."""

from __future__ import annotations

from collections.abc import Callable

from p2p.config import PeerInfo


def peer_info(peer: str, height: int = 0) -> PeerInfo:
    return PeerInfo(
        peer=peer,
        addr="/ip4/127.0.0.1/tcp/1",
        inbound=False,
        height=height,
        last_seen_s=0.0,
        bytes_in=0,
        bytes_out=0,
        rtt_ms=1.0,
    )


class FakeLink:
    """The methods of `P2PLink` that the node's parts use; what is sent is kept."""

    def __init__(self, peers: tuple[str, ...] = ()) -> None:
        self.sent: list[tuple[str, int, bytes]] = []
        self.broadcasts: list[tuple[int, bytes]] = []
        self.published: list[tuple[str, bytes]] = []
        self.height = 0
        self.accepts = True
        self.on_send: Callable[[str, int, bytes], None] = lambda *_: None
        self._peers = peers

    @property
    def validators(self) -> tuple[str, ...]:
        return self._peers

    def peers(self) -> list[PeerInfo]:
        return [peer_info(peer) for peer in self._peers]

    def send(self, peer: str, channel: int, payload: bytes) -> bool:
        if not self.accepts:
            return False
        self.sent.append((peer, channel, payload))
        self.on_send(peer, channel, payload)
        return True

    def broadcast(self, channel: int, payload: bytes) -> None:
        self.broadcasts.append((channel, payload))

    def publish(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, payload))

    def set_height(self, height: int) -> None:
        self.height = height
