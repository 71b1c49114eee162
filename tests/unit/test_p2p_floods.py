"""What one peer can make the p2p process hold, do or pass on, without and with a hello."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from ledger.errors import InvalidInputError
from p2p import frame
from p2p.blackbox import BlackBox
from p2p.config import P2PConfig
from p2p.counters import Counters
from p2p.direct import ALLOWANCES_MAX, DirectStreams
from p2p.gossip import Gossip, GuardedPubsub
from p2p.host import GuardedHost, make_host
from p2p.identity import peer_id_of_seed
from p2p.link_codec import Kind
from p2p.link_end import LinkEnd
from p2p.peerbook import PeerBook
from p2p.rate import BURST_S
from p2p.session import PINGS_BURST, Session
from tests.unit.test_p2p_session import HELLO, Owner, Pipe, control, run, settle

OWN, VALIDATOR, STRANGER, OTHER = (peer_id_of_seed(bytes([n]) * 32) for n in range(1, 5))


def pings(count: int, first: int = 0) -> bytes:
    return b"".join(control(frame.Ping(nonce=n, height=1)) for n in range(first, first + count))


def pongs(data: bytes) -> list[int]:
    controls = [frame.decode_control(p) for _, p in frame.FrameReader(1000).feed(data)]
    return [c.nonce for c in controls if isinstance(c, frame.Pong)]


@pytest.mark.slow
def test_a_flood_of_pings_ends_the_session_and_queues_one_pong() -> None:
    """2 MiB of pings queued 209,712 pongs."""

    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        await pipe.incoming_in.send(control(HELLO) + pings(100_000))
        await settle()
        assert session.reason == "peer at fault: peer pings too often"
        assert counters.values["peers_at_fault"] == 1
        assert pongs(session._take()) == [int(PINGS_BURST) - 1]

    run(test)


def test_pings_that_come_together_get_one_answer_and_later_ones_theirs() -> None:
    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        pipe.gate.set()
        await pipe.incoming_in.send(control(HELLO) + pings(10))
        await settle()
        await pipe.incoming_in.send(pings(1, first=50))
        await settle()
        assert pongs(bytes(pipe.written)) == [9, 50]
        assert not session.scope.cancel_called

    run(test)


@pytest.mark.parametrize(
    "data",
    [
        pings(100_000),
        control(frame.Pong(nonce=1, height=1)),
        control(frame.Bye(reason="x")),
        (frame.CHUNK_BYTES_MAX).to_bytes(4, "big") + b"\0\1",
        (frame.CHUNK_BYTES_MAX).to_bytes(4, "big") + b"\xff\0",
    ],
    ids=["pings", "pong", "bye", "header of a chunk", "header of a long control"],
)
def test_nothing_but_a_hello_is_taken_first_and_a_header_is_enough_to_refuse(data: bytes) -> None:
    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        await pipe.incoming_in.send(data)
        await settle()
        assert session.reason.startswith("peer at fault")
        assert session.held_bytes <= frame.CONTROL_BYTES_MAX + frame.HEADER_BYTES
        assert not pongs(session._take())
        assert not owner.frames

    run(test)


def test_a_second_hello_is_refused_also_after_the_first_was_not_accepted() -> None:
    """Each made a goodbye and a task to close."""

    class Refuses(Owner):
        hellos = 0

        def on_hello(self, session: Session, hello: frame.Hello) -> None:
            self.hellos += 1

    async def test(session: Session, pipe: Pipe, owner: Owner, counters: Counters) -> None:
        refusing = Refuses()
        session._owner = refusing
        await pipe.incoming_in.send(control(HELLO) * 1000)
        await settle()
        assert refusing.hellos == 1
        assert "second hello" in session.reason

    run(test)


def unfinished(channel: int, count: int) -> bytes:
    """`count` full chunks of a message that does not end."""
    chunk = bytes(frame.CHUNK_BYTES_MAX)
    return (len(chunk).to_bytes(4, "big") + bytes([channel, frame.FLAG_MORE]) + chunk) * count


def test_unfinished_messages_of_one_peer_are_bounded_together() -> None:
    """Each of five channels could hold a whole message: 20 MiB a session."""
    reader = frame.FrameReader(4 << 20)
    for channel in (0, 3):
        assert not reader.feed(unfinished(channel, 16))
    assert reader.held_bytes == 8 << 20
    with pytest.raises(InvalidInputError, match="unfinished"):
        reader.feed(unfinished(1, 1))
    reader = frame.FrameReader(4 << 20)
    for _ in range(5):  # what is finished counts no more
        reader.feed(unfinished(0, 15) + unfinished(3, 15))
        end = b"".join((5).to_bytes(4, "big") + bytes([c, 0]) + bytes(5) for c in (0, 3))
        assert [(c, len(p)) for c, p in reader.feed(end)] == [
            (c, 15 * frame.CHUNK_BYTES_MAX + 5) for c in (0, 3)
        ]
        assert reader.held_bytes == 0


class Host:
    """What `DirectStreams` asks of a host at once."""

    def get_id(self) -> ID:
        return ID.from_base58(OWN)

    def set_stream_handler(self, protocol: str, handler: object) -> None:
        pass

    def get_network(self) -> Host:
        return self

    @property
    def listeners(self) -> dict[str, Host]:
        return {"": self}

    def get_addrs(self) -> list[Multiaddr]:
        return [Multiaddr("/ip4/127.0.0.1/tcp/1")]

    async def close_peer(self, peer: ID) -> None:
        pass


class Link:
    """Takes what the node would get."""

    def __init__(self) -> None:
        self.frames: list[str] = []

    def put(self, kind: Kind, *fields: Any) -> None:
        if kind is Kind.FRAME:
            self.frames.append(fields[0])

    async def room(self) -> None:
        return


class World:
    """Real direct streams and sessions on pipes."""

    def __init__(self, nursery: trio.Nursery, **changes: Any) -> None:
        self.config = P2PConfig(
            identity_seed=bytes(32),
            listen_host="127.0.0.1",
            listen_port=0,
            chain_id="c",
            genesis_hash=bytes(32),
            protocol_version=1,
            home=Path(),
            validators=(VALIDATOR,),
            **changes,
        )
        self.counters, self.link = Counters(), Link()
        self.book = PeerBook(self.config, OWN, random.Random(1))
        self.nursery = nursery
        self.direct = DirectStreams(
            host=cast(GuardedHost, Host()),
            config=self.config,
            counters=self.counters,
            link=cast(LinkEnd, self.link),
            book=self.book,
            blackbox=cast(BlackBox, Owner()),
            nursery=nursery,
        )

    def connect(self, peer: str) -> tuple[Session, Pipe]:
        pipe = Pipe()
        pipe.gate.set()
        session = Session(
            peer=peer,
            address="",
            is_inbound=True,
            stream=pipe,
            config=self.config,
            counters=self.counters,
            owner=self.direct,
        )
        self.direct.sessions[peer] = session
        self.nursery.start_soon(session.run, HELLO)
        return session, pipe


def flood(count: int, payload: bytes = b"?") -> bytes:
    return frame.encode_message(0, payload)[0] * count


@pytest.mark.slow
def test_a_strangers_frames_reach_the_node_at_their_rate_and_a_validators_at_once() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(nursery)
            rate = world.config.stranger_frames_per_s_max
            _, strange = world.connect(STRANGER)
            _, honest = world.connect(VALIDATOR)
            await strange.incoming_in.send(control(HELLO) + flood(100_000))
            await honest.incoming_in.send(control(HELLO) + flood(10_000))
            await trio.sleep(0.01)
            assert world.link.frames.count(VALIDATOR) == 10_000
            burst = rate * BURST_S
            assert world.link.frames.count(STRANGER) <= burst + 0.02 * rate
            await trio.sleep(10)
            got = world.link.frames.count(STRANGER)
            assert 0.9 * (burst + 10 * rate) <= got <= burst + 11 * rate
            assert world.direct.sessions[STRANGER].last_seen_s > trio.current_time() - 1
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.slow
def test_many_strangers_together_have_a_rate_too_and_leave_the_validators_theirs() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(nursery)
            strangers = [peer_id_of_seed(bytes([n]) * 32) for n in range(50, 80)]
            for peer in strangers:
                _, pipe = world.connect(peer)
                await pipe.incoming_in.send(control(HELLO) + flood(30_000))
            await trio.sleep(10)
            total = len(world.link.frames)
            assert total <= world.config.strangers_frames_per_s_max * (BURST_S + 10) + 60
            _, honest = world.connect(VALIDATOR)
            await honest.incoming_in.send(control(HELLO) + flood(1000, bytes(1000)))
            await trio.sleep(0.001)
            assert world.link.frames.count(VALIDATOR) == 1000
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_large_frames_are_charged_by_their_bytes_and_a_new_stream_is_no_new_allowance() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(nursery)
            session, _ = world.connect(STRANGER)
            size, rate = 1 << 20, world.config.stranger_bytes_per_s_max
            waits = [world.direct.charge(session, size) for _ in range(20)]
            assert waits[:16] == [0.0] * 16
            assert waits[-1] == pytest.approx(4 * size / rate)
            session, _ = world.connect(STRANGER)
            assert world.direct.charge(session, 0) > 0.5
            for number in range(ALLOWANCES_MAX):
                session.peer = f"other-{number}"
                world.direct.charge(session, 0)
            assert len(world.direct._allowances) == ALLOWANCES_MAX
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_what_strangers_leave_unfinished_is_bounded_for_the_process() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(nursery, strangers_held_bytes_max=3 << 20)
            most, pipe = world.connect(STRANGER)
            await pipe.incoming_in.send(control(HELLO) + unfinished(0, 8))
            other, pipe = world.connect(OTHER)
            await pipe.incoming_in.send(control(HELLO) + unfinished(0, 3))
            validator, validators = world.connect(VALIDATOR)
            await validators.incoming_in.send(control(HELLO) + unfinished(0, 12))
            await trio.sleep(0.01)
            assert not any(s.scope.cancel_called for s in (most, other, validator))
            await pipe.incoming_in.send(unfinished(0, 2))
            await trio.sleep(0.01)
            assert most.reason == "too much is unfinished"
            assert not any(s.scope.cancel_called for s in (other, validator))
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_stranger_that_the_node_drops_is_barred_and_a_validators_peer_is_not() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(nursery)
            for peer in (STRANGER, VALIDATOR):
                session, _ = world.connect(peer)
                for _ in range(3):
                    world.direct.disconnect(peer, "too many faults")
                await trio.sleep(1)
                assert session.reason == "too many faults"
            assert world.book.is_barred(STRANGER, trio.current_time())
            assert not world.book.is_barred(VALIDATOR, trio.current_time())
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


class FailingPubsub:
    """Raises for the first message, takes the others."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    async def publish(self, topic: str, payload: bytes) -> None:
        self.taken.append(payload)
        if len(self.taken) == 1:
            raise RuntimeError("a bug of the library")


