"""The light client behind the RPC: answers about state that it has verified itself.

Implements `rpc.api.NodeApi` over other nodes' endpoints. Each answer is asked of the primary, with
proofs from the verified head on; what does not verify is noted against the endpoint and asked of
the next. An answer is put together from what was verified, so that nothing unproven passes. What
can't be verified is refused: UNVERIFIED if no endpoint gave a good answer, UNSUPPORTED for methods
whose answers carry no proof (docs/rpc.md lists them). `tx_submit` is passed on: a receipt of a tx
proves nothing, its effects do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from audit.receipt import Receipt
from audit.verify import verify_membership
from did import resolver
from did.batch import check_dids
from did.record import Record
from did.resolution_error import ResolutionError
from did.resolution_options import read_version_query
from did.verify import decode_finality, split_proof, verify_proof, verify_resolution
from did.verify_batch import verify_batch
from did.verify_history import verify_history
from ledger import codec
from ledger.accounts import Account, account_key
from ledger.errors import InvalidInputError, ZynkError
from ledger.finality import FinalityProof
from ledger.merkle import compute_leaf_hash
from ledger.params import PARAMS_KEY, ChainParams
from ledger.validator_set import ValidatorSet
from node import api_gov, api_stake
from node.light_ask import Asker
from node.light_follow import Follower
from node.light_source import Source, header_json, read_blob
from rpc.api import BlockRef, JsonObject, Readiness, Wait
from rpc.errors import RpcCode, RpcError, not_ready, unsupported
from rpc.metrics import MetricValue
from rpc.params import text_of_bytes
from rpc.results import API_VERSION

HISTORY_PAGE = 100
HISTORY_OPERATIONS_MAX = 5000
"""Read for one answer of did_history."""


class LightApi:
    """See the module docstring. Answers about the newest state are as of the endpoint's head, at or
    above the verified head, and at most the follower's maximum age old."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._asker = Asker(follower)

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
            proof = await self._asker.judge(
                source, read_blob(answer, "finality"), is_newest=block is None
            )
            if block not in (None, proof.header.height, proof.header.hash):
                raise InvalidInputError("the answer is about another block")
            return proof

        proof = await self._asker.ask(work)
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
            proof = await self._asker.judge(
                source, read_blob(answer, "finality"), is_newest=height is None
            )
            validators = ValidatorSet.decode(read_blob(answer, "encoded"))
            if height not in (None, proof.header.height):
                raise InvalidInputError("the answer is about another height")
            if validators.hash != proof.header.validators_hash:
                raise InvalidInputError("the validator set is not the one the header names")
            return proof, validators

        proof, validators = await self._asker.ask(work)
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
        value, proof = await self._asker.row(
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
        value, proof = await self._asker.row(PARAMS_KEY, None, "chain_params")
        if value is None:
            raise InvalidInputError("the state has no parameters")
        params = ChainParams.decode(value)
        return {
            "params": {name: getattr(params, name) for name in params.__dataclass_fields__},
            "proof": proof,
        }

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
        return await self._asker.ask(
            lambda source: source.call(
                method, tx=text_of_bytes(tx), wait=wait, timeout_ms=timeout_ms
            )
        )

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
        self._check_caller(trusted_height)
        try:
            query = read_version_query(version_id, version_time, as_of_height)
        except ResolutionError as error:
            return resolver.error_result(error.code, error.message)
        malformed = resolver.find_malformed(did)
        if malformed is not None:
            return malformed
        wanted = {
            "version_id": version_id,
            "version_time": version_time,
            "as_of_height": as_of_height,
        }
        # An endpoint of an older release does not know the newer parameters.
        wanted = {name: value for name, value in wanted.items() if value is not None}

        async def work(source: Source) -> JsonObject:
            follower = self._follower
            answer = dict(
                await source.call(
                    "did_resolve", did=did, trusted_height=follower.trust.height, **wanted
                )
            )
            if query is not None:
                _refuse_unanswered(answer)
            await self._asker.judge_did(
                source, split_proof(_shown_proof(answer))[0], is_newest=True
            )
            verify_resolution(
                answer,
                did=did,
                trusted=follower.trust.validators,
                chain_id=follower.trust.chain_id,
                max_age_ms=None,
                now_ms=None,
                query=query,
            )
            return answer

        return await self._asker.ask(work)

    async def did_resolve_batch(
        self, dids: Sequence[str], height: int | None, trusted_height: int = 0
    ) -> JsonObject:
        self._check_caller(trusted_height)
        check_dids(dids)

        async def work(source: Source) -> JsonObject:
            trust = self._follower.trust
            answer = await source.call(
                "did_resolveBatch", dids=list(dids), height=height, trusted_height=trust.height
            )
            verdicts = verify_batch(
                dict(answer),
                dids=dids,
                trusted=trust.validators,
                chain_id=trust.chain_id,
                max_age_ms=None,
                now_ms=None,
            )
            finality = decode_finality(answer["proof"])
            await self._asker.judge_decoded(source, finality, is_newest=height is None)
            if height not in (None, finality.header.height):
                raise InvalidInputError("the answer is about another height")
            assert len(verdicts) == len(dids)
            return answer

        return await self._asker.ask(work)

    async def did_proof(self, did: str, height: int | None, trusted_height: int = 0) -> JsonObject:
        self._check_caller(trusted_height)

        async def work(source: Source) -> JsonObject:
            follower = self._follower
            answer = await source.call(
                "did_proof", did=did, height=height, trusted_height=follower.trust.height
            )
            await self._asker.judge_did(source, answer.get("proof"), is_newest=height is None)
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

        return await self._asker.ask(work)

    async def did_history(
        self, did: str, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject:
        """Of all pages: which operations are nullified follows from the whole history."""
        self._check_caller(trusted_height)

        async def work(source: Source) -> JsonObject:
            operations, record, proof = await self._whole_history(source, did)
            if record is not None:
                verify_history(operations, record)
            elif operations:
                raise InvalidInputError("history of a DID that does not exist")
            end = min(cursor + limit, len(operations))
            return {
                "did": did,
                "operations": operations[cursor:end],
                "nextCursor": end if cursor < end < len(operations) else None,
                "proof": proof,
            }

        return await self._asker.ask(work)

    async def _whole_history(
        self, source: Source, did: str
    ) -> tuple[list[dict[str, Any]], Record | None, object]:
        """All operations, the record they belong to, and its verified proof. Raises RpcError
        NOT_READY if the DID changes meanwhile."""
        follower = self._follower
        operations: list[dict[str, Any]] = []
        first: tuple[Record | None, object] | None = None
        while len(operations) < HISTORY_OPERATIONS_MAX:
            answer = await source.call(
                "did_history",
                did=did,
                cursor=len(operations),
                limit=HISTORY_PAGE,
                trusted_height=follower.trust.height,
            )
            proof, page = answer.get("proof"), answer.get("operations")
            await self._asker.judge_did(source, proof, is_newest=True)
            _, record, _ = verify_proof(
                proof,
                did=did,
                trusted=follower.trust.validators,
                chain_id=follower.trust.chain_id,
                max_age_ms=None,
                now_ms=None,
            )
            first = first or (record, proof)
            if record != first[0]:
                raise not_ready("the DID changed while its history was read", reason="did/changed")
            total = 0 if record is None else record.seq + 1
            wanted = min(HISTORY_PAGE, total - len(operations))
            if not isinstance(page, list) or len(page) != wanted:
                raise InvalidInputError("history is not whole", expected=f"{wanted} operations")
            operations += page
            if len(operations) == total:
                return operations, *first
        raise unsupported(f"a history of more than {HISTORY_OPERATIONS_MAX} operations")

    # --- stake and governance: made again from the rows that come with the answer ---

    async def stake_validators(
        self, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject:
        self._check_caller(trusted_height)
        return await self._asker.made_again(
            lambda view, lister: api_stake.validators_json(view, lister, cursor, limit),
            "stake_validators",
            cursor=cursor,
            limit=limit,
        )

    async def stake_validator(self, operator: bytes, trusted_height: int = 0) -> JsonObject:
        self._check_caller(trusted_height)
        return await self._asker.made_again(
            lambda view, _: api_stake.validator_json(view, operator),
            "stake_validator",
            operator=operator.hex(),
        )

    async def stake_delegations(
        self,
        account: bytes | None,
        validator: bytes | None,
        cursor: int,
        limit: int,
        trusted_height: int = 0,
    ) -> JsonObject:
        self._check_caller(trusted_height)
        if account is None and validator is None:
            raise unsupported(
                "stake_delegations of everybody, which no proof shows whole (name an account or "
                "a validator),"
            )
        return await self._asker.made_again(
            lambda view, lister: api_stake.delegations_json(
                view, lister, account, validator, cursor, limit
            ),
            "stake_delegations",
            account=None if account is None else account.hex(),
            validator=None if validator is None else validator.hex(),
            cursor=cursor,
            limit=limit,
        )

    async def stake_unbonding(
        self, account: bytes | None, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject:
        self._check_caller(trusted_height)
        return await self._asker.made_again(
            lambda view, _: api_stake.unbonding_json(view, account, cursor, limit),
            "stake_unbonding",
            account=None if account is None else account.hex(),
            cursor=cursor,
            limit=limit,
        )

    async def gov_proposals(self, cursor: int, limit: int, trusted_height: int = 0) -> JsonObject:
        self._check_caller(trusted_height)
        return await self._asker.made_again(
            lambda view, _: api_gov.proposals_json(view, cursor, limit),
            "gov_proposals",
            cursor=cursor,
            limit=limit,
        )

    async def gov_proposal(self, proposal: int, trusted_height: int = 0) -> JsonObject:
        self._check_caller(trusted_height)
        return await self._asker.made_again(
            lambda view, _: api_gov.one_proposal_json(view, proposal),
            "gov_proposal",
            proposal=proposal,
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
            await self._asker.judge_decoded(source, receipt.finality, is_newest=False)
            return {
                "leaf": leaf.hex(),
                "height": receipt.anchor.height,
                "receipt": text_of_bytes(raw),
            }

        return await self._asker.ask(work)

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

    async def did_export(self, after: str | None, limit: int) -> JsonObject:
        _refuse("did_export")

    def did_operations(self, height: int) -> Sequence[JsonObject]:
        return ()

    async def audit_stream(self, stream: str, trusted_height: int = 0) -> JsonObject:
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

    async def evidence_submit(self, evidence: bytes) -> JsonObject:
        _refuse("evidence_submit")


def _shown_proof(answer: Mapping[str, Any]) -> object:
    """The list of proofs of a resolution, which is with the metadata of what was found."""
    for name in ("didDocumentMetadata", "didResolutionMetadata"):
        holder = answer.get(name)
        if isinstance(holder, dict) and "proof" in holder:
            return holder["proof"]
    raise InvalidInputError("the answer has no proof")


def _refuse_unanswered(answer: Mapping[str, Any]) -> None:
    """Raise RpcError for what an honest endpoint refuses without a proof: a version that is beyond
    its head, or too long ago to prove in one answer."""
    shown = answer.get("didResolutionMetadata")
    error = shown.get("error") if isinstance(shown, dict) and "proof" not in shown else None
    if isinstance(error, dict):
        raise RpcError(
            RpcCode.UNVERIFIED,
            "the endpoint has no answer about this version",
            got=str(error.get("detail"))[:200],
        )


def _refuse(method: str) -> NoReturn:
    raise unsupported(f"{method}: a light client answers only what it has verified; it")
