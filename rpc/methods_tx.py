"""Transactions: their methods."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.errors import ZynkError
from rpc.api import NodeApi, Wait
from rpc.errors import RpcCode, as_rpc_error
from rpc.method_parts import (
    TIMEOUT,
    TX,
    TX_BYTES_MAX,
    TX_ERRORS,
    WAIT,
)
from rpc.params import (
    HEX32,
    Param,
    blob,
    list_of,
)
from rpc.registry import Call, Method
from rpc.results import (
    AMOUNT,
    ANY_OBJECT,
    COUNT,
    TX_RESULT,
    array,
    record,
)

BATCH_TXS_MAX = 4096


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


TX_METHODS = (
    Method(
        name="tx_submit",
        summary="Submit a signed tx. Submitting the same bytes again is harmless.",
        bind=lambda api: api.tx_submit,
        params=(TX, WAIT, TIMEOUT),
        result=TX_RESULT,
        carries_tx=True,
        errors=TX_ERRORS,
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
            WAIT,
            TIMEOUT,
        ),
        result=record(
            outcomes=array(
                {"oneOf": [TX_RESULT, record(status={"enum": ["refused"]}, error=ANY_OBJECT)]}
            )
        ),
        carries_tx=True,
        errors=TX_ERRORS,
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
        params=(TX,),
        result=record(fee=AMOUNT, weight=COUNT, bytes=COUNT),
        carries_tx=True,
        errors=(RpcCode.TX_REFUSED,),
    ),
)
