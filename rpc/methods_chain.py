"""The node and its chain: their methods."""

from __future__ import annotations

from rpc.errors import RpcCode
from rpc.method_parts import (
    AT_HEIGHT,
    TRUSTED,
)
from rpc.params import (
    BLOCK_REF,
    HEX32,
    Param,
)
from rpc.registry import Method
from rpc.results import (
    AMOUNT,
    ANY_OBJECT,
    BLOB,
    BOOL,
    COUNT,
    HEADER,
    HEX,
    PROOF,
    TEXT,
    VALIDATOR,
    array,
    or_null,
    record,
)

_BLOCK = Param(
    name="block",
    kind=BLOCK_REF,
    description="A height or a block hash; absent: the newest final block.",
)

NODE_METHODS = (
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

CHAIN_METHODS = (
    Method(
        name="chain_head",
        summary="The newest final block's header, with the proof that it is final.",
        bind=lambda api: api.chain_head,
        params=(TRUSTED,),
        result=record(height=COUNT, hash=HEX, header=HEADER, finality=BLOB),
    ),
    Method(
        name="chain_header",
        summary="A final header and its wire bytes.",
        bind=lambda api: api.chain_header,
        params=(_BLOCK, TRUSTED),
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
        params=(AT_HEIGHT, TRUSTED),
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
            AT_HEIGHT,
            TRUSTED,
        ),
        result=record(account=HEX, balance=AMOUNT, nonce=COUNT, proof=PROOF),
        errors=(RpcCode.HISTORY_PRUNED,),
    ),
    Method(
        name="chain_params",
        summary="The chain's parameters, proven.",
        bind=lambda api: api.chain_params,
        params=(TRUSTED,),
        result=record(params=ANY_OBJECT, proof=PROOF),
    ),
)
