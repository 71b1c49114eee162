"""Gossipsub for what everybody should hear: tx batches, anchor announcements.

Settings and guards, each against a fault of libp2p 0.8.1 (docs/adr/0003): protocol 1.1 alone,
heartbeat of a second without the adaptive mode that makes it a minute, larger queues, message
id = sha256(topic, content), no built-in spam gate (it drops silently) but a token bucket per
forwarder here, and every entry point catches, because an exception there ends the process.

Messages of a peer whose hello has not been accepted are refused before validation: libp2p keeps
the verdict by content, so a verdict must never depend on who forwarded it.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.pubsub import pubsub as pubsub_module
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue

from p2p.config import P2PConfig, PeerId
from p2p.counters import Counters
from p2p.host import GuardedHost

GOSSIP_PROTOCOL = "/meshsub/1.1.0"
RPC_QUEUE_MAX = 1024
SUBSCRIPTION_QUEUE_MAX = 4096
PUBLISH_QUEUE_MAX = 256
RPC_OVERHEAD_BYTES = 64 << 10
logger = logging.getLogger("zynk.p2p")


def message_id(message: rpc_pb2.Message) -> bytes:
    """By topic and content: the sequence numbers of a restarted peer start again."""
    topic = message.topicIDs[0] if message.topicIDs else ""
    return hashlib.sha256(topic.encode("utf-8", "replace") + b"\0" + message.data).digest()


class GuardedPubsub(Pubsub):
    """Pubsub that outlives what strangers send it."""

    admit: Callable[[PeerId, rpc_pb2.Message], bool]
    deliver: Callable[[PeerId, str, bytes], None]
    note: Callable[[PeerId], None]
    counters: Counters

    async def continuously_read_stream(self, stream: Any) -> None:
        peer_id: ID = stream.muxed_conn.peer_id
        self.note(peer_id.to_base58())
        try:
            await super().continuously_read_stream(stream)
        except Exception as error:
            self.counters.add("gossip_faults")
            logger.info("malformed gossip from %s: %r", peer_id, error)
            try:
                await stream.reset()
                self._handle_dead_peer(peer_id)
            except Exception as second:
                logger.debug("after malformed gossip: %r", second)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        try:
            if self._is_msg_seen(msg):
                return
            forwarder = msg_forwarder.to_base58()
            if msg_forwarder != self.my_id:
                self.note(forwarder)
                if not self.admit(forwarder, msg):
                    return
            await super().push_msg(msg_forwarder, msg)
            if msg_forwarder != self.my_id and self._is_msg_seen(msg):
                author = ID(msg.from_id).to_base58()  # who signed it: a fault in it is theirs
                self.deliver(author, msg.topicIDs[0], msg.data)
        except Exception as error:
            self.counters.add("gossip_faults")
            logger.info("gossip from %s failed: %r", msg_forwarder, error)

    async def _handle_new_peer_with_retry(self, peer_id: ID, timeout: float | None = None) -> None:
        try:
            await super()._handle_new_peer_with_retry(peer_id, timeout)
        except Exception as error:
            self.counters.add("gossip_faults")
            logger.info("gossip stream with %s failed: %r", peer_id, error)

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        """Nothing: messages are delivered by `push_msg`, which knows the author."""


class Gossip:
    """Publishing, limits and delivery on top of the guarded pubsub."""

    def __init__(
        self,
        *,
        host: GuardedHost,
        config: P2PConfig,
        counters: Counters,
        is_up: Callable[[PeerId], bool],
        admits: Callable[[PeerId, int], bool],
        note: Callable[[PeerId], None],
        deliver: Callable[[PeerId, str, bytes], None],
    ) -> None:
        pubsub_module.SUBSCRIPTION_CHANNEL_SIZE = SUBSCRIPTION_QUEUE_MAX
        pubsub_module.RpcQueue = functools.partial(RpcQueue, max_size=RPC_QUEUE_MAX)
        self._config = config
        self._counters = counters
        self._is_up = is_up
        self._admits = admits
        self._deliver_to_node = deliver
        self.topics = (f"tx/{config.chain_id}", f"anchor/{config.chain_id}")
        self.router = GossipSub(
            [GOSSIP_PROTOCOL],
            6,
            4,
            12,
            heartbeat_interval=1,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )
        self.pubsub = GuardedPubsub(
            host,
            self.router,
            msg_id_constructor=message_id,
            max_inbound_rpc_size=config.gossip_bytes_max + RPC_OVERHEAD_BYTES,
            allowed_topics=frozenset(self.topics),
        )
        self.pubsub.admit = self._admit
        self.pubsub.deliver = self._deliver
        self.pubsub.note = note
        self.pubsub.counters = counters
        self._buckets: dict[PeerId, tuple[float, float]] = {}
        self._publish_in: trio.MemorySendChannel[tuple[str, bytes]]
        self._publish_in, self._publish_out = trio.open_memory_channel[tuple[str, bytes]](
            PUBLISH_QUEUE_MAX
        )

    async def subscribe(self) -> None:
        await self.pubsub.wait_until_ready()
        for topic in self.topics:
            await self.pubsub.subscribe(topic)

    def publish(self, topic: str, payload: bytes) -> None:
        """Queue a message; too long, unknown topic or full queue are dropped and counted."""
        if topic not in self.topics or len(payload) > self._config.gossip_bytes_max:
            self._counters.add("drops_gossip_invalid")
            return
        try:
            self._publish_in.send_nowait((topic, payload))
        except trio.WouldBlock:
            self._counters.add("drops_gossip_queue_full")

    async def publish_loop(self) -> None:
        async for topic, payload in self._publish_out:
            try:
                await self.pubsub.publish(topic, payload)
                self._counters.add("gossip_out")
            except Exception as error:  # one message is lost, and repaired by offers
                self._counters.add("gossip_faults")
                logger.warning("gossip was not published: %r", error)

    def forget(self, peers: set[PeerId]) -> None:
        """Drop the rate counters of peers that are gone."""
        for peer in list(self._buckets):
            if peer not in peers:
                del self._buckets[peer]

    def _admit(self, forwarder: PeerId, message: rpc_pb2.Message) -> bool:
        if not self._is_up(forwarder):
            self._counters.add("drops_gossip_stranger")
            return False
        if (
            len(message.topicIDs) != 1
            or message.topicIDs[0] not in self.topics
            or len(message.data) > self._config.gossip_bytes_max
        ):
            self._counters.add("drops_gossip_invalid")
            return False
        rate = float(self._config.gossip_per_peer_per_s_max)
        now_s = trio.current_time()
        tokens, then_s = self._buckets.get(forwarder, (rate, now_s))
        tokens = min(rate, tokens + (now_s - then_s) * rate)
        if tokens < 1.0 or not self._admits(forwarder, len(message.data)):
            self._counters.add("drops_gossip_rate")
            return False
        self._buckets[forwarder] = (tokens - 1.0, now_s)
        return True

    def _deliver(self, author: PeerId, topic: str, payload: bytes) -> None:
        self._counters.add("gossip_in")
        self._deliver_to_node(author, topic, payload)
