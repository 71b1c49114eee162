"""JSON-RPC 2.0 without a transport: request text in, response text out.

Rules (jsonrpc.org/specification), with what it leaves open:
- The calls of a batch start in order and run concurrently; answers come in request order.
- The calls share the event loop with consensus by turns of a few ms (rpc.turns). A body with more
  marks than `body_marks_max` is refused before it is parsed: -32005.
- A request without `id` is a notification: carried out, never answered, not even with an error.
- An `id` is text of at most 256 characters, a finite number or null.
- Answers are cut off at `response_bytes_max`: calls past it get -32005 and, if they have not
  begun, are not carried out.
Whatever the bytes are, `answer` returns; what the node raises never reaches a transport.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from prometheus_client import Counter, Histogram

from ledger.errors import ZynkError
from rpc.api import NodeApi
from rpc.config import RpcConfig
from rpc.errors import RpcCode, RpcError, as_rpc_error
from rpc.limits import RateLimiter, Reservation
from rpc.metrics import RpcMetrics
from rpc.params import describe
from rpc.registry import Call, Method, Registry
from rpc.turns import Turns

ID_CHARS_MAX = 256
BYTES_PER_COST = 16 * 1024
_MARKS = b"[{,:\\"

T = TypeVar("T")

log = structlog.get_logger("rpc")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends the requests. `calls` are methods that only this connection has."""

    ip: str
    calls: Mapping[str, Call] = field(default_factory=dict)


@dataclass(slots=True)
class _Budget:
    """What one answer may still hold: of its own limit, and of what all answers share."""

    response_bytes_max: int
    held: Reservation | None
    response_bytes: int = 0

    def check(self) -> None:
        """Raises RpcError if nothing more can be answered."""
        if self.response_bytes >= self.response_bytes_max:
            raise _response_too_large(self.response_bytes_max)
        if self.held is not None:
            self.held.check()

    def take(self, byte_count: int) -> None:
        """Raises RpcError if there is no room; the answer's own limit then is used up."""
        self.response_bytes += byte_count
        if self.response_bytes > self.response_bytes_max:
            raise _response_too_large(self.response_bytes_max)
        if self.held is not None:
            self.held.add(byte_count)


@dataclass(frozen=True, slots=True)
class _Bound:
    method: Method
    call: Call
    count: Counter
    seconds: Histogram


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
"""Compact ASCII; raises TypeError, ValueError or RecursionError for what JSON can not hold."""


def error_text(request_id: object, error: RpcError) -> str:
    """A whole error response."""
    return encode_json({"jsonrpc": "2.0", "id": request_id, "error": error.to_json()})


