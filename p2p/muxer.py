"""Yamux without the waste: libp2p's wire format and bookkeeping, another engine.

The stock muxer reads a frame by two or more awaited reads through five layers, formats log lines
nobody sees, takes three locks a frame, sends a window update for each read and polls every 10 ms
while a window is closed. Here the socket is read 256 KiB at a time, Noise packets and frames are
cut out of the buffer inline, a write is one send, and a closed window is waited for by an event.
Figures in docs/adr/0003. Wire: https://github.com/hashicorp/yamux/blob/master/spec.md

    frame = version u8 0 | type u8 | flags u16 | stream id u32 | length u32 | data if type 0

Bounds the stock code lacks: a peer that sends past its window, opens more than
`INBOUND_STREAMS_MAX` streams or does not read our answers loses its connection.

The read loop never waits for the write side: answers (ACK, PONG, RST, window updates) are queued
and leave with the next write, so two peers whose sockets are both full cannot wait for each
other. A write that is cancelled half-way leaves a torn packet, so it closes the socket.
"""

from __future__ import annotations

import logging
from struct import Struct
from typing import Any

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.security.noise.io import NoiseTransportReadWriter
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from ledger.errors import InvalidInputError

WINDOW_FIRST_BYTES = 256 << 10  # given by the protocol
DATA_BYTES_MAX = (64 << 10) - 64  # a frame with its header fits one Noise packet
NOISE_PLAIN_BYTES_MAX = 65535 - 16
READ_BYTES = 256 << 10
WRITE_BYTES = 256 << 10
WINDOW_TIMEOUT_S = 10.0
INBOUND_STREAMS_MAX = 64
ANSWERS_MAX = 4096
DATA_ACCEPTED_BYTES_MAX = 1 << 20

_DATA, _WINDOW_UPDATE, _PING, _GO_AWAY = range(4)
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8
_HEADER = Struct(">BBHII")
_HEADER_BYTES = _HEADER.size
logger = logging.getLogger("zynk.p2p")


class LeanStream(YamuxStream):
    """A stream whose reads and writes take no lock."""

    def __init__(self, stream_id: int, conn: Any, is_initiator: bool) -> None:
        super().__init__(stream_id, conn, is_initiator)
        self.window_opened = trio.Event()
        self._window_bytes = WINDOW_FIRST_BYTES
        self._unreleased_bytes = 0

    def enlarge_window(self, size: int) -> None:
        """Let the peer have up to `size` bytes under way; for a stream that is always read."""
        more = size - self._window_bytes + self._unreleased_bytes
        if size > self._window_bytes and not self.recv_closed:
            self._window_bytes = size
            self._unreleased_bytes = 0
            self.recv_window += more
            self.conn.answer(_WINDOW_UPDATE, 0, self.stream_id, more)

    async def read(self, n: int | None = -1) -> bytes:
        """Up to `n` bytes as soon as there are any (all there are for -1 or None)."""
        conn, stream_id = self.conn, self.stream_id
        if n == 0:
            return b""
        while True:
            buffer = conn.stream_buffers.get(stream_id)
            if buffer:
                if n is None or n < 0 or n >= len(buffer):
                    data = bytes(buffer)
                    buffer.clear()
                else:
                    data = bytes(buffer[:n])
                    del buffer[:n]
                self._release(len(data))
                if self.closed and not buffer:
                    await conn._finalize_stream(self, fully_closed=True)
                return data
            if self.reset_received:
                raise MuxedStreamReset("stream was reset")
            event = conn.stream_events.get(stream_id)
            if buffer is None or event is None or self.recv_closed or self.closed:
                raise MuxedStreamEOF("stream is closed for receiving")
            await event.wait()
            if conn.stream_events.get(stream_id) is event:
                conn.stream_events[stream_id] = trio.Event()

    def _release(self, size: int) -> None:
        """Give window back, half a window at a time."""
        self._unreleased_bytes += size
        if 2 * self._unreleased_bytes >= self._window_bytes and not self.recv_closed:
            self.recv_window += self._unreleased_bytes
            self.conn.answer(_WINDOW_UPDATE, 0, self.stream_id, self._unreleased_bytes)
            self._unreleased_bytes = 0

    async def write(self, data: bytes) -> None:
        """Write all of `data`, as far as the window allows at once."""
        position, end = 0, len(data)
        while position < end:
            while self.send_window <= 0 and not self.closed:
                self.window_opened = trio.Event()
                with trio.move_on_after(WINDOW_TIMEOUT_S) as scope:
                    await self.window_opened.wait()
                if scope.cancelled_caught:
                    raise MuxedStreamError("the peer opens no window")
            if self.closed or self.send_closed:
                raise MuxedStreamError("stream is closed for sending")
            budget = min(self.send_window, end - position, WRITE_BYTES)
            self.send_window -= budget
            parts: list[bytes] = []
            stop = position + budget
            while position < stop:
                part = data[position : min(position + DATA_BYTES_MAX, stop)]
                parts.append(_HEADER.pack(0, _DATA, 0, self.stream_id, len(part)))
                parts.append(part)
                position += len(part)
            await self.conn._write_frame(b"".join(parts))


