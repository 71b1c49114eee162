"""Frames on the direct stream between two peers (docs/protocol.md, "Direct stream").

A message travels as chunks, so that a vote never waits behind a whole 4 MiB sync answer:

    chunk = length u32 BE | channel u8 | flags u8 | payload (length bytes, at most 256 KiB)

Flag bit 0 = more chunks of this message follow; other bits must be 0. Chunks of one channel
are in order, chunks of different channels may interleave. A chunk with `more` is not empty.
Channel 255 is the stream's own: its payloads are the canonical arrays

    hello = [0, "zynk/p2p/1", chain_id, genesis_hash 32, protocol_version, height, listen_port]
    ping  = [1, nonce u64, height]      pong = [2, nonce u64, height]
    bye   = [3, reason]

The first message either way is hello: until the reader is opened, a chunk of any other channel is
refused by its header. Any fault is the peer's: InvalidInputError, and the connection ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from ledger import codec
from ledger.errors import InvalidInputError
from p2p.config import CHAIN_ID_CHARS_MAX, CHANNEL_COUNT, GENESIS_HASH_BYTES

CHUNK_BYTES_MAX = 256 << 10  # what a reader accepts
CHUNK_BYTES = 60 << 10  # what a writer sends: one Yamux frame, one Noise message
CHANNEL_CONTROL = 255
CONTROL_BYTES_MAX = 512
PROTOCOL_TEXT = "zynk/p2p/1"
REASON_CHARS_MAX = 100
FLAG_MORE = 1

_HEADER = Struct(">IBB")
HEADER_BYTES = _HEADER.size
_HELLO, _PING, _PONG, _BYE = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What each side says first. `listen_port` 0 means: cannot be dialled."""

    chain_id: str
    genesis_hash: bytes
    protocol_version: int
    height: int
    listen_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """A sign of life that also tells the sender's height."""

    nonce: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """The answer to the ping with the same nonce."""

    nonce: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """The sender closes the connection, and why."""

    reason: str


Control = Hello | Ping | Pong | Bye


def encode_message(channel: int, payload: bytes) -> list[bytes]:
    """Cut a message into chunks ready to be written one after the other."""
    size = len(payload)
    if size <= CHUNK_BYTES:
        return [_HEADER.pack(size, channel, 0) + payload]
    chunks = []
    view = memoryview(payload)
    for start in range(0, size, CHUNK_BYTES):
        part = view[start : start + CHUNK_BYTES]
        more = FLAG_MORE if start + CHUNK_BYTES < size else 0
        chunks.append(_HEADER.pack(len(part), channel, more) + part)
    return chunks


