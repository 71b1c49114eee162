"""The answers of a real node fit the schemas that `rpc.discover` publishes."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from ledger.accounts import TransferBody
from ledger.ed25519 import KeyPair
from ledger.tx import Message
from node import config as cfg
from node.keys import load_key
from node.wallet import Wallet
from rpc.client import RpcClient
from rpc.methods import METHODS
from rpc.params import text_of_bytes
from rpc.results import mismatches
from tests.e2e.network import running_devnet

RESULT_BY_NAME = {method.name: method.result for method in METHODS}
UNKNOWN_DID = "did:zynk:zQmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"


@pytest.mark.e2e
@pytest.mark.slow
def test_the_answers_of_a_real_node_fit_the_published_schemas() -> None:
    async def scenario() -> None:
        async with running_devnet(validators=1) as devnet:
            node = devnet.nodes[0]
            async with RpcClient(node.url) as client:
                faucet = load_key(node.home / cfg.FAUCET_KEY_FILE)
                to = KeyPair.from_seed(hashlib.sha256(b"rpc").digest()).public_key
                message = Message("bank/transfer", TransferBody(to=to, amount=5).encode())
                tx = await Wallet(client, faucet).sign([message])
                sent = await client.tx_submit(tx.encoded, wait="finalized")
                assert (sent["status"], sent["code"]) == ("finalized", "ok")
                await check(client, "tx_submit", tx=text_of_bytes(tx.encoded), wait="finalized")
                await check(client, "tx_submitBatch", txs=[text_of_bytes(tx.encoded)])
                await check(client, "tx_estimateFee", tx=text_of_bytes(tx.encoded))
                await check(client, "tx_get", tx_id=tx.id.hex())
                for name in [
                    "node_status",
                    "node_peers",
                    "chain_head",
                    "chain_header",
                    "chain_block",
                    "chain_certificate",
                    "chain_validators",
                    "chain_params",
                    "audit_checkpoint",
                    "stake_validators",
                    "stake_delegations",
                    "stake_unbonding",
                ]:
                    await check(client, name)
                await check(client, "chain_block", block=sent["height"])
                await check(client, "chain_account", account=to.hex())
                await check(client, "chain_account", account=faucet.public_key.hex())
                for name in ("did_resolve", "did_history", "did_proof"):
                    await check(client, name, did=UNKNOWN_DID)
                await check(client, "audit_status", leaves=["00" * 32])

    asyncio.run(asyncio.wait_for(scenario(), 90))


async def check(client: RpcClient, method: str, **params: object) -> None:
    answer = await client.call(method, **params)
    assert mismatches(answer, RESULT_BY_NAME[method], method) == []
