"""Real p2p processes among themselves: frames, gossip, handshake, peer book."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import psutil
import pytest

from ledger.errors import InvalidInputError, UsageError
from p2p.link import P2PLink
from p2p.peerbook import BOOK_NAME
from tests.e2e.p2p_network import TOPIC, Node, make_config, network, until

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


def test_four_nodes_exchange_frames_and_gossip() -> None:
    async def scenario() -> None:
        async with network(4) as nodes:
            first, second = nodes[0], nodes[1]
            big = bytes(range(256)) * (4 << 12)  # 4 MiB, the limit
            for number in range(200):
                assert first.link.send(second.peer, number % 3, number.to_bytes(2, "big"))
            assert first.link.send(second.peer, 3, big)
            await until(lambda: len(second.frames) == 201)
            for channel in range(3):  # in order a channel
                got = [p for _, c, p in second.frames if c == channel]
                assert got == [n.to_bytes(2, "big") for n in range(200) if n % 3 == channel]
            assert second.frames[-1] == (first.peer, 3, big)

            second.link.broadcast(4, b"to all")
            others = (nodes[0], nodes[2], nodes[3])
            await until(lambda: all((second.peer, 4, b"to all") in n.frames for n in others))

            nodes[3].link.publish(TOPIC, b"batch")
            await until(lambda: all([p for _, _, p in n.gossip] == [b"batch"] for n in nodes[:3]))
            assert nodes[3].gossip == []  # never our own
            forwarders = {node.gossip[0][0] for node in nodes[:3]}
            assert forwarders <= {node.peer for node in nodes}

            await until(lambda: first.link.stats().get("frames_out", 0) >= 201)
            infos = first.link.peers()
            assert {info.peer for info in infos} == {node.peer for node in nodes[1:]}
            assert sum(info.bytes_out for info in infos) > len(big)

    asyncio.run(scenario())


def test_heights_are_told_at_the_handshake_and_by_ping() -> None:
    async def scenario() -> None:
        async with network(1) as nodes:
            nodes[0].link.set_height(7)
            home = nodes[0].config.home / "second"
            home.mkdir()
            other = Node(
                make_config(9, home, peers=(nodes[0].link.listen_addr,), ping_interval_s=0.5)
            )
            try:
                await other.link.start()
                await until(lambda: other.up == {nodes[0].peer: 7})
                other.link.set_height(11)
                await until(lambda: [p.height for p in nodes[0].link.peers()] == [11])
                await until(lambda: other.link.peers()[0].rtt_ms > 0)
            finally:
                await other.link.stop()

    asyncio.run(scenario())


def test_peers_of_another_chain_genesis_or_version_are_refused_and_put_aside() -> None:
    async def scenario() -> None:
        async with network(2) as nodes:
            peers = (nodes[0].link.listen_addr,)
            strangers = []
            differences: tuple[dict[str, object], ...] = (
                {"chain_id": "other"},
                {"genesis_hash": b"\1" * 32},
                {"protocol_version": 2},
            )
            for number, changes in enumerate(differences):
                home = nodes[0].config.home / f"stranger{number}"
                home.mkdir()
                strangers.append(Node(make_config(70 + number, home, peers=peers, **changes)))
            try:
                await asyncio.gather(*(stranger.link.start() for stranger in strangers))
                name = "peers_of_another_chain"
                await until(lambda: all(s.link.stats().get(name, 0) for s in strangers))
                await asyncio.sleep(2.2)
                assert all(stranger.up == {} for stranger in strangers)
                # put aside: no dialling in a loop
                assert all(stranger.link.stats()["dials"] <= 2 for stranger in strangers)
                assert set(nodes[0].up) == {nodes[1].peer}
            finally:
                await asyncio.gather(*(stranger.link.stop() for stranger in strangers))

    asyncio.run(scenario())


def test_disconnected_peer_comes_back_by_redial() -> None:
    async def scenario() -> None:
        async with network(2) as nodes:
            nodes[0].link.disconnect(nodes[1].peer, "test")
            await until(lambda: nodes[1].downs and nodes[0].downs)
            await until(lambda: nodes[0].up and nodes[1].up)

    asyncio.run(scenario())


def test_peer_learnt_by_being_dialled_is_kept_in_the_book_and_redialled_after_a_restart() -> None:
    async def scenario() -> None:
        async with network(2) as nodes:
            first, second = nodes  # the second was told of the first, not the other way round
            path = first.config.home / BOOK_NAME
            await until(path.exists)
            await first.link.stop()
            rows = json.loads(path.read_text())["peers"]
            assert rows == [second.link.listen_addr]
            await second.link.stop()
            again = Node(make_config(1, second.config.home, listen_port=_port(second)))
            await again.link.start()
            first_again = Node(make_config(0, first.config.home))
            try:
                await first_again.link.start()
                await until(lambda: first_again.up)
            finally:
                await first_again.link.stop()
                await again.link.stop()

    asyncio.run(scenario())


def _port(node: Node) -> int:
    return int(node.link.listen_addr.split("/")[4])


def test_added_peer_is_dialled() -> None:
    async def scenario() -> None:
        async with network(1) as nodes:
            home = nodes[0].config.home / "second"
            home.mkdir()
            other = Node(make_config(9, home))
            try:
                await other.link.start()
                with pytest.raises(InvalidInputError):
                    other.link.add_peer("/ip4/127.0.0.1/tcp/1")
                name = nodes[0].link.listen_addr.replace("/ip4/127.0.0.1/", "/dns4/localhost/")
                other.link.add_peer(name)
                await until(lambda: other.up)
            finally:
                await other.link.stop()

    asyncio.run(scenario())


def test_misuse_by_the_node_is_refused_at_once() -> None:
    async def scenario() -> None:
        async with network(1, frame_bytes_max=1000, peer_queue_bytes_max=2000) as nodes:
            link: P2PLink = nodes[0].link
            assert link.send("12D3KooWunknown", 0, b"x") is False
            for call in (
                lambda: link.send("x", 5, b""),
                lambda: link.send("x", 0, bytes(1001)),
                lambda: link.broadcast(-1, b""),
                lambda: link.publish(TOPIC, bytes(2 << 20)),
            ):
                with pytest.raises(UsageError):
                    call()
            assert link.stats()["drops_peer_unknown"] == 1

    asyncio.run(scenario())


def test_port_in_use_is_a_clear_error_and_leaves_no_process() -> None:
    async def scenario() -> None:
        async with network(1) as nodes:
            config = make_config(9, nodes[0].config.home, listen_port=_port(nodes[0]))
            other = Node(config)
            before = set(psutil.Process().children())
            with pytest.raises(UsageError, match="did not start"):
                await other.link.start()
            assert set(psutil.Process().children()) == before

    asyncio.run(scenario())


def test_gossip_faster_than_ten_a_second_arrives_whole() -> None:
    """libp2p's own gate drops what is over 10 messages a second, silently."""

    async def scenario() -> None:
        async with network(2) as nodes:
            await asyncio.sleep(1.2)  # a heartbeat: the mesh is made
            sent = [f"batch {number}".encode() for number in range(60)]
            for payload in sent:
                nodes[0].link.publish(TOPIC, payload)
                await asyncio.sleep(0.02)
            await until(lambda: len(nodes[1].gossip) == len(sent))
            assert {payload for _, _, payload in nodes[1].gossip} == set(sent)

    asyncio.run(scenario())


