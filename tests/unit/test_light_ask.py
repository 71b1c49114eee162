"""What the light client's RPC relies on: a header above the verified head needs a witness, and
after an attack nothing is served."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import UsageError
from ledger.light import Verdict
from ledger.params import ChainParams
from node.light_ask import Asker
from node.light_follow import AttackFound, Follower
from node.light_source import Source
from rpc.errors import RpcCode, RpcError, not_found
from tests.unit.test_light_api import ROOT as NODE_ROOT
from tests.unit.test_light_api import LightWorld, run_light
from tests.unit.test_node_light import FORK, FORK_FROM, TOP, FakeSource, follower_of

LOW = FORK_FROM - 2
"""Up to here both chains are one."""


def relied_on(asker: Asker) -> int:
    """The height of the header that an answer would rest on. Raises RpcError."""

    async def work(asked: Source) -> int:
        proof = await asked.finality(None, LOW)
        return (await asker.judge(asked, proof, is_newest=False)).header.height

    return asyncio.run(asker.ask(work))


def started(folder: Path, *sources: FakeSource) -> Follower:
    """A client whose head is at LOW, where all sources were; they then go on to their tops."""
    tops = [source.top for source in sources]
    for source in sources:
        source.top = LOW
    follower = follower_of(folder, *sources)
    follower.max_age_ms = 10**9

    async def go() -> None:
        await follower.start()
        assert (await follower.advance()).verdict is Verdict.VALID

    asyncio.run(go())
    for source, top in zip(sources, tops, strict=True):
        source.top = top
    return follower


def test_a_newer_header_is_relied_on_once_a_witness_has_it(tmp_path: Path) -> None:
    follower = started(tmp_path, FakeSource("a"), FakeSource("b"))
    assert relied_on(Asker(follower)) == TOP


def test_without_another_endpoint_it_is_relied_on(tmp_path: Path) -> None:
    follower = started(tmp_path, FakeSource("a"))
    assert relied_on(Asker(follower)) == TOP


def test_one_that_no_witness_has_is_not(tmp_path: Path) -> None:
    follower = started(tmp_path, FakeSource("a"), FakeSource("b", top=LOW))
    assert relied_on(Asker(follower)) == LOW, "the witness's own answer, at the head"
    follower.sources[1].top = LOW - 1  # type: ignore[attr-defined]  # a FakeSource
    with pytest.raises(RpcError) as caught:
        relied_on(Asker(follower))
    assert caught.value.code == RpcCode.UNVERIFIED
    assert caught.value.reason == "light/cannot-tell"


def test_a_witness_on_another_chain_is_an_attack_that_ends_everything(tmp_path: Path) -> None:
    follower = started(tmp_path, FakeSource("a"), FakeSource("b", FORK))
    for _ in range(2):  # the second finds out without asking
        with pytest.raises(RpcError) as caught:
            relied_on(Asker(follower))
        assert caught.value.reason == "light/attack"
    with pytest.raises(AttackFound):
        asyncio.run(follower.advance())
    again = follower_of(tmp_path, FakeSource("a"), FakeSource("b"))
    with pytest.raises(UsageError, match="an attack was found here before"):
        asyncio.run(again.start())


class ParamsSource(FakeSource):
    """Can't say what the parameters are."""

    async def call(self, method: str, **params: object) -> Mapping[str, Any]:
        raise not_found("block")


def test_no_word_of_the_parameters_is_no_reason_to_stop(tmp_path: Path) -> None:
    follower = started(tmp_path, ParamsSource("a"))
    asyncio.run(Asker(follower).check_trusting_period())


def test_a_trusting_period_past_the_unbonding_time_is_refused(tmp_path: Path) -> None:
    unbonding_ms = ChainParams().unbonding_ms

    async def test(light: LightWorld) -> None:
        for period_ms in (unbonding_ms, unbonding_ms - 1):
            root = dataclasses.replace(
                NODE_ROOT,
                trusting_period_ms=period_ms,
                point=dataclasses.replace(light.follower.trust, trusting_period_ms=period_ms),
            )
            folder = tmp_path / str(period_ms)
            folder.mkdir()
            follower = Follower(root, [light.source], folder, witness_wait_s=0)
            await follower.start()
            if period_ms < unbonding_ms:
                await Asker(follower).check_trusting_period()
                continue
            with pytest.raises(UsageError, match="not shorter than the chain's unbonding time"):
                await Asker(follower).check_trusting_period()

    run_light(tmp_path, test)
