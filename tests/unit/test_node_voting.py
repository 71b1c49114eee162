"""Whether a node votes: key, guard and store in every combination that a bad day can bring."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from consensus.guard import VIEW_END, GuardUnusableError
from consensus.statement import Statement, StatementKind
from ledger.chain import Chain
from ledger.errors import DurabilityError, UsageError
from ledger.store import CrashStore, MemoryStore, Store
from node import config as cfg
from node.cli import cli
from node.guard import GuardFile
from node.home import create_guard
from node.keys import save_key
from node.offences import OFFENCES_MAX, PEERS_MAX, WINDOW_S, Offences
from node.voting import VotingKey, open_voting_key
from tests.unit.chain_fixture import CHAIN_ID, NETWORK, VALIDATOR_KEYS, advance, open_chain

KEY = next(iter(VALIDATOR_KEYS.values()))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with key and guard."""
    (tmp_path / cfg.VALIDATOR_KEY_FILE).parent.mkdir(parents=True, exist_ok=True)
    save_key(tmp_path / cfg.VALIDATOR_KEY_FILE, KEY)
    create_guard(tmp_path, CHAIN_ID, KEY.public_key)
    return tmp_path


def vote_in(home: Path, height: int, view: int) -> None:
    with GuardFile.open(home / cfg.GUARD_FILE, CHAIN_ID, KEY.public_key) as guard:
        kind = StatementKind.NULLIFY
        guard.append([Statement(kind=kind, height=height, view=view, block_hash=b"")])


def nullify(height: int, view: int) -> Statement:
    return Statement(kind=StatementKind.NULLIFY, height=height, view=view, block_hash=b"")


def write_settings(home: Path) -> None:
    """What `zynk guard create` reads besides the key."""
    config = cfg.NodeConfig(home=home)
    (home / cfg.CONFIG_FILE).write_text(cfg.render_config(config))
    (home / cfg.GENESIS_FILE).write_bytes(NETWORK.document.encode())


def command_in(reason: str) -> list[str]:
    """The command that a reason names, as a shell would split it."""
    (command,) = re.findall(r"`(zynk [^`]+)`", reason)
    return shlex.split(command)


def open_closed(home: Path, store: Store, chain: Chain | None = None) -> VotingKey:
    """Open and close again; what was found."""
    found = open_voting_key(home, chain or open_chain(store), store, None)
    found.close()
    return found


def assert_silent(found: VotingKey, word: str) -> None:
    assert word in found.reason
    assert found.public_key is None
    assert found.sign is None


def test_a_new_validator_votes_from_the_first_view_on(home: Path) -> None:
    found = open_closed(home, MemoryStore())
    assert (found.reason, found.floor) == ("", (0, 0))
    assert found.public_key == KEY.public_key
    assert found.sign is not None
    assert found.sign(b"x") == KEY.sign(b"x")


def test_a_node_without_a_key_is_a_full_node(home: Path) -> None:
    (home / cfg.VALIDATOR_KEY_FILE).unlink()
    assert_silent(open_closed(home, MemoryStore()), "full node")


def test_a_missing_guard_means_no_vote_and_none_is_made(home: Path) -> None:
    (home / cfg.GUARD_FILE).unlink()
    assert_silent(open_closed(home, MemoryStore()), "no sign guard")
    assert not (home / cfg.GUARD_FILE).exists()


def test_a_torn_guard_means_no_vote_and_is_left_for_inspection(home: Path) -> None:
    vote_in(home, 1, 1)
    path = home / cfg.GUARD_FILE
    torn = path.read_bytes()[:-3]
    path.write_bytes(torn)
    assert_silent(open_closed(home, MemoryStore()), "can't be used")
    assert path.read_bytes() == torn


@pytest.mark.parametrize("damage", ["missing", "torn"])
def test_the_command_in_the_reason_lets_the_node_vote_again_above_its_floor(
    home: Path, damage: str
) -> None:
    store = MemoryStore()
    chain = open_chain(store)
    advance(chain)
    write_settings(home)
    vote_in(home, 2, 1)
    path = home / cfg.GUARD_FILE
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
    command = command_in(open_closed(home, store, chain).reason)
    path.unlink(missing_ok=True)  # the torn one is moved away first, as the reason says
    result = CliRunner().invoke(cli, command[1:])
    assert result.exit_code == 0, result.output
    found = open_voting_key(home, chain, store, None)
    assert (found.reason, found.floor) == ("", (2, VIEW_END))
    assert found.guard is not None
    with pytest.raises(UsageError):
        found.guard.append([nullify(2, 9)])
    found.guard.append([nullify(3, 1)])
    found.close()


def test_a_guard_for_a_key_in_use_elsewhere_is_not_to_be_replaced(home: Path) -> None:
    store = MemoryStore()
    first = open_voting_key(home, open_chain(store), store, None)
    assert "guard create" not in open_closed(home, MemoryStore()).reason
    first.close()