def test_gossip_of_a_restarted_sender_is_heard_though_its_numbers_begin_anew() -> None:
    """By sequence number, a restarted sender's messages were taken for those of before; and the
    same content is told once, whoever sends it how often."""

    async def scenario() -> None:
        async with network(2) as nodes:
            await asyncio.sleep(1.2)
            for payload in (b"one", b"two"):
                nodes[0].link.publish(TOPIC, payload)
            await until(lambda: len(nodes[1].gossip) == 2)
            pid = nodes[0].link.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: nodes[0].restarts == 1 and nodes[0].up and nodes[1].up)
            await asyncio.sleep(1.2)
            for payload in (b"one", b"three", b"four"):
                nodes[0].link.publish(TOPIC, payload)
            await until(lambda: len(nodes[1].gossip) == 4)
            assert [p for _, _, p in nodes[1].gossip][:2] == [b"one", b"two"]
            assert {p for _, _, p in nodes[1].gossip[2:]} == {b"three", b"four"}
            assert {author for author, _, _ in nodes[1].gossip} == {nodes[0].peer}

    asyncio.run(scenario())


def test_gossip_of_another_topic_or_too_long_is_refused_and_said_so() -> None:
    """libp2p drops more than 1 MiB silently, and would subscribe to any topic."""

    async def scenario() -> None:
        async with network(2) as nodes:
            link = nodes[0].link
            with pytest.raises(UsageError, match="too long"):
                link.publish(TOPIC, bytes(1 << 20))
            link.publish("tx/another-chain", b"x")
            await until(lambda: link.stats().get("drops_gossip_invalid", 0) == 1)
            await asyncio.sleep(1.2)
            link.publish(TOPIC, bytes(900 << 10))  # the largest
            await until(lambda: nodes[1].gossip)
            assert [len(p) for _, _, p in nodes[1].gossip] == [900 << 10]

    asyncio.run(scenario())
