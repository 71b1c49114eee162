"""What a client does with a key and a node: nonces, fees, signed txs, and checks of what comes
back. Used by the CLI, the demo, the benchmarks and tests; the node itself does not need it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.ed25519 import KeyPair
from ledger.errors import ZynkError
from ledger.fees import sign_tx
from ledger.params import ChainParams
from ledger.tx import Message, Tx
from rpc.client import RpcClient
from rpc.params import text_of_bytes

VALID_FOR_BLOCKS = 1000


class TxFailedError(ZynkError):
    """A tx is final and failed; `code` is the handler's word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"tx failed, {code}: {message}")
        self.code = code


class Wallet:
    """An account's key at a node. Keeps the next nonce, so that txs can follow each other."""

    def __init__(self, client: RpcClient, key: KeyPair) -> None:
        self.client = client
        self.key = key
        self._nonce: int | None = None
        self._chain_id = ""
        self._params: ChainParams | None = None

    async def sign(self, messages: Sequence[Message]) -> Tx:
        """Sign a tx with the least fee, valid for the next 1,000 heights."""
        status = await self.client.call("node_status")
        if self._params is None:
            found: dict[str, Any] = (await self.client.call("chain_params"))["params"]
            self._params = ChainParams(**found)
        if self._nonce is None:
            account = await self.client.call("chain_account", account=self.key.public_key.hex())
            self._nonce = int(account["next_nonce"])
        tx = sign_tx(
            self.key,
            chain_id=status["chain_id"],
            nonce=self._nonce,
            valid_until=int(status["height"])
            + min(VALID_FOR_BLOCKS, self._params.tx_valid_blocks_max),
            messages=messages,
            params=self._params,
        )
        self._nonce += 1
        return tx

    async def submit(
        self, messages: Sequence[Message], *, method: str = "tx_submit", timeout_ms: int = 30_000
    ) -> dict[str, Any]:
        """Sign, submit and wait until final. Raises TxFailedError, RpcError."""
        tx = await self.sign(messages)
        try:
            answer: dict[str, Any] = await self.client.call(
                method, tx=text_of_bytes(tx.encoded), wait="finalized", timeout_ms=timeout_ms
            )
        except ZynkError:
            self._nonce = None
            raise
        if answer["status"] != "finalized":
            self._nonce = None
            if answer["status"] == "dropped":
                raise ZynkError(
                    "tx was dropped before it was final", got=answer["reason"], retry=True
                )
            raise ZynkError(
                "tx is not final yet",
                expected=f"within {timeout_ms} ms",
                got=answer["status"],
                retry=True,
            )
        if answer["code"] != "ok":
            raise TxFailedError(answer["code"], answer["message"])
        return answer
