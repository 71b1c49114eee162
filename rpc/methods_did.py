"""Identities: their methods."""

from __future__ import annotations

from did.batch import BATCH_DIDS_MAX
from did.export import EXPORT_MAX
from rpc.errors import RpcCode
from rpc.method_parts import (
    AT_HEIGHT,
    CURSOR,
    LIMIT,
    NEXT_CURSOR,
    PAGE_DEFAULT,
    TIMEOUT,
    TRUSTED,
    TX,
    TX_ERRORS,
    WAIT,
)
from rpc.params import (
    BOOLEAN,
    HEIGHT,
    Param,
    integer,
    list_of,
    text,
)
from rpc.registry import Method
from rpc.results import (
    ANY_OBJECT,
    BLOB,
    COUNT,
    DID_PROOF,
    TEXT,
    TX_RESULT_MEMBERS,
    array,
    or_null,
    record,
)

_DID = Param(
    name="did",
    kind=text(512, what="a DID"),
    description="A decentralised identifier, such as did:zynk:z...",
    required=True,
)

DID_METHODS = (
    Method(
        name="did_resolve",
        summary="Resolve a DID, at its newest or an older version, with metadata and proof.",
        bind=lambda api: api.did_resolve,
        params=(
            _DID,
            Param(name="version_id", kind=text(128), description="An exact version."),
            Param(name="version_time", kind=text(40), description="As of this UTC time."),
            TRUSTED,
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
            AT_HEIGHT,
            TRUSTED,
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
        params=(TX, WAIT, TIMEOUT),
        result=record({"did": TEXT}, **TX_RESULT_MEMBERS),
        carries_tx=True,
        errors=TX_ERRORS,
    ),
    Method(
        name="did_history",
        summary="The operations of a DID, oldest first, with the proof of its current record.",
        bind=lambda api: api.did_history,
        params=(_DID, CURSOR, LIMIT, TRUSTED),
        cost=50,
        result=record(
            did=TEXT,
            operations=array(
                record(seq=COUNT, versionId=TEXT, height=COUNT, entry=BLOB, path=array(BLOB))
            ),
            nextCursor=NEXT_CURSOR,
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
        params=(_DID, AT_HEIGHT, TRUSTED),
        result=record(did=TEXT, record=or_null(ANY_OBJECT), proof=DID_PROOF),
        errors=(RpcCode.HISTORY_PRUNED,),
    ),
)