class Dispatcher:
    """Answers request texts from a registry bound to one node."""

    def __init__(
        self,
        api: NodeApi,
        registry: Registry,
        config: RpcConfig,
        metrics: RpcMetrics,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._registry = registry
        self._config = config
        self._metrics = metrics
        self._rate = RateLimiter(config.calls_per_s_per_ip_max)
        self._turns = Turns(config.slice_ms / 1000, clock)
        self._call_timeout_s = config.call_timeout_ms / 1000
        self.inflight_count = 0
        self.idle = asyncio.Event()
        """Set while no call is in flight."""
        self.idle.set()
        self.stopping = False
        self._bound_by_name = {
            method.name: _Bound(
                method,
                method.bind(api),
                metrics.calls.labels(method.name),
                metrics.call_seconds.labels(method.name),
            )
            for method in registry
        }

    async def admit(self, caller: Caller, byte_count: int) -> None:
        """Before work on a body: charge for it and take a turn. Raises RpcError RATE_LIMITED."""
        await self.pay(caller, 1 + byte_count // BYTES_PER_COST)

    async def pay(self, caller: Caller, cost: int) -> None:
        """Before any other work: charge `cost` and take a turn. Raises RpcError RATE_LIMITED."""
        if not self._rate.take(caller.ip, cost):
            raise _rate_limited(self._config.calls_per_s_per_ip_max)
        await self._turns.take()

    async def invoke(self, name: str, params: object, caller: Caller) -> object:
        """One call outside JSON-RPC (the REST routes). Raises RpcError and nothing else."""
        bound = self._bound_by_name[name]
        await self.pay(caller, bound.method.cost_of(params))
        return await self._call(bound, bound.method.arguments(params), caller)

    async def read(self, name: str, cost: int, caller: Caller, call: Callable[[], T]) -> T:
        """A quick read that is no JSON-RPC method (tiles of the log), paid for and in turn; counted
        under `name`. Raises RpcError and nothing else."""
        await self.pay(caller, cost)
        if self.stopping:
            raise RpcError(RpcCode.NOT_READY, "the node is stopping", reason="stopping")
        self._metrics.calls.labels(name).inc()
        try:
            return call()
        except ZynkError as error:
            raise as_rpc_error(error) from None
        except Exception:
            raise _internal_error(name) from None

    async def answer(
        self, body: bytes | str, caller: Caller, held: Reservation | None = None
    ) -> str | None:
        """The response text, or None if nothing is to be said (notifications).

        Its bytes are added to `held`, which the transport releases once they are written. The
        body is let go of as soon as it is parsed; the caller should keep no reference either.
        """
        try:
            request = await self._read(body, caller)
        except RpcError as error:
            return self._error(None, error)
        del body
        budget = _Budget(self._config.response_bytes_max, held)
        if not isinstance(request, list):
            work = self._answer_one(request, caller, budget)
            del request
            return await work
        works = [self._answer_one(item, caller, budget) for item in request]
        del request
        answers = await asyncio.gather(*works)
        said = [text for text in answers if text is not None]
        return f"[{','.join(said)}]" if said else None

    async def _read(self, body: bytes | str, caller: Caller) -> object:
        """The parsed body, paid for. Raises RpcError."""
        await self.admit(caller, len(body))
        check_marks(body, self._config.body_marks_max)
        request = _parse(body)
        if isinstance(request, list):
            self._check_batch(request)
            self._rate.charge(caller.ip, sum(map(self._cost_of, request)) - 1)
        else:
            self._rate.charge(caller.ip, self._cost_of(request) - 1)
        return request

    def _cost_of(self, request: object) -> int:
        if not isinstance(request, dict):
            return 1
        name = request.get("method")
        bound = self._bound_by_name.get(name) if isinstance(name, str) else None
        return 1 if bound is None else bound.method.cost_of(request.get("params"))

    def _check_batch(self, request: list[object]) -> None:
        if not request:
            raise RpcError(
                RpcCode.INVALID_REQUEST, "the batch is empty", expected="1 or more requests"
            )
        if len(request) > self._config.batch_count_max:
            raise RpcError(
                RpcCode.TOO_LARGE,
                "the batch has too many requests",
                expected=f"at most {self._config.batch_count_max}",
                got=str(len(request)),
            )

    async def _answer_one(self, request: object, caller: Caller, budget: _Budget) -> str | None:
        request_id: object = None
        is_notification = False
        await self._turns.take()
        try:
            request_id = _read_id(request)
            assert isinstance(request, dict)
            name = _read_method(request)
            is_notification = "id" not in request
            bound = self._bound_by_name.get(name)
            if bound is None:
                self._registry.get(name)  # raises, with the nearest name
                raise AssertionError(name)
            budget.check()
            arguments = bound.method.arguments(request.get("params"))
            del request  # its text may be far larger than what the call waits with
            result = await self._call(bound, arguments, caller)
            if is_notification:
                return None
            await self._turns.take()  # a block wakes everybody who waits for a tx at once
            result_text = _encode_result(result, name)
            text = f'{{"jsonrpc":"2.0","id":{encode_json(request_id)},"result":{result_text}}}'
            budget.take(len(text))
            return text
        except RpcError as error:
            if is_notification:
                self._count_error(error)
                return None
            return self._error(request_id, error)

    async def _call(self, bound: _Bound, arguments: list[object], caller: Caller) -> object:
        """The result. Raises RpcError and nothing else (but cancellation)."""
        method = bound.method
        if self.stopping:
            raise RpcError(RpcCode.NOT_READY, "the node is stopping", reason="stopping")
        if self.inflight_count >= self._config.calls_inflight_max:
            raise RpcError(
                RpcCode.RATE_LIMITED,
                "too many calls at a time",
                expected=f"at most {self._config.calls_inflight_max} in flight",
            )
        call = caller.calls.get(method.name, bound.call)
        started = time.perf_counter()
        self.inflight_count += 1
        self.idle.clear()
        try:
            async with asyncio.timeout(self._call_timeout_s) as limit:
                return await call(*arguments)
        except ZynkError as error:
            raise as_rpc_error(error, carries_tx=method.carries_tx) from None
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise RpcError(
                    RpcCode.TIMED_OUT,
                    "the call took too long",
                    expected=f"at most {self._config.call_timeout_ms} ms",
                ) from None
            raise _internal_error(method.name) from None
        finally:
            self.inflight_count -= 1
            if self.inflight_count == 0:
                self.idle.set()
            bound.count.inc()
            bound.seconds.observe(time.perf_counter() - started)

    def _error(self, request_id: object, error: RpcError) -> str:
        self._count_error(error)
        return error_text(request_id, error)

    def _count_error(self, error: RpcError) -> None:
        self._metrics.errors.labels(str(int(error.code))).inc()


def check_marks(body: bytes | str, marks_max: int) -> None:
    """A parser makes a value of each `[]`, at up to 100 times the cost of this count. Raises
    RpcError TOO_LARGE."""
    if len(body) <= marks_max:
        return
    data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    mark_count = len(data) - len(data.translate(None, _MARKS))
    if mark_count > marks_max:
        raise RpcError(
            RpcCode.TOO_LARGE,
            "the body has too many values",
            expected=f"at most {marks_max} brackets, commas, colons and escapes",
            got=str(mark_count),
        )


def _encode_result(result: object, method: str) -> str:
    try:
        return encode_json(result)
    except (TypeError, ValueError, RecursionError):
        raise _internal_error(method) from None


def _parse(body: bytes | str) -> object:
    """Raises RpcError PARSE_ERROR."""
    try:
        return _decode(body if isinstance(body, str) else body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RpcError(
            RpcCode.PARSE_ERROR,
            "the body is not UTF-8",
            expected="JSON text in UTF-8",
            got=f"byte 0x{error.object[error.start]:02x} at offset {error.start}",
        ) from None
    except json.JSONDecodeError as error:
        raise RpcError(
            RpcCode.PARSE_ERROR,
            "the body is not JSON",
            expected="a JSON-RPC 2.0 request or batch",
            got=f"{error.msg} at line {error.lineno} column {error.colno}",
        ) from None
    except ValueError as error:  # NaN, Infinity, or an integer of thousands of digits
        raise RpcError(
            RpcCode.PARSE_ERROR,
            "the body has a number that JSON or this node can not hold",
            got=str(error)[:80],
        ) from None
    except RecursionError:
        raise RpcError(
            RpcCode.PARSE_ERROR, "the body is nested too deeply", expected="a few levels"
        ) from None


def _read_id(request: object) -> object:
    """The id, None if there is none. Raises RpcError INVALID_REQUEST."""
    if not isinstance(request, dict):
        raise RpcError(
            RpcCode.INVALID_REQUEST,
            "a request is an object",
            expected='{"jsonrpc":"2.0","id":...,"method":...,"params":...}',
            got=describe(request),
        )
    found: object = request.get("id")
    if (
        found is None
        or type(found) is int
        or (isinstance(found, str) and len(found) <= ID_CHARS_MAX)
        or (isinstance(found, float) and math.isfinite(found))
    ):
        return found
    raise RpcError(
        RpcCode.INVALID_REQUEST,
        "the id is wrong",
        expected=f"a number, text of at most {ID_CHARS_MAX} characters, or null",
        got=describe(found),
    )


def _read_method(request: dict[str, object]) -> str:
    """The method's name. Raises RpcError INVALID_REQUEST."""
    if request.get("jsonrpc") != "2.0":
        raise RpcError(
            RpcCode.INVALID_REQUEST,
            "member 'jsonrpc' is wrong",
            expected="text '2.0'",
            got=describe(request.get("jsonrpc")),
        )
    name = request.get("method")
    if not isinstance(name, str):
        raise RpcError(
            RpcCode.INVALID_REQUEST,
            "member 'method' is wrong",
            expected="the name of a method",
            got=describe(name),
        )
    return name


def _rate_limited(calls_per_s: int) -> RpcError:
    return RpcError(
        RpcCode.RATE_LIMITED,
        "too many calls from this address",
        expected=f"a cost of at most {calls_per_s} a second",
    )


def _response_too_large(bytes_max: int) -> RpcError:
    return RpcError(
        RpcCode.TOO_LARGE,
        "the answer is too large; ask for less at a time",
        expected=f"at most {bytes_max} bytes",
    )


def _internal_error(method: str) -> RpcError:
    """Log the exception being handled and answer with a word to find it by."""
    incident = secrets.token_hex(4)
    log.exception("a call failed with a bug", method=method, incident=incident)
    return RpcError(
        RpcCode.INTERNAL_ERROR,
        f"internal error; the node's log has the cause under incident {incident}",
    )
