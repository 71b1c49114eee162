"""Reads by GET: /read/{method}?name=value calls one of a few JSON-RPC methods that change nothing.

For the node's own page: a browser sends no Origin header with a GET to the page's own node, so the
page works without being listed, while a POST, which could change something, stays shut to all
unlisted origins, the node's own address included (a foreign site may rebind its name to it). What
is served is public chain data; the answer has no CORS headers for origins that are not listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from rpc.dispatch import Caller, Dispatcher, encode_json
from rpc.errors import RpcCode, RpcError
from rpc.params import Schema
from rpc.registry import Registry

PATH_PREFIX: Final = "/read/"
METHODS: Final = ("chain_header", "chain_validators", "did_history", "did_resolve", "node_status")

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,15}")


async def read_over_http(
    dispatcher: Dispatcher,
    registry: Registry,
    caller: Caller,
    name: str,
    query: Iterable[tuple[str, str]],
) -> str:
    """The method's result as JSON. Raises RpcError."""
    if name not in METHODS:
        raise RpcError(
            RpcCode.NOT_FOUND,
            "no such read",
            expected=", ".join(METHODS),
            got=name[:80],
        )
    integers = {p.name for p in registry.get(name).params if _takes_integer(p.kind.schema)}
    params: dict[str, object] = {}
    for key, text in query:
        if key in params:
            raise RpcError(RpcCode.INVALID_PARAMS, "a parameter is given twice", got=key[:64])
        params[key] = int(text) if key in integers and _DECIMAL.fullmatch(text) else text
    return encode_json(await dispatcher.invoke(name, params, caller))


def _takes_integer(schema: Schema) -> bool:
    options = schema.get("oneOf", [schema])
    assert isinstance(options, list)
    return any(option["type"] == "integer" for option in options)
