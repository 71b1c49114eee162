"""`zynk light` against a real network, through a proxy that lies about one thing at a time."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from did.syntax import encode_did
from ledger.block import Header
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.finality import FinalityProof
from node import config as cfg
from node.devnet import Devnet
from node.keys import load_key
from node.light_follow import decode_attack
from rpc.client import RpcClient
from rpc.errors import RpcCode, RpcError
from rpc.params import bytes_of_text, text_of_bytes
from tests.e2e.network import running_devnet
from tests.unit.light_lies import Lie, another_chain, hide, more_money, replay_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

STEP_TIMEOUT_S = 60


class Liar:
    """A proxy in front of `target`; `lie` may change answers. `told` counts the changed ones."""

    def __init__(self, target: str) -> None:
        self.lie: Lie | None = None
        self.told = 0
        self.url = ""
        self._client = RpcClient(target)
        self._runner = web.AppRunner(self._app())

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.Response:
        call = await request.json()
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            true = await self._client.call(call["method"], **call["params"])
            shown = true
            if self.lie is not None:
                shown = self.lie(call["method"], call["params"], copy.deepcopy(true))
            self.told += shown != true
            answer["result"] = shown
        except RpcError as error:
            answer["error"] = error.to_json()
        return web.json_response(answer)

    async def start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()
        await self._client.close()


@asynccontextmanager
async def liar_before(target: str) -> AsyncIterator[Liar]:
    liar = Liar(target)
    await liar.start()
    try:
        yield liar
    finally:
        await liar.stop()


class Light:
    """A `zynk light` process and a client of its RPC."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.client: RpcClient | None = None

    async def call(self, method: str, **params: object) -> Any:
        assert self.client is not None
        return await self.client.call(method, **params)

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.call("node_status"))["light"]
        return found


@asynccontextmanager
async def light_client(devnet: Devnet, home: Path, *urls: str) -> AsyncIterator[Light]:
    arguments = ["light", "--trust", str(devnet.nodes[0].home / cfg.GENESIS_FILE)]
    arguments += ["--home", str(home), "--listen", "127.0.0.1:0", "--interval", "0.3"]
    arguments += ["--primary", urls[0]]
    for url in urls[1:]:
        arguments += ["--witness", url]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "node", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    light = Light(process)
    try:
        yield light
    finally:
        if light.client is not None:
            await light.client.close()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), STEP_TIMEOUT_S)


async def listening(light: Light) -> None:
    """Read standard error up to the address."""
    assert light.process.stderr is not None
    text = ""
    while "listening on " not in text:
        line = await asyncio.wait_for(light.process.stderr.readline(), STEP_TIMEOUT_S)
        assert line, text
        text += line.decode()
    light.client = RpcClient(text.split("listening on ")[1].strip())


async def create_did(devnet: Devnet) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "node", "did", "create", "--json",
        "--key", str(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE), "--rpc", devnet.nodes[0].url,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), STEP_TIMEOUT_S)
    answer: dict[str, str] = json.loads(out.splitlines()[-1])
    return answer["did"]


async def refused(light: Light, method: str, **params: object) -> str:
    """The reason of an UNVERIFIED refusal."""
    with pytest.raises(RpcError) as caught:
        await light.call(method, **params)
    assert caught.value.code == RpcCode.UNVERIFIED, caught.value
    return caught.value.reason


