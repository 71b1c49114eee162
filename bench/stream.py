"""An audit stream on a network that was made for a benchmark or a test."""

from __future__ import annotations

from collections.abc import Iterable

from did.build import create_operation
from did.control import Control
from did.operation import decode_operation
from ledger.tx import Message
from node import config as cfg
from node.devnet import Devnet
from node.keys import generate_key, load_key
from node.streams import QUOTA_LEAVES_PER_DAY, create_stream_message
from node.wallet import Wallet
from rpc.client import RpcClient

TIMEOUT_S = 120.0


async def make_stream(
    network: Devnet, nodes: Iterable[int], *, quota: int = QUOTA_LEAVES_PER_DAY
) -> str:
    """A DID, and a stream of it that these nodes may anchor to, final on each; its id as text.
    Raises ZynkError."""
    owner = generate_key()
    operation = create_operation(
        net=network.chain_id,
        exp_height=1000,
        document={},
        control=Control.of([owner.public_key]),
        signers=[owner],
    )
    indexes = list(nodes)
    stream, message = create_stream_message(
        chain_id=network.chain_id,
        owner=decode_operation(operation).did_text,
        submitters=[bytes.fromhex((await network.status(i))["anchor_account"]) for i in indexes],
        description="a stream to measure or to test",
        keys=[owner],
        quota=quota,
    )
    faucet = load_key(network.nodes[0].home / cfg.FAUCET_KEY_FILE)
    async with RpcClient(network.nodes[0].url) as client:
        answer = await Wallet(client, faucet).submit([Message("did/op", operation), message])
    await network.wait_height(int(answer["height"]), indexes, timeout_s=TIMEOUT_S)
    return stream
