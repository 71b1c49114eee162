"""For the tests of resolvers on real nodes: two networks of one name, a full node without a vote in
the first, and a DID that was stolen and taken back before that node joined."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from did.build import (
    create_operation,
    deactivate_operation,
    recover_operation,
    update_operation,
)
from did.operation import Operation, decode_operation
from did.verify_answer import Basis
from ledger.genesis_state import GenesisState
from ledger.tx import Message
from node import config as cfg
from node.devnet import Devnet, DevnetNode
from node.keys import load_key
from node.wallet import Wallet
from rpc.client import RpcClient
from tests.e2e.network import (
    genesis_of,
    height_of,
    running_devnet,
    until_height,
    until_status,
)
from tests.e2e.test_joining import add_full_node
from tests.vectors.did_world import EXP, control, document, key, key_list

RESULT = "*/*"


@dataclass
class Identity:
    """Makes the operations of one DID, and remembers the heights that executed them."""

    net: str
    operations: list[Operation] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)

    def create(self) -> bytes:
        return self._keep(create_operation(**self._state("first"), signers=[key("a")]))

    def update(self, name: str, charge: str = "a") -> bytes:
        state = {**self._state(name, charge), **self._place(-1)}
        return self._keep(update_operation(**state, signers=[key("a")]))

    def recover(self) -> bytes:
        """From before the last operation."""
        state = {**self._state("again"), **self._place(-2)}
        return self._keep(recover_operation(**state, tier=0, signers=[key("t")]))

    def _keep(self, body: bytes) -> bytes:
        self.operations.append(decode_operation(body))
        return body

    def _state(self, name: str, charge: str = "a") -> dict[str, Any]:
        return {
            "net": self.net, "exp_height": EXP, "document": document(name),
            "control": control(charge), "recovery": [key_list("t")],
        }  # fmt: skip

    def _place(self, prev: int) -> dict[str, Any]:
        return {
            "did": self.did, "prev": self.operations[prev].hash, "seq": len(self.operations),
        }  # fmt: skip

    @property
    def did(self) -> str:
        return self.operations[0].did_text


@dataclass
class Place:
    """The first network with its full node; `identity` was created, updated, stolen and recovered,
    `gone` ended by its owner. Answers about `identity`: `hidden` before it was, `older` after its
    creation, `foreign` by the other network."""

    runner: asyncio.Runner
    devnet: Devnet
    full: DevnetNode
    identity: Identity
    gone: str
    hidden: bytes
    older: bytes
    foreign: bytes

    def basis(self, *, now_ms: int | None = None, max_age_ms: int | None = None) -> Basis:
        return Basis(
            trusted=self.genesis.validators,
            chain_id=self.genesis.chain_id,
            max_age_ms=max_age_ms,
            now_ms=now_ms,
        )

    @property
    def genesis(self) -> GenesisState:
        return genesis_of(self.devnet)


async def build(runner: asyncio.Runner, stack: AsyncExitStack) -> Place:
    """All of it, to be ended with `stack`."""
    devnet = await stack.enter_async_context(running_devnet())
    identity = Identity(devnet.chain_id)
    create = identity.create()
    born = create_operation(
        net=devnet.chain_id, exp_height=EXP, document={}, control=control("g"), signers=[key("g")]
    )
    gone = decode_operation(born)
    end = deactivate_operation(
        net=devnet.chain_id, exp_height=EXP, did=gone.did_text, prev=gone.hash, seq=1,
        signers=[key("g")],
    )  # fmt: skip
    node = devnet.nodes[0]
    _, _, hidden = await get(node.url, identity.did)
    async with RpcClient(node.url) as client:
        wallet = Wallet(client, load_key(node.home / cfg.FAUCET_KEY_FILE))
        for bodies in (
            (create, born), (identity.update("second"), end), (identity.update("theft", "z"),),
            (identity.recover(),),
        ):  # fmt: skip
            done = await wallet.submit([Message("did/op", body) for body in bodies])
            identity.heights.append(int(done["height"]))
            if len(identity.heights) == 1:
                await until_height(devnet, identity.heights[0], [0])
                _, _, older = await get(node.url, identity.did)
            await asyncio.sleep(1.1)  # so that versions have different times
    index = add_full_node(devnet)
    await devnet.start([index])
    await until_height(devnet, await height_of(devnet, 0), [index])
    await until_status(devnet, index, "the node has synced", lambda s: not s["sync"]["syncing"])
    return Place(
        runner=runner, devnet=devnet, full=devnet.nodes[index], identity=identity,
        gone=gone.did_text, hidden=hidden, older=older, foreign=await _ask_namesake(create),
    )  # fmt: skip


async def _ask_namesake(create: bytes) -> bytes:
    """What another network of the same name says of the same DID."""
    async with running_devnet(validators=1) as devnet:
        node = devnet.nodes[0]
        async with RpcClient(node.url) as client:
            wallet = Wallet(client, load_key(node.home / cfg.FAUCET_KEY_FILE))
            await wallet.submit([Message("did/op", create)])
        _, _, answer = await get(node.url, decode_operation(create).did_text)
        return answer


async def get(url: str, target: str, accept: str = RESULT) -> tuple[int, str, bytes]:
    """(status, media type or Location, body)."""
    address = URL(f"{url}/1.0/identifiers/{target}", encoded=True)
    async with (
        aiohttp.ClientSession(headers={"Accept": accept}) as http,
        http.get(address, allow_redirects=False) as answer,
    ):
        named = answer.headers.get("Location", answer.headers.get("Content-Type", ""))
        return answer.status, named, await answer.read()
