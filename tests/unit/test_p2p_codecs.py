"""Frames, peer ids, addresses, the flight recorder: each rule by its counterexample."""

from __future__ import annotations

import subprocess
import sys
from struct import pack

import pytest

from ledger import codec
from ledger.errors import InvalidInputError, UsageError
from p2p import frame, link_codec
from p2p.blackbox import BlackBox
from p2p.identity import check_peer_id, peer_id_of_seed, split_multiaddr

PEER = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"  # libp2p's own, for 32 x 0x01


def test_peer_id_is_what_libp2p_makes_of_the_same_seed() -> None:
    assert peer_id_of_seed(b"\1" * 32) == PEER


def test_seed_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError):
        peer_id_of_seed(b"\1" * 31)


def test_link_is_importable_without_libp2p_or_trio() -> None:
    code = "import sys, p2p.link; print([m for m in ('libp2p', 'trio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["", "0OIl", PEER[:-1], PEER + "1", "1" * 65, "é", PEER[::-1]])
def test_malformed_peer_ids_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        check_peer_id(text)


@pytest.mark.parametrize(
    ("multiaddr", "address"),
    [
        (f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}", "/ip4/127.0.0.1/tcp/1"),
        (f"/ip6/::1/tcp/65535/p2p/{PEER}", "/ip6/::1/tcp/65535"),
        (f"/dns4/node.example/tcp/26656/p2p/{PEER}", "/dns4/node.example/tcp/26656"),
    ],
)
def test_multiaddr_splits_into_peer_and_address(multiaddr: str, address: str) -> None:
    assert split_multiaddr(multiaddr) == (PEER, address)


@pytest.mark.parametrize(
    "multiaddr",
    [
        "",
        "/ip4/127.0.0.1/tcp/1",
        f"/ip4/127.0.0.1/tcp/0/p2p/{PEER}",
        f"/ip4/127.0.0.1/tcp/65536/p2p/{PEER}",
        f"/ip4/127.0.0.1/tcp/１/p2p/{PEER}",
        f"/ip4/127.0.0.1/udp/1/p2p/{PEER}",
        f"/ip4//tcp/1/p2p/{PEER}",
        f"/unix/x/tcp/1/p2p/{PEER}",
        f"ip4/127.0.0.1/tcp/1/p2p/{PEER}",
        f"/ip4/127.0.0.1/tcp/1/ws/p2p/{PEER}",
        "/ip4/127.0.0.1/tcp/1/p2p/abc",
        f"/ip4/{'1' * 600}/tcp/1/p2p/{PEER}",
    ],
)
def test_malformed_multiaddrs_are_refused(multiaddr: str) -> None:
    with pytest.raises(InvalidInputError):
        split_multiaddr(multiaddr)


@pytest.mark.parametrize(
    ("chunk", "why"),
    [
        (pack(">IBB", 0, 5, 0), "channel 5"),
        (pack(">IBB", 0, 254, 0), "channel 254"),
        (pack(">IBB", 1, 0, 2), "flag 2"),
        (pack(">IBB", 1, 0, 3), "flag 3"),
        (pack(">IBB", 0, 0, 1), "empty chunk with more"),
        (pack(">IBB", 1001, 0, 0), "over the frame limit"),
        (pack(">IBB", 2**32 - 1, 0, 0), "over the chunk limit"),
        (pack(">IBB", 513, 255, 0), "control too long"),
        (pack(">IBB", 600, 1, 1) + bytes(600) + pack(">IBB", 401, 1, 0), "sum over the limit"),
    ],
)
def test_malformed_chunk_is_refused_before_its_payload_arrives(chunk: bytes, why: str) -> None:
    with pytest.raises(InvalidInputError):
        frame.FrameReader(1000).feed(chunk)


def test_message_of_exactly_the_limit_passes() -> None:
    size = 3 * frame.CHUNK_BYTES + 1
    reader = frame.FrameReader(size)
    assert reader.feed(b"".join(frame.encode_message(3, bytes(size)))) == [(3, bytes(size))]


def test_reader_takes_single_bytes() -> None:
    reader = frame.FrameReader(1000)
    data = frame.encode_message(2, b"abc")[0]
    got = [message for byte in data for message in reader.feed(bytes([byte]))]
    assert got == [(2, b"abc")]


@pytest.mark.parametrize(
    "value",
    [
        [],
        0,
        [4, "x"],
        [True, 1, 2],
        [0, "zynk/p2p/2", "c", bytes(32), 1, 0, 0],
        [0, "zynk/p2p/1", "c", bytes(31), 1, 0, 0],
        [0, "zynk/p2p/1", "c" * 65, bytes(32), 1, 0, 0],
        [0, "zynk/p2p/1", "c", bytes(32), 1, 0, 65536],
        [0, "zynk/p2p/1", "c", bytes(32), 2**32, 0, 0],
        [0, "zynk/p2p/1", "c", bytes(32), 1, 0],
        [1, 1],
        [1, "1", 1],
        [3, b"reason"],
        [3, "r" * 101],
    ],
)
def test_malformed_control_messages_are_refused(value: codec.Value) -> None:
    with pytest.raises(InvalidInputError):
        frame.decode_control(codec.encode(value))


def test_link_frame_over_the_limit_is_refused_by_its_length() -> None:
    with pytest.raises(InvalidInputError):
        link_codec.LinkReader(100).feed(
            (100 + link_codec.OVERHEAD_BYTES_MAX + 1).to_bytes(4, "big")
        )


def test_link_frame_with_a_bool_for_a_number_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        link_codec.LinkReader(100).feed(
            link_codec.encode(link_codec.Kind.FRAME, "peer", True, b"payload")
        )


def test_black_box_tells_the_last_two_peers_newest_first() -> None:
    box = BlackBox.create()
    for peer in ("a", "a", "b", "c", "c"):
        box.note(peer)
    assert BlackBox.read(box) == ["c", "b"]
    box.close()
