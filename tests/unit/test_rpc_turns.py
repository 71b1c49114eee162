"""RPC work leaves the event loop to consensus after a slice, whatever clients send.

Time is counted, not measured: the clock stands still but for what a piece of work says it took.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import replace

import pytest

from rpc.api import BlockRef, JsonObject
from rpc.config import RpcConfig
from rpc.dispatch import Caller, Dispatcher
from rpc.errors import RpcCode
from rpc.methods import METHODS
from rpc.metrics import RpcMetrics
from rpc.registry import Registry
from rpc.turns import Turns
from tests.unit.test_rpc_fake import FakeNodeApi

SLICE_MS = 4
CALLER = Caller("127.0.0.1")


class Passes:
    """Counts passes of the event loop, and how many ms of work each of them did."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.work_ms_by_pass = [0.0]

    def work(self, ms: float) -> None:
        self.now_s += ms / 1000
        self.work_ms_by_pass[-1] += ms

    async def count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.work_ms_by_pass.append(0.0)

    def measure(self, work: Coroutine[object, object, object]) -> object:
        async def scenario() -> object:
            counting = asyncio.create_task(self.count())
            try:
                return await work
            finally:
                counting.cancel()

        return asyncio.run(scenario())


class BusyApi(FakeNodeApi):
    """A node whose `chain_block` takes 1 ms of the loop and never suspends."""

    def __init__(self, passes: Passes) -> None:
        super().__init__()
        self.passes = passes
        self.blocks: list[BlockRef] = []

    async def chain_block(self, block: BlockRef) -> JsonObject:
        self.passes.work(1)
        self.blocks.append(block)
        return {}


def busy_dispatcher(passes: Passes, **settings: object) -> tuple[Dispatcher, BusyApi]:
    api = BusyApi(passes)
    config = replace(RpcConfig(slice_ms=SLICE_MS), **settings)  # type: ignore[arg-type]
    under_test = Dispatcher(
        api, Registry(METHODS), config, RpcMetrics(api.metrics), clock=lambda: passes.now_s
    )
    return under_test, api


def batch(count: int) -> bytes:
    calls = [
        {"jsonrpc": "2.0", "id": i, "method": "chain_block", "params": [i]} for i in range(count)
    ]
    return json.dumps(calls).encode()


def test_a_thousand_calls_that_never_suspend_are_run_in_slices_and_in_order() -> None:
    passes = Passes()
    under_test, api = busy_dispatcher(passes)
    text = passes.measure(under_test.answer(batch(1000), CALLER))
    assert isinstance(text, str)
    assert [item["id"] for item in json.loads(text)] == list(range(1000))
    assert api.blocks == list(range(1000))
    assert sum(passes.work_ms_by_pass) == 1000
    assert max(passes.work_ms_by_pass) <= SLICE_MS + 1


def test_ten_batches_at_a_time_share_the_slice() -> None:
    passes = Passes()
    under_test, api = busy_dispatcher(passes, calls_per_s_per_ip_max=0)

    async def ten() -> list[object]:
        return list(
            await asyncio.gather(*(under_test.answer(batch(50), CALLER) for _ in range(10)))
        )

    passes.measure(ten())
    assert len(api.blocks) == 500
    assert max(passes.work_ms_by_pass) <= SLICE_MS + 1


def test_ten_bodies_of_nothing_but_brackets_are_refused_unparsed_one_slice_at_a_time() -> None:
    """Each look at the clock stands for one count of a body, said to take 3 ms."""
    passes = Passes()
    api = FakeNodeApi()

    def clock() -> float:
        passes.work(3)
        return passes.now_s

    under_test = Dispatcher(
        api, Registry(METHODS), RpcConfig(slice_ms=SLICE_MS), RpcMetrics(api.metrics), clock=clock
    )
    body = b"[" + b"[]," * 1_398_000 + b"]]"  # no JSON at its end: nobody came to see

    async def ten() -> list[str | None]:
        return list(await asyncio.gather(*(under_test.answer(body, CALLER) for _ in range(10))))

    answers = passes.measure(ten())
    assert isinstance(answers, list)
    assert {json.loads(text)["error"]["code"] for text in answers} == {RpcCode.TOO_LARGE}
    counted = [ms for ms in passes.work_ms_by_pass if ms]
    assert len(counted) >= 5


def test_turns_are_given_in_the_order_of_asking_also_to_those_that_came_late() -> None:
    passes = Passes()

    async def scenario() -> list[int]:
        turns = Turns(SLICE_MS / 1000, lambda: passes.now_s)
        order: list[int] = []

        async def worker(number: int) -> None:
            await turns.take()
            order.append(number)
            passes.work(1 + number % 3)

        await asyncio.gather(*(worker(number) for number in range(300)))
        return order

    assert passes.measure(scenario()) == list(range(300))
    assert max(passes.work_ms_by_pass) <= SLICE_MS + 2


def test_one_turn_is_given_in_each_pass_however_long_the_others_work() -> None:
    passes = Passes()

    async def scenario() -> int:
        turns = Turns(SLICE_MS / 1000, lambda: passes.now_s)

        async def consensus() -> None:
            while True:
                passes.work(50)
                await asyncio.sleep(0)

        other = asyncio.create_task(consensus())
        done = 0
        for _ in range(20):
            await turns.take()
            done += 1
        other.cancel()
        return done

    assert passes.measure(scenario()) == 20
    assert len(passes.work_ms_by_pass) < 100


def test_a_caller_that_is_gone_does_not_hold_up_the_next() -> None:
    passes = Passes()

    async def scenario() -> list[int]:
        turns = Turns(SLICE_MS / 1000, lambda: passes.now_s)
        order: list[int] = []

        async def worker(number: int) -> None:
            await turns.take()
            order.append(number)
            passes.work(SLICE_MS)

        tasks = [asyncio.create_task(worker(number)) for number in range(6)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order

    assert passes.measure(scenario()) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("count", [1, 4096])
def test_a_batch_of_txs_in_one_call_is_within_the_limits(count: int) -> None:
    passes = Passes()
    under_test, api = busy_dispatcher(passes)
    txs = ["A" * 900] * count
    body = {"jsonrpc": "2.0", "id": 1, "method": "tx_submitBatch", "params": [txs]}
    text = passes.measure(under_test.answer(json.dumps(body).encode(), CALLER))
    assert isinstance(text, str)
    assert len(json.loads(text)["result"]["outcomes"]) == count
    assert len(api.submitted) == count
