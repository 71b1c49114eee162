"""Messages on the socketpair between the node and its p2p process.

    frame = length u32 BE | msgpack array [kind, ...fields]

Both ends are ours and of one version, so the array need not be canonical; but the p2p process
faces strangers, so the node checks kind, field types and sizes, and takes any fault as a
broken process (InvalidInputError -> restart). `SCHEMAS` lists the fields of each kind.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Any

import msgpack

from ledger.errors import InvalidInputError

_LENGTH = Struct(">I")
OVERHEAD_BYTES_MAX = 4096  # kind, names and peer ids beside the payload


class Kind(IntEnum):
    """Kinds below 20 go to the p2p process, the others to the node."""

    CONFIG = 0
    SEND = 1
    BROADCAST = 2
    PUBLISH = 3
    ADD_PEER = 4
    DISCONNECT = 5
    SET_HEIGHT = 6
    LISTENING = 20
    PEER_UP = 21
    PEER_DOWN = 22
    FRAME = 23
    GOSSIP = 24
    REPORT = 25
    CONGESTED = 26
    LOG = 27


SCHEMAS: dict[int, tuple[type, ...]] = {
    Kind.CONFIG: (dict,),
    Kind.SEND: (str, int, bytes),  # peer, channel, payload
    Kind.BROADCAST: (int, bytes),  # channel, payload
    Kind.PUBLISH: (str, bytes),  # topic, payload
    Kind.ADD_PEER: (str,),  # multiaddr
    Kind.DISCONNECT: (str, str),  # peer, reason
    Kind.SET_HEIGHT: (int,),
    Kind.LISTENING: (str, str),  # full multiaddr, peer id
    Kind.PEER_UP: (str, str, bool, int),  # peer, address, inbound, height
    Kind.PEER_DOWN: (str, str),  # peer, reason
    Kind.FRAME: (str, int, bytes),  # peer, channel, payload
    Kind.GOSSIP: (str, str, bytes),  # author, topic, payload
    Kind.REPORT: (dict, list),  # counters, peers
    Kind.CONGESTED: (str, bool),  # peer, whether its bulk queue is over half full
    Kind.LOG: (str,),
}


def encode(kind: Kind, *fields: Any) -> bytes:
    """One frame, length included."""
    body: bytes = msgpack.packb((int(kind), *fields), use_bin_type=True)
    return _LENGTH.pack(len(body)) + body


class LinkReader:
    """Splits the link's bytes into messages; each is the list [kind, ...fields], checked."""

    def __init__(self, payload_bytes_max: int) -> None:
        self._bytes_max = payload_bytes_max + OVERHEAD_BYTES_MAX
        self._buffer = bytearray()

    def allow_payload(self, payload_bytes_max: int) -> None:
        self._bytes_max = payload_bytes_max + OVERHEAD_BYTES_MAX

    def feed(self, data: bytes) -> list[list[Any]]:
        """Take bytes, return whole messages. Raises InvalidInputError for a malformed one."""
        buffer = self._buffer
        buffer += data
        messages: list[list[Any]] = []
        position, end = 0, len(buffer)
        while end - position >= 4:
            (length,) = _LENGTH.unpack_from(buffer, position)
            if length > self._bytes_max:
                raise InvalidInputError(
                    "link frame is too long",
                    expected=f"at most {self._bytes_max} B",
                    got=f"{length} B",
                )
            stop = position + 4 + length
            if stop > end:
                break
            with memoryview(buffer) as view, view[position + 4 : stop] as body:
                messages.append(_decode(body))
            position = stop
        if position:
            del buffer[:position]
        return messages


def _decode(body: memoryview) -> list[Any]:
    try:
        message = msgpack.unpackb(body, raw=False, use_list=True)
    except Exception as error:  # msgpack raises ValueError, UnpackException, RecursionError, ...
        raise InvalidInputError("link frame is not msgpack", got=type(error).__name__) from None
    if type(message) is not list or not message or type(message[0]) is not int:
        raise InvalidInputError("link frame is malformed", expected="[kind, ...]")
    schema = SCHEMAS.get(message[0])
    if schema is None or len(schema) != len(message) - 1:
        raise InvalidInputError("link frame has an unknown shape", got=f"kind {message[0]}")
    for value, wanted in zip(message[1:], schema, strict=True):
        if type(value) is not wanted:
            raise InvalidInputError(
                "link frame has a field of another type",
                expected=wanted.__name__,
                got=type(value).__name__,
            )
    return message
