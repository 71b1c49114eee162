"""The peer book's order, backoff and bounds, and the supervisor's judgement of a death."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import msgpack

from p2p.config import P2PConfig
from p2p.identity import peer_id_of_seed
from p2p.peerbook import (
    BAR_FIRST_S,
    BAR_MAX_S,
    BARS_MAX,
    FAILURES_TO_FORGET,
    RANK_CONFIGURED,
    PeerBook,
)
from p2p.supervisor import RESTART_MAX_S, RestartPolicy

IDS = [peer_id_of_seed(bytes([n + 1]) * 32) for n in range(8)]
OWN = peer_id_of_seed(b"\xaa" * 32)


def address(number: int) -> str:
    return f"/ip4/10.0.0.{number}/tcp/26656"


def config(**changes: Any) -> P2PConfig:
    values: dict[str, Any] = {
        "identity_seed": b"\xaa" * 32,
        "listen_host": "127.0.0.1",
        "listen_port": 0,
        "chain_id": "c",
        "genesis_hash": bytes(32),
        "protocol_version": 1,
        "home": Path(),
        **changes,
    }
    return P2PConfig(**values)


def make_book(**changes: Any) -> PeerBook:
    return PeerBook(config(**changes), OWN, random.Random(1))


def test_validators_are_dialled_first_then_configured_then_learnt() -> None:
    book = make_book(validators=(IDS[2],), peers=(f"{address(1)}/p2p/{IDS[1]}",))
    for number in (0, 2):
        book.add(IDS[number], address(number))
    assert [peer for peer, _ in book.take_due(0.0, set(), 9)] == [IDS[2], IDS[1], IDS[0]]
    assert book.take_due(0.0, set(), 9) == []  # each is being dialled


def test_connected_peers_are_not_dialled() -> None:
    book = make_book()
    book.add(IDS[0], address(0))
    assert book.take_due(0.0, {IDS[0]}, 9) == []
    assert book.next_due_s({IDS[0]}) == float("inf")


def test_backoff_doubles_to_the_ceiling_of_the_rank_and_starts_anew_after_success() -> None:
    book = make_book(validators=(IDS[0],), redial_validator_max_s=3.0, redial_max_s=60.0)
    for peer in IDS[:2]:
        book.add(peer, address(0), rank=RANK_CONFIGURED)
    waits: dict[str, list[float]] = {IDS[0]: [], IDS[1]: []}
    for _ in range(12):
        for peer, seen in waits.items():
            book.on_failed(peer, 100.0)
            seen.append(book.next_due_s(set(IDS) - {peer}) - 100.0)
    assert 0.18 < waits[IDS[0]][0] < 0.32
    assert max(waits[IDS[0]]) <= 3.75
    assert 45 <= waits[IDS[1]][-1] <= 75
    assert len(set(waits[IDS[1]][-3:])) == 3  # jitter
    book.on_up(IDS[1])
    book.on_lost(IDS[1], 100.0)
    book.on_failed(IDS[1], 200.0)
    assert book.next_due_s({IDS[0]}) < 201.0


def test_learnt_peer_is_forgotten_after_many_failures_and_a_configured_one_never() -> None:
    book = make_book()
    book.add(IDS[0], address(0))
    book.add(IDS[1], address(1), rank=RANK_CONFIGURED)
    for _ in range(FAILURES_TO_FORGET):
        book.on_failed(IDS[0], 0.0)
        book.on_failed(IDS[1], 0.0)
    assert book.address_of(IDS[0]) is None
    assert book.address_of(IDS[1]) == address(1)


def test_learnt_address_does_not_replace_a_configured_one() -> None:
    book = make_book()
    book.add(IDS[0], address(0), rank=RANK_CONFIGURED)
    assert book.add(IDS[0], address(9)) is False
    assert book.address_of(IDS[0]) == address(0)


def test_full_book_gives_up_a_learnt_peer_but_no_configured_one() -> None:
    book = make_book(book_peers_max=2)
    book.add(IDS[0], address(0), rank=RANK_CONFIGURED)
    book.add(IDS[1], address(1))
    assert book.add(IDS[2], address(2), rank=RANK_CONFIGURED)
    assert book.address_of(IDS[1]) is None
    assert not book.add(IDS[3], address(3))
    assert len(book) == 2


def test_own_address_never_enters_the_book() -> None:
    assert not make_book().add(OWN, address(0))


def test_barred_peer_is_neither_dialled_nor_let_in_until_its_time() -> None:
    book = make_book()
    book.add(IDS[0], address(0))
    book.bar(IDS[0], 60.0)
    book.bar(IDS[1], 60.0)  # not known before
    assert book.is_barred(IDS[0], 59.0)
    assert book.is_barred(IDS[1], 59.0)
    assert book.take_due(59.0, set(), 9) == []
    assert [peer for peer, _ in book.take_due(60.0, set(), 9)] == [IDS[0]]


def test_a_peer_dropped_again_stays_out_twice_as_long_and_a_validators_never() -> None:
    """It came back at once, with a clean record."""
    book = make_book(validators=(IDS[1],))
    now_s = 1000.0
    for number in range(12):
        assert book.bar_stranger(IDS[0], now_s)
        assert book.bar_stranger(IDS[0], now_s), "said twice, it counts once"
        wait_s = min(BAR_FIRST_S * 2**number, BAR_MAX_S)
        assert book.is_barred(IDS[0], now_s + wait_s - 0.1)
        now_s += wait_s
        assert not book.is_barred(IDS[0], now_s)
    now_s += BAR_MAX_S + 1
    book.bar_stranger(IDS[0], now_s)
    assert not book.is_barred(IDS[0], now_s + BAR_FIRST_S), "it was good for an hour"
    assert not book.bar_stranger(IDS[1], now_s)
    assert not book.is_barred(IDS[1], now_s)


def test_bars_are_bounded_and_take_no_place_in_the_book() -> None:
    book = make_book(book_peers_max=2)
    book.add(IDS[0], address(0))
    for number in range(2 * BARS_MAX):
        book.bar_stranger(f"stranger-{number}", 0.0)
    barred = [n for n in range(2 * BARS_MAX) if book.is_barred(f"stranger-{n}", 1.0)]
    assert barred == list(range(BARS_MAX, 2 * BARS_MAX))
    assert len(book) == 1


def test_a_barred_peer_that_enters_the_book_is_not_dialled() -> None:
    book = make_book()
    book.bar(IDS[0], 60.0)
    book.add(IDS[0], address(0))
    assert book.take_due(59.0, set(), 9) == []
    assert book.take_due(60.0, set(), 9) == [(IDS[0], address(0))]


def test_peer_put_aside_may_still_come() -> None:
    book = make_book()
    book.add(IDS[0], address(0))
    book.put_aside(IDS[0], 60.0)
    assert not book.is_barred(IDS[0], 1.0)
    assert book.take_due(59.0, set(), 9) == []


def test_book_survives_a_restart_and_any_damage_counts_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    book = make_book()
    book.add(IDS[0], address(0))
    book.bar(IDS[1], 9.0)  # without an address: not written
    book.save(path)
    good = path.read_bytes()
    again = make_book()
    assert again.load(path) == 1
    assert again.address_of(IDS[0]) == address(0)
    for bad in (b"", b"{", b"[]", b'{"peers": 3}', b'{"peers": [3, "x"]}', b"[" * 10**5, good[:-3]):
        path.write_bytes(bad)
        assert make_book().load(path) == 0
    assert make_book().load(tmp_path / "missing") == 0
    path.write_bytes(b" " * (2 << 20))
    assert make_book().load(path) == 0


# --- supervisor ---


def quarantined(policy: RestartPolicy) -> dict[str, float]:
    message = msgpack.unpackb(policy.config_message()[4:])
    seconds: dict[str, float] = message[1]["quarantine_s"]
    return seconds


def test_last_peers_before_a_crash_are_quarantined_and_longer_each_time() -> None:
    policy = RestartPolicy(config())
    policy.on_death(1, [IDS[0], IDS[1]])
    assert set(quarantined(policy)) == {IDS[0], IDS[1]}
    policy.on_death(1, [IDS[0]])
    assert quarantined(policy)[IDS[0]] > 100.0


def test_validator_is_quarantined_after_the_third_crash_and_briefly() -> None:
    policy = RestartPolicy(config(validators=(IDS[0],)))
    for _ in range(2):
        policy.on_death(1, [IDS[0]])
    assert quarantined(policy) == {}
    policy.on_death(1, [IDS[0]])
    assert 0 < quarantined(policy)[IDS[0]] <= 10.0


def test_first_kill_by_signal_blames_nobody_the_second_does_but_no_validator() -> None:
    policy = RestartPolicy(config(validators=(IDS[1],)))
    policy.on_listening(1234)
    policy.on_death(-signal.SIGKILL, [IDS[0], IDS[1]])
    assert quarantined(policy) == {}
    for _ in range(5):
        policy.on_death(-signal.SIGKILL, [IDS[0], IDS[1]])
    assert set(quarantined(policy)) == {IDS[0]}


def test_restart_comes_at_once_then_slower_and_never_ends() -> None:
    policy = RestartPolicy(config())
    policy.on_listening(1234)
    assert policy.delay_s() < 0.1
    delays = []
    for _ in range(50):
        policy.on_start_failed()
        delays.append(policy.delay_s())
    assert delays == sorted(delays)
    assert delays[0] <= 0.2
    assert delays[-1] == RESTART_MAX_S


def test_restarted_process_keeps_the_port() -> None:
    policy = RestartPolicy(config())
    policy.on_listening(1234)
    assert msgpack.unpackb(policy.config_message()[4:])[1]["config"]["listen_port"] == 1234
