"""The libp2p host with its traps closed (DESIGN section 9; reasons in docs/adr/0003).

What this changes in libp2p 0.8.1:
- Noise alone, TCP and Yamux alone: the default would accept plaintext under any peer id.
- `GuardedSwarm` accepts connections itself: the stock code holds an inbound slot after the
  connection has died, so a node would refuse everyone after 250 connections. In front of the
  handshake stand a cap per IP and one on unfinished handshakes, where the oldest makes room.
- An exception in a stream handler, in the muxer or in identify would end the process: caught
  and counted at the three places they all pass.
- No SO_REUSEPORT on the listener: a second node would get half of the first one's connections.
- No resource manager (its counts leak and its limits are per second), no auto-connector,
  no identify of our own (it is answered when asked).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import trio
from libp2p.abc import INetConn, INetStream, INotifee
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_x25519_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer import muxer_multistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.transport.tcp import tcp as tcp_module
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from p2p.config import P2PConfig
from p2p.counters import Counters
from p2p.muxer import LeanYamux

logger = logging.getLogger("zynk.p2p")

LISTEN_BACKLOG = 512
EVICT_AFTER_S = 0.25  # an unfinished handshake younger than this is not evicted for another


class Ticket:
    """One accepted TCP connection, from accept to close."""

    __slots__ = ("entered_s", "ip", "is_handshaken", "scope")

    def __init__(self, ip: str, entered_s: float) -> None:
        self.ip = ip
        self.entered_s = entered_s
        self.is_handshaken = False
        self.scope = trio.CancelScope()


class Gate:
    """Caps on inbound connections: per IP, per IP unfinished, and in all."""

    def __init__(self, config: P2PConfig, counters: Counters) -> None:
        self._config = config
        self._counters = counters
        self._by_ip: dict[str, list[Ticket]] = {}
        self._count = 0

    def enter(self, ip: str, now_s: float) -> Ticket | None:
        """Admit a connection, or return None: close it at once.

        At the cap on unfinished handshakes the oldest one of that IP makes room, so that a
        stranger who opens connections and stays silent cannot keep an honest one out.
        """
        config, tickets = self._config, self._by_ip.get(ip, [])
        pending = [ticket for ticket in tickets if not ticket.is_handshaken]
        done_count = len(tickets) - len(pending)
        if done_count >= config.connections_per_ip_max or self._count >= 2 * config.connections_max:
            self._counters.add("connections_refused")
            return None
        if len(pending) >= config.handshakes_per_ip_max:
            oldest = pending[0]
            if now_s - oldest.entered_s < EVICT_AFTER_S:
                self._counters.add("connections_refused")
                return None
            self._counters.add("handshakes_evicted")
            oldest.scope.cancel()
            self.leave(oldest)
        ticket = Ticket(ip, now_s)
        self._by_ip.setdefault(ip, []).append(ticket)
        self._count += 1
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Forget a connection; may be called twice."""
        tickets = self._by_ip.get(ticket.ip, [])
        if ticket in tickets:
            tickets.remove(ticket)
            self._count -= 1
            if not tickets:
                del self._by_ip[ticket.ip]


class GuardedSwarm(Swarm):
    """Accepts through the gate and lets go of a connection when it ends."""

    gate: Gate
    handshake_timeout_s: float
    counters: Counters

    async def _handle_inbound_connection(self, stream: Any, maddr: Multiaddr) -> None:
        remote = stream.get_remote_address()
        ticket = self.gate.enter(remote[0] if remote else "", trio.current_time())
        if ticket is None:
            await stream.close()
            return
        try:
            with ticket.scope:
                with trio.fail_after(self.handshake_timeout_s):
                    raw = RawConnection(stream, False)
                    muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
                ticket.is_handshaken = True
                await muxed.event_closed.wait()
        except Exception as error:  # a stranger's bytes: any library error may come out
            self.counters.add("handshakes_failed")
            logger.debug("inbound handshake failed: %r", error)
        finally:
            self.gate.leave(ticket)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1.0):
                await stream.close()

    async def dial_once(self, address: Multiaddr, peer_id: ID) -> INetConn:
        """One attempt, without libp2p's own retries and its 60 s negative cache."""
        return await self._dial_addr_single_attempt(address, peer_id)


class GuardedHost(BasicHost):
    """A host whose stream handlers may raise; it answers identify but does not ask."""

    counters: Counters

    async def _swarm_stream_handler(self, net_stream: INetStream) -> None:
        try:
            await super()._swarm_stream_handler(net_stream)
        except Exception as error:  # otherwise the connection's nursery ends, and the process
            self.counters.add("handler_errors")
            logger.warning("stream handler failed: %r", error)
            try:
                await net_stream.reset()
            except Exception:
                logger.debug("stream was gone before its reset")

    def _schedule_identify(self, peer_id: ID, *, reason: str) -> None:
        return


class ConnectionWatch(INotifee):
    """Passes connects and ends on; libp2p awaits these, so they must not block or raise."""

    def __init__(self, on_connected: Any, on_disconnected: Any) -> None:
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected

    async def connected(self, network: Any, conn: INetConn) -> None:
        self._on_connected(conn)

    async def disconnected(self, network: Any, conn: INetConn) -> None:
        self._on_disconnected()

    async def opened_stream(self, network: Any, stream: INetStream) -> None:
        return

    async def closed_stream(self, network: Any, stream: INetStream) -> None:
        return

    async def listen(self, network: Any, multiaddr: Multiaddr) -> None:
        return

    async def listen_close(self, network: Any, multiaddr: Multiaddr) -> None:
        return


async def _open_listeners(host: str | None, port: int) -> Sequence[trio.SocketListener]:
    """Without SO_REUSEPORT: with it, two nodes on one port would share its connections."""
    return await trio.open_tcp_listeners(port, host=host, backlog=LISTEN_BACKLOG)


def make_host(config: P2PConfig, counters: Counters) -> GuardedHost:
    """Build the host; run it with `host.run(listen_addrs=[...])`."""
    muxer_multistream.Yamux = LeanYamux  # libp2p builds this name itself, whatever muxer_opt
    tcp_module._open_reuseport_listeners = _open_listeners
    key_pair = create_new_key_pair(config.identity_seed)
    peer_id = ID.from_pubkey(key_pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer_id, key_pair)
    noise = NoiseTransport(key_pair, noise_privkey=create_x25519_key_pair().private_key)
    swarm = GuardedSwarm(
        peer_id,
        peerstore,
        TransportUpgrader(
            secure_transports_by_protocol={NOISE_PROTOCOL: noise},
            muxer_transports_by_protocol={YAMUX_PROTOCOL: LeanYamux},
        ),
        transports=[tcp_module.TCP()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=ConnectionConfig(
            max_connections=2 * config.connections_max,
            min_connections=0,
            low_watermark=0,
            high_watermark=2 * config.connections_max,
            inbound_upgrade_timeout=config.handshake_timeout_s,
            outbound_upgrade_timeout=config.dial_timeout_s,
            auto_connect_interval=86_400.0,
        ),
    )
    swarm.gate = Gate(config, counters)
    swarm.handshake_timeout_s = config.handshake_timeout_s
    swarm.counters = counters
    host = GuardedHost(network=swarm, disable_identify_address_discovery=True)
    host.counters = counters
    return host


def listen_port_of(host: GuardedHost) -> int:
    """The real TCP port, also if 0 was asked for."""
    listeners = host.get_network().listeners.values()
    return int(next(iter(listeners)).get_addrs()[0].value_for_protocol("tcp"))
