"""The node's side of p2p: starts the p2p process, talks to it, starts it again when it dies.

asyncio (or uvloop) alone: neither libp2p nor trio is imported here. Every method but `start`
and `stop` returns at once; queues are bounded and what does not fit is dropped with a count.
A fault in the process, its bytes included, costs a restart and never an exception in the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Protocol, cast

from ledger.errors import InvalidInputError, UsageError
from p2p import link_codec
from p2p.config import CHANNEL_CONSENSUS, CHANNEL_COUNT, P2PConfig, PeerId, PeerInfo
from p2p.counters import Counters
from p2p.identity import peer_id_of_seed, split_multiaddr
from p2p.link_codec import Kind
from p2p.supervisor import Child, RestartPolicy, spawn

__all__ = ["P2PConfig", "P2PEvents", "P2PLink", "PeerId", "PeerInfo", "peer_id_of_seed"]

PROGRAM = ("-m", "p2p.process")
STOP_TIMEOUT_S = 3.0
logger = logging.getLogger("zynk.p2p")


class P2PEvents(Protocol):
    """What the node is told, on the asyncio loop. Must be quick; an exception is logged.

    The peer of a gossip message is its author, who signed it, not the one who passed it on.
    """

    def on_peer_up(self, peer: PeerId, height: int) -> None: ...
    def on_peer_down(self, peer: PeerId) -> None: ...
    def on_frame(self, peer: PeerId, channel: int, payload: bytes) -> None: ...
    def on_gossip(self, peer: PeerId, topic: str, payload: bytes) -> None: ...
    def on_restarted(self) -> None: ...


class P2PLink:
    """One node's connection to its p2p process."""

    def __init__(
        self, config: P2PConfig, events: P2PEvents, *, program: tuple[str, ...] = PROGRAM
    ) -> None:
        if config.frame_bytes_max <= 0 or config.peer_queue_bytes_max < 2 * config.frame_bytes_max:
            raise UsageError("p2p: the peer queue must hold at least two frames")
        for multiaddr in config.peers:
            split_multiaddr(multiaddr)
        self._config = config
        self._events = events
        self._program = program
        self.peer_id: PeerId = peer_id_of_seed(config.identity_seed)
        self.listen_addr = ""
        self._counters = Counters()
        self._process_counts: dict[str, int] = {}
        self._past_counts: dict[str, int] = {}
        self._peers: dict[PeerId, PeerInfo] = {}
        self._congested: set[PeerId] = set()
        self._added: dict[PeerId, str] = {}
        self._height = 0
        self._child: Child | None = None
        self._wire: _Wire | None = None
        self._policy = RestartPolicy(config)
        self._keeper: asyncio.Task[None] | None = None
        self._listening: asyncio.Future[None] | None = None

    # --- life ---

    @property
    def pid(self) -> int | None:
        """Process id of the p2p process; None while there is none."""
        return self._child.pid if self._child is not None else None

    async def start(self) -> None:
        """Start the process and return once it listens. Raises UsageError if it cannot."""
        if self._keeper is not None:
            raise UsageError("p2p is started already")
        try:
            await self._start_child()
        except (TimeoutError, InvalidInputError, OSError) as error:
            await self._end_child()
            raise UsageError(
                "the p2p process did not start",
                expected=f"to listen on {self._config.listen_host}:{self._config.listen_port}",
                got=str(error) or type(error).__name__,
            ) from error
        self._keeper = asyncio.get_running_loop().create_task(self._keep_alive())

    async def stop(self) -> None:
        """End the process; no event comes after this."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        await self._end_child()
        self._peers.clear()

    async def _start_child(self) -> None:
        loop = asyncio.get_running_loop()
        self._listening = loop.create_future()
        self._child, link_socket = await spawn(self._program)
        bytes_max = max(self._config.frame_bytes_max, self._config.gossip_bytes_max)
        wire = _Wire(self, bytes_max, self._config.link_queue_bytes_max)
        await loop.create_unix_connection(lambda: wire, sock=link_socket)
        self._wire = wire
        wire.write(self._policy.config_message())
        wire.write(link_codec.encode(Kind.SET_HEIGHT, self._height))
        for multiaddr in self._added.values():
            wire.write(link_codec.encode(Kind.ADD_PEER, multiaddr))
        await asyncio.wait_for(self._listening, self._config.start_timeout_s)

    async def _end_child(self) -> None:
        wire, self._wire = self._wire, None
        child, self._child = self._child, None
        if wire is not None:
            wire.close()
        if child is not None:
            is_sane = wire is not None and not wire.fault
            await child.end(STOP_TIMEOUT_S if is_sane else 0.0)

    async def _keep_alive(self) -> None:
        """Wait for the process to die, start another, for ever."""
        while True:
            wire, child = self._wire, self._child
            if wire is not None and child is not None:
                await wire.lost
                exit_code = await child.end(0.0)
                self._policy.on_death(exit_code, child.last_peers())
                logger.warning(
                    "the p2p process ended (exit code %s): %s", exit_code, wire.fault or "no fault"
                )
                self._on_child_gone()
            delay_s = self._policy.delay_s()
            await asyncio.sleep(delay_s)
            try:
                await self._start_child()
            except Exception as error:  # whatever it was, the next attempt comes
                logger.warning("the p2p process did not start: %r", error)
                self._policy.on_start_failed()
                await self._end_child()
                continue
            self._counters.add("restarts")
            self._call(self._events.on_restarted)

    def _on_child_gone(self) -> None:
        self._wire, self._child = None, None
        peers = list(self._peers)
        self._peers.clear()
        self._congested.clear()
        for name, value in self._process_counts.items():
            self._past_counts[name] = self._past_counts.get(name, 0) + value
        self._process_counts = {}
        for peer in peers:
            self._call(self._events.on_peer_down, peer)

    def _call(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception:
            self._counters.add("event_errors")
            logger.exception("the node's handler of a p2p event failed")

    # --- asked by the node ---

    @property
    def validators(self) -> tuple[PeerId, ...]:
        """The peers that the config names as validators'."""
        return self._config.validators

    def peers(self) -> list[PeerInfo]:
        """Connected peers; figures are at most 2 s old."""
        return list(self._peers.values())

    def stats(self) -> dict[str, int]:
        """Counters since the link was made; those of the process survive its restarts."""
        totals = dict(self._past_counts)
        for counts in (self._process_counts, self._counters.values):
            for name, value in counts.items():
                totals[name] = totals.get(name, 0) + value
        totals["peers"] = len(self._peers)
        totals["book_peers"] = self._process_counts.get("book_peers", 0)
        return totals

    def send(self, peer: PeerId, channel: int, payload: bytes) -> bool:
        """Send to one peer, in order a channel; False if it is unknown or its queue is full."""
        self._check(channel, payload)
        if peer not in self._peers:
            self._counters.add("drops_peer_unknown")
            return False
        if channel != CHANNEL_CONSENSUS and peer in self._congested:
            self._counters.add("drops_peer_congested")
            return False
        return self._write(link_codec.encode(Kind.SEND, peer, channel, payload))

    def broadcast(self, channel: int, payload: bytes) -> None:
        """Send to every connected peer."""
        self._check(channel, payload)
        if self._peers:
            self._write(link_codec.encode(Kind.BROADCAST, channel, payload))

    def publish(self, topic: str, payload: bytes) -> None:
        """Gossip to everybody; best effort, so pair it with a repair over channel 1."""
        if len(payload) > self._config.gossip_bytes_max:
            raise UsageError("gossip message is too long", got=f"{len(payload)} B")
        self._write(link_codec.encode(Kind.PUBLISH, topic, payload))

    def add_peer(self, multiaddr: str) -> None:
        """Dial this peer from now on. Raises InvalidInputError for a malformed address."""
        peer, _address = split_multiaddr(multiaddr)
        if peer not in self._added and len(self._added) >= self._config.book_peers_max:
            raise UsageError("p2p: too many added peers", got=str(len(self._added)))
        self._added[peer] = multiaddr
        self._write(link_codec.encode(Kind.ADD_PEER, multiaddr))

    def disconnect(self, peer: PeerId, reason: str) -> None:
        """Close the connection with `peer`; it is dialled again later if it is in the book."""
        self._write(link_codec.encode(Kind.DISCONNECT, peer, reason[:100]))

    def set_height(self, height: int) -> None:
        """Tell peers our height, at the next handshake or ping."""
        self._height = height
        self._write(link_codec.encode(Kind.SET_HEIGHT, height))

    def _check(self, channel: int, payload: bytes) -> None:
        if not 0 <= channel < CHANNEL_COUNT:
            raise UsageError("p2p: unknown channel", got=str(channel))
        if len(payload) > self._config.frame_bytes_max:
            raise UsageError(
                "p2p: frame is too long",
                expected=f"at most {self._config.frame_bytes_max} B",
                got=f"{len(payload)} B",
            )

    def _write(self, data: bytes) -> bool:
        wire = self._wire
        if wire is None:
            self._counters.add("drops_no_process")
            return False
        if not wire.write(data):
            self._counters.add("drops_link_queue_full")
            return False
        return True

    # --- told by the process ---

    def on_message(self, message: list[Any]) -> None:
        """One checked message of the process, in order."""
        match message:
            case [Kind.FRAME, peer, channel, payload]:
                self._call(self._events.on_frame, peer, channel, payload)
            case [Kind.GOSSIP, peer, topic, payload]:
                self._call(self._events.on_gossip, peer, topic, payload)
            case [Kind.PEER_UP, peer, address, inbound, height]:
                self._peers[peer] = PeerInfo(
                    peer=peer,
                    addr=address,
                    inbound=inbound,
                    height=height,
                    last_seen_s=0.0,
                    bytes_in=0,
                    bytes_out=0,
                    rtt_ms=-1.0,
                )
                self._congested.discard(peer)
                self._call(self._events.on_peer_up, peer, height)
            case [Kind.PEER_DOWN, peer, reason]:
                logger.info("peer %s is gone: %s", peer, reason)
                self._congested.discard(peer)
                if self._peers.pop(peer, None) is not None:
                    self._call(self._events.on_peer_down, peer)
            case [Kind.REPORT, counts, rows]:
                self._on_report(counts, rows)
            case [Kind.CONGESTED, peer, is_congested]:
                (self._congested.add if is_congested else self._congested.discard)(peer)
            case [Kind.LISTENING, multiaddr, peer]:
                self._on_listening(multiaddr, peer)
            case [Kind.LOG, text]:
                logger.warning("%s", text[:500])
            case _:
                raise InvalidInputError("the p2p process sent a message of the other direction")

    def _on_listening(self, multiaddr: str, peer: PeerId) -> None:
        if peer != self.peer_id:
            raise InvalidInputError("the p2p process has another identity", got=peer)
        self.listen_addr = multiaddr
        port = int(split_multiaddr(multiaddr)[1].rpartition("/")[2])
        self._policy.on_listening(port)
        if self._listening is not None and not self._listening.done():
            self._listening.set_result(None)

    def _on_report(self, counts: dict[Any, Any], rows: list[Any]) -> None:
        if not all(type(k) is str and type(v) is int for k, v in counts.items()):
            raise InvalidInputError("the p2p process's counters are malformed")
        self._process_counts = counts
        for row in rows:
            if type(row) is not list or len(row) != 8:
                raise InvalidInputError("the p2p process's peer row is malformed")
            peer, address, inbound, height, age_s, bytes_in, bytes_out, rtt_ms = row
            if peer in self._peers:
                self._peers[peer] = PeerInfo(
                    peer=peer,
                    addr=address,
                    inbound=inbound,
                    height=height,
                    last_seen_s=age_s,
                    bytes_in=bytes_in,
                    bytes_out=bytes_out,
                    rtt_ms=rtt_ms,
                )

    def on_wire_lost(self, fault: str) -> None:
        """The link broke; `_keep_alive` does the rest."""
        if self._listening is not None and not self._listening.done():
            self._listening.set_exception(
                InvalidInputError(fault or "the process ended before it listened")
            )


class _Wire(asyncio.Protocol):
    """The socketpair: what is written in one turn of the loop leaves in one send."""

    def __init__(self, owner: P2PLink, payload_bytes_max: int, queue_bytes_max: int) -> None:
        self._owner = owner
        self._reader = link_codec.LinkReader(payload_bytes_max)
        self._queue_bytes_max = queue_bytes_max
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self.fault = ""
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport has the interface but not the base class.
        self._transport = cast(asyncio.Transport, transport)

    def write(self, data: bytes) -> bool:
        """Queue a frame; False if the process takes too little and the queue is full."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        queued = self._queued_bytes + transport.get_write_buffer_size()
        if queued + len(data) > self._queue_bytes_max:
            return False
        if not self._queue:
            self._loop.call_soon(self._flush)
        self._queue.append(data)
        self._queued_bytes += len(data)
        return True

    def _flush(self) -> None:
        queue, self._queue, self._queued_bytes = self._queue, [], 0
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(queue))

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                self._owner.on_message(message)
        except InvalidInputError as error:
            self.fault = f"malformed message: {error}"
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.on_wire_lost(self.fault or (repr(exc) if exc else ""))
        if not self.lost.done():
            self.lost.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
