"""Topics, who listens to them, and fan-out.

A subscription's name is its topic: `blocks`, `operations`, `status` or `tx:<id>`. So a message is
the same bytes for every subscriber and is encoded once, however many listen. `tx:<id>` is told
once, when the tx is final, and is then over. `operations` is resumed at a cursor: what was missed
comes with the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import structlog

from ledger.errors import ZynkError
from rpc.api import BlockEvent, NodeApi
from rpc.dispatch import encode_json
from rpc.errors import RpcCode, RpcError, unsupported
from rpc.params import HEX32, Param, choice, text
from rpc.registry import Call, Method
from rpc.results import ANY_OBJECT, BOOL, TEXT, or_null, record

BLOCKS = "blocks"
OPERATIONS = "operations"
STATUS = "status"
_TX_PREFIX = "tx:"
MISSED_MAX = 1000
MISSED_PAGES_MAX = 8
"""Pages of `did_export` read for a subscriber; one may be empty where no block holds a DID."""
OPERATIONS_PER_MESSAGE_MAX = 100

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
        summary="Listen to final blocks, DID operations, the status, or one tx becoming final.",
        bind=_only_on_websockets,
        params=(
            Param(
                name="topic",
                kind=choice("blocks", "operations", "tx", "status"),
                description="What to listen to.",
                required=True,
            ),
            Param(name="tx_id", kind=HEX32, description="With topic tx."),
            Param(
                name="after",
                kind=text(32, what="a cursor"),
                description="With topic operations: the cursor of the last line that is known.",
            ),
        ),
        result=record(subscription=TEXT, current=or_null(ANY_OBJECT)),
        errors=(RpcCode.UNSUPPORTED,),
        cost_by_param={"after": 500},
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

        async def subscribe(topic: str, tx_id: bytes | None, after: str | None) -> object:
            return await self._subscribe(subscriber, topic, tx_id, after)

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
        if OPERATIONS in self._subscribers_by_topic:
            lines = self._api.did_operations(event.height)
            for first in range(0, len(lines), OPERATIONS_PER_MESSAGE_MAX):
                part = lines[first : first + OPERATIONS_PER_MESSAGE_MAX]
                self._publish(OPERATIONS, {"operations": part})
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

    async def _subscribe(
        self, subscriber: Subscriber, topic: str, tx_id: bytes | None, after: str | None
    ) -> object:
        if (topic == "tx") != (tx_id is not None):
            raise RpcError(
                RpcCode.INVALID_PARAMS,
                "parameter 'tx_id' goes with topic tx and no other",
                expected="tx_id if and only if topic is tx",
            )
        if after is not None and topic != OPERATIONS:
            raise RpcError(
                RpcCode.INVALID_PARAMS,
                "parameter 'after' goes with topic operations and no other",
                expected="no after",
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
        if after is not None:
            current = await self._missed(subscriber, after)
        elif topic == STATUS:
            current = await self._api.node_status()
        elif tx_id is not None:
            # Listening began before this look, so a tx that becomes final meanwhile is not missed.
            with contextlib.suppress(ZynkError):
                found = await self._api.tx_get(tx_id)
                if found.get("status") == "finalized":
                    current = found
                    self._remove(subscriber, name)
        return {"subscription": name, "current": current}

    async def _missed(self, subscriber: Subscriber, after: str) -> object:
        """The operations after a cursor. Listening has begun, so none is lost in between; one that
        comes twice has the same cursor. Raises RpcError if they are too many, and listening ends.
        """
        missed: list[object] = []
        cursor: str | None = after
        try:
            for _ in range(MISSED_PAGES_MAX):
                page: Mapping[str, Any] = await self._api.did_export(
                    cursor, MISSED_MAX - len(missed)
                )
                missed += page["operations"]
                cursor = page["nextCursor"]
                if cursor is None:
                    return {"operations": missed}
                if len(missed) == MISSED_MAX:
                    break
            raise RpcError(
                RpcCode.TOO_LARGE,
                "too much was missed; page through did_export first",
                expected=f"at most {MISSED_MAX} operations in {MISSED_PAGES_MAX} of its pages",
            )
        except BaseException:
            self._remove(subscriber, OPERATIONS)
            raise

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
