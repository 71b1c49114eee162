"""The table of methods. Names and parameters are interfaces: they only ever grow (docs/rpc.md)."""

from __future__ import annotations

from collections.abc import Sequence

from did.batch import BATCH_DIDS_MAX
from did.export import EXPORT_MAX
from ledger.errors import ZynkError
from rpc.api import NodeApi, Wait
from rpc.errors import RpcCode, as_rpc_error
from rpc.params import (
    BLOCK_REF,
    BOOLEAN,
    HEIGHT,
    HEX32,
    Param,
    Schema,
    blob,
    choice,
    integer,
    list_of,
    text,
)
from rpc.registry import Call, Method
from rpc.results import (
    AMOUNT,
    ANY_OBJECT,
    BLOB,
    BOOL,
    COUNT,
    DID_PROOF,
    HEADER,
    HEX,
    LEAF,
    PROOF,
    TEXT,
    TX_RESULT,
    TX_RESULT_MEMBERS,
    VALIDATOR,
    array,
    or_null,
    record,
)

TX_BYTES_MAX = 64 * 1024
"""As ledger.tx; the envelope itself is the node's business."""
EVIDENCE_BYTES_MAX = 512
"""As consensus.evidence."""
BATCH_TXS_MAX = 4096
WAIT_MS_DEFAULT = 10_000
WAIT_MS_MAX = 60_000
LEAVES_MAX = 1000
MULTIHASH_BYTES_MAX = 128
PAGE_DEFAULT = 100
PAGE_MAX = 1000

_DID = Param(
    name="did",
    kind=text(512, what="a DID"),
    description="A decentralised identifier, such as did:zynk:z...",
    required=True,
)
_BLOCK = Param(
    name="block",
    kind=BLOCK_REF,
    description="A height or a block hash; absent: the newest final block.",
)
_AT_HEIGHT = Param(
    name="height",
    kind=HEIGHT,
    description="State after this height; absent: after the newest final block.",
)
_TRUSTED = Param(
    name="trusted_height",
    kind=HEIGHT,
    description="Proofs begin at the set that this height's header names for the next; 0: genesis.",
    default=0,
)
_TX = Param(
    name="tx", kind=blob(TX_BYTES_MAX), description="A signed tx's wire bytes.", required=True
)
_WAIT = Param(
    name="wait",
    kind=choice("none", "accepted", "finalized"),
    description="When to answer: at once, when the mempool has judged it, or when it is final.",
    default="accepted",
)
_TIMEOUT = Param(
    name="timeout_ms",
    kind=integer(1, WAIT_MS_MAX),
    description="How long to wait; then the answer has the status reached so far.",
    default=WAIT_MS_DEFAULT,
)
_CURSOR = Param(
    name="cursor",
    kind=integer(0, 2**53 - 1),
    description="`next_cursor` of the page before; absent: from the start.",
    default=0,
)
_LIMIT = Param(
    name="limit",
    kind=integer(1, PAGE_MAX),
    description="Items a page.",
    default=PAGE_DEFAULT,
)
_NEXT_CURSOR = or_null(COUNT)


def _tx_submit_batch(api: NodeApi) -> Call:
    """Refusals inside the batch become members `error` of their outcome."""

    async def call(txs: Sequence[bytes], wait: Wait, timeout_ms: int) -> object:
        outcomes = await api.tx_submit_batch(txs, wait, timeout_ms)
        return {
            "outcomes": [
                {"status": "refused", "error": as_rpc_error(outcome, carries_tx=True).to_json()}
                if isinstance(outcome, ZynkError)
                else outcome
                for outcome in outcomes
            ]
        }

    return call