def test_a_message_that_can_not_be_published_does_not_end_the_publisher() -> None:
    """Its exception ended the p2p process."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(nursery)
            gossip = Gossip(
                host=make_host(world.config, world.counters),
                config=world.config,
                counters=world.counters,
                is_up=lambda _: True,
                admits=world.direct.admits_gossip,
                note=lambda _: None,
                deliver=lambda *_: None,
            )
            pubsub = FailingPubsub()
            gossip.pubsub = cast(GuardedPubsub, pubsub)
            nursery.start_soon(gossip.publish_loop)
            for payload in (b"one", b"two"):
                gossip.publish("tx/c", payload)
            await trio.sleep(1)
            assert pubsub.taken == [b"one", b"two"]
            assert world.counters.values["gossip_faults"] == 1
            assert world.counters.values["gossip_out"] == 1
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_gossip_of_strangers_is_refused_past_their_share_and_makes_no_debt() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            world = World(nursery)
            admitted = [world.direct.admits_gossip(STRANGER, 900 << 10) for _ in range(1000)]
            burst = world.config.stranger_bytes_per_s_max * BURST_S
            assert sum(admitted) == burst // (900 << 10)
            await trio.sleep(0.25)
            assert world.direct.admits_gossip(STRANGER, 900 << 10)
            assert all(world.direct.admits_gossip(VALIDATOR, 900 << 10) for _ in range(200))
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
