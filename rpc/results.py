"""JSON schemas of answers, as OpenRPC publishes them.

They name what is always there; an answer may have more members. `mismatches` checks a value
against the subset of JSON schema that is used here, for tests and for client authors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rpc.params import HEIGHT_MAX, Schema

API_VERSION = "1.0"
"""major.minor: a minor adds; what is removed is first marked deprecated for one minor."""

TEXT: Schema = {"type": "string"}
BOOL: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": HEIGHT_MAX}
HEX: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
BLOB: Schema = {"type": "string", "contentEncoding": "base64url", "pattern": "^[A-Za-z0-9_-]*$"}
AMOUNT: Schema = {"type": "string", "pattern": "^[0-9]{1,20}$"}
ANY_OBJECT: Schema = {"type": "object"}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def or_null(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}]}


def record(optional: Mapping[str, Schema] | None = None, /, **required: Schema) -> Schema:
    """An object; other members are allowed."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


PROOF = record(height=COUNT, key=BLOB, value=or_null(BLOB), state_proof=BLOB, finality=BLOB)
DID_PROOF = record(
    type=TEXT,
    record=or_null(BLOB),
    stateProof=BLOB,
    header=BLOB,
    certificate=BLOB,
    handoffs=array(record(header=BLOB, certificate=BLOB, nextValidators=BLOB)),
)
"""Answers about DIDs are in the manner of the W3C texts: camelCase, and verified by did.verify."""
HEADER = record(
    protocol_version=COUNT,
    chain_id=TEXT,
    height=COUNT,
    time_ms=COUNT,
    parent_hash=HEX,
    origin_view=COUNT,
    proposer=HEX,
    body_hash=HEX,
    state_root=HEX,
    audit_size=COUNT,
    audit_root=HEX,
    results_root=HEX,
    validators_hash=HEX,
    next_validators_hash=HEX,
)
VALIDATOR = record(public_key=HEX, power=AMOUNT)
TX_STATUS: Schema = {"type": "string", "enum": ["queued", "accepted", "finalized", "dropped"]}
TX_RESULT_MEMBERS = {"tx_id": HEX, "status": TX_STATUS}
TX_RESULT = record(
    {"height": COUNT, "index": COUNT, "code": TEXT, "reason": TEXT}, **TX_RESULT_MEMBERS
)
"""`height`, `index` and `code` are there once the status is finalized; `reason` if dropped."""
LEAF_STATUS: Schema = {
    "type": "string",
    "enum": ["accepted", "batched", "committed", "receipted", "rejected", "unknown"],
}
LEAF = record({"height": COUNT, "leaf_index": COUNT, "reason": TEXT}, leaf=HEX, status=LEAF_STATUS)


def mismatches(value: object, schema: Mapping[str, object], path: str = "result") -> list[str]:
    """What of `value` breaks `schema`; empty if it fits."""
    options = schema.get("oneOf")
    if isinstance(options, list):
        found = [mismatches(value, option, path) for option in options]
        return [] if any(not problems for problems in found) else found[0]
    problems = _type_problems(value, schema, path)
    if problems:
        return problems
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        assert isinstance(properties, Mapping)
        assert isinstance(required, list)
        problems = [f"{path}.{name} is missing" for name in required if name not in value]
        for name, item in value.items():
            if name in properties:
                problems += mismatches(item, properties[name], f"{path}.{name}")
    elif isinstance(value, list):
        items = schema.get("items", {})
        assert isinstance(items, Mapping)
        for i, item in enumerate(value):
            problems += mismatches(item, items, f"{path}[{i}]")
    return problems


_CLASS_BY_TYPE: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def _type_problems(value: object, schema: Mapping[str, object], path: str) -> list[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        is_bool_for_number = isinstance(value, bool) and kind in ("integer", "number")
        if is_bool_for_number or not isinstance(value, _CLASS_BY_TYPE[kind]):
            return [f"{path} is {type(value).__name__}, expected {kind}"]
    allowed = schema.get("enum")
    if isinstance(allowed, list) and value not in allowed:
        return [f"{path} is {value!r}, expected one of {allowed}"]
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and isinstance(value, str) and not re.search(pattern, value):
        return [f"{path} is {value[:80]!r}, expected {pattern}"]
    minimum = schema.get("minimum")
    if isinstance(minimum, int) and isinstance(value, int) and value < minimum:
        return [f"{path} is {value}, expected >= {minimum}"]
    return []
