"""The light client behind the RPC: answers about state that it has verified itself.

Implements `rpc.api.NodeApi` over other nodes' endpoints. Each answer is asked of the primary, with
proofs from the verified head on; what does not verify is noted against the endpoint and asked of
the next. An answer is put together from what was verified, so that nothing unproven passes. What
can't be verified is refused: UNVERIFIED if no endpoint gave a good answer, UNSUPPORTED for methods
whose answers carry no proof. `tx_submit` is passed on: a receipt of a tx proves nothing, its
effects do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NoReturn, TypeVar

from audit.receipt import Receipt
from audit.verify import verify_membership
from did import resolver
from did.verify import decode_proof_finality, verify_proof, verify_resolution
from ledger import codec
from ledger.accounts import Account, account_key
from ledger.errors import InvalidInputError, ZynkError
from ledger.finality import FinalityProof
from ledger.light import Judgement, Verdict, judge, judge_decoded
from ledger.merkle import compute_leaf_hash
from ledger.params import PARAMS_KEY, ChainParams
from ledger.state import verify_state_proof
from ledger.validator_set import ValidatorSet
from node.light_follow import Follower, judgement_of
from node.light_source import Source, header_json, read_blob
from rpc.api import BlockRef, JsonObject, Readiness, Wait, proof_json
from rpc.errors import RpcCode, RpcConnectionError, RpcError, unsupported
from rpc.metrics import MetricValue
from rpc.params import text_of_bytes
from rpc.results import API_VERSION

T = TypeVar("T")


class _NotVerified(Exception):
    """An answer's proof was judged, and is not to be relied on."""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__(judgement.reason)
        self.judgement = judgement


