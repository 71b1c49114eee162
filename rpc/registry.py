"""The method registry: what a method is called, takes and answers.

Dispatch (rpc.dispatch) and the OpenRPC document (rpc.openrpc) are both made from it, so that the
document can not drift from what is served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from rpc.api import NodeApi
from rpc.errors import RpcCode, RpcError
from rpc.params import Param, Schema, decode_params

Call = Callable[..., Awaitable[object]]
METHOD_NAME_CHARS_MAX = 64


@dataclass(frozen=True, kw_only=True)
class Method:
    """`bind` picks the coroutine of a node; it is called with one positional argument a Param."""

    name: str
    summary: str
    bind: Callable[[NodeApi], Call]
    result: Schema
    params: tuple[Param, ...] = ()
    carries_tx: bool = False
    """Data that the node refuses is a refused transaction (-32002), not a wrong parameter."""
    errors: tuple[RpcCode, ...] = ()
    """Codes beyond the standard ones that a caller should expect."""
    websocket_only: bool = False
    cost: int = 1
    """How much of its address's allowance a call uses, in calls of the cheap kind."""
    cost_by_param: Mapping[str, int] = field(default_factory=dict)
    """What the call costs more for each of these parameters that it gives."""
    index_by_name: dict[str, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.index_by_name.update((p.name, i) for i, p in enumerate(self.params))

    def cost_of(self, params: object) -> int:
        """The cost of a call with `params`, which may be anything."""
        if not self.cost_by_param:
            return self.cost
        if isinstance(params, list):
            given = [
                p.name for p, value in zip(self.params, params, strict=False) if value is not None
            ]
        else:
            given = list(params) if isinstance(params, dict) else []
        return self.cost + sum(self.cost_by_param.get(name, 0) for name in given)

    def arguments(self, params: object) -> list[object]:
        """Positional arguments of the call. Raises RpcError INVALID_PARAMS."""
        return decode_params(params, self.params, self.index_by_name)


class Registry:
    """Methods by name."""

    def __init__(self, methods: Iterable[Method]) -> None:
        self._method_by_name: dict[str, Method] = {}
        for method in methods:
            assert method.name not in self._method_by_name, method.name
            self._method_by_name[method.name] = method

    def __iter__(self) -> Iterator[Method]:
        return iter(self._method_by_name.values())

    def get(self, name: str) -> Method:
        """Raises RpcError METHOD_NOT_FOUND, with the nearest name."""
        method = self._method_by_name.get(name)
        if method is not None:
            return method
        name = name[:METHOD_NAME_CHARS_MAX]
        near = get_close_matches(name, self._method_by_name, n=1)
        raise RpcError(
            RpcCode.METHOD_NOT_FOUND,
            f"unknown method {name!r}" + (f"; did you mean '{near[0]}'?" if near else ""),
            expected="a method that rpc.discover lists",
            got=name,
        )
