"""docs/bulk-load.md: its program puts many DIDs on a real network."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.did_chain import make_creates
from ledger.ed25519 import KeyPair
from ledger.tx import Message
from node import config as cfg
from node.devnet import Devnet
from node.keys import load_key
from node.wallet import Wallet
from rpc.client import RpcClient

TEXT = Path(__file__).parents[2] / "docs" / "bulk-load.md"
COUNT = 1100
"""More than one batch of 64 txs of 16."""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_program_in_the_text_loads_dids_and_refuses_them_a_second_time(tmp_path: Path) -> None:
    program = re.search(r"```python\n(.*?)```", TEXT.read_text(), re.DOTALL)
    assert program is not None
    names: dict[str, Any] = {
        "KeyPair": KeyPair, "Message": Message, "RpcClient": RpcClient, "Sequence": Sequence,
        "Wallet": Wallet,
    }  # fmt: skip
    exec(program[1], names)
    load = names["load"]

    async def scenario() -> None:
        network = Devnet.create(tmp_path / "network", validators=1)
        node = network.nodes[0]
        made = make_creates(network.chain_id, 10_000, 0, COUNT)
        payer = load_key(node.home / cfg.FAUCET_KEY_FILE)
        try:
            await network.start()
            await network.wait_height(1)
            await load(node.url, payer, [operation for _, operation in made])
            async with RpcClient(node.url) as client:
                last = [did for did, _ in made[-100:]]
                answer = await client.call("did_resolveBatch", dids=last)
            shown = [result["didDocument"]["id"] for result in answer["results"]]
            assert shown == last
            with pytest.raises(SystemExit, match="did/exists"):
                await load(node.url, payer, [made[0][1]])
        finally:
            await network.stop()

    asyncio.run(scenario())
