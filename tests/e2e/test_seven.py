"""Seven validators with unequal stakes under load, while validators join, leave, die and cheat.

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
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ledger.accounts import TransferBody
from ledger.ed25519 import KeyPair
from ledger.errors import ZynkError
from ledger.staking_record import POWER_UNIT
from ledger.tx import Message
from node import config as cfg
from node.bench import fund, load_keys
from node.devnet import Devnet, DevnetNode
from node.keys import load_key
from node.wallet import Wallet
from rpc.client import RpcClient
from rpc.errors import RpcConnectionError
from tests.e2e.network import (
    FINAL_TIMEOUT_MS,
    LIMIT_S,
    height_of,
    public_key_of,
    until_height,
    until_voting,
    zynk,
)
from tests.e2e.twins import (
    add_twin,
    ask,
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
LEAVER, CULPRIT = 5, 6
SECONDS = 600 if IS_SOAK else 40
CLIENTS = 32
SPARE_ACCOUNTS = 800 if IS_SOAK else 96
SLASHED_WITHIN = 10
JOINER_POWER = 2
UP_S, DOWN_S = (4.0, 8.0), (0.5, 3.0)
"""Seconds between kills, and how long a killed node stays away."""
GOES_ON_FOR = 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_seven_validators_go_on_while_others_join_leave_die_and_cheat() -> None:
    async def run() -> None:
        folder = Path(tempfile.mkdtemp(prefix="zynk-e2e-"))
        devnet = Devnet.create(folder, validators=7, chain_id="zynk-seven", powers=POWERS)
        try:
            await Seven(devnet).run()
        finally:
            await devnet.stop()
            devnet.remove()

    asyncio.run(run())


class Traffic:
    """Clients that each send a transfer, wait until it is final, and send the next, through a node
    that is up. What a kill interrupts may be final or not; its account is not used again."""

    def __init__(self, devnet: Devnet, up: set[int], rng: random.Random) -> None:
        self.final: dict[str, int] = {}
        self.latencies_ms: list[float] = []
        self.interrupted = 0
        self._devnet = devnet
        self._up = up
        self._rng = rng
        self._faucet = load_key(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE)
        self._accounts: list[KeyPair] = []

    async def start(self) -> None:
        self._accounts = load_keys(self._faucet, CLIENTS + SPARE_ACCOUNTS, os.urandom(16))
        async with RpcClient(self._devnet.nodes[CONSOLE].url) as client:
            await fund(Wallet(client, self._faucet), self._accounts)

    async def run_client(self, over: asyncio.Event) -> None:
        while not over.is_set():
            index = self._rng.choice(sorted(self._up))
            try:
                async with RpcClient(self._devnet.nodes[index].url) as client:
                    wallet = Wallet(client, self._accounts.pop())
                    while not over.is_set() and index in self._up:
                        await self._send(wallet)
                    self._accounts.insert(0, wallet.key)
            except (RpcConnectionError, OSError):
                assert index not in self._up, f"node {index} is up and does not answer"
                self.interrupted += 1

    async def _send(self, wallet: Wallet) -> None:
        body = TransferBody(to=self._faucet.public_key, amount=1, memo=b"").encode()
        began = time.perf_counter()
        answer = await wallet.submit([Message("bank/transfer", body)], timeout_ms=FINAL_TIMEOUT_MS)
        self.latencies_ms.append((time.perf_counter() - began) * 1000)
        self.final[answer["tx_id"]] = answer["height"]


class Seven:
    """The network, and what happens to it."""

    def __init__(self, devnet: Devnet) -> None:
        self._devnet = devnet
        self._rng = random.Random(SEED)
        self._up = set(range(len(POWERS)))
        self._traffic = Traffic(devnet, self._up, self._rng)
        self._twin = add_twin(devnet, CULPRIT, range(len(POWERS)))
        self._members = list(range(len(POWERS)))
        self._joiners: list[int] = []
        self._retired: list[int] = []
        self._kills = 0
        self._twin_since = 0
        self._slash: dict[str, int] = {}

    async def run(self) -> None:
        await self._devnet.start(self._members)
        await until_height(self._devnet, 1, self._members)
        await self._traffic.start()
        over = asyncio.Event()
        began, height_began = time.monotonic(), await height_of(self._devnet, CONSOLE)
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._traffic.run_client(over))
            group.create_task(self._kill_at_random(over))
            await self._follow_plan(began)
            over.set()
        seconds = time.monotonic() - began
        top = await height_of(self._devnet, CONSOLE)
        await until_height(self._devnet, top, self._members)
        await self._check_validators()
        await self._devnet.stop()
        found = self._check_contradiction()
        self._check_no_fork(top)
        latencies = sorted(self._traffic.latencies_ms)
        found |= {
            "seconds": round(seconds, 1),
            "seed": SEED,
            "heights_per_s": round((top - height_began) / seconds, 2),
            "clients": CLIENTS,
            "final_txs": len(latencies),
            "final_tx_per_s": round(len(latencies) / seconds, 1),
            "latency_p50_ms": round(latencies[len(latencies) // 2], 1),
            "latency_p99_ms": round(latencies[len(latencies) * 99 // 100], 1),
            "kills": self._kills,
            "interrupted": self._traffic.interrupted,
            "joined": len(self._joiners),
            "retired": len(self._retired),
        }
        print(json.dumps(found))

    async def _follow_plan(self, began: float) -> None:
        """The steps, evenly over the time; the first ones at once in the short run."""
        steps: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._join,
            self._equivocate,
            lambda: self._retire(LEAVER),
        ]
        if IS_SOAK:
            steps += [self._join, self._join, lambda: self._retire(self._joiners[0])]
        for number, step in enumerate(steps):
            await step()
            at = began + SECONDS * (number + 1) / len(steps)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
        await self._until_finalised(GOES_ON_FOR)

    # --- what happens ---

    async def _kill_at_random(self, over: asyncio.Event) -> None:
        """kill -9, also of the one without which there is no quorum; it comes back soon."""
        while not over.is_set():
            await asyncio.sleep(self._rng.uniform(*UP_S))
            victim = self._rng.choice(sorted(self._up - {CONSOLE, CULPRIT}))
            self._up.discard(victim)
            self._devnet.kill(victim)
            self._kills += 1
            await asyncio.sleep(self._rng.uniform(*DOWN_S))
            await self._devnet.start([victim])
            target = await height_of(self._devnet, CONSOLE)
            await until_height(self._devnet, target, [victim])
            self._up.add(victim)

    async def _join(self) -> None:
        """A new validator, as the guide says; it takes part once `stake create` counts."""
        devnet, index = self._devnet, len(self._devnet.nodes)
        home, operator = devnet.folder / f"node{index}", devnet.folder / f"operator{index}.json"
        faucet = devnet.nodes[0].home / cfg.FAUCET_KEY_FILE
        peers = [w for i in self._members for w in ("--peer", p2p_address(devnet, i))]
        genesis = devnet.nodes[0].home / cfg.GENESIS_FILE
        await self._command("keys", "new", str(operator))
        await self._command("init", "--home", str(home), "--genesis", str(genesis), *peers)
        devnet.nodes.append(DevnetNode(index=index, home=home, rpc_port=use_free_ports(home)))
        await devnet.start([index])
        bond = str(JOINER_POWER * POWER_UNIT)
        await self._pay("tx", "transfer", "--to", str(operator), "--amount", "9000000", key=faucet)
        await self._pay(
            *("stake", "create", "--home", str(home), "--name", f"joiner{index}", "--bond", bond),
            key=operator,
        )
        await until_voting(devnet, index)
        assert (await powers_at(devnet, CONSOLE))[
            public_key_of(devnet, index).hex()
        ] == JOINER_POWER
        operator.rename(home / cfg.OPERATOR_KEY_FILE)
        self._members.append(index)
        self._joiners.append(index)
        self._up.add(index)

    async def _equivocate(self) -> None:
        """The culprit's twin starts; everybody goes on until it is punished."""
        self._twin_since = await height_of(self._devnet, CONSOLE)
        await self._devnet.start([self._twin])
        found = await self._until_status(CULPRIT, "tombstoned")
        self._slash = found["slash"]

    async def _retire(self, index: int) -> None:
        await self._pay(
            "stake", "retire", key=self._devnet.nodes[index].home / cfg.OPERATOR_KEY_FILE
        )
        self._retired.append(index)
        key = public_key_of(self._devnet, index).hex()
        await self._until_finalised(3)
        assert key not in await powers_at(self._devnet, CONSOLE)

    async def _command(self, *words: str) -> None:
        done = await asyncio.to_thread(zynk, *words)
        assert done.returncode == 0, f"zynk {' '.join(words)}: {done.stderr}"

    async def _pay(self, *words: str, key: Path) -> None:
        url = self._devnet.nodes[CONSOLE].url
        await self._command(*words, "--key", str(key), "--rpc", url)

    # --- what must be ---

    async def _until_finalised(self, count: int) -> None:
        await until_height(self._devnet, await height_of(self._devnet, CONSOLE) + count, [CONSOLE])

    async def _validator(self, index: int) -> dict[str, Any]:
        operator = operator_of(self._devnet, index)
        return await ask(self._devnet, CONSOLE, "stake_validator", operator=operator)

    async def _until_status(self, index: int, status: str) -> dict[str, Any]:
        deadline = time.monotonic() + LIMIT_S
        while (found := await self._validator(index))["status"] != status:
            if time.monotonic() > deadline:
                raise ZynkError("status", expected=status, got=str(found["status"]))
            await asyncio.sleep(0.2)
        return found

    async def _check_validators(self) -> None:
        """The culprit is out; nobody else was slashed or jailed, whatever died."""
        for index in self._members:
            found = await self._validator(index)
            if index == CULPRIT:
                offence = min(self._slash["offence_height"], found["slash"]["offence_height"])
                self._slash |= {"offence_height": offence}  # an earlier one may come to light
                assert (found["status"], found["slash"]) == ("tombstoned", self._slash)
                continue
            assert found["slash"] is None
            assert found["status"] == ("retired" if index in self._retired else "active")

    def _check_contradiction(self) -> dict[str, Any]:
        made = contradictions(self._devnet, CULPRIT, self._twin)
        offence, slashed = self._slash["offence_height"], self._slash["slashed_height"]
        assert offence in made, f"ZYNK_SEED={SEED}"
        first = min(offence, *(h for h in made if h >= self._twin_since))
        assert first < slashed <= first + SLASHED_WITHIN, f"ZYNK_SEED={SEED}"
        return {"first_contradiction": first, "slashed": slashed}

    def _check_no_fork(self, top: int) -> None:
        """All stores hold the same blocks, every tx that was called final, and sound stakes."""
        chains: list[list[bytes]] = []
        for index in self._members:
            with stopped_chain(self._devnet, index) as chain:
                assert chain.height >= top
                chains.append([chain.header(height).hash for height in range(1, top + 1)])
                for tx_id, height in self._traffic.final.items():
                    location = chain.tx_location(bytes.fromhex(tx_id))
                    assert location is not None, f"ZYNK_SEED={SEED}"
                    assert location[0] == height, f"ZYNK_SEED={SEED}"
            inspect_home(self._devnet, index)
        assert all(blocks == chains[0] for blocks in chains), f"ZYNK_SEED={SEED}"
