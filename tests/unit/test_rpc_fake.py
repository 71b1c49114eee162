"""A small node behind the real RPC server; and the claim that it keeps to the published schemas."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from did.resolver import error_result
from ledger.errors import InvalidInputError, ZynkError
from ledger.execution import TxFailure
from rpc.api import BlockRef, JsonObject, NodeApi, Readiness, Wait, proof_json
from rpc.client import RpcClient
from rpc.config import RpcConfig
from rpc.errors import not_found, tx_refused
from rpc.methods import METHODS
from rpc.metrics import LatencyHistogram, MetricValue
from rpc.params import text_of_bytes
from rpc.results import mismatches
from rpc.server import RpcServer

H = "ab" * 32
HEADER = {
    "protocol_version": 1, "chain_id": "t", "height": 7, "time_ms": 1, "parent_hash": H,
    "origin_view": 1, "proposer": H, "body_hash": H, "state_root": H, "audit_size": 0,
    "audit_root": H, "results_root": H, "validators_hash": H, "next_validators_hash": H,
}  # fmt: skip
PROOF = proof_json(height=7, key=b"k", value=None, state_proof=b"p", finality=b"f")
DID_PROOF: dict[str, object] = {
    "type": "t", "record": None, "stateProof": "AA", "header": "AA", "certificate": "AA",
    "handoffs": [],
}  # fmt: skip
BAD_TX = b"bad"
BUG_TX = b"bug"
SLOW_TX = b"slow"


ROW = {"key": "AA", "value": "AA", "state_proof": "AA"}
PROVEN = {"height": 7, "rows": [ROW], "finality": "AA"}
VALIDATOR_ANSWER: JsonObject = {
    **dict.fromkeys(("operator", "public_key", "vrf_key", "cosign_key"), H),
    **dict.fromkeys(("power", "tokens", "shares", "self_bond", "commission_owed"), "1"),
    **dict.fromkeys(("commission_ppm", "jailed_until_ms", "missed", "missed_window"), 0),
    "name": "v",
    "status": "active",
    "slash": None,
    "row": ROW,
}


PROPOSAL_ANSWER: JsonObject = {
    **dict.fromkeys(("deposit", "yes", "no", "abstain", "bonded"), "1"),
    **dict.fromkeys(("id", "opened_height", "end_ms", "closed_height"), 1),
    **dict.fromkeys(("title", "summary", "code"), "t"),
    "proposer": H,
    "change": {"params": {"fee_base": 1}},
    "status": "open",
    "row": ROW,
}


class FakeNodeApi:
    """Finalises nothing by itself; `final` holds ids that count as final."""

    def __init__(self) -> None:
        self.ready = Readiness(ready=True)
        self.final: set[bytes] = set()
        self.submitted: list[bytes] = []
        self.release = asyncio.Event()
        self.latency = LatencyHistogram()
        self.peer_count = 0

    def readiness(self) -> Readiness:
        return self.ready

    def metrics(self) -> Mapping[str, MetricValue]:
        return {
            "consensus_height": 7,
            "consensus_finality_seconds": self.latency,
            "mempool_txs": 3,
            "p2p_messages_total": {"vote": 5, "proposal": 2},
            "storage_bytes": 10.5,
            "process_open_fds": -1,
            "Not a name": 1,
        }

    async def node_status(self) -> JsonObject:
        return {
            "chain_id": "t", "genesis_hash": H, "version": "0", "api_version": "1.0", "height": 7,
            "block_hash": H, "time_ms": 1, "ready": True, "reasons": [],
            "sync": {"syncing": False, "target_height": 7},
            "validator": {"public_key": None, "voting": False, "reason": "no key"},
            "mempool": {"count": 0, "bytes": 0}, "peers": self.peer_count,
        }  # fmt: skip

    async def node_peers(self) -> JsonObject:
        return {"peers": [{"peer_id": "12D3", "connected": True}]}

    async def chain_head(self, trusted_height: int = 0) -> JsonObject:
        return {"height": 7, "hash": H, "header": HEADER, "finality": "AA"}

    async def chain_header(self, block: BlockRef, trusted_height: int = 0) -> JsonObject:
        if block == 99:
            raise not_found("block", got="99")
        height = block if isinstance(block, int) else 7
        return {
            "height": height, "hash": H, "header": HEADER, "encoded": "AA", "finality": "AA",
        }  # fmt: skip

    async def chain_block(self, block: BlockRef) -> JsonObject:
        return {**await self.chain_header(block), "txs": [{"tx_id": H, "code": "ok"}]}

    async def chain_certificate(self, block: BlockRef) -> JsonObject:
        return {"height": 7, "view": 1, "hash": H, "encoded": "AA", "others": [], "signers": [H]}

    async def chain_validators(self, height: int | None, trusted_height: int = 0) -> JsonObject:
        return {
            "height": 7, "hash": H, "total_power": "1", "encoded": "AA", "finality": "AA",
            "validators": [{"public_key": H, "power": "1"}],
        }  # fmt: skip

    async def chain_account(
        self, account: bytes, height: int | None, trusted_height: int = 0
    ) -> JsonObject:
        return {"account": account.hex(), "balance": "18", "nonce": 0, "proof": PROOF}

    async def chain_params(self, trusted_height: int = 0) -> JsonObject:
        return {"params": {}, "proof": PROOF}

    async def tx_submit(self, tx: bytes, wait: Wait, timeout_ms: int) -> JsonObject:
        if tx == BAD_TX:
            raise tx_refused("tx/bad-nonce", "the nonce is wrong", expected="1", got="2")
        if tx == b"not a tx":
            raise InvalidInputError("tx is no array", expected="array", got="str")
        if tx == BUG_TX:
            raise KeyError("secret detail")
        if tx == SLOW_TX:
            await self.release.wait()
        self.submitted.append(tx)
        return {"tx_id": hashlib.sha256(tx).hexdigest(), "status": "accepted"}

    async def tx_submit_batch(
        self, txs: Sequence[bytes], wait: Wait, timeout_ms: int
    ) -> Sequence[JsonObject | ZynkError]:
        outcomes: list[JsonObject | ZynkError] = []
        for tx in txs:
            try:
                outcomes.append(await self.tx_submit(tx, wait, timeout_ms))
            except ZynkError as error:
                outcomes.append(error)
        return outcomes

    async def tx_get(self, tx_id: bytes) -> JsonObject:
        if tx_id not in self.final:
            raise not_found("tx")
        return {"tx_id": tx_id.hex(), "status": "finalized", "height": 7, "index": 0, "code": "ok"}

    async def tx_estimate_fee(self, tx: bytes) -> JsonObject:
        return {"fee": "100", "weight": 1, "bytes": len(tx)}

    async def did_resolve(
        self,
        did: str,
        version_id: str | None,
        version_time: str | None,
        trusted_height: int = 0,
        as_of_height: int | None = None,
        proof: bool = True,
    ) -> JsonObject:
        return {
            "didDocument": {"id": did},
            "didDocumentMetadata": {"versionId": version_id or "0-x", "proof": [DID_PROOF]},
            "didResolutionMetadata": {"contentType": "application/did"},
        }

    async def did_resolve_batch(
        self, dids: Sequence[str], height: int | None, trusted_height: int = 0
    ) -> JsonObject:
        proof = {
            "type": "t", "records": [None], "multiproof": "AA", "header": "AA",
            "certificate": "AA", "handoffs": [],
        }  # fmt: skip
        return {"results": [error_result("NOT_FOUND", did) for did in dids], "proof": proof}

    async def did_submit(self, tx: bytes, wait: Wait, timeout_ms: int) -> JsonObject:
        return {**await self.tx_submit(tx, wait, timeout_ms), "did": "did:zynk:z1"}

    async def did_history(
        self, did: str, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject:
        operation = {"seq": cursor, "versionId": "0-x", "height": 3, "entry": "AA", "path": []}
        return {"did": did, "operations": [operation], "nextCursor": None, "proof": DID_PROOF}

    async def did_export(self, after: str | None, limit: int) -> JsonObject:
        first = 0 if after is None else int(after.split("-")[0]) + 1
        lines = [line for height in range(first, 8) for line in self.did_operations(height)]
        more = len(lines) > limit
        return {
            "operations": lines[:limit],
            "nextCursor": lines[limit - 1]["cursor"] if more else None,
        }

    def did_operations(self, height: int) -> Sequence[JsonObject]:
        return [
            {
                "cursor": f"{height}-0", "did": "did:zynk:z1", "seq": height, "versionId": "0-x",
                "height": height, "time": "2026-01-01T00:00:00Z", "operation": {"seq": height},
            }
        ]  # fmt: skip

    async def did_proof(self, did: str, height: int | None, trusted_height: int = 0) -> JsonObject:
        return {"did": did, "record": None, "proof": DID_PROOF}

    async def audit_submit(
        self, stream: str, leaves: Sequence[bytes], request_id: str | None
    ) -> JsonObject:
        if stream == "nobody":
            raise TxFailure("audit/no-stream", "no such stream")
        found = [{"leaf": hashlib.sha256(b).hexdigest(), "status": "accepted"} for b in leaves]
        return {"stream": stream, "leaves": found}

    async def audit_stream(self, stream: str, trusted_height: int = 0) -> JsonObject:
        return {
            "stream": stream,
            "owner": "did:zynk:z",
            "sequence": 0,
            "submitters": [H],
            "quota_leaves_per_day": 5,
            "description_hash": H,
            "created_ms": 1,
            "updated_ms": 1,
            "leaves_total": 2,
            "anchors_total": 1,
            "proof": PROOF,
        }

    async def audit_status(self, leaves: Sequence[bytes]) -> JsonObject:
        return {"leaves": [{"leaf": leaf.hex(), "status": "unknown"} for leaf in leaves]}

    async def audit_receipt(self, leaf: bytes, trusted_height: int | None = None) -> JsonObject:
        return {"leaf": leaf.hex(), "height": 7, "receipt": "AA"}

    async def audit_inclusion(
        self, leaf_index: int, tree_size: int | None, trusted_height: int = 0
    ) -> JsonObject:
        return {"leaf_index": leaf_index, "tree_size": 9, "root_hash": H, "path": [H]}

    async def audit_consistency(
        self, first_size: int, second_size: int | None, trusted_height: int = 0
    ) -> JsonObject:
        return {"first_size": first_size, "second_size": 9, "root_hash": H, "path": []}

    async def audit_checkpoint(self, trusted_height: int = 0) -> JsonObject:
        return {
            "height": 7,
            "tree_size": 9,
            "root_hash": H,
            "finality": "AA",
            "published": None,
            "reason": "",
        }

    async def stake_validators(
        self, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject:
        page = [VALIDATOR_ANSWER]
        return {"validators": page, "candidates": 1, "listed": [], "next_cursor": None, **PROVEN}

    async def stake_validator(self, operator: bytes, trusted_height: int = 0) -> JsonObject:
        return {**VALIDATOR_ANSWER, **PROVEN}

    async def stake_delegations(
        self,
        account: bytes | None,
        validator: bytes | None,
        cursor: int,
        limit: int,
        trusted_height: int = 0,
    ) -> JsonObject:
        amounts = {"amount": "5", "shares": "5", "free_shares": "5", "rewards": "0"}
        bonds = [{"delegator": H, "validator": H, **amounts, "row": ROW}]
        return {"delegations": bonds, "listed": [], "next_cursor": None, **PROVEN}

    async def evidence_submit(self, evidence: bytes) -> JsonObject:
        return {"operator": H, "height": 7}

    async def stake_unbonding(
        self, account: bytes | None, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject:
        entry = {"seq": 1, "delegator": H, "validator": H, "amount": "5", "due_ms": 9, "row": ROW}
        return {"entries": [entry], "next_cursor": None, **PROVEN}

    async def gov_proposals(self, cursor: int, limit: int, trusted_height: int = 0) -> JsonObject:
        return {"proposals": [PROPOSAL_ANSWER], "next_cursor": None, **PROVEN}

    async def gov_proposal(self, proposal: int, trusted_height: int = 0) -> JsonObject:
        return {**PROPOSAL_ANSWER, **PROVEN}


@asynccontextmanager
async def running(
    api: FakeNodeApi | None = None, **settings: object
) -> AsyncIterator[tuple[RpcServer, str, RpcClient]]:
    """A real server on a free port: (server, URL, client)."""
    config = replace(RpcConfig(port=0), **settings)  # type: ignore[arg-type]  # any field
    server = RpcServer(api or FakeNodeApi(), config)
    url = f"http://127.0.0.1:{await server.start()}"
    try:
        async with RpcClient(url, timeout_s=10) as client:
            yield server, url, client
    finally:
        await server.stop()


SAMPLE_BY_PARAM: dict[str, object] = {
    "block": 3, "height": 3, "trusted_height": 0, "account": H, "tx": text_of_bytes(b"tx"),
    "wait": "none",
    "timeout_ms": 5, "txs": [text_of_bytes(b"tx"), text_of_bytes(BAD_TX)], "tx_id": H,
    "did": "did:zynk:z1", "dids": ["did:zynk:z1"],
    "version_id": "0-x", "version_time": "2026-01-01T00:00:00Z",
    "as_of_height": 3, "after": "3-0", "cursor": 1, "proof": True,
    "limit": 2, "stream": "did:zynk:z1#s", "leaves": ["AAEC"], "request_id": "r",
    "operator": H, "validator": H, "proposal": 1, "evidence": text_of_bytes(b"pair"),
    "leaf": H, "leaf_index": 1, "tree_size": 2, "first_size": 1, "second_size": 2,
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_an_answer_fits_the_schema_that_discover_publishes(method: object) -> None:
    found = next(m for m in METHODS if m is method)

    async def scenario() -> None:
        api = FakeNodeApi()
        api.final.add(bytes.fromhex(H))
        sample = dict(SAMPLE_BY_PARAM)
        if found.name == "audit_status":
            sample["leaves"] = [H]
        async with running(api) as (_, _, client):
            answer = await client.call(found.name, **{p.name: sample[p.name] for p in found.params})
        assert mismatches(answer, found.result) == []

    asyncio.run(scenario())


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_method_has_the_parameters_of_the_coroutine_it_calls(method: object) -> None:
    found = next(m for m in METHODS if m is method)
    name = {
        "did_resolveBatch": "did_resolve_batch",
        "tx_submitBatch": "tx_submit_batch",
        "tx_estimateFee": "tx_estimate_fee",
    }
    coroutine = getattr(NodeApi, name.get(found.name, found.name))
    expected = list(inspect.signature(coroutine).parameters)[1:]
    assert [param.name for param in found.params] == expected