@pytest.mark.parametrize(
    "options", [(), ("--floor", "7", "--i-know-this-key-signed-nothing"), ("--floor", "0")]
)
def test_a_guard_without_a_floor_or_a_promise_is_not_made(
    home: Path, options: tuple[str, ...]
) -> None:
    write_settings(home)
    (home / cfg.GUARD_FILE).unlink()
    assert CliRunner().invoke(cli, ["guard", "create", "--home", str(home), *options]).exception
    assert not (home / cfg.GUARD_FILE).exists()


def test_a_guard_that_is_there_is_not_replaced_by_the_command(home: Path) -> None:
    write_settings(home)
    vote_in(home, 5, 1)
    before = (home / cfg.GUARD_FILE).read_bytes()
    result = CliRunner().invoke(cli, ["guard", "create", "--home", str(home), "--floor", "9"])
    assert isinstance(result.exception, GuardUnusableError)
    assert (home / cfg.GUARD_FILE).read_bytes() == before


@pytest.mark.parametrize(("chain_id", "key"), [("other-1", KEY.public_key), (CHAIN_ID, bytes(32))])
def test_the_guard_of_another_chain_or_key_means_no_vote(
    home: Path, chain_id: str, key: bytes
) -> None:
    (home / cfg.GUARD_FILE).unlink()
    create_guard(home, chain_id, key)
    assert_silent(open_closed(home, MemoryStore()), "can't be used")


def test_a_guard_in_use_means_no_vote(home: Path) -> None:
    store = MemoryStore()
    first = open_voting_key(home, open_chain(store), store, None)
    assert_silent(open_closed(home, MemoryStore()), "another process")
    first.close()
    assert open_closed(home, MemoryStore()).reason == ""


def test_a_new_store_with_an_old_guard_raises_the_floor_for_good(home: Path) -> None:
    first = MemoryStore()
    assert open_closed(home, first).floor == (0, 0)
    vote_in(home, 1, 3)
    assert open_closed(home, first).floor == (0, 0), "the store that it voted with"
    second = MemoryStore()
    assert open_closed(home, second).floor == (1, 3)
    assert open_closed(home, second).floor == (1, 3), "remembered over a restart"
    with (
        GuardFile.open(home / cfg.GUARD_FILE, CHAIN_ID, KEY.public_key) as guard,
        pytest.raises(UsageError),
    ):
        guard.append(
            [Statement(kind=StatementKind.NULLIFY, height=1, view=2, block_hash=b"")],
        )


def test_a_store_put_back_from_a_copy_raises_the_floor(home: Path) -> None:
    store = MemoryStore()
    chain = open_chain(store)
    open_closed(home, store, chain)
    advance(chain)
    vote_in(home, 2, 1)
    assert open_closed(home, store).floor == (0, 0), "at work on height 2"
    vote_in(home, 3, 2)  # height 2 was final when it voted here; this store lost it
    assert open_closed(home, store).floor == (3, 2)


def test_a_crash_between_floor_and_row_raises_the_floor_again(home: Path) -> None:
    vote_in(home, 1, 3)
    store = CrashStore()
    chain = open_chain(store)
    store.fail_after(0)
    with pytest.raises(DurabilityError):
        open_voting_key(home, chain, store, None)
    survived = store.crash()
    found = open_voting_key(home, open_chain(survived), survived, None)
    assert found.floor == (1, 3)
    found.close()


@pytest.mark.slow
def test_a_wrong_passphrase_ends_the_start(home: Path) -> None:
    path = home / cfg.VALIDATOR_KEY_FILE
    path.unlink()
    save_key(path, KEY, "right")
    store = MemoryStore()
    with pytest.raises(UsageError, match="wrong"):
        open_voting_key(home, open_chain(store), store, "left")


class TestOffences:
    """Faults of peers, counted."""

    def setup_method(self) -> None:
        self.now = 0.0
        self.dropped: list[tuple[str, str]] = []
        self.offences = Offences(
            clock=lambda: self.now, on_drop=lambda peer, why: self.dropped.append((peer, why))
        )

    def add(self, peer: str, count: int) -> None:
        for number in range(count):
            self.offences.add(peer, f"fault {number}")

    def test_a_peer_is_dropped_at_the_limit_and_starts_anew(self) -> None:
        self.add("a", OFFENCES_MAX - 1)
        self.add("b", 1)
        assert not self.dropped
        self.offences.add("a", "the last")
        assert self.dropped == [("a", "the last")]
        self.add("a", OFFENCES_MAX - 1)
        assert len(self.dropped) == 1
        assert self.offences.total == 2 * OFFENCES_MAX

    def test_faults_far_apart_are_forgiven(self) -> None:
        for _ in range(5):
            self.add("a", OFFENCES_MAX - 1)
            self.now += WINDOW_S + 1
        assert not self.dropped

    def test_many_peers_are_counted_in_bounded_memory(self) -> None:
        self.add("busy", OFFENCES_MAX - 1)
        for number in range(PEERS_MAX - 1):
            self.add(f"peer-{number}", 1)
        self.add("busy", 1)
        assert [peer for peer, _ in self.dropped] == ["busy"], "not yet forgotten"
        self.add("old", OFFENCES_MAX - 1)
        for number in range(PEERS_MAX + 1):
            self.add(f"other-{number}", 1)
        self.add("old", 1)
        assert len(self.dropped) == 1, "the one that was quiet longest was forgotten"
