"""The audit log: their methods."""

from __future__ import annotations

from rpc.errors import RpcCode
from rpc.method_parts import (
    ROWS,
    TRUSTED,
)
from rpc.params import (
    HEIGHT,
    HEX32,
    Param,
    blob,
    list_of,
    text,
)
from rpc.registry import Method
from rpc.results import (
    AMOUNT,
    BLOB,
    BOOL,
    COUNT,
    HEX,
    LEAF,
    PROOF,
    TEXT,
    array,
    or_null,
    record,
)

LEAVES_MAX = 1000
MULTIHASH_BYTES_MAX = 128

_LEAF_PARAM = Param(
    name="leaf", kind=HEX32, description="The leaf's hash, from audit_submit.", required=True
)
PUBLISHED = record(
    height=COUNT,
    tree_size=COUNT,
    root_hash=HEX,
    note=TEXT,
    log_key=TEXT,
    validators=BLOB,
    cosigners=array(record(operator=HEX, key=TEXT, power=AMOUNT, time_s=or_null(COUNT))),
    power=AMOUNT,
    total_power=AMOUNT,
    quorum=BOOL,
    witnesses=array(TEXT),
    **ROWS,
)
"""A signed checkpoint, and what its cosignatures are weighed with (node/api_log.py)."""
AUDIT_METHODS = (
    Method(
        name="audit_stream",
        summary="A stream: its owner and who may anchor in it, proven, and how much was.",
        bind=lambda api: api.audit_stream,
        params=(
            Param(name="stream", kind=text(256), description="The stream.", required=True),
            TRUSTED,
        ),
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
            proof=PROOF,
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
            TRUSTED,
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
            TRUSTED,
        ),
        cost=5,
        result=record(
            {"finality": BLOB}, first_size=COUNT, second_size=COUNT, root_hash=HEX, path=array(HEX)
        ),
        errors=(RpcCode.NOT_FOUND,),
    ),
    Method(
        name="audit_checkpoint",
        summary="The log's size and root in the newest final header, and the published checkpoint.",
        bind=lambda api: api.audit_checkpoint,
        params=(TRUSTED,),
        cost=20,
        result=record(
            height=COUNT,
            tree_size=COUNT,
            root_hash=HEX,
            finality=BLOB,
            published=or_null(PUBLISHED),
            reason=TEXT,
        ),
    ),
)
