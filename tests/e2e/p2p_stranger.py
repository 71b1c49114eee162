"""A stranger with stock libp2p who presents what they like to a real p2p process.

Each function runs its own trio loop; call it through `asyncio.to_thread`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from multiaddr import Multiaddr

Act = Callable[[Any, ID], Awaitable[None]]


def visit(multiaddr: str, act: Act, *, seed: bytes = b"\xee" * 32, is_plain: bool = False) -> str:
    """Connect to `multiaddr`, run `act(host, peer id)`; returns the error met, or ""."""
    key = create_new_key_pair(seed)
    security = (
        {PLAINTEXT_PROTOCOL_ID: InsecureTransport(key)}
        if is_plain
        else {NOISE: NoiseTransport(key, noise_privkey=create_x25519_key_pair().private_key)}
    )

    async def run() -> str:
        host = new_host(key_pair=key, sec_opt=security)
        info = info_from_p2p_addr(Multiaddr(multiaddr))
        async with host.run(listen_addrs=[]):
            try:
                with trio.fail_after(10):
                    await host.connect(info)
                    await act(host, info.peer_id)
            except Exception as error:
                return repr(error)
        return ""

    return trio.run(run)


async def nothing(host: Any, peer: ID) -> None:
    """Connect and go."""


def write_on(protocol: str, *writes: bytes, wait_s: float = 0.15) -> Act:
    """Open a stream of `protocol` and write; the other side may reset at any time."""

    async def act(host: Any, peer: ID) -> None:
        stream = await host.new_stream(peer, [protocol])
        for data in writes:
            await stream.write(data)
        await trio.sleep(wait_s)

    return act


def write_raw(*writes: bytes) -> Act:
    """Open a muxed stream and write without negotiating a protocol."""

    async def act(host: Any, peer: ID) -> None:
        stream = await host.get_network().new_stream(peer)
        for data in writes:
            await stream.write(data)
        await trio.sleep(0.15)

    return act
