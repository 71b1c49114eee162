"""All direct streams of the process: who opens them, the handshake, who is up.

Of two peers the one with the smaller peer id opens the stream, on whatever connection there is,
so that dialling each other at the same moment needs no further rule. When the stream ends, all
connections with that peer end with it, and the dialler starts anew: one state, not many.
"""

from __future__ import annotations

import logging
from typing import Any

import trio
from libp2p.peer.id import ID

from p2p import frame
from p2p.blackbox import BlackBox
from p2p.config import P2PConfig, PeerId
from p2p.counters import Counters
from p2p.host import GuardedHost, listen_port_of
from p2p.link_codec import Kind
from p2p.link_end import LinkEnd
from p2p.peerbook import PeerBook
from p2p.rate import Allowance
from p2p.session import Session

DIRECT_PROTOCOL = "/zynk/direct/1"
ALLOWANCES_MAX = 1024
logger = logging.getLogger("zynk.p2p")


class DirectStreams:
    """Sessions by peer; at most one each, `sessions_max` in all."""

    def __init__(
        self,
        *,
        host: GuardedHost,
        config: P2PConfig,
        counters: Counters,
        link: LinkEnd,
        book: PeerBook,
        blackbox: BlackBox,
        nursery: trio.Nursery,
    ) -> None:
        self._host = host
        self._config = config
        self._counters = counters
        self._link = link
        self._book = book
        self._nursery = nursery
        self.note = blackbox.note
        self.room = link.room
        self.own: PeerId = host.get_id().to_base58()
        self.height = 0
        self.sessions: dict[PeerId, Session] = {}
        self.peers_changed = trio.Event()
        self._opening: set[PeerId] = set()
        self._allowances: dict[PeerId, Allowance] = {}
        self._strangers = Allowance(
            frames_per_s=config.strangers_frames_per_s_max,
            bytes_per_s=config.strangers_bytes_per_s_max,
            now_s=trio.current_time(),
        )
        host.set_stream_handler(DIRECT_PROTOCOL, self._on_stream)

    def is_up(self, peer: PeerId) -> bool:
        session = self.sessions.get(peer)
        return session is not None and session.is_up

    # --- sending ---

    def send(self, peer: PeerId, channel: int, payload: bytes) -> None:
        session = self.sessions.get(peer)
        if session is None or not session.is_up:
            self._counters.add("drops_peer_unknown")
            return
        chunks = frame.encode_message(channel, payload)
        if session.send(channel, chunks):
            self._counters.add("frames_out")

    def broadcast(self, channel: int, payload: bytes) -> None:
        chunks = frame.encode_message(channel, payload)
        count = 0
        for session in self.sessions.values():
            if session.is_up:
                count += session.send(channel, chunks)
        self._counters.add("frames_out", count)

    def disconnect(self, peer: PeerId, reason: str) -> None:
        """End the connection; one that is no validator's stays out for a time that doubles."""
        if self._book.bar_stranger(peer, trio.current_time()):
            self._counters.add("peers_barred")
        session = self.sessions.get(peer)
        if session is not None:
            session.send_control(frame.Bye(reason=reason))
            self._nursery.start_soon(self._close_soon, session, reason)

    async def _close_soon(self, session: Session, reason: str) -> None:
        await trio.sleep(0.05)  # lets the goodbye leave
        session.close(reason)

    # --- connections ---

    def wake_dialler(self) -> None:
        """Who is connected, or may be dialled, has changed."""
        self.peers_changed.set()

    def on_connected(self, conn: Any) -> None:
        """A connection exists (either direction). Called by libp2p; must not raise."""
        peer_id: ID = conn.muxed_conn.peer_id
        peer = peer_id.to_base58()
        if self._book.is_barred(peer, trio.current_time()):
            self._counters.add("connections_refused")
            self._nursery.start_soon(self._close_peer, peer)
        elif self.own < peer:
            if peer not in self._opening and peer not in self.sessions:
                self._opening.add(peer)
                self._nursery.start_soon(self._open, peer_id, peer)
        else:
            self._nursery.start_soon(self._await_session, peer)

    async def _open(self, peer_id: ID, peer: PeerId) -> None:
        stream = None
        try:
            with trio.move_on_after(self._config.hello_timeout_s):
                stream = await self._host.new_stream(peer_id, [DIRECT_PROTOCOL])
        except Exception as error:  # a peer that speaks something else, or is gone
            logger.debug("no direct stream with %s: %r", peer, error)
        finally:
            self._opening.discard(peer)
        if stream is None:
            self._counters.add("streams_failed")
            await self._close_peer(peer)
        else:
            await self._run(stream, peer)

    async def _await_session(self, peer: PeerId) -> None:
        """The other side is to open the stream: close if it does not in time."""
        await trio.sleep(self._config.hello_timeout_s)
        if not self.is_up(peer):
            await self._close_peer(peer)

    async def _on_stream(self, stream: Any) -> None:
        peer = stream.muxed_conn.peer_id.to_base58()
        if not peer < self.own or self._book.is_barred(peer, trio.current_time()):
            await stream.reset()
            return
        await self._run(stream, peer)

    async def _close_peer(self, peer: PeerId) -> None:
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2.0):
                await self._host.get_network().close_peer(ID.from_base58(peer))
        except Exception as error:  # it was closing already
            logger.debug("closing %s: %r", peer, error)

    # --- a session's life ---

    async def _run(self, stream: Any, peer: PeerId) -> None:
        old = self.sessions.get(peer)
        if old is not None:
            old.close("replaced by a newer stream")
            self._end(old)
        muxed = stream.muxed_stream
        remote = muxed.conn.get_remote_address() or ("", 0)
        family = "ip6" if ":" in remote[0] else "ip4"
        session = Session(
            peer=peer,
            address=f"/{family}/{remote[0]}/tcp/{remote[1]}",
            is_inbound=not muxed.conn.is_initiator,
            stream=muxed,
            config=self._config,
            counters=self._counters,
            owner=self,
        )
        self.sessions[peer] = session
        try:
            self._nursery.start_soon(self._watch_hello, session)
            await session.run(self._hello())
        finally:
            is_current = self._end(session)
            if is_current:
                self._nursery.start_soon(self._close_peer, peer)

    async def _watch_hello(self, session: Session) -> None:
        await trio.sleep(self._config.hello_timeout_s)
        if not session.is_up:
            session.close("no hello in time")

    def _hello(self) -> frame.Hello:
        config = self._config
        return frame.Hello(
            chain_id=config.chain_id,
            genesis_hash=config.genesis_hash,
            protocol_version=config.protocol_version,
            height=self.height,
            listen_port=listen_port_of(self._host),
        )

    def _end(self, session: Session) -> bool:
        """Take a session off the books; False if a newer one already stands in its place."""
        if self.sessions.get(session.peer) is not session:
            return False
        del self.sessions[session.peer]
        now_s = trio.current_time()
        if session.is_up:
            session.is_up = False
            self._book.on_lost(session.peer, now_s)
            self._counters.add("peers_lost")
            self._link.put(Kind.PEER_DOWN, session.peer, session.reason)
        else:
            self._book.on_failed(session.peer, now_s)
        self.wake_dialler()
        return True

    # --- SessionOwner ---

    def on_hello(self, session: Session, hello: frame.Hello) -> None:
        """Judge the peer's hello: up, or refused with a reason it can log."""
        own = self._hello()
        fault = ""
        if hello.chain_id != own.chain_id:
            fault = f"another chain: {hello.chain_id[:32]!r}"
        elif hello.genesis_hash != own.genesis_hash:
            fault = "another genesis"
        elif hello.protocol_version != own.protocol_version:
            fault = f"another protocol version: {hello.protocol_version}"
        elif len(self.sessions) > self._config.connections_max and not self._book.is_validator(
            session.peer
        ):
            session.send_control(frame.Bye(reason="too many peers"))
            self._nursery.start_soon(self._close_soon, session, "too many peers")
            return
        if fault:
            self._counters.add("peers_of_another_chain")
            self._book.put_aside(
                session.peer, trio.current_time() + self._config.other_chain_backoff_s
            )
            self._link.put(Kind.LOG, f"refused {session.peer} at {session.address}: {fault}")
            session.send_control(frame.Bye(reason=fault))
            self._nursery.start_soon(self._close_soon, session, fault)
            return
        session.accept(hello.height)
        if session.is_inbound and hello.listen_port:
            host = session.address.rpartition("/tcp/")[0]
            self._book.add(session.peer, f"{host}/tcp/{hello.listen_port}")
        self._book.on_up(session.peer)
        self._counters.add("peers_up")
        self._link.put(
            Kind.PEER_UP, session.peer, session.address, session.is_inbound, hello.height
        )

    def on_frame(self, session: Session, channel: int, payload: bytes) -> None:
        self._link.put(Kind.FRAME, session.peer, channel, payload)

    def charge(self, session: Session, size: int) -> float:
        """Count a frame against what its peer may send, and, unless that is a validator's,
        against what all such peers may: so strangers can not use up the validators' share."""
        now_s = trio.current_time()
        wait_s = self._allowance(session.peer, now_s).spend(size, now_s)
        if not self._book.is_validator(session.peer):
            wait_s = max(wait_s, self._strangers.spend(size, now_s))
        return wait_s

    def admits_gossip(self, peer: PeerId, size: int) -> bool:
        """The same for a gossip message that `peer` passes on."""
        now_s = trio.current_time()
        return self._allowance(peer, now_s).take(size, now_s) and (
            self._book.is_validator(peer) or self._strangers.take(size, now_s)
        )

    def _allowance(self, peer: PeerId, now_s: float) -> Allowance:
        """Kept beyond the session, or each new connection would start with a full bucket."""
        allowance = self._allowances.pop(peer, None)
        if allowance is None:
            config = self._config
            is_validator = self._book.is_validator(peer)
            allowance = Allowance(
                frames_per_s=config.validator_frames_per_s_max
                if is_validator
                else config.stranger_frames_per_s_max,
                bytes_per_s=config.validator_bytes_per_s_max
                if is_validator
                else config.stranger_bytes_per_s_max,
                now_s=now_s,
            )
        self._allowances[peer] = allowance  # now the youngest
        if len(self._allowances) > ALLOWANCES_MAX:
            del self._allowances[next(iter(self._allowances))]
        return allowance

    def on_held(self, session: Session) -> None:
        """Keep what strangers leave unfinished within bounds: who holds most goes."""
        strangers = [
            s
            for s in self.sessions.values()
            if not s.scope.cancel_called and not self._book.is_validator(s.peer)
        ]
        if sum(s.held_bytes for s in strangers) > self._config.strangers_held_bytes_max:
            self._counters.add("drops_unfinished")
            max(strangers, key=lambda s: s.held_bytes).close("too much is unfinished")

    def on_congested(self, session: Session, is_congested: bool) -> None:
        self._link.put(Kind.CONGESTED, session.peer, is_congested)
