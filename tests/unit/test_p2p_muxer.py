"""The lean muxer over real Noise on a loopback socket: against itself, stock Yamux and faults."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable
from struct import pack
from typing import Any

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import Yamux

from p2p.muxer import INBOUND_STREAMS_MAX, WINDOW_FIRST_BYTES, LeanYamux

pytestmark = pytest.mark.slow
Test = Callable[[Any, Any], Awaitable[None]]


async def secure(stream: trio.SocketStream, seed: int, is_initiator: bool) -> Any:
    key = create_new_key_pair(bytes([seed]) * 32)
    noise = NoiseTransport(key, noise_privkey=create_x25519_key_pair().private_key)
    raw = RawConnection(TrioTCPStream(stream), is_initiator)
    if not is_initiator:
        return await noise.secure_inbound(raw)
    return await noise.secure_outbound(
        raw, ID.from_pubkey(create_new_key_pair(b"\2" * 32).public_key)
    )


def run(test: Test, left: type = LeanYamux, right: type = LeanYamux) -> None:
    """Run `test(left connection, right connection)`; the left one is the initiator."""

    async def main() -> None:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        port = listener.socket.getsockname()[1]
        with trio.fail_after(20):
            client = await trio.open_tcp_stream("127.0.0.1", port)
            server = await listener.accept()
            ends: dict[str, Any] = {}

            async def make(name: str, *arguments: Any) -> None:
                ends[name] = await secure(*arguments)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(make, "left", client, 1, True)
                nursery.start_soon(make, "right", server, 2, False)
            one = left(ends["left"], ends["left"].get_remote_peer(), is_initiator=True)
            two = right(ends["right"], ends["right"].get_remote_peer(), is_initiator=False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.start)
                nursery.start_soon(two.start)
                await one.event_started.wait()
                await two.event_started.wait()
                await test(one, two)
                nursery.cancel_scope.cancel()
        await listener.aclose()

    trio.run(main)


async def read_all(stream: Any, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.read(size - len(data))
    return data


@pytest.mark.parametrize(
    ("left", "right"),
    [(LeanYamux, LeanYamux), (LeanYamux, Yamux), (Yamux, LeanYamux)],
    ids=["lean-lean", "lean-stock", "stock-lean"],
)
def test_streams_carry_bytes_both_ways_at_once(left: type, right: type) -> None:
    size = 1_500_000
    data = random.Random(1).randbytes(size)

    async def echo(conn: Any) -> None:
        stream = await conn.accept_stream()
        for _ in range(size // 50_000):
            await stream.write(await read_all(stream, 50_000))
        await stream.close()

    async def test(one: Any, two: Any) -> None:
        async def ask() -> None:
            stream = await one.open_stream()
            got = []

            async def receive() -> None:
                got.append(await read_all(stream, size))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await stream.write(data)
            assert got == [data]

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(echo, two)
                nursery.start_soon(ask)

    run(test, left, right)


def test_writer_waits_for_the_window_and_goes_on_when_it_opens() -> None:
    async def test(one: Any, two: Any) -> None:
        stream = await one.open_stream()
        other = await two.accept_stream()
        done = trio.Event()

        async def write() -> None:
            await stream.write(bytes(3 * WINDOW_FIRST_BYTES))
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.sleep(0.2)
            assert not done.is_set()
            assert len(two.stream_buffers[other.stream_id]) == WINDOW_FIRST_BYTES
            assert len(await read_all(other, 3 * WINDOW_FIRST_BYTES)) == 3 * WINDOW_FIRST_BYTES
        other.enlarge_window(1 << 20)
        await stream.write(bytes(1 << 20))
        await trio.sleep(0.1)
        assert len(two.stream_buffers[other.stream_id]) == 1 << 20

    run(test)


def test_waiting_reader_and_writer_are_told_when_the_connection_ends() -> None:
    async def test(one: Any, two: Any) -> None:
        stream = await one.open_stream()
        await two.accept_stream()
        errors: list[str] = []

        async def attempt(call: Callable[[], Awaitable[object]]) -> None:
            try:
                await call()
            except Exception as error:
                errors.append(type(error).__name__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, lambda: stream.read(1))
            nursery.start_soon(attempt, lambda: stream.write(bytes(1 << 20)))
            await trio.sleep(0.1)
            nursery.start_soon(two.close)
        assert len(errors) == 2

    run(test)


def test_closed_stream_gives_the_rest_then_its_end() -> None:
    async def test(one: Any, two: Any) -> None:
        stream = await one.open_stream()
        other = await two.accept_stream()
        await stream.write(b"last words")
        await stream.close()
        assert await other.read(4) == b"last"
        assert await other.read(100) == b" words"
        with pytest.raises(Exception, match="closed"):
            await other.read(1)
        await other.write(b"half open")
        assert await stream.read(100) == b"half open"
        await other.reset()
        with pytest.raises(Exception, match=r"reset|closed"):
            await stream.read(1)
        await trio.sleep(0.05)
        assert one.streams == {}
        assert two.streams == {}

    run(test)


FAULTS = {
    "past the window": pack(">BBHII", 0, 0, 1, 1, WINDOW_FIRST_BYTES + 1),
    "past the window in two": (
        pack(">BBHII", 0, 0, 1, 1, WINDOW_FIRST_BYTES)
        + bytes(WINDOW_FIRST_BYTES)
        + pack(">BBHII", 0, 0, 0, 1, 1)
        + b"x"
    ),
    "other version": pack(">BBHII", 1, 0, 0, 1, 0),
    "unknown type": pack(">BBHII", 0, 4, 0, 1, 0),
    "an id of ours": pack(">BBHII", 0, 1, 1, 2, 0),
    "id zero": pack(">BBHII", 0, 1, 1, 0, 0),
    "huge data": pack(">BBHII", 0, 0, 0, 9, 2**32 - 1),
}


@pytest.mark.parametrize("data", FAULTS.values(), ids=FAULTS)
def test_faulty_frame_ends_the_connection(data: bytes) -> None:
    async def test(one: Any, two: Any) -> None:
        await one._write_frame(data)
        await two.event_closed.wait()
        await one.event_closed.wait()

    run(test)


def test_streams_over_the_limit_are_reset_and_the_others_live() -> None:
    async def test(one: Any, two: Any) -> None:
        first = await one.open_stream()
        other = await two.accept_stream()
        rest = [await one.open_stream() for _ in range(INBOUND_STREAMS_MAX)]
        with pytest.raises(Exception, match=r"reset|closed"):
            await rest[-1].read(1)
        await first.write(b"alive")
        assert await other.read(5) == b"alive"
        assert len(two.streams) == INBOUND_STREAMS_MAX

    run(test)


def test_random_frames_end_the_connection_or_not_but_raise_nothing() -> None:
    rng = random.Random(7)

    async def test(one: Any, two: Any) -> None:
        with contextlib.suppress(ConnectionClosedError):
            for _ in range(300):
                length = rng.choice([0, 0, 1, 5, 70, 1 << 18, 1 << 30])
                frame = pack(
                    ">BBHII",
                    0,
                    rng.randrange(3),
                    rng.randrange(16),
                    rng.choice([1, 2, 3, 5, 7]),
                    length,
                )
                await one._write_frame(frame + bytes(min(length, 100)))

    for _ in range(10):
        run(test)


def test_pings_give_the_round_trip_on_both_sides() -> None:
    async def test(one: Any, two: Any) -> None:
        await trio.sleep(0.7)  # the stock round-trip loop pings after half a second
        assert one.rtt() > 0
        assert two.rtt() > 0

    run(test)
