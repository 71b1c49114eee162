"""The buffer for the next height holds what it should and stays bounded."""

from __future__ import annotations

from consensus.catchup import (
    BUFFERED_BLOCKS_MAX,
    BUFFERED_BLOCKS_PER_PEER_MAX,
    BUFFERED_MAX,
    BUFFERED_PER_PEER_MAX,
    HeightBuffer,
)
from consensus.messages import Body, Status
from ledger.block import Block, Header, compute_body_hash

ZERO = b"\0" * 32


def body(height: int) -> Body:
    header = Header(
        *(1, "c", height, 0, ZERO, 1, ZERO, b"", compute_body_hash((), None)),
        *(ZERO, 0, ZERO, ZERO, ZERO, ZERO),
    )
    return Body(block=Block(header, (), None))


def status(height: int) -> Status:
    return Status(height=height, view=1, need=())


def test_messages_come_out_at_their_height_in_order_and_older_ones_are_dropped() -> None:
    buffer = HeightBuffer()
    for height in (5, 7, 6, 7):
        buffer.add("a", status(height))
    assert buffer.take(7) == [("a", status(7)), ("a", status(7))]
    assert buffer.take(6) == []


def test_one_peer_can_not_take_the_others_share() -> None:
    buffer = HeightBuffer()
    for _ in range(2 * BUFFERED_PER_PEER_MAX):
        buffer.add("greedy", status(5))
        buffer.add("greedy", body(5))
    buffer.add("modest", status(5))
    taken = buffer.take(5)
    assert len(taken) == BUFFERED_PER_PEER_MAX + BUFFERED_BLOCKS_PER_PEER_MAX + 1
    assert taken[-1][0] == "modest"


def test_many_peers_can_not_fill_the_memory_and_room_returns_with_the_height() -> None:
    buffer = HeightBuffer()
    for peer in range(100):
        for _ in range(BUFFERED_PER_PEER_MAX):
            buffer.add(str(peer), status(5))
        for _ in range(BUFFERED_BLOCKS_PER_PEER_MAX):
            buffer.add(str(peer), body(5))
    assert len(buffer.take(5)) == BUFFERED_MAX + BUFFERED_BLOCKS_MAX
    buffer.add("0", body(6))
    assert buffer.take(6) == [("0", body(6))]
