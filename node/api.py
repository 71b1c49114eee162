"""The node behind the RPC: domain answers in JSON form, each about state with its proof.

Implements `rpc.api.NodeApi`. Reads go to the tip (or kept history) of the chain; nothing here
writes except through the txpool and the anchoring pipeline.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from audit.answers import stream_json
from audit.leaf import decode_stream_text
from audit.stream import stream_key
from consensus.fork_proof import BETWEEN_MAX
from did import handler as did_handler
from did import resolver
from did.batch import resolve_batch
from did.operation import decode_operation
from did.resolution_error import ResolutionError
from did.resolution_options import read_version_query
from ledger.accounts import Account, account_key
from ledger.errors import InvalidInputError, ZynkError
from ledger.finality import FinalityProof
from ledger.params import PARAMS_KEY
from ledger.tx import Tx
from ledger.validator_set import ValidatorSet
from ledger.views import ProvenView
from node import api_did, api_gov, api_stake, api_tx
from node.answer_view import AnswerView, ChainLister
from node.api_evidence import submit_evidence
from node.api_log import checkpoint_json
from node.light_source import header_json
from rpc.api import BlockRef, JsonObject, Readiness, Wait, proof_json
from rpc.errors import history_pruned, not_found, not_ready
from rpc.metrics import MetricValue
from rpc.params import text_of_bytes
from rpc.results import API_VERSION

if TYPE_CHECKING:
    from node.daemon import Node

STALLED_AFTER_S = 30.0
"""A chain makes a block every heartbeat (10 s); none for this long means no quorum."""


class Api:
    """See the module docstring."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._chain = node.chain
        self._genesis_hash = node.genesis.genesis_hash
        self._lister = ChainLister(node.chain)

    # --- the node ---

    def readiness(self) -> Readiness:
        reasons = []
        node = self._node
        if node.driver.stop_reason is not None:
            reasons.append(f"consensus stopped: {node.driver.stop_reason}")
        progress = node.sync.progress
        if progress.is_syncing:
            reasons.append(f"syncing: height {progress.height} of {progress.target_height}")
        if not node.link.peers() and len(self._chain.validators) > 1:
            reasons.append("no peers")
        if self._chain.height == 0:
            reasons.append("the chain has no block yet")
        silent_s = node.quorum_silent_s()
        if silent_s > 0:
            reasons.append(f"no finality for {silent_s:.0f} s: more than 1/3 of the stake is away")
        return Readiness(ready=not reasons, reasons=tuple(reasons))

    def metrics(self) -> Mapping[str, MetricValue]:
        node = self._node
        usage = resource.getrusage(resource.RUSAGE_SELF)
        values: dict[str, MetricValue] = {
            "consensus_height": self._chain.height,
            "consensus_view": node.driver.core.view,
            "consensus_nullified_views_total": node.driver.nullified_views_total,
            "consensus_evidence_total": node.driver.evidence_total,
            "consensus_step_failures_total": node.driver.failures_total,
            "consensus_validators": len(self._chain.validators),
            "consensus_voting": int(not node.why_not_voting()),
            "mempool_txs": len(node.txpool.mempool),
            "mempool_bytes": node.txpool.mempool.bytes,
            "mempool_refused_total": node.txpool.refused_total,
            "p2p_peers": len(node.link.peers()),
            "p2p_offences_total": node.offences.total,
            "storage_bytes": node.store.size_bytes(),
            "process_cpu_seconds_total": usage.ru_utime + usage.ru_stime,
            "process_start_time_seconds": node.started_at,
        }
        values.update({f"p2p_{name}": count for name, count in node.link.stats().items()})
        values.update(node.log_service.metrics())
        return values

    async def node_status(self) -> JsonObject:
        node, head = self._node, self._chain.head
        readiness = self.readiness()
        progress = node.sync.progress
        reason = node.why_not_voting()
        core = node.driver.core
        return {
            "chain_id": self._chain.chain_id,
            "genesis_hash": self._genesis_hash.hex(),
            "moniker": node.config.moniker,
            "version": version("zynk-node"),
            "api_version": API_VERSION,
            "height": self._chain.height,
            "block_hash": self._chain.head_hash.hex(),
            "time_ms": head.time_ms if head else node.genesis.time_ms,
            "view": core.view,
            "nullified_views": node.driver.nullified_views_total,
            "ready": readiness.ready,
            "reasons": list(readiness.reasons),
            "sync": {
                "syncing": progress.is_syncing,
                "target_height": progress.target_height,
                "blocks_per_s": round(progress.blocks_per_s, 1),
            },
            "validator": {
                "public_key": node.voting.key.public_key.hex() if node.voting.key else None,
                "voting": not reason,
                "reason": reason,
            },
            "failures": {
                "count": node.driver.failures_total,
                "last": node.driver.last_failure,
            },
            "anchor_account": node.anchoring.account.hex(),
            "mempool": {"count": len(node.txpool.mempool), "bytes": node.txpool.mempool.bytes},
            "peers": len(node.link.peers()),
            "p2p": {"listen": node.link.listen_addr, "pid": node.link.pid},
            "uptime_s": round(time.time() - node.started_at, 1),
        }

    async def node_peers(self) -> JsonObject:
        return {
            "peers": [
                {
                    "peer_id": peer.peer,
                    "connected": True,
                    "addr": peer.addr,
                    "inbound": peer.inbound,
                    "height": peer.height,
                    "last_seen_s": round(peer.last_seen_s, 2),
                    "rtt_ms": peer.rtt_ms,
                    "bytes_in": peer.bytes_in,
                    "bytes_out": peer.bytes_out,
                }
                for peer in self._node.link.peers()
            ]
        }

    # --- the chain ---

    async def chain_head(self, trusted_height: int = 0) -> JsonObject:
        return await self.chain_header(None, trusted_height)

    async def chain_header(self, block: BlockRef, trusted_height: int = 0) -> JsonObject:
        proof = self._finality(block, trusted_height)
        return {
            "height": proof.header.height,
            "hash": proof.header.hash.hex(),
            "header": header_json(proof.header),
            "encoded": text_of_bytes(proof.header.encoded),
            "finality": text_of_bytes(proof.encode()),
        }

    async def chain_block(self, block: BlockRef) -> JsonObject:
        proof = self._finality(block)
        header = proof.header
        found = self._chain.block(header.height)
        results = self._chain.results(header.height)
        return {
            "height": header.height,
            "hash": header.hash.hex(),
            "header": header_json(header),
            "txs": [{"tx_id": r.tx_id.hex(), "code": r.code or "ok"} for r in results],
            "encoded": text_of_bytes(found.encoded),
            "finality": text_of_bytes(proof.encode()),
        }

    async def chain_certificate(self, block: BlockRef) -> JsonObject:
        proof = self._finality(block)
        header, certificate = proof.header, proof.certificate
        validators = self._chain.validators_at(header.height)
        return {
            "height": header.height,
            "view": certificate.view,
            "hash": header.hash.hex(),
            "encoded": text_of_bytes(certificate.encode()),
            "others": [
                text_of_bytes(other.encode())
                for other in self._chain.other_certificates(header.height, BETWEEN_MAX)
            ],
            "signers": [
                validators.validators[i].public_key.hex()
                for i in certificate.signer_indexes(validators)
            ],
        }

    async def chain_validators(self, height: int | None, trusted_height: int = 0) -> JsonObject:
        proof = self._finality(height, trusted_height)
        return {
            "height": proof.header.height,
            "finality": text_of_bytes(proof.encode()),
            **_validators_json(self._chain.validators_at(proof.header.height)),
        }

    async def chain_account(
        self, account: bytes, height: int | None, trusted_height: int = 0
    ) -> JsonObject:
        view = self._view(height, trusted_height)
        key = account_key(account)
        value, state_proof = view.prove(key)
        found = Account(balance=0, nonce=0) if value is None else Account.decode(value)
        return {
            "account": account.hex(),
            "balance": str(found.balance),
            "nonce": found.nonce,
            "next_nonce": self._node.txpool.mempool.next_nonce(account, found.nonce),
            "proof": _proof(view, key, value, state_proof),
        }

    async def chain_params(self, trusted_height: int = 0) -> JsonObject:
        view = self._view(None, trusted_height)
        value, state_proof = view.prove(PARAMS_KEY)
        params = self._chain.params
        return {
            "params": {name: getattr(params, name) for name in params.__dataclass_fields__},
            "proof": _proof(view, PARAMS_KEY, value, state_proof),
        }

    # --- txs ---

    async def tx_submit(self, tx: bytes, wait: Wait, timeout_ms: int) -> JsonObject:
        outcome = (await self.tx_submit_batch([tx], wait, timeout_ms))[0]
        if isinstance(outcome, ZynkError):
            raise outcome
        return outcome

    async def tx_submit_batch(
        self, txs: Sequence[bytes], wait: Wait, timeout_ms: int
    ) -> Sequence[JsonObject | ZynkError]:
        outcomes = await self._node.txpool.submit(txs)
        answers: list[JsonObject | ZynkError] = [
            api_tx.as_tx_error(outcome)
            if isinstance(outcome, ZynkError)
            else {"tx_id": outcome.hex(), "status": "accepted"}
            for outcome in outcomes
        ]
        if wait != "finalized":
            return answers
        ids = [outcome for outcome in outcomes if isinstance(outcome, bytes)]
        fates = await self._node.txpool.wait_final(ids, timeout_ms / 1000)
        return [
            api_tx.fate_json(self._chain, outcome, fates[outcome])
            if isinstance(outcome, bytes) and outcome in fates
            else answer
            for outcome, answer in zip(outcomes, answers, strict=True)
        ]

    async def tx_get(self, tx_id: bytes) -> JsonObject:
        location = self._chain.tx_location(tx_id)
        if location is None:
            if tx_id in self._node.txpool.mempool:
                return {"tx_id": tx_id.hex(), "status": "accepted"}
            raise not_found("tx", got=tx_id.hex())
        height, index = location
        return api_tx.proven_json(self._chain, tx_id, height, index, self._finality(height))

    async def tx_estimate_fee(self, tx: bytes) -> JsonObject:
        decoded = Tx.decode(tx)
        return {
            "fee": str(self._chain.params.compute_fee_min(len(tx))),
            "weight": sum(
                self._chain.executor.handlers[m.type].weight_of(m.body)
                for m in decoded.messages
                if m.type in self._chain.executor.handlers
            ),
            "bytes": len(tx),
        }

    # --- identities ---

    async def did_resolve(
        self,
        did: str,
        version_id: str | None,
        version_time: str | None,
        trusted_height: int = 0,
        as_of_height: int | None = None,
        proof: bool = True,
    ) -> JsonObject:
        try:
            query = read_version_query(version_id, version_time, as_of_height)
        except ResolutionError as error:
            return resolver.error_result(error.code, error.message)
        return resolver.resolve(self._view(None, trusted_height), did, query, is_proven=proof)

    async def did_resolve_batch(
        self, dids: Sequence[str], height: int | None, trusted_height: int = 0
    ) -> JsonObject:
        return resolve_batch(self._view(height, trusted_height), dids)

    async def did_submit(self, tx: bytes, wait: Wait, timeout_ms: int) -> JsonObject:
        did = _did_of(Tx.decode(tx))
        return {**await self.tx_submit(tx, wait, timeout_ms), "did": did}

    async def did_history(
        self, did: str, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject:
        return await api_did.history_json(self._view(None, trusted_height), did, cursor, limit)

    async def did_proof(self, did: str, height: int | None, trusted_height: int = 0) -> JsonObject:
        return resolver.proof(self._view(height, trusted_height), did)

    async def did_export(self, after: str | None, limit: int) -> JsonObject:
        return await api_did.export_json(self._chain, self._node.store, after, limit)

    def did_operations(self, height: int) -> Sequence[JsonObject]:
        return api_did.operations_json(self._chain, self._node.store, height)

    # --- the audit log ---

    async def audit_stream(self, stream: str, trusted_height: int = 0) -> JsonObject:
        stream_id, view = decode_stream_text(stream), self._view(None, trusted_height)
        key = stream_key(stream_id)
        value, state_proof = view.prove(key)
        if value is None:
            raise not_found("stream", got=stream)
        return {**stream_json(view, stream_id), "proof": _proof(view, key, value, state_proof)}

    async def audit_submit(
        self, stream: str, leaves: Sequence[bytes], request_id: str | None
    ) -> JsonObject:
        return await self._node.anchoring.submit(stream, leaves, request_id)

    async def audit_status(self, leaves: Sequence[bytes]) -> JsonObject:
        return {"leaves": [self._node.anchoring.status(leaf) for leaf in leaves]}

    async def audit_receipt(self, leaf: bytes, trusted_height: int | None = None) -> JsonObject:
        return self._node.anchoring.receipt(leaf, trusted_height)

    async def audit_inclusion(
        self, leaf_index: int, tree_size: int | None, trusted_height: int = 0
    ) -> JsonObject:
        size, finality = self._log_size(tree_size, trusted_height)
        log = self._node.log_tree
        return {
            "leaf_index": leaf_index,
            "tree_size": size,
            "root_hash": log.root(size).hex(),
            "path": [h.hex() for h in log.inclusion_proof(leaf_index, size)],
            **finality,
        }

    async def audit_consistency(
        self, first_size: int, second_size: int | None, trusted_height: int = 0
    ) -> JsonObject:
        size, finality = self._log_size(second_size, trusted_height)
        log = self._node.log_tree
        return {
            "first_size": first_size,
            "second_size": size,
            "root_hash": log.root(size).hex(),
            "path": [h.hex() for h in log.consistency_proof(first_size, size)],
            **finality,
        }

    async def audit_checkpoint(self, trusted_height: int = 0) -> JsonObject:
        proof, cosigning = self._finality(None, trusted_height), self._node.log_service.cosigning
        return checkpoint_json(self._chain, cosigning, proof, trusted_height)

    def _log_size(self, size: int | None, trusted_height: int) -> tuple[int, dict[str, object]]:
        proof = self._finality(None, trusted_height)
        header = proof.header
        if size is None or size == header.audit_size:
            return header.audit_size, {"finality": text_of_bytes(proof.encode())}
        if size > header.audit_size:
            raise InvalidInputError(
                "the log is not that large", expected=f"<= {header.audit_size}", got=str(size)
            )
        return size, {}

    # --- stake ---

    async def stake_validators(
        self, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject:
        view = AnswerView(self._view(None, trusted_height))
        return api_stake.validators_json(view, self._lister, cursor, limit)

    async def stake_validator(self, operator: bytes, trusted_height: int = 0) -> JsonObject:
        return api_stake.validator_json(AnswerView(self._view(None, trusted_height)), operator)

    async def stake_delegations(
        self,
        account: bytes | None,
        validator: bytes | None,
        cursor: int,
        limit: int,
        trusted_height: int = 0,
    ) -> JsonObject:
        view = AnswerView(self._view(None, trusted_height))
        if account is None and validator is None:
            return api_stake.all_delegations_json(view, self._lister, cursor, limit)
        return api_stake.delegations_json(view, self._lister, account, validator, cursor, limit)

    async def stake_unbonding(
        self, account: bytes | None, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject:
        view = AnswerView(self._view(None, trusted_height))
        return api_stake.unbonding_json(view, account, cursor, limit)

    async def evidence_submit(self, evidence: bytes) -> JsonObject:
        return submit_evidence(self._node.evidence, evidence)

    async def gov_proposals(self, cursor: int, limit: int, trusted_height: int = 0) -> JsonObject:
        view = AnswerView(self._view(None, trusted_height))
        return api_gov.proposals_json(view, cursor, limit)

    async def gov_proposal(self, proposal: int, trusted_height: int = 0) -> JsonObject:
        return api_gov.one_proposal_json(AnswerView(self._view(None, trusted_height)), proposal)

    # --- shared ---

    def _finality(self, block: BlockRef, trusted_height: int = 0) -> FinalityProof:
        if self._chain.height == 0:
            raise not_ready("the chain has no block yet", reason="chain/no-block-yet")
        height = self._chain.height if block is None else block
        if isinstance(height, bytes):
            found = self._chain.height_of(height)
            if found is None:
                raise not_found("block", got=height.hex())
            height = found
        if not 1 <= height <= self._chain.height:
            raise not_found("block", got=f"height {height}; the head is {self._chain.height}")
        return self._chain.finality(height, trusted_height)

    def _view(self, height: int | None, trusted_height: int = 0) -> ProvenView:
        if self._chain.height == 0:
            raise not_ready("the chain has no block yet", reason="chain/no-block-yet")
        if height is None or height == self._chain.height:
            return self._chain.view_at(self._chain.height, trusted_height)
        if height > self._chain.height:
            raise not_found("block", got=f"height {height}; the head is {self._chain.height}")
        oldest = self._chain.tree.lowest_height
        if height < max(oldest, 1):
            raise history_pruned(height, max(oldest, 1))
        return self._chain.view_at(height, trusted_height)


def _proof(
    view: ProvenView, key: bytes, value: bytes | None, state_proof: bytes
) -> dict[str, object]:
    return proof_json(
        height=view.height,
        key=key,
        value=value,
        state_proof=state_proof,
        finality=view.finality.encode(),
    )


def _validators_json(validators: ValidatorSet) -> dict[str, Any]:
    return {
        "hash": validators.hash.hex(),
        "total_power": str(validators.total_power),
        "validators": [
            {"public_key": v.public_key.hex(), "power": str(v.power)} for v in validators.validators
        ],
        "encoded": text_of_bytes(validators.encoded),
    }


def _did_of(tx: Tx) -> str:
    for message in tx.messages:
        if message.type == did_handler.MESSAGE_TYPE:
            return decode_operation(message.body).did_text
    raise InvalidInputError(
        "tx carries no DID operation",
        expected=f"a message of type {did_handler.MESSAGE_TYPE} (else use tx_submit)",
        got=", ".join(message.type for message in tx.messages),
    )
