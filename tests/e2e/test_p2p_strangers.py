"""What strangers may try against a real p2p process, and that it goes on as if nothing were.

Each case is a trap of libp2p 0.8.1 named in DESIGN section 9 (docs/adr/0003).
"""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from p2p import frame
from p2p.identity import peer_id_of_seed
from tests.e2e.p2p_network import CHAIN_ID, TOPIC, Node, make_config, network, until
from tests.e2e.p2p_stranger import Act, nothing, visit, write_on, write_raw

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

DIRECT = "/zynk/direct/1"
MESH = "/meshsub/1.1.0"
# the side with the smaller peer id opens the direct stream; these are smaller than node 0's
SMALL_SEEDS = [
    seed
    for seed in (bytes([n]) * 32 for n in range(100, 256))
    if peer_id_of_seed(seed) < peer_id_of_seed(b"\1" * 32)
]
SMALL_SEED = SMALL_SEEDS[-1]
VISITS_AT_ONCE = 6


def hello(**changes: object) -> bytes:
    values: dict[str, object] = {
        "chain_id": CHAIN_ID,
        "genesis_hash": bytes(32),
        "protocol_version": 1,
        "height": 0,
        "listen_port": 0,
        **changes,
    }
    control = frame.Hello(**values)  # type: ignore[arg-type]  # field types as above
    return b"".join(frame.encode_message(frame.CHANNEL_CONTROL, frame.encode_control(control)))


async def assert_undisturbed(nodes: list[Node], pids: list[int | None]) -> None:
    """No process died, no peer was lost, frames and gossip flow both ways."""
    assert [node.link.pid for node in nodes] == pids
    assert all(node.downs == [] and node.restarts == 0 for node in nodes)
    first, second = nodes
    for sender, receiver in ((first, second), (second, first)):
        mark = f"{sender.peer} {len(receiver.frames)}".encode()
        assert sender.link.send(receiver.peer, 0, mark)
        sender.link.publish(TOPIC, mark)
        await until(lambda r=receiver, m=mark: r.frames and r.frames[-1][2] == m)  # type: ignore[misc]
        await until(lambda r=receiver, m=mark: m in [p for _, _, p in r.gossip])  # type: ignore[misc]


MALFORMED: dict[str, Act] = {
    "gossip that is no protobuf": write_on(MESH, b"\x05\xff\xff\xff\xff\xff"),
    "gossip cut short": write_on(MESH, b"\x7f\x01"),
    "gossip of a huge length": write_on(MESH, b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
    "gossip with an endless varint": write_on(MESH, b"\xff" * 40),
    "gossip with a bad sender record": write_on(MESH, b"\x06\x22\x04\x0a\x02\xff\xff"),
    "gossip with a bad topic text": write_on(MESH, b"\x06\x0a\x04\x08\x01\x12\x00"),
    "gossip with broken control": write_on(MESH, b"\x08\x1a\x06\x0a\x04\x0a\x02\xff\xfe"),
    "gossip message without a topic": write_on(MESH, b"\x05\x12\x03\x12\x01x"),
    "protocol name that is no text": write_raw(b"\x13/multistream/1.0.0\n", b"\x04\xff\xfe\xfd\n"),
    "negotiation of zero length": write_raw(b"\x00" * 20),
    "garbage on identify push": write_on("/ipfs/id/push/1.0.0", b"\x05\xff\xff\xff\xff\xff"),
    "garbage on ping": write_on("/ipfs/ping/1.0.0", b"x" * 31),
    "garbage as direct stream": write_on(DIRECT, b"\xff" * 64),
    "frame before the hello": write_on(DIRECT, frame.encode_message(0, b"vote")[0]),
    "frame over the limit": write_on(DIRECT, hello(), b"\xff\xff\xff\xff\x00\x00"),
    "hello of another chain": write_on(DIRECT, hello(chain_id="other")),
    "two hellos": write_on(DIRECT, hello(), hello()),
}


def test_malformed_bytes_from_a_stranger_disturb_nobody() -> None:
    async def scenario() -> None:
        async with network(2) as nodes:
            pids = [node.link.pid for node in nodes]
            target = nodes[0].link.listen_addr
            visits = list(zip(MALFORMED.values(), SMALL_SEEDS, strict=False))
            assert len(visits) == len(MALFORMED)
            for start in range(0, len(visits), VISITS_AT_ONCE):
                await asyncio.gather(
                    *(
                        asyncio.to_thread(visit, target, act, seed=seed)
                        for act, seed in visits[start : start + VISITS_AT_ONCE]
                    )
                )
            strangers = {peer_id_of_seed(seed) for _, seed in visits}
            nodes[0].downs = [peer for peer in nodes[0].downs if peer not in strangers]
            await assert_undisturbed(nodes, pids)
            stats = nodes[0].link.stats
            await until(lambda: stats().get("peers_at_fault", 0) >= 4)
            await until(lambda: stats().get("gossip_faults", 0) >= 2)
            await until(lambda: stats().get("handler_errors", 0) >= 1)

    asyncio.run(scenario())


def test_plaintext_is_refused() -> None:
    async def scenario() -> None:
        async with network(2) as nodes:
            pids = [node.link.pid for node in nodes]
            target = nodes[0].link.listen_addr
            assert await asyncio.to_thread(visit, target, nothing, seed=SMALL_SEED) == ""
            assert await asyncio.to_thread(visit, target, nothing, is_plain=True) != ""
            await assert_undisturbed(nodes, pids)

    asyncio.run(scenario())


def test_gossip_of_a_peer_without_a_hello_is_not_believed() -> None:
    # publish { data "spam", topic } with an empty from: dropped by the forwarder rule first
    topic = TOPIC.encode()
    body = b"\x12\x04spam" + bytes([0x22, len(topic)]) + topic
    rpc = bytes([0x12, len(body)]) + body

    async def scenario() -> None:
        async with network(2) as nodes:
            pids = [node.link.pid for node in nodes]
            act = write_on(MESH, bytes([len(rpc)]) + rpc)
            await asyncio.to_thread(visit, nodes[0].link.listen_addr, act, seed=SMALL_SEED)
            await until(lambda: nodes[0].link.stats().get("drops_gossip_stranger", 0) == 1)
            await assert_undisturbed(nodes, pids)
            assert not [p for node in nodes for _, _, p in node.gossip if p == b"spam"]

    asyncio.run(scenario())


def test_a_thousand_raw_connections_do_not_keep_an_honest_peer_out() -> None:
    async def scenario() -> None:
        async with network(2) as nodes:
            pids = [node.link.pid for node in nodes]
            target = nodes[0].link.listen_addr
            address = ("127.0.0.1", int(target.split("/")[4]))
            home = nodes[0].config.home / "honest"
            home.mkdir()
            honest = Node(make_config(50, home))
            await honest.link.start()
            sockets: list[socket.socket] = []
            try:
                for _ in range(1000):
                    raw = socket.socket()
                    raw.setblocking(False)
                    raw.connect_ex(address)
                    sockets.append(raw)
                start_s = time.monotonic()
                honest.link.add_peer(target)
                await until(lambda: honest.up)
                assert time.monotonic() - start_s < 5.0
                await assert_undisturbed(nodes, pids)
                await until(lambda: nodes[0].link.stats().get("connections_refused", 0) > 500)
            finally:
                for raw in sockets:
                    raw.close()
                await honest.link.stop()

    asyncio.run(scenario())