_NODE = (
    Method(
        name="node_status",
        summary="What this node is, how far it is, and why it does not vote if it does not.",
        bind=lambda api: api.node_status,
        result=record(
            chain_id=TEXT,
            genesis_hash=HEX,
            version=TEXT,
            api_version=TEXT,
            height=COUNT,
            block_hash=HEX,
            time_ms=COUNT,
            ready=BOOL,
            reasons=array(TEXT),
            sync=record(syncing=BOOL, target_height=COUNT),
            validator=record(public_key=or_null(HEX), voting=BOOL, reason=TEXT),
            mempool=record(count=COUNT, bytes=COUNT),
            peers=COUNT,
        ),
    ),
    Method(
        name="node_peers",
        summary="The peers this node is connected to.",
        bind=lambda api: api.node_peers,
        result=record(peers=array(record(peer_id=TEXT, connected=BOOL))),
    ),
)

_CHAIN = (
    Method(
        name="chain_head",
        summary="The newest final block's header, with the proof that it is final.",
        bind=lambda api: api.chain_head,
        params=(_TRUSTED,),
        result=record(height=COUNT, hash=HEX, header=HEADER, finality=BLOB),
    ),
    Method(
        name="chain_header",
        summary="A final header and its wire bytes.",
        bind=lambda api: api.chain_header,
        params=(_BLOCK, _TRUSTED),
        result=record(height=COUNT, hash=HEX, header=HEADER, encoded=BLOB, finality=BLOB),
        errors=(RpcCode.NOT_FOUND, RpcCode.HISTORY_PRUNED),
    ),
    Method(
        name="chain_block",
        summary="A final block: header, tx ids with result codes, wire bytes, certificate.",
        bind=lambda api: api.chain_block,
        params=(_BLOCK,),
        cost=20,
        result=record(
            height=COUNT,
            hash=HEX,
            header=HEADER,
            txs=array(record(tx_id=HEX, code=TEXT)),
            encoded=BLOB,
            finality=BLOB,
        ),
        errors=(RpcCode.NOT_FOUND, RpcCode.HISTORY_PRUNED),
    ),
    Method(
        name="chain_certificate",
        summary="The finalization certificate of a block, and others kept of its height.",
        bind=lambda api: api.chain_certificate,
        params=(_BLOCK,),
        result=record(
            height=COUNT,
            view=COUNT,
            hash=HEX,
            encoded=BLOB,
            others=array(BLOB),
            signers=array(HEX),
        ),
        errors=(RpcCode.NOT_FOUND, RpcCode.HISTORY_PRUNED),
    ),
    Method(
        name="chain_validators",
        summary="The validator set that votes on a height.",
        bind=lambda api: api.chain_validators,
        params=(_AT_HEIGHT, _TRUSTED),
        result=record(
            height=COUNT,
            hash=HEX,
            total_power=AMOUNT,
            validators=array(VALIDATOR),
            encoded=BLOB,
            finality=BLOB,
        ),
        errors=(RpcCode.NOT_FOUND, RpcCode.HISTORY_PRUNED),
    ),
    Method(
        name="chain_account",
        summary="An account's balance and nonce, proven; zeros with a proof of absence if new.",
        bind=lambda api: api.chain_account,
        params=(
            Param(name="account", kind=HEX32, description="Its public key.", required=True),
            _AT_HEIGHT,
            _TRUSTED,
        ),
        result=record(account=HEX, balance=AMOUNT, nonce=COUNT, proof=PROOF),
        errors=(RpcCode.HISTORY_PRUNED,),
    ),
    Method(
        name="chain_params",
        summary="The chain's parameters, proven.",
        bind=lambda api: api.chain_params,
        params=(_TRUSTED,),
        result=record(params=ANY_OBJECT, proof=PROOF),
    ),
)

