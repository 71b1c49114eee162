"""Topics, who listens to them, and fan-out.

A subscription's name is its topic: `blocks`, `status` or `tx:<id>`. So a message is the same bytes
for every subscriber and is encoded once, however many listen. `tx:<id>` is told once, when the tx
is final, and is then over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Protocol

import structlog

from ledger.errors import ZynkError
from rpc.api import BlockEvent, NodeApi
from rpc.dispatch import encode_json
from rpc.errors import RpcCode, RpcError, unsupported
from rpc.params import HEX32, Param, choice, text
from rpc.registry import Call, Method
from rpc.results import ANY_OBJECT, BOOL, TEXT, or_null, record

BLOCKS = "blocks"
STATUS = "status"
_TX_PREFIX = "tx:"

log = structlog.get_logger("rpc")


class Subscriber(Protocol):
    """One WebSocket."""

    topics: set[str]

    def offer(self, message: bytes) -> None:
        """Queue a message; never blocks and never raises."""


def _only_on_websockets(api: NodeApi) -> Call:
    async def call(*_: object) -> object:
        raise unsupported("subscribing over HTTP; connect a WebSocket to /ws: it")

    return call


SUBSCRIPTION_METHODS = (
    Method(
        name="subscribe",
        summary="Listen to final blocks, to the node's status, or to one tx becoming final.",
        bind=_only_on_websockets,
        params=(
            Param(
                name="topic",
                kind=choice("blocks", "tx", "status"),
                description="What to listen to.",
                required=True,
            ),
            Param(name="tx_id", kind=HEX32, description="With topic tx."),
        ),
        result=record(subscription=TEXT, current=or_null(ANY_OBJECT)),
        errors=(RpcCode.UNSUPPORTED,),
        websocket_only=True,
    ),
    Method(
        name="unsubscribe",
        summary="Stop listening. False if there was no such subscription.",
        bind=_only_on_websockets,
        params=(
            Param(
                name="subscription",
                kind=text(80),
                description="As `subscribe` returned it.",
                required=True,
            ),
        ),
        result=BOOL,
        errors=(RpcCode.UNSUPPORTED,),
        websocket_only=True,
    ),
)


class Hub:
    """Subscribers by topic."""

    def __init__(self, api: NodeApi, *, topics_max: int, status_interval_ms: int) -> None:
        self._api = api
        self._topics_max = topics_max
        self._status_interval_s = status_interval_ms / 1000
        self._status_before: object = None
        self._subscribers_by_topic: dict[str, set[Subscriber]] = {}

    def calls_for(self, subscriber: Subscriber) -> dict[str, Call]:
        """`subscribe` and `unsubscribe` of one connection."""

        async def subscribe(topic: str, tx_id: bytes | None) -> object:
            return await self._subscribe(subscriber, topic, tx_id)

        async def unsubscribe(subscription: str) -> object:
            return self._remove(subscriber, subscription)

        return {"subscribe": subscribe, "unsubscribe": unsubscribe}

    def forget(self, subscriber: Subscriber) -> None:
        """The connection is gone."""
        for topic in list(subscriber.topics):
            self._remove(subscriber, topic)

    def publish_block(self, event: BlockEvent) -> None:
        """Tell listeners of `blocks`, and of the txs inside."""
        if BLOCKS in self._subscribers_by_topic:
            self._publish(
                BLOCKS,
                {
                    "height": event.height,
                    "hash": event.hash.hex(),
                    "time_ms": event.time_ms,
                    "txs": [{"tx_id": tx.tx_id.hex(), "code": tx.code} for tx in event.txs],
                },
            )
        if not any(topic.startswith(_TX_PREFIX) for topic in self._subscribers_by_topic):
            return
        for index, tx in enumerate(event.txs):
            topic = _TX_PREFIX + tx.tx_id.hex()
            if topic in self._subscribers_by_topic:
                self._publish(
                    topic,
                    {
                        "tx_id": tx.tx_id.hex(),
                        "status": "finalized",
                        "height": event.height,
                        "index": index,
                        "code": tx.code,
                        "block_hash": event.hash.hex(),
                    },
                )
                self._end(topic)

    async def watch_status(self) -> None:
        """Publish the status when it has changed; runs until cancelled."""
        while True:
            await asyncio.sleep(self._status_interval_s)
            if STATUS not in self._subscribers_by_topic:
                continue
            try:
                status = await self._api.node_status()
                if status != self._status_before:
                    self._status_before = status
                    self._publish(STATUS, status)
            except Exception:
                log.exception("the status could not be published")

    async def _subscribe(self, subscriber: Subscriber, topic: str, tx_id: bytes | None) -> object:
        if (topic == "tx") != (tx_id is not None):
            raise RpcError(
                RpcCode.INVALID_PARAMS,
                "parameter 'tx_id' goes with topic tx and no other",
                expected="tx_id if and only if topic is tx",
            )
        name = topic if tx_id is None else _TX_PREFIX + tx_id.hex()
        if name not in subscriber.topics and len(subscriber.topics) >= self._topics_max:
            raise RpcError(
                RpcCode.RATE_LIMITED,
                "too many subscriptions on this connection",
                expected=f"at most {self._topics_max}",
            )
        subscriber.topics.add(name)
        self._subscribers_by_topic.setdefault(name, set()).add(subscriber)
        current: object = None
        if topic == STATUS:
            current = await self._api.node_status()
        elif tx_id is not None:
            # Listening began before this look, so a tx that becomes final meanwhile is not missed.
            with contextlib.suppress(ZynkError):
                found = await self._api.tx_get(tx_id)
                if found.get("status") == "finalized":
                    current = found
                    self._remove(subscriber, name)
        return {"subscription": name, "current": current}

    def _publish(self, topic: str, result: object) -> None:
        message = encode_json(
            {
                "jsonrpc": "2.0",
                "method": "subscription",
                "params": {"subscription": topic, "result": result},
            }
        ).encode("ascii")
        for subscriber in self._listeners(topic):
            subscriber.offer(message)

    def _listeners(self, topic: str) -> Iterable[Subscriber]:
        """A copy: a subscriber that is too slow leaves while it is being told."""
        return tuple(self._subscribers_by_topic.get(topic, ()))

    def _end(self, topic: str) -> None:
        for subscriber in self._listeners(topic):
            self._remove(subscriber, topic)

    def _remove(self, subscriber: Subscriber, topic: str) -> bool:
        if topic not in subscriber.topics:
            return False
        subscriber.topics.discard(topic)
        listeners = self._subscribers_by_topic[topic]
        listeners.discard(subscriber)
        if not listeners:
            del self._subscribers_by_topic[topic]
        return True