class FrameReader:
    """Turns the bytes of one stream into whole messages, however they were cut.

    Holds at most one unfinished chunk and one unfinished message a channel, and of all those
    messages together at most twice the largest: a proposal beside a sync answer.
    """

    def __init__(self, frame_bytes_max: int, *, is_open: bool = True) -> None:
        self.is_open = is_open
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._parts: dict[int, bytearray] = {}
        self._parts_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What the unfinished chunk and messages take."""
        return len(self._buffer) + self._parts_bytes

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """All of `messages` at once."""
        return list(self.messages(data))

    def messages(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Take bytes, give the finished messages as (channel, payload) one by one, each before
        the next chunk is looked at. To be exhausted before the next call.

        Raises InvalidInputError on the first malformed chunk; the reader is useless after that.
        """
        buffer = self._buffer
        if buffer:
            buffer += data
            data = bytes(buffer)
            buffer.clear()
        position, end = 0, len(data)
        while end - position >= HEADER_BYTES:
            length, channel, flags = _HEADER.unpack_from(data, position)
            self._check(length, channel, flags)
            start = position + HEADER_BYTES
            if end - start < length:
                break
            position = start + length
            payload = data[start:position]
            parts = self._parts.get(channel)
            if parts is None and not flags:
                yield channel, payload
            elif flags:
                self._parts.setdefault(channel, bytearray()).extend(payload)
                self._parts_bytes += length
            else:
                assert parts is not None
                self._parts_bytes -= len(parts)
                parts += payload
                del self._parts[channel]
                yield channel, bytes(parts)
        if position < end:
            buffer += data[position:] if position else data

    def _check(self, length: int, channel: int, flags: int) -> None:
        if channel >= CHANNEL_COUNT and channel != CHANNEL_CONTROL:
            raise InvalidInputError("frame has an unknown channel", got=str(channel))
        if not self.is_open and channel != CHANNEL_CONTROL:
            raise InvalidInputError("peer sent a frame before its hello")
        if flags > FLAG_MORE:
            raise InvalidInputError("frame has unknown flags", got=str(flags))
        if flags and not length:
            raise InvalidInputError("frame has an empty chunk with more to follow")
        maximum = CONTROL_BYTES_MAX if channel == CHANNEL_CONTROL else self._frame_bytes_max
        parts = self._parts.get(channel)
        total = length + (len(parts) if parts is not None else 0)
        if length > CHUNK_BYTES_MAX or total > maximum:
            raise InvalidInputError(
                "frame is too long", expected=f"at most {maximum} B", got=f"{total} B"
            )
        held_max = 2 * self._frame_bytes_max
        if (flags or parts is not None) and self._parts_bytes + length > held_max:
            raise InvalidInputError(
                "too many frames are unfinished", expected=f"at most {held_max} B in all"
            )


def encode_control(control: Control) -> bytes:
    """The payload of a control message; send it on channel 255."""
    match control:
        case Hello():
            return codec.encode(
                [
                    _HELLO,
                    PROTOCOL_TEXT,
                    control.chain_id,
                    control.genesis_hash,
                    control.protocol_version,
                    control.height,
                    control.listen_port,
                ]
            )
        case Ping():
            return codec.encode([_PING, control.nonce, control.height])
        case Pong():
            return codec.encode([_PONG, control.nonce, control.height])
        case Bye():
            return codec.encode([_BYE, control.reason[:REASON_CHARS_MAX]])


def decode_control(data: bytes) -> Control:
    """Inverse of `encode_control`; raises InvalidInputError for any other bytes."""
    value = codec.decode(data, bytes_max=CONTROL_BYTES_MAX)
    if type(value) is not list or not value:
        raise InvalidInputError("control message is malformed", expected="an array")
    kind = value[0]
    if type(kind) is not int or not _HELLO <= kind <= _BYE:
        raise InvalidInputError("control message has an unknown kind", got=repr(kind)[:40])
    if kind == _HELLO:
        return _decode_hello(value)
    if kind == _BYE:
        fields = codec.read_array(value, 2, "bye")
        return Bye(reason=codec.read_str(fields[1], "bye reason", REASON_CHARS_MAX))
    fields = codec.read_array(value, 3, "ping")
    nonce = codec.read_int(fields[1], "ping nonce")
    height = codec.read_int(fields[2], "ping height")
    return Ping(nonce=nonce, height=height) if kind == _PING else Pong(nonce=nonce, height=height)


def _decode_hello(value: object) -> Hello:
    fields = codec.read_array(value, 7, "hello")
    if fields[1] != PROTOCOL_TEXT:
        raise InvalidInputError("hello is of another protocol", got=repr(fields[1])[:40])
    return Hello(
        chain_id=codec.read_str(fields[2], "hello chain id", CHAIN_ID_CHARS_MAX),
        genesis_hash=codec.read_bytes(fields[3], "hello genesis hash", length=GENESIS_HASH_BYTES),
        protocol_version=codec.read_int(fields[4], "hello protocol version", 2**32 - 1),
        height=codec.read_int(fields[5], "hello height"),
        listen_port=codec.read_int(fields[6], "hello listen port", 65535),
    )
