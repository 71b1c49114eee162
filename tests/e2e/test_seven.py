"""Seven validators with unequal stakes under load, while validators join, leave, die, sleep in and
cheat: two or more join, one retires, one stays away until it is jailed and comes back, one signs
twice, and all the time one after the other is killed.

`./dev test` runs it for some 40 s, `./dev soak` for ten minutes. It prints its figures as a line of
JSON; a latency is what the client sees from submitting a tx to its answer "finalized".
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from consensus.liveness import LateVote
from ledger.accounts import encode_account_id
from ledger.chain import Chain
from ledger.ed25519 import KeyPair
from ledger.errors import ZynkError
from ledger.params import ChainParams
from ledger.staking_record import POWER_UNIT
from node import config as cfg
from node.config import ConsensusSettings
from node.devnet import Devnet, DevnetNode
from node.keys import generate_key, save_key
from tests.e2e.network import (
    LIMIT_S,
    height_of,
    public_key_of,
    until,
    until_height,
    until_voting,
    zynk,
)
from tests.e2e.traffic import Traffic
from tests.e2e.twins import (
    add_twin,
    ask,
    block_events,
    contradictions,
    inspect_home,
    operator_of,
    p2p_address,
    powers_at,
    stopped_chain,
    use_free_ports,
)

pytestmark = pytest.mark.e2e

IS_SOAK = os.environ.get("ZYNK_SOAK") == "1"
SEED = int(os.environ.get("ZYNK_SEED", "1"))
POWERS = (10, 5, 3, 2, 1, 1, 1)
CONSOLE = 4
"""The node that operators ask: the one that is not killed."""
HEAVIEST, SLEEPER, LEAVER, CULPRIT = 0, 3, 5, 6
SECONDS = 600 if IS_SOAK else 0
"""At least; each step takes the time that it needs."""
JOINERS = 3 if IS_SOAK else 2
JOINER_POWER = 2
JOINER_UZYNK = 10**7
CLIENTS = 32 if IS_SOAK else 6
ACCOUNTS = 1200 if IS_SOAK else 48
PARAMS = ChainParams(
    downtime_window=150 if IS_SOAK else 50,
    downtime_missed_max=100 if IS_SOAK else 40,
    downtime_jail_ms=2_000,
)
"""A killed node must not be jailed: on a machine with a load of 13 it misses 35 heights, most of
them while its process starts."""
IMPATIENT = ConsensusSettings(
    view_timeout_base_ms=50, view_timeout_min_ms=50, view_timeout_max_ms=50, retry_ms=50
)
"""The culprit's twin gives views up that the culprit finalizes: it need not lead to contradict it,
which with 1/23 of the power takes a while."""
SLASHED_WITHIN = 10 if IS_SOAK else 20
"""Heights. `./dev test` runs three networks side by side on two cores, and messages come late."""
UP_S, DOWN_S = (3.0, 7.0), (0.5, 3.0)
"""Seconds between kills, and how long a killed node stays away, at most `DOWN_HEIGHTS_MAX`."""
DOWN_HEIGHTS_MAX = 4
GOES_ON_FOR = 20 if IS_SOAK else 5

Step = Callable[[], Awaitable[None]]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_seven_validators_go_on_while_others_join_leave_die_and_cheat() -> None:
    async def run() -> None:
        folder = Path(tempfile.mkdtemp(prefix="zynk-e2e-"))
        operators = [generate_key() for _ in range(JOINERS)]
        devnet = Devnet.create(
            folder,
            validators=len(POWERS),
            chain_id="zynk-seven",
            powers=POWERS,
            params=PARAMS,
            extra_accounts=[(key.public_key, JOINER_UZYNK) for key in operators],
        )
        try:
            await Seven(devnet, operators).run()
        finally:
            await devnet.stop()
            devnet.remove()

    asyncio.run(run())


class Seven:
    """The network, and what happens to it."""

    def __init__(self, devnet: Devnet, operators: list[KeyPair]) -> None:
        self._devnet = devnet
        self._rng = random.Random(SEED)
        self._up = set(range(len(POWERS))) - {SLEEPER}
        self._traffic = Traffic(devnet, self._up, self._rng, accounts=ACCOUNTS)
        self._twin = add_twin(devnet, CULPRIT, range(len(POWERS)), IMPATIENT)
        self._members = list(range(len(POWERS)))
        self._operators = operators
        self._joiners: list[int] = []
        self._retired: list[int] = []
        self._jailed: list[int] = []
        self._kills: list[int] = []
        self._twin_since = 0
        self._slash: dict[str, int] = {}

    async def run(self) -> None:
        await asyncio.gather(self._prepare_joiners(), self._devnet.start(self._up))
        await until_height(self._devnet, 1, self._up)
        await self._traffic.fund(CONSOLE)
        plan_over, over = asyncio.Event(), asyncio.Event()
        began, height_began = time.monotonic(), await height_of(self._devnet, CONSOLE)
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._traffic.run_client(over))
            killer = group.create_task(self._kill_in_turn(plan_over))
            await self._follow_plans()
            plan_over.set()
            await killer
            await self._until_finalised(GOES_ON_FOR)
            over.set()
        seconds = time.monotonic() - began
        top = await height_of(self._devnet, CONSOLE)
        await until_height(self._devnet, top, self._members)
        await self._check_validators()
        await self._devnet.stop()
        found = self._check_contradiction() | self._figures(seconds, top - height_began)
        self._check_chains(top)
        for index in self._members if IS_SOAK else (CONSOLE, SLEEPER):
            inspect_home(self._devnet, index)
        print(json.dumps(found))

    def _figures(self, seconds: float, heights: int) -> dict[str, Any]:
        latencies = sorted(self._traffic.latencies_ms)
        return {
            "seconds": round(seconds, 1),
            "seed": SEED,
            "heights_per_s": round(heights / seconds, 2),
            "clients": CLIENTS,
            "final_txs": len(latencies),
            "final_tx_per_s": round(len(latencies) / seconds, 1),
            "latency_p50_ms": round(latencies[len(latencies) // 2], 1),
            "latency_p99_ms": round(latencies[len(latencies) * 99 // 100], 1),
            "kills": len(self._kills),
            "interrupted": self._traffic.interrupted,
            "joined": len(self._members) - len(POWERS),
            "retired": len(self._retired),
            "jailed": len(self._jailed),
        }

    async def _follow_plans(self) -> None:
        """In the short run all at once; in the long one two at a time, spread over it."""
        first, second, *third = self._joiners

        def join(index: int) -> Step:
            return lambda: self._join(index)

        def retire(index: int) -> Step:
            return lambda: self._retire(index)

        def sleep_in(index: int) -> Step:
            return lambda: self._sleep_in(index)

        plans: list[list[Step]] = [
            [join(first), retire(LEAVER)],
            [join(second)],
            [self._equivocate],
            [sleep_in(SLEEPER)],
        ]
        if IS_SOAK:
            changes = [join(first), self._equivocate, join(second), retire(LEAVER)]
            changes += [join(third[0]), retire(first)]
            plans = [changes, [sleep_in(SLEEPER), sleep_in(second)]]
        await asyncio.gather(*(self._follow(plan) for plan in plans))

    async def _follow(self, plan: Sequence[Step]) -> None:
        began = time.monotonic()
        for number, step in enumerate(plan):
            await step()
            at = began + SECONDS * (number + 1) / len(plan)
            await asyncio.sleep(max(0.0, at - time.monotonic()))

    # --- what happens ---

    async def _kill_in_turn(self, over: asyncio.Event) -> None:
        """kill -9, also of the one without which there is no quorum; it comes back soon. In the
        short run that one and another."""
        while not over.is_set():
            turn = [i for i in self._members if i not in (CONSOLE, CULPRIT, *self._retired)]
            self._rng.shuffle(turn)
            if not IS_SOAK:
                turn = [HEAVIEST, next(i for i in turn if i not in (HEAVIEST, SLEEPER))]
            for victim in turn:
                if await is_set_within(over, self._rng.uniform(*UP_S)):
                    return
                if victim not in self._up:
                    continue  # it sleeps in
                self._kill(victim)
                self._kills.append(victim)
                enough = await height_of(self._devnet, CONSOLE) + DOWN_HEIGHTS_MAX
                until_s = time.monotonic() + self._rng.uniform(*DOWN_S)
                while (
                    time.monotonic() < until_s and await height_of(self._devnet, CONSOLE) < enough
                ):
                    await asyncio.sleep(0.1)
                await self._return(victim)
            if not IS_SOAK:
                return

    def _kill(self, index: int) -> None:
        self._up.discard(index)
        self._devnet.kill(index)

    async def _return(self, index: int) -> None:
        await self._devnet.start([index])
        await until_height(self._devnet, await height_of(self._devnet, CONSOLE), [index])
        self._up.add(index)

    async def _sleep_in(self, index: int) -> None:
        """A validator is away until it is jailed for it (the first one never came); then it
        returns, and has to ask."""
        if self._devnet.nodes[index].process is not None:
            await until("a killed node is back", lambda: index in self._up)
            self._kill(index)
        key = public_key_of(self._devnet, index).hex()
        power = (await powers_at(self._devnet, CONSOLE))[key]
        await self._until_status(index, "jailed", "may-unjail")
        await self._until_finalised(3)
        assert key not in await powers_at(self._devnet, CONSOLE)
        await self._return(index)
        await self._until_status(index, "may-unjail")
        await self._pay("stake", "unjail", key=self._operator_file(index))
        back = await self._until_voting(index)
        assert back == power - 1, "slashed for its downtime, by less than a unit of power"
        self._jailed.append(index)

    async def _prepare_joiners(self) -> None:
        """The homes of the nodes that will join, as the guide says."""
        devnet = self._devnet
        peers = [w for i in self._members for w in ("--peer", p2p_address(devnet, i))]
        genesis = devnet.nodes[0].home / cfg.GENESIS_FILE
        for operator in self._operators:
            index = len(devnet.nodes)
            home = devnet.folder / f"node{index}"
            await self._command("init", "--home", str(home), "--genesis", str(genesis), *peers)
            devnet.nodes.append(DevnetNode(index=index, home=home, rpc_port=use_free_ports(home)))
            save_key(self._operator_file(index), operator)
            self._joiners.append(index)

    async def _join(self, index: int) -> None:
        """A new validator takes part once `stake create` counts. Its node has caught up by then:
        one that has not is absent until it has, and jailed for that if it takes too long."""
        node = self._devnet.nodes[index]
        await self._devnet.start([index])
        await until_height(self._devnet, await height_of(self._devnet, CONSOLE), [index])
        bond = str(JOINER_POWER * POWER_UNIT)
        await self._pay(
            *("stake", "create", "--home", str(node.home), "--name", f"joiner{index}"),
            *("--bond", bond),
            key=self._operator_file(index),
        )
        assert await self._until_voting(index) == JOINER_POWER
        self._members.append(index)
        self._up.add(index)

    async def _equivocate(self) -> None:
        """The culprit's twin starts; everybody goes on until it is punished."""
        self._twin_since = await height_of(self._devnet, CONSOLE)
        await self._devnet.start([self._twin])
        found = await self._until_status(CULPRIT, "tombstoned")
        self._slash = found["slash"]

    async def _retire(self, index: int) -> None:
        await self._pay("stake", "retire", key=self._operator_file(index))
        self._retired.append(index)
        key = public_key_of(self._devnet, index).hex()
        await self._until_finalised(3)
        assert key not in await powers_at(self._devnet, CONSOLE)

    def _operator_file(self, index: int) -> Path:
        return self._devnet.nodes[index].home / cfg.OPERATOR_KEY_FILE

    async def _command(self, *words: str) -> None:
        done = await asyncio.to_thread(zynk, *words)
        assert done.returncode == 0, f"zynk {' '.join(words)}: {done.stderr}"

    async def _pay(self, *words: str, key: Path) -> None:
        url = self._devnet.nodes[CONSOLE].url
        await self._command(*words, "--key", str(key), "--rpc", url)

    # --- what must be ---

    async def _until_finalised(self, count: int) -> None:
        await until_height(self._devnet, await height_of(self._devnet, CONSOLE) + count, [CONSOLE])

    async def _until_voting(self, index: int) -> int:
        """Until the node votes, and the console has got there as well; its power."""
        await until_voting(self._devnet, index)
        return int((await self._until_status(index, "active"))["power"])

    async def _validator(self, index: int) -> dict[str, Any]:
        operator = operator_of(self._devnet, index)
        return await ask(self._devnet, CONSOLE, "stake_validator", operator=operator)

    async def _until_status(self, index: int, *statuses: str) -> dict[str, Any]:
        deadline = time.monotonic() + LIMIT_S
        while (found := await self._validator(index))["status"] not in statuses:
            if time.monotonic() > deadline:
                raise ZynkError("status", expected=str(statuses), got=str(found["status"]))
            await asyncio.sleep(0.2)
        return found

    async def _check_validators(self) -> None:
        """The culprit is out; nobody else signed twice, whatever died, and all are back."""
        for index in self._members:
            found = await self._validator(index)
            if index == CULPRIT:
                offence = min(self._slash["offence_height"], found["slash"]["offence_height"])
                self._slash |= {"offence_height": offence}  # an earlier one may come to light
                assert (found["status"], found["slash"]) == ("tombstoned", self._slash)
                continue
            assert found["slash"] is None
            expected = "retired" if index in self._retired else "active"
            assert found["status"] == expected, f"validator-{index}; killed: {self._kills}"

    def _check_contradiction(self) -> dict[str, Any]:
        made = contradictions(self._devnet, CULPRIT, self._twin)
        offence, slashed = self._slash["offence_height"], self._slash["slashed_height"]
        assert offence in made, f"ZYNK_SEED={SEED}"
        first = min(offence, *(h for h in made if h >= self._twin_since))
        assert first < slashed <= first + SLASHED_WITHIN, f"ZYNK_SEED={SEED}"
        return {"first_contradiction": first, "slashed": slashed}

    def _check_chains(self, top: int) -> None:
        """All stores hold the same blocks and every tx that was called final; and at the end each
        validator took part."""
        chains: list[list[bytes]] = []
        for index in self._members:
            with stopped_chain(self._devnet, index) as chain:
                assert chain.height >= top
                chains.append([chain.header(height).hash for height in range(1, top + 1)])
                for tx_id, height in self._traffic.final.items():
                    location = chain.tx_location(bytes.fromhex(tx_id))
                    assert location is not None, f"ZYNK_SEED={SEED}"
                    assert location[0] == height, f"ZYNK_SEED={SEED}"
                if index == CONSOLE:
                    self._check_jailed(chain, top)
                    self._check_all_finalise(chain, top)
        assert all(blocks == chains[0] for blocks in chains), f"ZYNK_SEED={SEED}"

    def _check_jailed(self, chain: Chain, top: int) -> None:
        """Who slept in, and the culprit; nobody that was killed and came back soon."""
        jailed = [
            dict(event.attributes)["operator"]
            for height in range(1, top + 1)
            for event in block_events(chain, height)
            if event.type == "stake.jailed"
        ]
        expected = (operator_of(self._devnet, index) for index in (*self._jailed, CULPRIT))
        assert sorted(jailed) == sorted(encode_account_id(bytes.fromhex(o)) for o in expected)

    def _check_all_finalise(self, chain: Chain, top: int) -> None:
        """Every member that was neither slashed nor retired finalizes to the end."""
        seen: set[bytes] = set()
        for height in range(top - GOES_ON_FOR + 1, top + 1):
            signed = chain.certificate(height).signed_by(chain.validators_at(height))
            seen |= {key for key, _ in signed}
            seen |= {LateVote.decode(vote).signer for vote in chain.block(height).late_votes}
        honest = set(self._members) - {CULPRIT, *self._retired}
        assert {public_key_of(self._devnet, index) for index in honest} <= seen


async def is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
