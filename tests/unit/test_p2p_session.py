"""One session over streams in memory: order, bounds, faults."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from p2p import frame
from p2p.config import P2PConfig
from p2p.counters import Counters
from p2p.session import BATCH_BYTES, Session


class Pipe:
    """A ByteStream whose writes are kept until `gate` opens, and whose reads are given."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.gate = trio.Event()
        self.incoming_in, self.incoming = trio.open_memory_channel[bytes](100)

    async def read(self, n: int | None = None) -> bytes:
        return await self.incoming.receive()

    async def write(self, data: bytes) -> None:
        await self.gate.wait()
        self.written += data

    def enlarge_window(self, size: int) -> None:
        self.window_bytes = size


class Owner:
    height = 40

    def __init__(self) -> None:
        self.frames: list[tuple[int, bytes]] = []
        self.congested: list[bool] = []
        self.notes: list[str] = []
        self.held: list[int] = []

    def on_hello(self, session: Session, hello: frame.Hello) -> None:
        session.accept(hello.height)

    def on_frame(self, session: Session, channel: int, payload: bytes) -> None:
        self.frames.append((channel, payload))

    def on_congested(self, session: Session, is_congested: bool) -> None:
        self.congested.append(is_congested)

    def charge(self, session: Session, size: int) -> float:
        return 0.0

    def on_held(self, session: Session) -> None:
        self.held.append(session.held_bytes)

    def note(self, peer: str) -> None:
        self.notes.append(peer)

    async def room(self) -> None:
        return


HELLO = frame.Hello(
    chain_id="c", genesis_hash=bytes(32), protocol_version=1, height=3, listen_port=0
)


def control(message: frame.Control) -> bytes:
    payload = frame.encode_control(message)
    return b"".join(frame.encode_message(frame.CHANNEL_CONTROL, payload))


def run(test: Callable[[Session, Pipe, Owner, Counters], Awaitable[None]], **changes: int) -> None:
    async def main() -> None:
        values = {"frame_bytes_max": 1 << 20, "peer_queue_bytes_max": 1 << 20, **changes}
        config = P2PConfig(
            identity_seed=bytes(32),
            listen_host="127.0.0.1",
            listen_port=0,
            chain_id="c",
            genesis_hash=bytes(32),
            protocol_version=1,
            home=Path(),
            write_timeout_s=0.2,
            **values,  # type: ignore[arg-type]  # sizes alone
        )
        pipe, owner, counters = Pipe(), Owner(), Counters()
        session = Session(
            peer="peer",
            address="",
            is_inbound=True,
            stream=pipe,
            config=config,
            counters=counters,
            owner=owner,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run, HELLO)
            with trio.fail_after(5):
                await test(session, pipe, owner, counters)
            nursery.cancel_scope.cancel()

    trio.run(main)


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)


def queue(session: Session, channel: int, payload: bytes) -> bool:
    return session.send(channel, frame.encode_message(channel, payload))


def test_votes_overtake_a_sync_answer_queued_before_them() -> None:
    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        await settle()  # the hello waits at the gate
        assert queue(session, 3, bytes(500_000))
        assert queue(session, 0, b"vote")
        assert queue(session, 1, b"tx")
        pipe.gate.set()
        await settle()
        got = frame.FrameReader(1 << 20).feed(bytes(pipe.written))
        assert [channel for channel, _ in got] == [frame.CHANNEL_CONTROL, 0, 1, 3]

    run(test)


def test_vote_queued_while_a_sync_answer_leaves_goes_between_its_chunks() -> None:
    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        pipe.gate.set()
        await settle()
        pipe.gate = trio.Event()
        assert queue(session, 3, bytes(800_000))
        await settle()  # one batch waits at the gate
        assert queue(session, 0, b"vote")
        before = len(pipe.written)
        pipe.gate.set()
        await settle()
        at = bytes(pipe.written).index(frame.encode_message(0, b"vote")[0])
        assert at - before <= BATCH_BYTES + frame.CHUNK_BYTES

    run(test)


def test_queue_of_a_peer_that_does_not_read_is_bounded_and_the_session_ends() -> None:
    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        results = [queue(session, 3, bytes(100_000)) for _ in range(20)]
        assert results == [True] * 10 + [False] * 10
        assert owner.congested == [True]
        assert queue(session, 0, b"votes have a queue of their own")
        assert counters.values["drops_peer_queue_full"] == 10
        assert session.queued_bytes <= 2 << 20
        while not session.scope.cancel_called:
            await trio.sleep(0.01)
        assert session.reason == "peer does not read"

    run(test)


def test_congestion_ends_when_the_queue_has_drained() -> None:
    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        for _ in range(6):
            assert queue(session, 2, bytes(100_000))
        pipe.gate.set()
        await settle()
        assert owner.congested == [True, False]
        assert session.queued_bytes == 0

    run(test)


@pytest.mark.parametrize(
    "data",
    [
        frame.encode_message(0, b"before the hello")[0],
        control(HELLO) + control(HELLO),
        control(HELLO) + b"\xff" * 6,
        b"\0\0\0\1\xff\0\xc1",
    ],
    ids=["frame before hello", "two hellos", "bad chunk", "bad control"],
)
def test_faulty_peer_ends_its_session_and_is_counted(data: bytes) -> None:
    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        pipe.gate.set()
        await pipe.incoming_in.send(data)
        await settle()
        assert session.scope.cancel_called
        assert session.reason.startswith("peer at fault")
        assert counters.values["peers_at_fault"] == 1
        assert owner.frames == []

    run(test)


def test_frames_arrive_whole_and_in_order_however_the_stream_is_cut() -> None:
    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        sent = [(n % 5, random.Random(n).randbytes(n * 37)) for n in range(60)]
        data = control(HELLO) + b"".join(b"".join(frame.encode_message(c, p)) for c, p in sent)
        for start in range(0, len(data), 997):
            await pipe.incoming_in.send(data[start : start + 997])
        await settle()
        assert owner.frames == sent
        assert set(owner.notes) == {"peer"}

    run(test)


def test_ping_is_answered_with_its_nonce_and_pong_gives_the_round_trip() -> None:
    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        pipe.gate.set()
        await pipe.incoming_in.send(control(HELLO) + control(frame.Ping(nonce=9, height=77)))
        await settle()
        assert session.height == 77
        session.ping(5)
        await settle()
        got = [
            frame.decode_control(p) for _, p in frame.FrameReader(1000).feed(bytes(pipe.written))
        ]
        assert got[1] == frame.Pong(nonce=9, height=40)
        assert got[2] == frame.Ping(nonce=1, height=5)
        await pipe.incoming_in.send(control(frame.Pong(nonce=1, height=80)))
        await settle()
        assert 0 <= session.rtt_ms < 1000
        assert session.height == 80

    run(test)
