"""The OpenRPC 1.3 document of a registry: what `rpc.discover` answers."""

from __future__ import annotations

from rpc.errors import MEANING_BY_CODE, RpcCode
from rpc.params import Param, Schema
from rpc.registry import Method, Registry
from rpc.results import API_VERSION

OPENRPC_VERSION = "1.3.2"
STANDARD_CODES = (RpcCode.INVALID_PARAMS, RpcCode.INTERNAL_ERROR, RpcCode.RATE_LIMITED)


def openrpc_document(registry: Registry) -> Schema:
    """A JSON-ready document; methods in registry order."""
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": "Zynk node",
            "version": API_VERSION,
            "description": (
                "JSON-RPC 2.0 at POST / and on the WebSocket /ws. Hashes and keys of 32 bytes are"
                " hex, other bytes base64url without padding, amounts decimal strings."
            ),
            "license": {"name": "GPL-3.0-or-later"},
        },
        "methods": [_method_entry(method) for method in registry],
        "components": {"errors": {code.name: _error_entry(code) for code in RpcCode}},
    }


def _method_entry(method: Method) -> Schema:
    entry: Schema = {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "either",
        "params": [_param_entry(param) for param in method.params],
        "result": {"name": "result", "schema": method.result},
        "errors": [
            {"$ref": f"#/components/errors/{code.name}"}
            for code in (*STANDARD_CODES, *method.errors)
        ],
    }
    if method.websocket_only:
        entry["tags"] = [{"name": "websocket"}]
    return entry


def _param_entry(param: Param) -> Schema:
    schema = dict(param.kind.schema)
    if param.default is not None:
        schema["default"] = param.default
    return {
        "name": param.name,
        "description": param.description,
        "required": param.required,
        "schema": schema,
    }


def _error_entry(code: RpcCode) -> Schema:
    reason, retry, meaning = MEANING_BY_CODE[code]
    return {
        "code": int(code),
        "message": meaning,
        "data": {"reason": reason, "expected": "", "got": "", "retry": retry},
    }
