"""The p2p process's parts put together: link, host, direct streams, gossip, dialler, ticks."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import socket
from pathlib import Path
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from ledger.errors import InvalidInputError
from p2p.blackbox import BlackBox
from p2p.config import P2PConfig
from p2p.counters import Counters
from p2p.direct import DirectStreams
from p2p.gossip import Gossip
from p2p.host import ConnectionWatch, GuardedHost, listen_port_of, make_host
from p2p.identity import split_multiaddr
from p2p.link_codec import Kind
from p2p.link_end import LinkEnd
from p2p.peerbook import BOOK_NAME, RANK_CONFIGURED, PeerBook

REPORT_INTERVAL_S = 2.0
DIALLER_IDLE_S = 30.0
EXIT_CANNOT_LISTEN = 3
logger = logging.getLogger("zynk.p2p")


async def run(link_socket: socket.socket, blackbox: BlackBox) -> None:
    """Serve the node until it closes the link, then end the process."""
    counters = Counters()
    link = LinkEnd(link_socket)
    config, quarantine_s = await link.receive_config()
    host = make_host(config, counters)
    own = host.get_id().to_base58()
    book = PeerBook(config, own, random.Random())  # noqa: S311  # jitter, not a secret
    book.load(config.home / BOOK_NAME)
    for peer, seconds in quarantine_s.items():
        book.bar(peer, trio.current_time() + seconds)
    family = "ip6" if ":" in config.listen_host else "ip4"
    listen = Multiaddr(f"/{family}/{config.listen_host}/tcp/{config.listen_port}")
    async with trio.open_nursery() as nursery:
        process = Process(
            host=host,
            config=config,
            counters=counters,
            link=link,
            book=book,
            blackbox=blackbox,
            nursery=nursery,
        )
        async with (
            host.run(listen_addrs=[listen]),
            background_trio_service(process.gossip.pubsub),
            background_trio_service(process.gossip.router),
        ):
            if not host.get_network().listeners:
                logger.error("cannot listen on %s", listen)
                os._exit(EXIT_CANNOT_LISTEN)
            await process.gossip.subscribe()
            port = listen_port_of(host)
            gc.collect()
            gc.freeze()
            gc.enable()
            link.put(Kind.LISTENING, f"/{family}/{config.listen_host}/tcp/{port}/p2p/{own}", own)
            nursery.start_soon(link.write_loop)
            nursery.start_soon(process.dial_loop)
            nursery.start_soon(process.tick_loop)
            nursery.start_soon(process.gossip.publish_loop)
            await process.serve_node()
            with contextlib.suppress(OSError):  # the folder may be gone; the book is a cache
                book.save(config.home / BOOK_NAME)
            os._exit(0)  # the node is gone or wants us gone; peers see the sockets close


async def resolve(address: str) -> str:
    """Replace the name in a `/dns*/<name>/tcp/<port>` address by its first IP address."""
    _, kind, host, _, port = address.split("/")
    if not kind.startswith("dns"):
        return address
    family = {"dns4": socket.AF_INET, "dns6": socket.AF_INET6}.get(kind, socket.AF_UNSPEC)
    found = await trio.socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    ip = found[0][4][0]
    return f"/{'ip6' if ':' in str(ip) else 'ip4'}/{ip}/tcp/{port}"


class Process:
    """Wires link, direct streams, gossip, peer book and dialler together."""

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
        self.direct = DirectStreams(
            host=host,
            config=config,
            counters=counters,
            link=link,
            book=book,
            blackbox=blackbox,
            nursery=nursery,
        )
        self.gossip = Gossip(
            host=host,
            config=config,
            counters=counters,
            is_up=self.direct.is_up,
            admits=self.direct.admits_gossip,
            note=blackbox.note,
            deliver=self._deliver_gossip,
        )
        host.get_network().register_notifee(
            ConnectionWatch(self.direct.on_connected, self.direct.wake_dialler)
        )
        self._dial_count = 0

    # --- the node's side ---

    async def serve_node(self) -> None:
        """Do what the node says until it closes the link."""
        try:
            await self._link.read_loop(self._dispatch)
        except trio.BrokenResourceError:
            logger.debug("the node's end broke")

    def _dispatch(self, message: list[Any]) -> None:
        match message:
            case [Kind.SEND, peer, channel, payload]:
                self.direct.send(peer, channel, payload)
            case [Kind.BROADCAST, channel, payload]:
                self.direct.broadcast(channel, payload)
            case [Kind.PUBLISH, topic, payload]:
                self.gossip.publish(topic, payload)
            case [Kind.SET_HEIGHT, height]:
                self.direct.height = height
            case [Kind.ADD_PEER, multiaddr]:
                self._add_peer(multiaddr)
            case [Kind.DISCONNECT, peer, reason]:
                self.direct.disconnect(peer, reason)
            case _:
                raise InvalidInputError("the node sent a message of the other direction")

    def _add_peer(self, multiaddr: str) -> None:
        try:
            self._book.add(*split_multiaddr(multiaddr), rank=RANK_CONFIGURED)
        except InvalidInputError as error:
            self._link.put(Kind.LOG, f"peer address refused: {error}")
        self.direct.wake_dialler()

    def _deliver_gossip(self, author: str, topic: str, payload: bytes) -> None:
        if self._link.is_full:
            self._counters.add("drops_link_queue_full")
        else:
            self._link.put(Kind.GOSSIP, author, topic, payload)

    # --- dialling ---

    async def dial_loop(self) -> None:
        """Keep every known peer connected, forever; sleeps until something is due."""
        direct = self.direct
        while True:
            direct.peers_changed = trio.Event()
            now_s = trio.current_time()
            connected = {peer.to_base58() for peer in self._host.get_network().connections}
            connected.update(direct.sessions)
            room = self._config.dials_max - self._dial_count
            for peer, address in self._book.take_due(now_s, connected, room):
                self._dial_count += 1
                self._nursery.start_soon(self._dial, peer, address)
            due_s = self._book.next_due_s(connected)
            if self._dial_count >= self._config.dials_max:
                due_s = now_s + DIALLER_IDLE_S
            with trio.move_on_at(min(max(due_s, now_s + 0.02), now_s + DIALLER_IDLE_S)):
                await direct.peers_changed.wait()

    async def _dial(self, peer: str, address: str) -> None:
        self._counters.add("dials")
        try:
            with trio.fail_after(self._config.dial_timeout_s):
                target = Multiaddr(f"{await resolve(address)}/p2p/{peer}")
                await self._host.get_network().dial_once(target, ID.from_base58(peer))
            self._book.on_dialled(peer)
        except Exception as error:  # any library error: the peer is not there, or not who it was
            self._counters.add("dials_failed")
            logger.debug("dial of %s failed: %r", peer, error)
            self._book.on_failed(peer, trio.current_time())
        finally:
            self._dial_count -= 1
            self.direct.wake_dialler()

    # --- once in a while ---

    async def tick_loop(self) -> None:
        """Pings, dead peers, the report to the node, the peer book's file."""
        config, sessions = self._config, self.direct.sessions
        path: Path = config.home / BOOK_NAME
        next_ping_s = 0.0
        while True:
            await trio.sleep(REPORT_INTERVAL_S)
            now_s = trio.current_time()
            is_ping_due = now_s >= next_ping_s
            if is_ping_due:
                next_ping_s = now_s + config.ping_interval_s - 0.1
            for session in list(sessions.values()):
                if now_s - session.last_seen_s > config.dead_after_s:
                    session.close("no sign of life")
                elif session.is_up and is_ping_due:
                    session.ping(self.direct.height)
            self.gossip.forget(set(sessions))
            self._report(now_s)
            if self._book.is_changed:
                try:
                    self._book.save(path)
                except OSError as error:
                    self._link.put(Kind.LOG, f"peer book not saved: {error}")
                    self._book.is_changed = False

    def _report(self, now_s: float) -> None:
        peers = [
            [
                session.peer,
                session.address,
                session.is_inbound,
                session.height,
                now_s - session.last_seen_s,
                session.bytes_in,
                session.bytes_out,
                session.rtt_ms,
            ]
            for session in self.direct.sessions.values()
            if session.is_up
        ]
        values = dict(self._counters.values)
        values["book_peers"] = len(self._book)
        self._link.put(Kind.REPORT, values, peers)
