"""Processes killed, frozen, flooded or broken: what is left goes on, and all comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from ledger.errors import UsageError
from p2p import link_codec
from p2p.link import P2PLink
from tests.e2e.p2p_network import Node, make_config, network, until

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


def test_killed_process_is_back_with_its_peers_in_seconds_and_frames_flow() -> None:
    async def scenario() -> None:
        async with network(3) as nodes:
            victim, others = nodes[0], nodes[1:]
            for _ in range(2):
                restarts, old_pid = victim.restarts, victim.link.pid
                assert old_pid is not None
                os.kill(old_pid, signal.SIGKILL)
                start_s = time.monotonic()
                await until(lambda: not victim.up, 1)  # noticed at once
                assert victim.link.send(others[0].peer, 0, b"lost") is False
                await until(lambda n=restarts: victim.restarts == n + 1)  # type: ignore[misc]
                await until(lambda: len(victim.up) == 2)
                assert time.monotonic() - start_s < 6.0  # 1 s but for a busy machine
                assert victim.link.pid != old_pid
                victim.frames.clear()
                for other in others:
                    await until(lambda o=other: victim.peer in o.up)  # type: ignore[misc]
                    assert other.link.send(victim.peer, 0, b"again")
                await until(lambda: len(victim.frames) == 2)
            assert all(len(other.up) == 2 and other.restarts == 0 for other in others)
            assert victim.link.stats()["restarts"] == 2

    asyncio.run(scenario())


def test_frozen_peer_blocks_nobody_and_comes_back() -> None:
    async def scenario() -> None:
        async with network(
            3,
            ping_interval_s=0.5,
            dead_after_s=4.0,
            write_timeout_s=3.0,
            handshake_timeout_s=2.0,
            dial_timeout_s=2.0,
            hello_timeout_s=3.0,
            frame_bytes_max=1 << 20,
            peer_queue_bytes_max=4 << 20,
        ) as nodes:
            first, frozen, other = nodes
            assert frozen.link.pid is not None
            process = psutil.Process(frozen.link.pid)
            process.suspend()
            try:
                memory = psutil.Process(first.link.pid).memory_info().rss
                sent = 0
                for number in range(64):  # 64 MiB towards the frozen one
                    first.link.send(frozen.peer, 3, bytes(1 << 20))
                    first.link.broadcast(0, number.to_bytes(2, "big"))
                    sent += 1
                    await asyncio.sleep(0.01)
                await until(lambda: sum(c == 0 for _, c, _ in other.frames) == sent, 3)
                grown = psutil.Process(first.link.pid).memory_info().rss - memory
                assert grown < 40 << 20
                await until(lambda: frozen.peer not in first.up)
                stats = first.link.stats()
                assert sum(stats.get(f"drops_peer_{why}", 0) for why in ("congested", "queue_full"))
            finally:
                process.resume()
            await until(lambda: all(len(node.up) == 2 for node in nodes))
            frozen.frames.clear()
            first.link.send(frozen.peer, 0, b"welcome back")
            await until(lambda: (first.peer, 0, b"welcome back") in frozen.frames)

    asyncio.run(scenario())


def test_full_link_queue_drops_and_counts() -> None:
    async def scenario() -> None:
        async with network(2, link_queue_bytes_max=8 << 20) as nodes:
            first, second = nodes
            assert first.link.pid is not None
            process = psutil.Process(first.link.pid)
            process.suspend()
            try:
                results = []
                for _ in range(12):
                    results.append(first.link.send(second.peer, 0, bytes(1 << 20)))
                    await asyncio.sleep(0)
                assert results[0] is True
                assert results[-1] is False
                assert first.link.stats()["drops_link_queue_full"] == results.count(False)
            finally:
                process.resume()
            await until(lambda: len(second.frames) == results.count(True))

    asyncio.run(scenario())


GARBAGE = """
import socket, sys, time
link = socket.socket(fileno=int(sys.argv[1]))
link.sendall({bytes!r})
time.sleep(60)
"""


MALFORMED = (
    b"\xff\xff\xff\xff",  # length
    b"\0\0\0\1\xc1",  # no msgpack
    b"\0\0\0\4\x93\x15\x01\x02",  # a peer that is a number
    b"\0\0\0\2\x91\x63",  # unknown kind
    link_codec.encode(link_codec.Kind.SEND, "peer", 0, b""),  # of the other direction
)


def test_malformed_message_of_the_process_is_a_clear_error_and_leaves_no_process() -> None:
    async def refuse(node: Node, data: bytes) -> None:
        node.link = P2PLink(node.config, node, program=("-c", GARBAGE.format(bytes=data)))
        with pytest.raises(UsageError, match="malformed message"):
            await node.link.start()
        assert node.link.pid is None

    async def scenario() -> None:
        async with network(1) as nodes:
            home = nodes[0].config.home
            await asyncio.gather(*(refuse(Node(make_config(5, home)), d) for d in MALFORMED))

    asyncio.run(scenario())


BREAKS_ONCE = """
import os, runpy, sys, socket, threading, time
flag = {flag!r}
def later():
    while not os.path.exists(flag + '.now'):
        time.sleep(0.05)
    socket.socket(fileno=os.dup(int(sys.argv[1]))).sendall(b'\\xff' * 8)
if not os.path.exists(flag):
    open(flag, 'w').close()
    threading.Thread(target=later, daemon=True).start()
runpy.run_module('p2p.process', run_name='__main__')
"""


def test_process_that_breaks_is_replaced_and_the_last_stranger_kept_out() -> None:
    async def break_once(number: int, target: Node, validators: tuple[str, ...]) -> None:
        home = target.config.home / str(number)
        home.mkdir()
        peers = (target.link.listen_addr,)
        node = Node(make_config(number, home, peers=peers, validators=validators))
        program = ("-c", BREAKS_ONCE.format(flag=str(home / "flag")))
        node.link = P2PLink(node.config, node, program=program)
        try:
            await node.link.start()
            await until(lambda: node.up)
            (home / "flag.now").touch()
            await until(lambda: node.restarts == 1)
            if validators:
                await until(lambda: node.up)
            else:  # the bytes of the target came last before the fault
                await asyncio.sleep(2.0)
                assert not node.up
        finally:
            await node.link.stop()

    async def scenario() -> None:
        async with network(1) as nodes:
            target = nodes[0]
            await asyncio.gather(break_once(5, target, (target.peer,)), break_once(6, target, ()))

    asyncio.run(scenario())


PARENT = """
import asyncio, sys
from tests.e2e.p2p_network import Node, make_config
from pathlib import Path
async def main():
    node = Node(make_config(3, Path(sys.argv[1])))
    await node.link.start()
    print(node.link.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_p2p_process_ends_when_the_node_is_killed(tmp_path: object) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
        gone, _alive = psutil.wait_procs([child], timeout=30)
        assert gone
    finally:
        parent.kill()
        parent.wait()


def test_handler_of_the_node_that_raises_is_counted_and_frames_go_on() -> None:
    async def scenario() -> None:
        async with network(2) as nodes:
            first, second = nodes
            good = second.on_frame

            def bad(peer: str, channel: int, payload: bytes) -> None:
                if payload == b"bad":
                    raise RuntimeError("handler fault")
                good(peer, channel, payload)

            second.on_frame = bad  # type: ignore[method-assign]  # the node's own handler
            first.link.send(second.peer, 0, b"bad")
            first.link.send(second.peer, 0, b"good")
            await until(lambda: [p for _, _, p in second.frames] == [b"good"])
            assert second.link.stats()["event_errors"] == 1

    asyncio.run(scenario())
