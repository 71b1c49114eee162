"""The p2p process's end of the socketpair: one reader, one writer, a bounded queue between."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import trio

from ledger.errors import InvalidInputError
from p2p import link_codec
from p2p.config import P2PConfig, config_of_fields

READ_BYTES = 256 << 10
CONFIG_BYTES_MAX = 1 << 20


class LinkEnd:
    """Messages to the node are queued by `put` and leave many at a time."""

    def __init__(self, link_socket: socket.socket) -> None:
        link_socket.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(link_socket))
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._queue_bytes_max = 0
        self._reader = link_codec.LinkReader(CONFIG_BYTES_MAX)
        self._unread: list[list[Any]] = []
        self._wake = trio.Event()
        self._room = trio.Event()

    def put(self, kind: link_codec.Kind, *fields: Any) -> None:
        """Queue a message for the node. Never refuses: who reads from peers awaits `room`."""
        data = link_codec.encode(kind, *fields)
        self._queue.append(data)
        self._queued_bytes += len(data)
        self._wake.set()

    @property
    def is_full(self) -> bool:
        return self._queued_bytes > self._queue_bytes_max

    async def room(self) -> None:
        """Return once the node has taken enough of what is queued."""
        while self.is_full:
            self._room = trio.Event()
            await self._room.wait()

    async def write_loop(self) -> None:
        """Runs until the node goes away (trio.BrokenResourceError)."""
        while True:
            if not self._queue:
                self._wake = trio.Event()
                await self._wake.wait()
            batch, self._queue = self._queue, []
            data = b"".join(batch)
            await self._stream.send_all(data)
            self._queued_bytes -= len(data)
            self._room.set()

    async def receive_config(self) -> tuple[P2PConfig, dict[str, float]]:
        """The first message: settings, and the peers to keep out with the seconds for each."""
        while not self._unread:
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                raise InvalidInputError("the node closed the link before it sent a config")
            self._unread += self._reader.feed(bytes(data))
        message = self._unread.pop(0)
        if message[0] != link_codec.Kind.CONFIG:
            raise InvalidInputError("the node's first message is no config")
        config = config_of_fields(message[1]["config"])
        self._queue_bytes_max = config.link_queue_bytes_max
        self._reader.allow_payload(max(config.frame_bytes_max, config.gossip_bytes_max))
        return config, message[1]["quarantine_s"]

    async def read_loop(self, dispatch: Callable[[list[Any]], None]) -> None:
        """Runs until the node closes its end."""
        while True:
            for message in self._unread:
                dispatch(message)
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                return
            self._unread = self._reader.feed(bytes(data))
