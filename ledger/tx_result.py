"""What became of a tx.

Results leaf (what `results_root` commits to, hashed as RFC 6962 leaf):
[tx_id bin32, code str, fee, weight, [[event type, [[name, value], ...]], ...]].
Stored row: the leaf's array followed by the message. The message is left out of the leaf, so that
two releases that word an error differently still agree on the block.

The block's own events (rewards, slashes, what fell due) make one more leaf after those of the txs,
whose tx_id is 32 zero bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ledger import codec
from ledger.execution import Event

BLOCK_RESULT_ID = bytes(32)
CODE_MAX = 64
RESULT_MESSAGE_MAX = 512
EVENTS_MAX = 1024
EVENT_TEXT_MAX = 1024
ATTRIBUTES_MAX = 32


@dataclass(frozen=True, slots=True)
class TxResult:
    """`code` is "" for success, else the TxFailure's word; `fee` was paid in either case (uzynk).
    Events are those of a successful tx."""

    tx_id: bytes
    code: str
    message: str
    fee: int
    weight: int
    events: tuple[Event, ...]

    @property
    def is_ok(self) -> bool:
        return not self.code

    def leaf_bytes(self) -> bytes:
        """Canonical bytes of the results leaf."""
        return codec.encode(self._leaf_value())

    def to_value(self) -> list[codec.Value]:
        """The stored row's array."""
        return [*self._leaf_value(), self.message]

    @classmethod
    def from_value(cls, value: object) -> TxResult:
        """Inverse of `to_value`. Raises InvalidInputError."""
        tx_id, code, fee, weight, events, message = codec.read_array(value, 6, "tx result")
        return cls(
            codec.read_bytes(tx_id, "result tx id", length=32),
            codec.read_str(code, "result code", CODE_MAX),
            codec.read_str(message, "result message", RESULT_MESSAGE_MAX),
            codec.read_int(fee, "result fee"),
            codec.read_int(weight, "result weight"),
            tuple(
                _event_from_value(item)
                for item in codec.read_list(events, EVENTS_MAX, "result events")
            ),
        )

    def _leaf_value(self) -> list[Any]:
        # msgpack writes tuples as arrays, so that an event's attributes go in as they are.
        return [
            self.tx_id,
            self.code,
            self.fee,
            self.weight,
            [(event.type, event.attributes) for event in self.events],
        ]


def _event_from_value(value: object) -> Event:
    kind, attributes = codec.read_array(value, 2, "event")
    pairs = []
    for item in codec.read_list(attributes, ATTRIBUTES_MAX, "event attributes"):
        name, text = codec.read_array(item, 2, "event attribute")
        pairs.append(
            (
                codec.read_str(name, "event attribute name", EVENT_TEXT_MAX),
                codec.read_str(text, "event attribute value", EVENT_TEXT_MAX),
            )
        )
    return Event(codec.read_str(kind, "event type", EVENT_TEXT_MAX), tuple(pairs))
