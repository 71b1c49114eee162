"""Any bytes into the frame decoders of p2p: InvalidInputError or a message, nothing else."""

from __future__ import annotations

import contextlib
import itertools
import os

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import codec
from ledger.errors import InvalidInputError
from p2p import frame, link_codec
from p2p.config import CHANNEL_COUNT

pytestmark = pytest.mark.slow
EXAMPLES = 10_000 if os.environ.get("ZYNK_SOAK") else 200
FRAME_MAX = 200_000
channels = st.integers(0, CHANNEL_COUNT - 1)
scalars = st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.binary(max_size=40) | st.text()
controls = st.one_of(
    st.builds(
        frame.Hello,
        chain_id=st.text(max_size=64),
        genesis_hash=st.binary(min_size=32, max_size=32),
        protocol_version=st.integers(0, 2**32 - 1),
        height=st.integers(0, 2**64 - 1),
        listen_port=st.integers(0, 65535),
    ),
    st.builds(frame.Ping, nonce=st.integers(0, 2**64 - 1), height=st.integers(0, 2**64 - 1)),
    st.builds(frame.Pong, nonce=st.integers(0, 2**64 - 1), height=st.integers(0, 2**64 - 1)),
    st.builds(frame.Bye, reason=st.text(max_size=100)),
)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.tuples(channels, st.binary(max_size=300) | st.just(bytes(150_000))), max_size=6),
    st.lists(st.integers(0, 10**6), max_size=12),
)
def test_messages_survive_any_cutting_of_the_stream(
    messages: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(b"".join(frame.encode_message(c, p)) for c, p in messages)
    reader = frame.FrameReader(FRAME_MAX)
    assert [m for part in cut(data, cuts) for m in reader.feed(part)] == messages


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(channels, st.binary(max_size=130_000)), max_size=4), st.randoms())
def test_chunks_of_different_channels_may_interleave(
    messages: list[tuple[int, bytes]], rng: object
) -> None:
    queues: dict[int, list[bytes]] = {}
    for channel, payload in messages:
        queues.setdefault(channel, []).extend(frame.encode_message(channel, payload))
    stream = []
    while queues:
        channel = rng.choice(sorted(queues))  # type: ignore[attr-defined]  # a random.Random
        stream.append(queues[channel].pop(0))
        if not queues[channel]:
            del queues[channel]
    got = frame.FrameReader(FRAME_MAX).feed(b"".join(stream))
    for channel in range(CHANNEL_COUNT):
        assert [p for c, p in got if c == channel] == [p for c, p in messages if c == channel]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=4))
def test_random_bytes_on_a_stream_give_frames_or_invalid_input(
    data: bytes, cuts: list[int]
) -> None:
    reader = frame.FrameReader(1_000)
    with contextlib.suppress(InvalidInputError):
        for part in cut(data, cuts):
            for channel, payload in reader.feed(part):
                assert channel < CHANNEL_COUNT or channel == frame.CHANNEL_CONTROL
                assert len(payload) <= 1_000


@settings(max_examples=EXAMPLES, deadline=None)
@given(controls)
def test_control_messages_round_trip(control: frame.Control) -> None:
    assert frame.decode_control(frame.encode_control(control)) == control


@settings(max_examples=EXAMPLES, deadline=None)
@given(controls, st.integers(0, 10**4), st.binary(min_size=1, max_size=3))
def test_truncated_or_longer_control_messages_are_refused(
    control: frame.Control, where: int, more: bytes
) -> None:
    data = frame.encode_control(control)
    for wrong in (data[: where % len(data)], data + more):
        with pytest.raises(InvalidInputError):
            frame.decode_control(wrong)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=80) | st.lists(scalars, max_size=8).map(codec.encode))
def test_random_control_bytes_give_a_message_or_invalid_input(data: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        assert frame.encode_control(frame.decode_control(data)) == data


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.binary(max_size=400)
    | st.lists(scalars | st.lists(scalars, max_size=3), max_size=5).map(
        lambda fields: len(msgpack.packb(fields)).to_bytes(4, "big") + msgpack.packb(fields)
    ),
    st.lists(st.integers(0, 400), max_size=4),
)
def test_random_link_bytes_give_checked_messages_or_invalid_input(
    data: bytes, cuts: list[int]
) -> None:
    reader = link_codec.LinkReader(1_000)
    with contextlib.suppress(InvalidInputError):
        for part in cut(data, cuts):
            for kind, *fields in reader.feed(part):
                assert tuple(type(field) for field in fields) == link_codec.SCHEMAS[kind]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=20), channels, st.binary(max_size=500)), max_size=5),
    st.lists(st.integers(0, 10**4), max_size=8),
)
def test_link_messages_survive_any_cutting(
    sends: list[tuple[str, int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(link_codec.encode(link_codec.Kind.SEND, *send) for send in sends)
    reader = link_codec.LinkReader(1_000)
    got = [message for part in cut(data, cuts) for message in reader.feed(part)]
    assert got == [[link_codec.Kind.SEND, *send] for send in sends]