_TX_ERRORS = (RpcCode.TX_REFUSED, RpcCode.MEMPOOL_FULL, RpcCode.NOT_READY)
_TX_METHODS = (
    Method(
        name="tx_submit",
        summary="Submit a signed tx. Submitting the same bytes again is harmless.",
        bind=lambda api: api.tx_submit,
        params=(_TX, _WAIT, _TIMEOUT),
        result=TX_RESULT,
        carries_tx=True,
        errors=_TX_ERRORS,
    ),
    Method(
        name="tx_submitBatch",
        summary="Submit many txs, admitted in order. One outcome a tx, refusals included.",
        bind=_tx_submit_batch,
        params=(
            Param(
                name="txs",
                kind=list_of(blob(TX_BYTES_MAX), BATCH_TXS_MAX),
                description="Signed txs' wire bytes.",
                required=True,
            ),
            _WAIT,
            _TIMEOUT,
        ),
        result=record(
            outcomes=array(
                {"oneOf": [TX_RESULT, record(status={"enum": ["refused"]}, error=ANY_OBJECT)]}
            )
        ),
        carries_tx=True,
        errors=_TX_ERRORS,
    ),
    Method(
        name="tx_get",
        summary="A tx by id: pending, or final with its result.",
        bind=lambda api: api.tx_get,
        params=(Param(name="tx_id", kind=HEX32, description="The tx id.", required=True),),
        result=TX_RESULT,
        errors=(RpcCode.NOT_FOUND,),
    ),
    Method(
        name="tx_estimateFee",
        summary="The least fee for a tx of this size and content; its signature is not checked.",
        bind=lambda api: api.tx_estimate_fee,
        params=(_TX,),
        result=record(fee=AMOUNT, weight=COUNT, bytes=COUNT),
        carries_tx=True,
        errors=(RpcCode.TX_REFUSED,),
    ),
)

_DID_METHODS = (
    Method(
        name="did_resolve",
        summary="Resolve a DID, at its newest or an older version, with metadata and proof.",
        bind=lambda api: api.did_resolve,
        params=(
            _DID,
            Param(name="version_id", kind=text(128), description="An exact version."),
            Param(name="version_time", kind=text(40), description="As of this UTC time."),
            _TRUSTED,
            Param(
                name="as_of_height",
                kind=HEIGHT,
                description="The history as it was known at this height.",
            ),
            Param(
                name="proof",
                kind=BOOLEAN,
                description="false: leave out the proof that the newest version comes with.",
                default=True,
            ),
        ),
        cost_by_param={"version_id": 50, "version_time": 50, "as_of_height": 50},
        result=record(
            didDocument=or_null(ANY_OBJECT),
            didDocumentMetadata=record({"proof": array(DID_PROOF), "versionId": TEXT}),
            didResolutionMetadata=record({"proof": array(DID_PROOF)}),
        ),
    ),
    Method(
        name="did_resolveBatch",
        summary="Resolve up to 100 DIDs at one height, with one proof of them all.",
        bind=lambda api: api.did_resolve_batch,
        params=(
            Param(
                name="dids",
                kind=list_of(text(512, what="a DID"), BATCH_DIDS_MAX),
                description="Different DIDs.",
                required=True,
            ),
            _AT_HEIGHT,
            _TRUSTED,
        ),
        cost=50,
        result=record(
            results=array(
                record(
                    didDocument=or_null(ANY_OBJECT),
                    didDocumentMetadata=ANY_OBJECT,
                    didResolutionMetadata=ANY_OBJECT,
                )
            ),
            proof=record(
                type=TEXT,
                records=array(or_null(BLOB)),
                multiproof=BLOB,
                header=BLOB,
                certificate=BLOB,
                handoffs=array(ANY_OBJECT),
            ),
        ),
        errors=(RpcCode.HISTORY_PRUNED,),
    ),
    Method(
        name="did_submit",
        summary="Submit a payer-signed tx that carries a DID operation.",
        bind=lambda api: api.did_submit,
        params=(_TX, _WAIT, _TIMEOUT),
        result=record({"did": TEXT}, **TX_RESULT_MEMBERS),
        carries_tx=True,
        errors=_TX_ERRORS,
    ),
    Method(
        name="did_history",
        summary="The operations of a DID, oldest first, with the proof of its current record.",
        bind=lambda api: api.did_history,
        params=(_DID, _CURSOR, _LIMIT, _TRUSTED),
        cost=50,
        result=record(
            did=TEXT,
            operations=array(
                record(seq=COUNT, versionId=TEXT, height=COUNT, entry=BLOB, path=array(BLOB))
            ),
            nextCursor=_NEXT_CURSOR,
            proof=DID_PROOF,
        ),
        errors=(RpcCode.NOT_FOUND,),
    ),
    Method(
        name="did_export",
        summary="All DIDs' operations in the order of execution, after a cursor.",
        bind=lambda api: api.did_export,
        params=(
            Param(
                name="after",
                kind=text(32, what="a cursor"),
                description="The cursor of the last line that is known; absent: from the start.",
            ),
            Param(
                name="limit",
                kind=integer(1, EXPORT_MAX),
                description="Operations a page.",
                default=PAGE_DEFAULT,
            ),
        ),
        cost=500,
        result=record(
            operations=array(
                record(
                    cursor=TEXT,
                    did=TEXT,
                    seq=COUNT,
                    versionId=TEXT,
                    height=COUNT,
                    time=TEXT,
                    operation=ANY_OBJECT,
                )
            ),
            nextCursor=or_null(TEXT),
        ),
    ),
    Method(
        name="did_proof",
        summary="The state proof of a DID's record, or of its absence.",
        bind=lambda api: api.did_proof,
        params=(_DID, _AT_HEIGHT, _TRUSTED),
        result=record(did=TEXT, record=or_null(ANY_OBJECT), proof=DID_PROOF),
        errors=(RpcCode.HISTORY_PRUNED,),
    ),
)