def test_each_lie_of_the_only_endpoint_is_refused_and_the_truth_is_served(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_devnet() as devnet, liar_before(devnet.nodes[0].url) as liar:
            did = await create_did(devnet)
            faucet = load_key(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE).public_key.hex()
            async with (
                RpcClient(devnet.nodes[1].url) as node,
                light_client(devnet, tmp_path, liar.url) as light,
            ):
                await listening(light)
                await _serves_the_truth(light, node, faucet, did)
                old = await node.call("chain_account", account=faucet)
                await _head_above(light, old["proof"]["height"])
                for lie, reason in (
                    (more_money, "light/wrong"),
                    (another_chain, "light/wrong"),
                    (replay_of("chain_account", old), "light/cannot-tell"),
                ):
                    liar.lie, told = lie, liar.told
                    assert await refused(light, "chain_account", account=faucet) == reason
                    assert liar.told > told, "the proxy did lie"
                other = encode_did(bytes(32))  # asked for now: an older answer would be stale
                absent = await node.call("did_resolve", did=other)
                liar.lie, told = hide(did, other, absent), liar.told
                assert await refused(light, "did_resolve", did=did) == "light/wrong"
                assert liar.told > told, "the proxy did lie"
                liar.lie = None
                assert (await light.status())["endpoints"][0]["faults"] >= 2
                await _serves_the_truth(light, node, faucet, did)

    asyncio.run(scenario())


async def _serves_the_truth(light: Light, node: RpcClient, faucet: str, did: str) -> None:
    account = await light.call("chain_account", account=faucet)
    assert account["balance"] == (await node.call("chain_account", account=faucet))["balance"]
    resolved = await light.call("did_resolve", did=did)
    assert resolved["didDocument"] == (await node.call("did_resolve", did=did))["didDocument"]
    assert (await light.call("did_proof", did=did))["record"]["seq"] == 0
    assert (await light.call("chain_params"))["params"]["validators_max"] == 100
    assert len((await light.call("chain_validators"))["validators"]) == 4
    head = await light.call("chain_head")
    assert head["hash"] == (await node.call("chain_header", block=head["height"]))["hash"]
    with pytest.raises(RpcError) as caught:
        await light.call("chain_block")
    assert caught.value.code == RpcCode.UNSUPPORTED


async def _head_above(light: Light, height: int) -> None:
    async with asyncio.timeout(STEP_TIMEOUT_S):
        while (await light.call("node_status"))["height"] <= height:
            await asyncio.sleep(0.2)


def test_with_a_witness_the_truth_comes_through_a_lying_primary(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_devnet() as devnet, liar_before(devnet.nodes[0].url) as liar:
            faucet = load_key(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE).public_key.hex()
            async with (
                RpcClient(devnet.nodes[1].url) as node,
                light_client(devnet, tmp_path, liar.url, devnet.nodes[1].url) as light,
            ):
                await listening(light)
                liar.lie = more_money
                true = await node.call("chain_account", account=faucet)
                assert (await light.call("chain_account", account=faucet))["balance"] == (
                    true["balance"]
                )
                assert liar.told == 1
                status = await light.status()
                faults = {e["url"]: e["faults"] for e in status["endpoints"]}
                assert faults == {liar.url: 1, devnet.nodes[1].url: 0}
                height = (await light.call("node_status"))["height"]
            kept = list(tmp_path.rglob("trusted.bin"))
            assert len(kept) == 1, "the verified head outlives the process"
            await devnet.wait_height(height + 1)
            async with light_client(devnet, tmp_path, devnet.nodes[2].url) as light:
                await listening(light)
                assert (await light.call("node_status"))["height"] >= height

    asyncio.run(scenario())


def test_a_fork_by_three_of_four_ends_it_with_exit_code_5_and_both_proofs(tmp_path: Path) -> None:
    """The validators' own keys sign a second header of a height: what the client can not repair it
    must prove."""

    async def scenario() -> None:
        async with running_devnet() as devnet, liar_before(devnet.nodes[0].url) as liar:
            keys = [load_key(n.home / cfg.VALIDATOR_KEY_FILE) for n in devnet.nodes]
            async with RpcClient(devnet.nodes[0].url) as node:
                validators = await node.call("chain_validators")
            order = [bytes.fromhex(v["public_key"]) for v in validators["validators"]]
            key_by_public = {k.public_key: k for k in keys}

            def fork(header: Header) -> FinalityProof:
                other = dataclasses.replace(header, state_root=b"\1" * 32)
                message = vote_sign_bytes(
                    header.chain_id, VoteKind.FINALIZE, header.height, 1, other.hash
                )
                signatures = tuple(key_by_public[k].sign(message) for k in order[:3])
                certificate = Certificate(
                    VoteKind.FINALIZE, header.height, 1, other.hash, b"\xe0", signatures
                )
                return FinalityProof(header=other, certificate=certificate)

            def forked(method: str, params: dict[str, Any], answer: Any) -> Any:
                if method == "chain_header":
                    header = FinalityProof.decode(bytes_of_text(answer["finality"])).header
                    answer["finality"] = text_of_bytes(fork(header).encode())
                return answer

            liar.lie = forked
            async with light_client(devnet, tmp_path, devnet.nodes[1].url, liar.url) as light:
                code = await asyncio.wait_for(light.process.wait(), STEP_TIMEOUT_S)
                assert code == 5
            (path,) = tmp_path.rglob("attack-*.bin")
            first, second = decode_attack(path.read_bytes())
            assert first.header.height == second.header.height
            assert second.header.state_root == b"\1" * 32 != first.header.state_root

    asyncio.run(scenario())


def test_wrong_options_and_a_dead_endpoint_are_told_apart(tmp_path: Path) -> None:
    async def run(*arguments: str) -> int | None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "node", "light", "--home", str(tmp_path), *arguments,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ},
        )  # fmt: skip
        return await asyncio.wait_for(process.wait(), STEP_TIMEOUT_S)

    async def scenario() -> None:
        junk = tmp_path / "junk.json"
        junk.write_text("{}")
        assert await run("--trust", str(junk), "--primary", "http://127.0.0.1:9") == 2
        async with running_devnet() as devnet:
            trust = str(devnet.nodes[0].home / cfg.GENESIS_FILE)
            dead = "http://127.0.0.1:9"
            assert await run("--trust", trust, "--primary", dead, "--once") == 9
            assert await run("--trust", trust, "--primary", dead, "--witness", dead) == 2
            assert await run("--trust", trust, "--primary", devnet.nodes[0].url, "--once") == 0

    asyncio.run(scenario())