class LeanYamux(Yamux):
    """A muxed connection whose fault ends itself and no more."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.new_stream_send_channel, self.new_stream_receive_channel = trio.open_memory_channel(
            INBOUND_STREAMS_MAX
        )
        noise = self.secured_conn.conn
        if not isinstance(noise, NoiseTransportReadWriter):
            raise ConnectionClosedError("the connection is not secured by Noise")
        self._encrypt = noise.noise_state.encrypt
        self._decrypt = noise.noise_state.decrypt
        self._socket: trio.SocketStream = noise.read_writer.read_write_closer.stream.stream
        self._answers: list[bytes] = []
        self._rtt = 0.0

    async def start(self) -> None:
        """Serve the connection to its end; raises nothing."""
        try:
            await super().start()
        except Exception as error:  # otherwise the swarm's nursery ends, and the process with it
            logger.warning("muxer of %s failed: %r", self.peer_id, error)
        finally:
            self.event_started.set()
            if not self.event_closed.is_set():
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                    await self._cleanup_on_error()

    async def open_stream(self) -> LeanStream:
        """As the stock one, with a lean stream."""
        await self.stream_backlog_semaphore.acquire()
        if self.event_shutting_down.is_set():
            self.stream_backlog_semaphore.release()
            raise MuxedStreamError("connection is shutting down")
        stream = self._add(self.next_stream_id, is_initiator=True)
        self.next_stream_id += 2
        stream._owns_backlog_slot = True
        try:
            await self._write_frame(_HEADER.pack(0, _WINDOW_UPDATE, _SYN, stream.stream_id, 0))
        except BaseException:
            stream.closed = True
            with trio.CancelScope(shield=True):
                await self._finalize_stream(stream, fully_closed=True)
            raise
        return stream

    def _add(self, stream_id: int, *, is_initiator: bool) -> LeanStream:
        stream = LeanStream(stream_id, self, is_initiator)
        self.streams[stream_id] = stream
        self.stream_buffers[stream_id] = bytearray()
        self.stream_events[stream_id] = trio.Event()
        return stream

    # --- writing ---

    def answer(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        """Queue a frame of the muxer itself; it leaves with the next write, at once if none."""
        if len(self._answers) >= ANSWERS_MAX:
            raise InvalidInputError("peer does not read the muxer's answers")
        self._answers.append(_HEADER.pack(0, kind, flags, stream_id, length))
        if len(self._answers) == 1 and self._nursery is not None:
            self._nursery.start_soon(self._flush)

    async def _flush(self) -> None:
        try:
            if self._answers:
                await self._write_frame(b"")
        except ConnectionClosedError:
            logger.debug("connection ended before the muxer's answer left")

    async def _write_frame(self, data: bytes) -> None:
        """Send frames, and what answers are queued, as one write of the socket."""
        async with self._write_lock:
            if self._answers:
                answers, self._answers = self._answers, []
                data = b"".join((*answers, data))
            packets: list[bytes] = []
            for start in range(0, len(data), NOISE_PLAIN_BYTES_MAX):
                packet = self._encrypt(data[start : start + NOISE_PLAIN_BYTES_MAX])
                packets.append(len(packet).to_bytes(2, "big"))
                packets.append(packet)
            try:
                await self._socket.send_all(b"".join(packets))
            except trio.Cancelled:
                self._socket.socket.close()  # the packet may be torn: nothing can follow it
                raise
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
                raise ConnectionClosedError("connection closed", transport="tcp") from error

    # --- reading ---

    async def handle_incoming(self) -> None:
        """Read until the connection ends, for whatever reason."""
        try:
            await self._pump()
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            logger.debug("connection with %s ended: %r", self.peer_id, error)
        except Exception as error:  # a fault of the peer: bad packet, frame or window
            logger.info("muxer fault of %s: %r", self.peer_id, error)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                await self._cleanup_on_error()

    async def _pump(self) -> None:
        plain = bytearray(self.secured_conn._drain(None))  # read along with the negotiation
        cipher = bytearray()
        decrypt, receive = self._decrypt, self._socket.receive_some
        while True:
            if plain:
                self._take_frames(plain)
            if self.event_shutting_down.is_set():
                return
            data = await receive(READ_BYTES)
            if not data:
                return
            cipher += data
            position, end = 0, len(cipher)
            while end - position >= 2:
                stop = position + 2 + int.from_bytes(cipher[position : position + 2], "big")
                if stop > end:
                    break
                plain += decrypt(bytes(cipher[position + 2 : stop]))
                position = stop
            del cipher[:position]

    def _take_frames(self, plain: bytearray) -> None:
        """Handle the whole frames at the start of `plain` and remove them."""
        position, end = 0, len(plain)
        while end - position >= _HEADER_BYTES:
            version, kind, flags, stream_id, length = _HEADER.unpack_from(plain, position)
            start = position + _HEADER_BYTES
            if version != 0:
                raise InvalidInputError("muxer frame has another version", got=str(version))
            if kind == _DATA:
                self._check_length(flags, stream_id, length)
                if end - start < length:
                    break
                position = start + length
                self._on_frame(kind, flags, stream_id, length, plain[start:position])
                continue
            position = start
            if kind == _WINDOW_UPDATE:
                self._on_frame(kind, flags, stream_id, length, b"")
            elif kind == _PING:
                self._on_ping(flags, length)
            elif kind == _GO_AWAY:
                self.event_shutting_down.set()
                return
            else:
                raise InvalidInputError("muxer frame has an unknown type", got=str(kind))
        del plain[:position]

    def _check_length(self, flags: int, stream_id: int, length: int) -> None:
        stream = self.streams.get(stream_id)
        window = WINDOW_FIRST_BYTES if flags & _SYN else DATA_ACCEPTED_BYTES_MAX
        if stream is not None:
            window = stream.recv_window
        if length > window:
            raise InvalidInputError(
                "peer sent past its window", expected=f"{window} B", got=f"{length} B"
            )

    def _on_frame(
        self, kind: int, flags: int, stream_id: int, length: int, data: bytes | bytearray
    ) -> None:
        if flags & _SYN and not self._on_syn(stream_id):
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            return  # closed here while the peer's frame was under way
        if kind == _DATA:
            self.stream_buffers[stream_id] += data
            stream.recv_window -= length
            self.stream_events[stream_id].set()
        elif length:
            stream.send_window += length
            stream.window_opened.set()
        if flags & (_FIN | _RST):
            self._on_end(stream, flags)

    def _on_syn(self, stream_id: int) -> bool:
        if stream_id == 0 or stream_id % 2 == self.next_stream_id % 2:
            raise InvalidInputError("peer opened a stream under an id of ours", got=str(stream_id))
        inbound_count = sum(1 for s in self.streams.values() if not s.is_initiator)
        if stream_id in self.streams or inbound_count >= INBOUND_STREAMS_MAX:
            self.answer(_WINDOW_UPDATE, _RST, stream_id, 0)
            return False
        stream = self._add(stream_id, is_initiator=False)
        try:
            self.new_stream_send_channel.send_nowait(stream)
        except trio.WouldBlock:
            stream.closed = True
            self._finalize_stream_locked(stream, fully_closed=True)
            self.answer(_WINDOW_UPDATE, _RST, stream_id, 0)
            return False
        self.answer(_WINDOW_UPDATE, _ACK, stream_id, 0)
        return True

    def _on_end(self, stream: LeanStream, flags: int) -> None:
        stream.recv_closed = True
        if flags & _RST:
            stream.reset_received = True
            stream.send_closed = True
        stream.closed = stream.send_closed
        event = self.stream_events.get(stream.stream_id)
        if event is not None:
            event.set()
        stream.window_opened.set()
        if stream.closed:
            self._finalize_stream_locked(stream, fully_closed=True)

    def _on_ping(self, flags: int, value: int) -> None:
        if flags & _SYN:
            self.answer(_PING, _ACK, 0, value)
        elif flags & _ACK and self._ping_sent_time:
            rtt_s = trio.current_time() - self._ping_sent_time
            self._rtt = rtt_s if self._rtt == 0.0 else (self._rtt + rtt_s) / 2
            self._ping_event.set()

    # --- ending ---

    async def _cleanup_on_error(self) -> None:
        streams = list(self.streams.values())
        await super()._cleanup_on_error()
        for stream in streams:
            stream.window_opened.set()

    async def close(self, error_code: int = 0) -> None:
        """As the stock one; who waits for a window is told."""
        streams = list(self.streams.values())
        for stream in streams:
            stream.closed = True
            stream.window_opened.set()
        await super().close(error_code)