_LEAF_PARAM = Param(
    name="leaf", kind=HEX32, description="The leaf's hash, from audit_submit.", required=True
)
_AUDIT = (
    Method(
        name="audit_stream",
        summary="A stream: its owner, who may anchor in it, and how much was.",
        bind=lambda api: api.audit_stream,
        params=(Param(name="stream", kind=text(256), description="The stream.", required=True),),
        result=record(
            stream=TEXT,
            owner=TEXT,
            sequence=COUNT,
            submitters=array(HEX),
            quota_leaves_per_day=COUNT,
            description_hash=HEX,
            created_ms=COUNT,
            updated_ms=COUNT,
            leaves_total=COUNT,
            anchors_total=COUNT,
        ),
        errors=(RpcCode.NOT_FOUND,),
    ),
    Method(
        name="audit_submit",
        summary="Submit hashes to a stream; answered once they are durable here, not yet anchored.",
        bind=lambda api: api.audit_submit,
        params=(
            Param(name="stream", kind=text(256), description="The stream.", required=True),
            Param(
                name="leaves",
                kind=list_of(blob(MULTIHASH_BYTES_MAX), LEAVES_MAX),
                description="Multihashes (sha2-256, sha2-512 or sha3-256) of what is logged.",
                required=True,
            ),
            Param(
                name="request_id",
                kind=text(64),
                description="The same id with the same content is carried out once.",
            ),
        ),
        result=record(stream=TEXT, leaves=array(LEAF)),
        errors=(RpcCode.NOT_READY, RpcCode.RATE_LIMITED, RpcCode.NOT_FOUND),
    ),
    Method(
        name="audit_status",
        summary="How far leaves have come.",
        bind=lambda api: api.audit_status,
        params=(
            Param(
                name="leaves",
                kind=list_of(HEX32, LEAVES_MAX),
                description="Leaf hashes, from audit_submit.",
                required=True,
            ),
        ),
        result=record(leaves=array(LEAF)),
    ),
    Method(
        name="audit_receipt",
        summary="A leaf's receipt: everything an offline verifier needs.",
        bind=lambda api: api.audit_receipt,
        params=(
            _LEAF_PARAM,
            Param(
                name="trusted_height",
                kind=HEIGHT,
                description="Absent: the receipt as it was issued; else a fresh one from there.",
            ),
        ),
        cost=10,
        result=record(leaf=HEX, height=COUNT, receipt=BLOB),
        errors=(RpcCode.NOT_FOUND, RpcCode.NOT_READY),
    ),
    Method(
        name="audit_inclusion",
        summary="An RFC 6962 inclusion proof in the global log.",
        bind=lambda api: api.audit_inclusion,
        params=(
            Param(name="leaf_index", kind=HEIGHT, description="0-based.", required=True),
            Param(name="tree_size", kind=HEIGHT, description="Absent: the newest final size."),
            _TRUSTED,
        ),
        cost=5,
        result=record(
            {"finality": BLOB}, leaf_index=COUNT, tree_size=COUNT, root_hash=HEX, path=array(HEX)
        ),
        errors=(RpcCode.NOT_FOUND,),
    ),
    Method(
        name="audit_consistency",
        summary="An RFC 6962 consistency proof between two sizes of the global log.",
        bind=lambda api: api.audit_consistency,
        params=(
            Param(name="first_size", kind=HEIGHT, description="The older size.", required=True),
            Param(name="second_size", kind=HEIGHT, description="Absent: the newest final size."),
            _TRUSTED,
        ),
        cost=5,
        result=record(
            {"finality": BLOB}, first_size=COUNT, second_size=COUNT, root_hash=HEX, path=array(HEX)
        ),
        errors=(RpcCode.NOT_FOUND,),
    ),
    Method(
        name="audit_checkpoint",
        summary="Size and root of the global log in the newest final header.",
        bind=lambda api: api.audit_checkpoint,
        params=(_TRUSTED,),
        result=record(height=COUNT, tree_size=COUNT, root_hash=HEX, finality=BLOB),
    ),
)

