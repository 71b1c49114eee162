"""One peer's direct stream: its send queue, its reader, its signs of life.

The writer takes what is queued, lowest channel first, and writes it at once, at most
`BATCH_BYTES`: so votes overtake sync answers, and a burst of votes costs one write. Channel 0
has a queue of its own, the others share one; both are bounded, and what does not fit is dropped
and counted, never waited for: a frozen peer holds up nobody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import trio

from ledger.errors import InvalidInputError
from p2p import frame
from p2p.config import CHANNEL_CONSENSUS, CHANNEL_COUNT, P2PConfig, PeerId
from p2p.counters import Counters
from p2p.rate import TokenBucket

READ_BYTES = 256 << 10
WINDOW_BYTES = 1 << 20  # at most, of a peer whose hello was accepted
BATCH_BYTES = 120 << 10  # two full chunks; half a Yamux window, 3 ms of line
PINGS_PER_S_MAX = 4.0  # honest peers send one in some seconds
PINGS_BURST = 32.0
HELD_BYTES_FREE = 64 << 10  # unfinished messages up to this are not worth adding up


class ByteStream(Protocol):
    """What a session needs of a muxed stream."""

    async def read(self, n: int | None = ...) -> bytes: ...
    async def write(self, data: bytes) -> None: ...
    def enlarge_window(self, size: int) -> None: ...


class SessionOwner(Protocol):
    """Who a session reports to; all calls are synchronous and quick."""

    def on_hello(self, session: Session, hello: frame.Hello) -> None: ...
    def on_frame(self, session: Session, channel: int, payload: bytes) -> None: ...
    def on_congested(self, session: Session, is_congested: bool) -> None: ...
    def charge(self, session: Session, size: int) -> float: ...
    def on_held(self, session: Session) -> None: ...
    def note(self, peer: PeerId) -> None: ...
    async def room(self) -> None: ...
    @property
    def height(self) -> int: ...


class Session:
    """A direct stream with one peer, from the hello to the end."""

    def __init__(
        self,
        *,
        peer: PeerId,
        address: str,
        is_inbound: bool,
        stream: ByteStream,
        config: P2PConfig,
        counters: Counters,
        owner: SessionOwner,
    ) -> None:
        self.peer = peer
        self.address = address
        self.is_inbound = is_inbound
        self.is_up = False
        self.height = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.rtt_ms = -1.0
        self.last_seen_s = trio.current_time()
        self.reason = "connection closed"
        self.scope = trio.CancelScope()
        self._stream = stream
        self._config = config
        self._counters = counters
        self._owner = owner
        self._control: deque[bytes] = deque()
        self._pong: frame.Pong | None = None
        self._pings = TokenBucket(PINGS_PER_S_MAX, trio.current_time(), PINGS_BURST)
        self._is_greeted = False
        self._queues: list[deque[bytes]] = [deque() for _ in range(CHANNEL_COUNT)]
        self._consensus_bytes = 0
        self._bulk_bytes = 0
        self._is_congested = False
        self._wake = trio.Event()
        self._reader = frame.FrameReader(config.frame_bytes_max, is_open=False)
        self._ping_nonce = 0
        self._ping_sent_s = 0.0

    # --- sending ---

    def send(self, channel: int, chunks: list[bytes]) -> bool:
        """Queue a message's chunks; False (and counted) if there is no room."""
        size = sum(map(len, chunks))
        maximum = self._config.peer_queue_bytes_max
        if channel == CHANNEL_CONSENSUS:
            if self._consensus_bytes + size > maximum:
                self._counters.add("drops_peer_queue_full")
                return False
            self._consensus_bytes += size
        else:
            if self._bulk_bytes + size > maximum:
                self._counters.add("drops_peer_queue_full")
                return False
            self._bulk_bytes += size
            if not self._is_congested and self._bulk_bytes > maximum // 2:
                self._is_congested = True
                self._owner.on_congested(self, True)
        self._queues[channel].extend(chunks)
        self._wake.set()
        return True

    def send_control(self, control: frame.Control) -> None:
        self._control.extend(
            frame.encode_message(frame.CHANNEL_CONTROL, frame.encode_control(control))
        )
        self._wake.set()

    def ping(self, height: int) -> None:
        """Send a sign of life; the answer gives the round trip."""
        self._ping_nonce += 1
        self._ping_sent_s = trio.current_time()
        self.send_control(frame.Ping(nonce=self._ping_nonce, height=height))

    @property
    def queued_bytes(self) -> int:
        return self._consensus_bytes + self._bulk_bytes

    @property
    def held_bytes(self) -> int:
        """What the peer's unfinished messages take."""
        return self._reader.held_bytes

    def _take(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        if self._pong is not None:  # the newest answers for all before it
            pong, self._pong = self._pong, None
            self.send_control(pong)
        control = self._control
        while control:
            parts.append(control.popleft())
        for channel, queue in enumerate(self._queues):
            taken = 0
            while queue and size + taken < BATCH_BYTES:
                chunk = queue.popleft()
                parts.append(chunk)
                taken += len(chunk)
            size += taken
            if channel == CHANNEL_CONSENSUS:
                self._consensus_bytes -= taken
            else:
                self._bulk_bytes -= taken
            if size >= BATCH_BYTES:
                break
        if self._is_congested and self._bulk_bytes < self._config.peer_queue_bytes_max // 4:
            self._is_congested = False
            self._owner.on_congested(self, False)
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def accept(self, height: int) -> None:
        """The peer's hello is fine: its frames count from now on."""
        self.is_up = True
        self._reader.is_open = True
        self.height = height
        self._stream.enlarge_window(WINDOW_BYTES)

    # --- running ---

    async def run(self, hello: frame.Hello) -> None:
        """Exchange hellos, then read and write until the connection ends, for any reason."""
        self.send_control(hello)
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._guard, self._write_loop)
                nursery.start_soon(self._guard, self._read_loop)

    async def _guard(self, loop: Callable[[], Any]) -> None:
        try:
            await loop()
        except InvalidInputError as error:
            self.close(f"peer at fault: {error}")
            self._counters.add("peers_at_fault")
        except Exception as error:  # the library raises many types for "the connection is gone"
            self.close(f"{type(error).__name__}: {error}"[:100])

    def close(self, reason: str) -> None:
        """End the session; the first reason given is the one told."""
        if not self.scope.cancel_called:
            self.reason = reason
            self.scope.cancel()

    async def _write_loop(self) -> None:
        stream, timeout_s = self._stream, self._config.write_timeout_s
        while True:
            data = self._take()
            if not data:
                self._wake = trio.Event()
                await self._wake.wait()
                continue
            with trio.move_on_after(timeout_s) as scope:
                await stream.write(data)
            if scope.cancelled_caught:
                self.close("peer does not read")
                return
            self.bytes_out += len(data)
            self._counters.add("bytes_out", len(data))

    async def _read_loop(self) -> None:
        stream, owner, counters = self._stream, self._owner, self._counters
        while True:
            data = await stream.read(READ_BYTES)
            if not data:
                self.close("peer closed the stream")
                return
            owner.note(self.peer)
            self.last_seen_s = trio.current_time()
            self.bytes_in += len(data)
            counters.add("bytes_in", len(data))
            for channel, payload in self._reader.messages(data):
                if channel == frame.CHANNEL_CONTROL:
                    self._on_control(payload)
                    continue
                counters.add("frames_in")
                owner.on_frame(self, channel, payload)
                wait_s = owner.charge(self, len(payload))
                if wait_s > 0.0:  # Yamux's window fills, and the sender waits too
                    counters.add("frames_paced")
                    await trio.sleep(wait_s)
                    self.last_seen_s = trio.current_time()
            if self.held_bytes > HELD_BYTES_FREE:
                owner.on_held(self)
            await owner.room()

    def _on_control(self, payload: bytes) -> None:
        control = frame.decode_control(payload)
        match control:
            case frame.Hello():
                if self._is_greeted:
                    raise InvalidInputError("peer sent a second hello")
                self._is_greeted = True
                self._owner.on_hello(self, control)
            case _ if not self._is_greeted:
                raise InvalidInputError("peer's first message is no hello")
            case frame.Ping():
                if not self._pings.take(1.0, self.last_seen_s):
                    raise InvalidInputError("peer pings too often")
                self.height = max(self.height, control.height)
                self._pong = frame.Pong(nonce=control.nonce, height=self._owner.height)
                self._wake.set()
            case frame.Pong():
                self.height = max(self.height, control.height)
                if control.nonce == self._ping_nonce:
                    self.rtt_ms = (self.last_seen_s - self._ping_sent_s) * 1000.0
            case frame.Bye():
                self.close(f"peer said: {control.reason}")