class LightApi:
    """See the module docstring. Answers about the newest state are as of the endpoint's head, at or
    above the verified head, and at most the follower's maximum age old."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    # --- asking ---

    async def _ask(self, work: Callable[[Source], Awaitable[T]]) -> T:
        """The first verified answer. Raises RpcError: the endpoint's own refusal if it is all that
        came, else UNVERIFIED with the verdict as reason."""
        failure: RpcError | None = None
        for source in list(self._follower.sources):
            try:
                return await work(source)
            except _NotVerified as error:
                judgement = error.judgement
            except RpcError as error:
                failure = failure or error
                continue
            except (RpcConnectionError, InvalidInputError) as error:
                judgement = judgement_of(error)
            self._follower.note(source, judgement)
            failure = RpcError(
                RpcCode.UNVERIFIED,
                f"no endpoint gave an answer that verifies: {judgement.reason}",
                reason=f"light/{judgement.verdict}",
                got=source.url,
            )
        assert failure is not None, "there is at least one endpoint"
        raise failure

    def _accept(self, judgement: Judgement) -> None:
        if judgement.verdict is not Verdict.VALID:
            raise _NotVerified(judgement)

    def _judge(self, proof: bytes, *, is_newest: bool) -> FinalityProof:
        """A finality proof that may be relied on. Raises _NotVerified."""
        follower = self._follower
        self._accept(
            judge(
                proof,
                follower.trust,
                now_ms=follower.now_ms(),
                max_age_ms=follower.max_age_ms if is_newest else None,
            )
        )
        return FinalityProof.decode(proof)

    def _check_caller(self, trusted_height: int | None) -> None:
        if trusted_height:
            raise unsupported("another trusted height than the light client's own")

    # --- the node ---

    def readiness(self) -> Readiness:
        follower = self._follower
        age_ms = follower.now_ms() - follower.trust.time_ms
        reasons = []
        if age_ms > follower.max_age_ms:
            reasons.append(f"the verified head is {age_ms} ms old: {follower.last.reason}")
        return Readiness(ready=not reasons, reasons=tuple(reasons))

    def metrics(self) -> Mapping[str, MetricValue]:
        health = self._follower.health.values()
        return {
            "light_height": self._follower.trust.height,
            "light_endpoint_faults_total": sum(h.faults for h in health),
        }

    async def node_status(self) -> JsonObject:
        follower, readiness = self._follower, self.readiness()
        return {
            "chain_id": follower.trust.chain_id,
            "genesis_hash": follower.root.root.hex(),
            "version": version("zynk-node"),
            "api_version": API_VERSION,
            "height": follower.trust.height,
            "block_hash": follower.trust.header_hash.hex(),
            "time_ms": follower.trust.time_ms,
            "ready": readiness.ready,
            "reasons": list(readiness.reasons),
            "sync": {"syncing": not readiness.ready, "target_height": follower.trust.height},
            "validator": {"public_key": None, "voting": False, "reason": "a light client"},
            "mempool": {"count": 0, "bytes": 0},
            "peers": len(follower.sources),
            "light": {
                "verdict": follower.last.verdict.value,
                "reason": follower.last.reason,
                "primary": follower.sources[0].url,
                "endpoints": [
                    {
                        "url": url,
                        "verdict": health.last_verdict,
                        "faults": health.faults,
                        "last_fault": health.last_fault,
                    }
                    for url, health in follower.health.items()
                ],
            },
        }

    # --- the chain ---

    async def chain_head(self, trusted_height: int = 0) -> JsonObject:
        return await self.chain_header(None, trusted_height)

    async def chain_header(self, block: BlockRef, trusted_height: int = 0) -> JsonObject:
        self._check_caller(trusted_height)
        trust = self._follower.trust

        async def work(source: Source) -> FinalityProof:
            reference = block.hex() if isinstance(block, bytes) else block
            answer = await source.call("chain_header", block=reference, trusted_height=trust.height)
            proof = self._judge(read_blob(answer, "finality"), is_newest=block is None)
            if block not in (None, proof.header.height, proof.header.hash):
                raise InvalidInputError("the answer is about another block")
            return proof

        proof = await self._ask(work)
        return {
            "height": proof.header.height,
            "hash": proof.header.hash.hex(),
            "header": header_json(proof.header),
            "encoded": text_of_bytes(proof.header.encoded),
            "finality": text_of_bytes(proof.encode()),
        }

    async def chain_validators(self, height: int | None, trusted_height: int = 0) -> JsonObject:
        self._check_caller(trusted_height)

        async def work(source: Source) -> tuple[FinalityProof, ValidatorSet]:
            answer = await source.call(
                "chain_validators", height=height, trusted_height=self._follower.trust.height
            )
            proof = self._judge(read_blob(answer, "finality"), is_newest=height is None)
            validators = ValidatorSet.decode(read_blob(answer, "encoded"))
            if height not in (None, proof.header.height):
                raise InvalidInputError("the answer is about another height")
            if validators.hash != proof.header.validators_hash:
                raise InvalidInputError("the validator set is not the one the header names")
            return proof, validators

        proof, validators = await self._ask(work)
        return {
            "height": proof.header.height,
            "hash": validators.hash.hex(),
            "total_power": str(validators.total_power),
            "validators": [
                {"public_key": v.public_key.hex(), "power": str(v.power)}
                for v in validators.validators
            ],
            "encoded": text_of_bytes(validators.encoded),
            "finality": text_of_bytes(proof.encode()),
        }

    async def chain_account(
        self, account: bytes, height: int | None, trusted_height: int = 0
    ) -> JsonObject:
        self._check_caller(trusted_height)
        value, proof = await self._row(
            account_key(account), height, "chain_account", account=account.hex(), height=height
        )
        found = Account(balance=0, nonce=0) if value is None else Account.decode(value)
        return {
            "account": account.hex(),
            "balance": str(found.balance),
            "nonce": found.nonce,
            "proof": proof,
        }

    async def chain_params(self, trusted_height: int = 0) -> JsonObject:
        self._check_caller(trusted_height)
        value, proof = await self._row(PARAMS_KEY, None, "chain_params")
        if value is None:
            raise InvalidInputError("the state has no parameters")
        params = ChainParams.decode(value)
        return {
            "params": {name: getattr(params, name) for name in params.__dataclass_fields__},
            "proof": proof,
        }

    async def _row(
        self, key: bytes, at_height: int | None, method: str, **params: object
    ) -> tuple[bytes | None, dict[str, object]]:
        """A verified state row (None: absent) and its proof member."""

        async def work(source: Source) -> tuple[bytes | None, dict[str, object]]:
            answer = await source.call(method, **params, trusted_height=self._follower.trust.height)
            shown = answer.get("proof")
            if not isinstance(shown, dict):
                raise InvalidInputError("the answer has no proof")
            finality = self._judge(read_blob(shown, "finality"), is_newest=at_height is None)
            if at_height not in (None, finality.header.height):
                raise InvalidInputError("the answer is about another height")
            value = None if shown.get("value") is None else read_blob(shown, "value")
            state_proof = read_blob(shown, "state_proof")
            verify_state_proof(finality.header.state_root, key, value, state_proof)
            return value, proof_json(
                height=finality.header.height,
                key=key,
                value=value,
                state_proof=state_proof,
                finality=finality.encode(),
            )

        return await self._ask(work)

    # --- txs ---

    async def tx_submit(self, tx: bytes, wait: Wait, timeout_ms: int) -> JsonObject:
        answer = await self._pass_on("tx_submit", tx, wait, timeout_ms)
        if answer.get("tx_id") != codec.hash_tagged("tx", tx).hex():
            raise RpcError(RpcCode.UNVERIFIED, "the endpoint names another tx id")
        return answer

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

    async def did_submit(self, tx: bytes, wait: Wait, timeout_ms: int) -> JsonObject:
        return await self._pass_on("did_submit", tx, wait, timeout_ms)

    async def _pass_on(self, method: str, tx: bytes, wait: Wait, timeout_ms: int) -> JsonObject:
        return await self._ask(
            lambda source: source.call(
                method, tx=text_of_bytes(tx), wait=wait, timeout_ms=timeout_ms
            )
        )

    # --- identities ---

    async def did_resolve(
        self, did: str, version_id: str | None, version_time: str | None, trusted_height: int = 0
    ) -> JsonObject:
        self._check_caller(trusted_height)
        if version_id is not None or version_time is not None:
            raise unsupported("resolving an older version")
        malformed = resolver.find_malformed(did)
        if malformed is not None:
            return malformed

        async def work(source: Source) -> JsonObject:
            follower = self._follower
            answer = dict(
                await source.call("did_resolve", did=did, trusted_height=follower.trust.height)
            )
            self._judge_did(_shown_proof(answer), is_newest=True)
            verify_resolution(
                answer,
                did=did,
                trusted=follower.trust.validators,
                chain_id=follower.trust.chain_id,
                max_age_ms=None,
                now_ms=None,
            )
            return answer

        return await self._ask(work)

    async def did_proof(self, did: str, height: int | None, trusted_height: int = 0) -> JsonObject:
        self._check_caller(trusted_height)

        async def work(source: Source) -> JsonObject:
            follower = self._follower
            answer = await source.call(
                "did_proof", did=did, height=height, trusted_height=follower.trust.height
            )
            self._judge_did(answer.get("proof"), is_newest=height is None)
            header, record, _ = verify_proof(
                answer.get("proof"),
                did=did,
                trusted=follower.trust.validators,
                chain_id=follower.trust.chain_id,
                max_age_ms=None,
                now_ms=None,
            )
            if height not in (None, header.height):
                raise InvalidInputError("the answer is about another height")
            return {
                "did": did,
                "record": None if record is None else resolver.describe_record(record),
                "proof": answer["proof"],
            }

        return await self._ask(work)

    def _judge_did(self, proof: object, *, is_newest: bool) -> None:
        """Raise _NotVerified unless the finality in a DID's proof object may be relied on."""
        follower = self._follower
        self._accept(
            judge_decoded(
                decode_proof_finality(proof),
                follower.trust,
                now_ms=follower.now_ms(),
                max_age_ms=follower.max_age_ms if is_newest else None,
            )
        )

    # --- the audit log ---

    async def audit_receipt(self, leaf: bytes, trusted_height: int | None = None) -> JsonObject:
        self._check_caller(trusted_height)

        async def work(source: Source) -> JsonObject:
            follower = self._follower
            answer = await source.call(
                "audit_receipt", leaf=leaf.hex(), trusted_height=follower.trust.height
            )
            raw = read_blob(answer, "receipt")
            receipt = Receipt.decode(raw)
            if compute_leaf_hash(receipt.leaf_bytes) != leaf:
                raise InvalidInputError("the receipt is for another leaf")
            verify_membership(receipt)
            self._accept(judge_decoded(receipt.finality, follower.trust, now_ms=follower.now_ms()))
            return {
                "leaf": leaf.hex(),
                "height": receipt.anchor.height,
                "receipt": text_of_bytes(raw),
            }

        return await self._ask(work)

    # --- what carries no proof ---

    async def node_peers(self) -> JsonObject:
        return {"peers": []}

    async def chain_block(self, block: BlockRef) -> JsonObject:
        _refuse("chain_block")

    async def chain_certificate(self, block: BlockRef) -> JsonObject:
        _refuse("chain_certificate")

    async def tx_get(self, tx_id: bytes) -> JsonObject:
        _refuse("tx_get")

    async def tx_estimate_fee(self, tx: bytes) -> JsonObject:
        _refuse("tx_estimateFee")

    async def did_history(
        self, did: str, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject:
        _refuse("did_history")

    async def audit_stream(self, stream: str) -> JsonObject:
        _refuse("audit_stream")

    async def audit_submit(
        self, stream: str, leaves: Sequence[bytes], request_id: str | None
    ) -> JsonObject:
        _refuse("audit_submit")

    async def audit_status(self, leaves: Sequence[bytes]) -> JsonObject:
        _refuse("audit_status")

    async def audit_inclusion(
        self, leaf_index: int, tree_size: int | None, trusted_height: int = 0
    ) -> JsonObject:
        _refuse("audit_inclusion")

    async def audit_consistency(
        self, first_size: int, second_size: int | None, trusted_height: int = 0
    ) -> JsonObject:
        _refuse("audit_consistency")

    async def audit_checkpoint(self, trusted_height: int = 0) -> JsonObject:
        _refuse("audit_checkpoint")

    async def stake_validators(self, cursor: int, limit: int) -> JsonObject:
        _refuse("stake_validators")

    async def stake_validator(self, operator: bytes) -> JsonObject:
        _refuse("stake_validator")

    async def stake_delegations(
        self, account: bytes | None, validator: bytes | None, cursor: int, limit: int
    ) -> JsonObject:
        _refuse("stake_delegations")

    async def evidence_submit(self, evidence: bytes) -> JsonObject:
        _refuse("evidence_submit")

    async def gov_proposals(self, cursor: int, limit: int) -> JsonObject:
        _refuse("gov_proposals")

    async def gov_proposal(self, proposal: int) -> JsonObject:
        _refuse("gov_proposal")

    async def stake_unbonding(self, account: bytes | None, cursor: int, limit: int) -> JsonObject:
        _refuse("stake_unbonding")


def _shown_proof(answer: Mapping[str, Any]) -> object:
    """The proof object of a resolution, which is with the metadata of what was found."""
    for name in ("didDocumentMetadata", "didResolutionMetadata"):
        holder = answer.get(name)
        if isinstance(holder, dict) and "proof" in holder:
            return holder["proof"]
    raise InvalidInputError("the answer has no proof")


def _refuse(method: str) -> NoReturn:
    raise unsupported(f"{method}: a light client answers only what it has verified; it")