_ROW = record(key=BLOB, value=or_null(BLOB), state_proof=BLOB)
_STAKED_VALIDATOR_MEMBERS: dict[str, Schema] = {
    "operator": HEX,
    "public_key": HEX,
    "vrf_key": HEX,
    "cosign_key": HEX,
    "name": TEXT,
    "status": {
        "type": "string",
        "enum": ["active", "standby", "jailed", "may-unjail", "tombstoned", "retired"],
    },
    "power": AMOUNT,
    "tokens": AMOUNT,
    "shares": AMOUNT,
    "self_bond": AMOUNT,
    "commission_ppm": COUNT,
    "commission_owed": AMOUNT,
    "jailed_until_ms": COUNT,
    "missed": COUNT,
    "missed_window": COUNT,
    "slash": or_null(record(offence_height=COUNT, slashed_height=COUNT, ppm=COUNT)),
    "row": _ROW,
}
_STAKED_VALIDATOR = record(**_STAKED_VALIDATOR_MEMBERS)
_ROWS: dict[str, Schema] = {"rows": array(_ROW), "finality": BLOB}
"""What a whole answer follows from, with the items' own rows (node/answer_view.py)."""
_OF_ACCOUNT = Param(name="account", kind=HEX32, description="Whose; absent: everybody's.")
_STAKE = (
    Method(
        name="stake_validators",
        summary="All validators with their stake: candidates by power, then the others; proven.",
        bind=lambda api: api.stake_validators,
        params=(_CURSOR, _LIMIT, _TRUSTED),
        cost=10,
        result=record(
            height=COUNT,
            validators=array(_STAKED_VALIDATOR),
            candidates=COUNT,
            listed=array(HEX),
            next_cursor=_NEXT_CURSOR,
            **_ROWS,
        ),
    ),
    Method(
        name="stake_validator",
        summary="One validator: keys, stake, commission, status, heights missed; proven.",
        bind=lambda api: api.stake_validator,
        params=(
            Param(name="operator", kind=HEX32, description="Its account.", required=True),
            _TRUSTED,
        ),
        result=record(height=COUNT, **_STAKED_VALIDATOR_MEMBERS, **_ROWS),
        errors=(RpcCode.NOT_FOUND,),
    ),
    Method(
        name="stake_delegations",
        summary="Stakes bonded to validators, and rewards so far; proven.",
        bind=lambda api: api.stake_delegations,
        params=(
            _OF_ACCOUNT,
            Param(name="validator", kind=HEX32, description="To whom; absent: to all."),
            _CURSOR,
            _LIMIT,
            _TRUSTED,
        ),
        cost=10,
        result=record(
            {"listed": array(HEX)},
            height=COUNT,
            delegations=array(
                record(
                    delegator=HEX,
                    validator=HEX,
                    amount=AMOUNT,
                    shares=AMOUNT,
                    free_shares=AMOUNT,
                    rewards=AMOUNT,
                    row=_ROW,
                )
            ),
            next_cursor=_NEXT_CURSOR,
            **_ROWS,
        ),
    ),
    Method(
        name="stake_unbonding",
        summary="Undelegated stakes that wait for their time, in the order of the queue; proven.",
        bind=lambda api: api.stake_unbonding,
        params=(_OF_ACCOUNT, _CURSOR, _LIMIT, _TRUSTED),
        cost=10,
        result=record(
            height=COUNT,
            entries=array(
                record(
                    seq=COUNT,
                    delegator=HEX,
                    validator=HEX,
                    amount=AMOUNT,
                    due_ms=COUNT,
                    row=_ROW,
                )
            ),
            next_cursor=_NEXT_CURSOR,
            **_ROWS,
        ),
    ),
)

