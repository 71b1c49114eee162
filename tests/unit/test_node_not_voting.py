"""`zynk status` always says why a validator is not voting: each reason, made as it comes about, and
read through the real RPC server by the real command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner

from consensus import inputs
from consensus.messages import Body, CertificateMessage, ConsensusMessage
from consensus.statement import Statement, StatementKind
from ledger.block import Block
from ledger.certificate import Certificate
from node import config as cfg
from node import wire
from node.cli_node import status
from node.guard import GuardFile
from node.home import create_guard
from node.keys import save_key
from node.voting import VotingKey, open_voting_key
from rpc.config import RpcConfig
from rpc.server import RpcServer
from tests.unit.chain_fixture import (
    CHAIN_ID,
    GENESIS_TIME_MS,
    PROPOSER,
    VALIDATOR_KEYS,
    certify,
    key_of,
)
from tests.unit.test_node_api import ApiWorld, StatusLink, run
from tests.unit.test_node_sync import HEIGHTS, honest

KEY = next(iter(VALIDATOR_KEYS.values()))
IMPATIENT = cfg.ConsensusSettings(view_timeout_base_ms=10, view_timeout_min_ms=10, retry_ms=10)
LIMIT_S = 10.0


class Validator:
    """A validator's home, and the node on it with the voting key and driver that the daemon makes
    of it. `start` begins height 1; a test spoils something before or after it."""

    def __init__(self, world: ApiWorld) -> None:
        self.node = world.node
        self.home = world.node.config.home
        save_key(self.home / cfg.VALIDATOR_KEY_FILE, KEY)
        create_guard(self.home, CHAIN_ID, KEY.public_key)

    @property
    def guard_path(self) -> Path:
        return self.home / cfg.GUARD_FILE

    def open(self) -> VotingKey:
        return open_voting_key(self.home, self.node.chain, self.node.store, None)

    def wire(self, voting: VotingKey | None = None) -> None:
        self.node.config = replace(self.node.config, consensus=IMPATIENT)
        self.node.voting = voting or self.open()
        self.node.driver = self.node._new_driver()

    def start(self, voting: VotingKey | None = None) -> None:
        self.wire(voting)
        self.node.driver.start_height()

    def finality(self, time_ms: int) -> Certificate:
        """Of a block at height 1 that this node never saw."""
        return certify(self.block(time_ms))

    def block(self, time_ms: int) -> Block:
        return self.node.chain.build(
            view=1,
            facts=self.node.chain.plain_facts(PROPOSER),
            time_ms=GENESIS_TIME_MS + time_ms,
            candidates=[],
        )

    def hear(self, certificate: Certificate) -> None:
        self.hear_message(CertificateMessage(certificate=certificate))

    def hear_message(self, message: ConsensusMessage) -> None:
        self.node.driver.feed(inputs.Received(peer="a", message=message))


def has_no_key(validator: Validator) -> None:
    (validator.home / cfg.VALIDATOR_KEY_FILE).unlink()
    validator.start()


def has_no_guard(validator: Validator) -> None:
    validator.guard_path.unlink()
    validator.start()


def has_a_torn_guard(validator: Validator) -> None:
    validator.guard_path.write_bytes(validator.guard_path.read_bytes()[:-3])
    validator.start()


def has_the_guard_of_another_key(validator: Validator) -> None:
    validator.guard_path.unlink()
    create_guard(validator.home, CHAIN_ID, bytes(32))
    validator.start()


def has_a_guard_in_use(validator: Validator) -> None:
    with GuardFile.open(validator.guard_path, CHAIN_ID, KEY.public_key):
        validator.start()


def lost_its_store(validator: Validator) -> None:
    with GuardFile.open(validator.guard_path, CHAIN_ID, KEY.public_key) as guard:
        guard.append(
            [Statement(kind=StatementKind.NULLIFY, height=1, view=3, block_hash=b"")],
        )
    validator.start()


def is_not_in_the_set(validator: Validator) -> None:
    stranger = key_of(1)
    (validator.home / cfg.VALIDATOR_KEY_FILE).unlink()
    validator.guard_path.unlink()
    save_key(validator.home / cfg.VALIDATOR_KEY_FILE, stranger)
    create_guard(validator.home, CHAIN_ID, stranger.public_key)
    validator.start()


def is_behind(validator: Validator) -> None:
    """A peer proves by true blocks that it is ahead, and then falls silent."""
    validator.start()
    sync, link = validator.node.sync, cast(StatusLink, validator.node.link)

    def answer(peer: str, channel: int, payload: bytes) -> None:
        if channel == wire.CHANNEL_SYNC_REQUEST:
            first = wire.RangeRequest.decode(payload[1:]).height_from
            if first == 1:
                some = honest(wire.RangeRequest(height_from=1, count=3))
                asyncio.get_running_loop().call_soon(sync.on_range, peer, some.encode())

    link.on_send = answer
    sync.on_peer_up("a", HEIGHTS)


def can_not_write_its_guard(validator: Validator) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    voting = validator.open()
    voting.close()
    guard = GuardFile.open(validator.guard_path, CHAIN_ID, KEY.public_key, sync=refuse)
    validator.start(replace(voting, guard=guard))
    validator.node.driver.wake()  # nobody else is there, so it nullifies the first view


def is_at_odds_with_its_guard(validator: Validator) -> None:
    voting = validator.open()
    assert voting.guard is not None
    validator.start(voting)
    other = Statement(kind=StatementKind.FINALIZE, height=1, view=1, block_hash=bytes(32))
    voting.guard.append([other])  # behind the core's back
    validator.node.driver.wake()  # nobody else is there, so it nullifies the first view


def saw_a_fork_before_this_start(validator: Validator) -> None:
    (validator.home / cfg.FORK_PROOF_FILE).write_bytes(b"proof")
    validator.start()


def sees_a_fork(validator: Validator) -> None:
    validator.start()
    validator.hear(validator.finality(1))
    validator.hear(validator.finality(2))
    validator.hear_message(Body(block=validator.block(1)))  # the header names the set
    assert (validator.home / cfg.FORK_PROOF_FILE).exists()


def waits_for_the_block_of_a_final_height(validator: Validator) -> None:
    validator.start()
    validator.hear(validator.finality(1))


def has_not_begun(validator: Validator) -> None:
    validator.wire()


def is_stopping(validator: Validator) -> None:
    validator.start()
    validator.node.driver.stop("node is stopping")


REASONS: list[tuple[Callable[[Validator], None], str]] = [
    (has_no_key, "full node: it has no validator key"),
    (has_no_guard, "no sign guard"),
    (has_a_torn_guard, "torn"),
    (has_the_guard_of_another_key, "another chain or key"),
    (has_a_guard_in_use, "another process votes"),
    (lost_its_store, "at or below the sign guard's floor 1/3"),
    (is_not_in_the_set, "not in the validator set of height 1"),
    (is_behind, "catching up with the network"),
    (can_not_write_its_guard, "No space left on device"),
    (is_at_odds_with_its_guard, "the sign guard refused a vote"),
    (saw_a_fork_before_this_start, "the chain has forked: settle it with the other operators"),
    (sees_a_fork, "consensus stopped: the chain has forked"),
    (waits_for_the_block_of_a_final_height, "the height is final; its block is being fetched"),
    (has_not_begun, "starting"),
    (is_stopping, "node is stopping"),
]


async def ask_status(world: ApiWorld) -> str:
    """What `zynk status` prints of the node, in one line."""
    server = RpcServer(world.api, RpcConfig(port=0))
    port = await server.start()
    try:
        arguments = ["--rpc", f"http://127.0.0.1:{port}"]
        result = await asyncio.to_thread(CliRunner().invoke, status, arguments)
    finally:
        await server.stop()
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "says"), REASONS, ids=lambda value: getattr(value, "__name__", "")
)
def test_status_says_why_a_validator_is_not_voting(
    tmp_path: Path, spoil: Callable[[Validator], None], says: str
) -> None:
    async def test(world: ApiWorld) -> None:
        spoil(Validator(world))
        async with asyncio.timeout(LIMIT_S):
            while says not in world.node.why_not_voting():
                await asyncio.sleep(0.01)
        told = await ask_status(world)
        assert says in told.split(" voting no: ")[1].split(" peers ")[0], told
        world.node.voting.close()

    run(tmp_path, test)


@pytest.mark.slow
def test_status_says_that_a_validator_votes(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        Validator(world).start()
        assert " voting yes " in await ask_status(world)
        world.node.voting.close()

    run(tmp_path, test)