_EVIDENCE = (
    Method(
        name="evidence_submit",
        summary="Hand in two statements of a validator that contradict each other.",
        bind=lambda api: api.evidence_submit,
        params=(
            Param(
                name="evidence",
                kind=blob(EVIDENCE_BYTES_MAX),
                description="The evidence's wire bytes.",
                required=True,
            ),
        ),
        result=record(operator=HEX, height=COUNT),
        errors=(RpcCode.EVIDENCE_REFUSED,),
        cost=20,
    ),
)

_PROPOSAL_MEMBERS: dict[str, Schema] = {
    "id": COUNT,
    "proposer": HEX,
    "deposit": AMOUNT,
    "title": TEXT,
    "summary": TEXT,
    "change": ANY_OBJECT,
    "status": {"type": "string", "enum": ["open", "passed", "rejected", "no_quorum", "failed"]},
    "code": TEXT,
    "opened_height": COUNT,
    "end_ms": COUNT,
    "closed_height": COUNT,
    "yes": AMOUNT,
    "no": AMOUNT,
    "abstain": AMOUNT,
    "bonded": AMOUNT,
    "row": _ROW,
}
_PROPOSAL = record(**_PROPOSAL_MEMBERS)
_GOVERNANCE = (
    Method(
        name="gov_proposals",
        summary="Proposals, newest first, with their tallies; proven.",
        bind=lambda api: api.gov_proposals,
        params=(_CURSOR, _LIMIT, _TRUSTED),
        cost=10,
        result=record(height=COUNT, proposals=array(_PROPOSAL), next_cursor=_NEXT_CURSOR, **_ROWS),
    ),
    Method(
        name="gov_proposal",
        summary="One proposal: what it changes, and its tally so far; proven.",
        bind=lambda api: api.gov_proposal,
        params=(
            Param(
                name="proposal",
                kind=integer(1, 2**53 - 1),
                description="Its id.",
                required=True,
            ),
            _TRUSTED,
        ),
        result=record(height=COUNT, **_PROPOSAL_MEMBERS, **_ROWS),
        errors=(RpcCode.NOT_FOUND,),
    ),
)

METHODS: tuple[Method, ...] = (
    *_NODE,
    *_CHAIN,
    *_TX_METHODS,
    *_DID_METHODS,
    *_AUDIT,
    *_STAKE,
    *_EVIDENCE,
    *_GOVERNANCE,
)
