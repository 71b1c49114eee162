"""JSON-RPC 2.0 without a transport: every kind of wrong request gets its code."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from ledger.errors import DurabilityError, InvalidInputError, UsageError, ZynkError
from ledger.execution import TxFailure
from rpc.config import RpcConfig
from rpc.dispatch import Caller, Dispatcher
from rpc.errors import MEANING_BY_CODE, RpcCode, RpcError, as_rpc_error, history_pruned
from rpc.limits import ByteBudget, ConnectionCounter, RateLimiter
from rpc.methods import METHODS
from rpc.metrics import RpcMetrics
from rpc.params import text_of_bytes
from rpc.registry import Registry
from rpc.subscriptions import SUBSCRIPTION_METHODS
from tests.unit.test_rpc_fake import BAD_TX, BUG_TX, SLOW_TX, FakeNodeApi

CALLER = Caller("127.0.0.1")


def dispatcher(api: FakeNodeApi | None = None, **settings: object) -> Dispatcher:
    api = api or FakeNodeApi()
    return Dispatcher(
        api,
        Registry((*METHODS, *SUBSCRIPTION_METHODS)),
        replace(RpcConfig(), **settings),  # type: ignore[arg-type]  # any field
        RpcMetrics(api.metrics),
    )


def answer(body: bytes | str, under_test: Dispatcher | None = None) -> Any:
    found = asyncio.run((under_test or dispatcher()).answer(body, CALLER))
    return None if found is None else json.loads(found)


def request(method: str = "node_peers", **members: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, **members}


def call(method: str, under_test: Dispatcher | None = None, **params: object) -> Any:
    return answer(json.dumps(request(method, params=params)), under_test)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", RpcCode.PARSE_ERROR),
        (b"{", RpcCode.PARSE_ERROR),
        (b"\xff\xfe{\0}\0", RpcCode.PARSE_ERROR),
        (b"\xef\xbb\xbf{}", RpcCode.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":NaN}', RpcCode.PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b"}", RpcCode.PARSE_ERROR),
        (b"[" * 60_000, RpcCode.PARSE_ERROR),
        (b'{"a":' * 30_000, RpcCode.PARSE_ERROR),
        (b"[" * 100_000, RpcCode.TOO_LARGE),
        (b"{[],:" * 20_000, RpcCode.TOO_LARGE),  # no JSON, and nobody tried
        (b'["' + b"\\n" * 70_000 + b'"]', RpcCode.TOO_LARGE),
        (b"{} {}", RpcCode.PARSE_ERROR),
        (b"1", RpcCode.INVALID_REQUEST),
        (b"null", RpcCode.INVALID_REQUEST),
        (b'"x"', RpcCode.INVALID_REQUEST),
        (b"{}", RpcCode.INVALID_REQUEST),
        (b"[]", RpcCode.INVALID_REQUEST),
        (b'{"jsonrpc":"1.0","id":1,"method":"node_peers"}', RpcCode.INVALID_REQUEST),
        (b'{"jsonrpc":2.0,"id":1,"method":"node_peers"}', RpcCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1}', RpcCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":1}', RpcCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":[],"method":"node_peers"}', RpcCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":true,"method":"node_peers"}', RpcCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1e999,"method":"node_peers"}', RpcCode.INVALID_REQUEST),
        (
            b'{"jsonrpc":"2.0","id":"' + b"x" * 300 + b'","method":"node_peers"}',
            RpcCode.INVALID_REQUEST,
        ),
        (b'{"jsonrpc":"2.0","id":1,"method":"node_peers","params":3}', RpcCode.INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":"nope"}', RpcCode.METHOD_NOT_FOUND),
        (b'{"jsonrpc":"2.0","id":1,"method":"__class__"}', RpcCode.METHOD_NOT_FOUND),
        (b'{"jsonrpc":"2.0","id":1,"method":"tx_get"}', RpcCode.INVALID_PARAMS),
    ],
)
def test_a_wrong_request_gets_its_standard_code(body: bytes, code: RpcCode) -> None:
    found = answer(body)
    assert found["jsonrpc"] == "2.0"
    assert found["error"]["code"] == code
    assert set(found["error"]["data"]) == {"reason", "expected", "got", "retry"}


@pytest.mark.parametrize("request_id", [0, -5, "a", "\ud800", 1.5, None, 2**80])
def test_the_id_comes_back_as_it_was(request_id: object) -> None:
    assert answer(json.dumps(request(id=request_id)))["id"] == request_id


def test_the_id_comes_back_with_an_error_about_another_member() -> None:
    assert answer(b'{"jsonrpc":"2.0","id":"q","method":7}')["id"] == "q"


def test_a_near_method_name_is_suggested() -> None:
    assert "did you mean 'chain_head'" in call("chain_haed")["error"]["message"]


def test_a_notification_is_carried_out_and_not_answered_even_when_it_fails() -> None:
    api = FakeNodeApi()
    good = {"jsonrpc": "2.0", "method": "tx_submit", "params": [text_of_bytes(b"t")]}
    assert answer(json.dumps(good), dispatcher(api)) is None
    assert api.submitted == [b"t"]
    assert answer(json.dumps({"jsonrpc": "2.0", "method": "nope"})) is None
    assert answer(json.dumps([good, good])) is None


def test_a_batch_is_answered_in_order_without_its_notifications() -> None:
    batch = [request(id="a"), {"jsonrpc": "2.0", "method": "node_peers"}, 7, request("x", id="b")]
    found = answer(json.dumps(batch))
    assert [item["id"] for item in found] == ["a", None, "b"]
    assert "result" in found[0]
    assert [item["error"]["code"] for item in found[1:]] == [
        RpcCode.INVALID_REQUEST,
        RpcCode.METHOD_NOT_FOUND,
    ]


def test_a_batch_over_the_limit_is_refused_whole() -> None:
    api = FakeNodeApi()
    one = request("tx_submit", params=[text_of_bytes(b"t")])
    found = answer(json.dumps([one] * 3), dispatcher(api, batch_count_max=2))
    assert found["error"]["code"] == RpcCode.TOO_LARGE
    assert api.submitted == []


def test_calls_past_the_response_limit_are_refused_and_not_carried_out() -> None:
    api = FakeNodeApi()
    one = request("tx_submit", params=[text_of_bytes(b"t")])
    found = answer(json.dumps([one] * 5), dispatcher(api, response_bytes_max=200))
    assert "result" in found[0]
    assert {item["error"]["code"] for item in found[1:]} == {RpcCode.TOO_LARGE}
    assert len(api.submitted) == 2  # the second one's answer did not fit


def test_a_refused_tx_says_why() -> None:
    error = call("tx_submit", tx=text_of_bytes(BAD_TX))["error"]
    assert error["code"] == RpcCode.TX_REFUSED
    assert error["data"] == {
        "reason": "tx/bad-nonce", "expected": "1", "got": "2", "retry": False,
    }  # fmt: skip


def test_bytes_that_are_no_tx_are_a_refused_tx() -> None:
    error = call("tx_submit", tx=text_of_bytes(b"not a tx"))["error"]
    assert (error["code"], error["data"]["reason"]) == (RpcCode.TX_REFUSED, "tx/invalid")


def test_one_refused_tx_of_a_batch_leaves_the_others() -> None:
    txs = [text_of_bytes(tx) for tx in (b"a", BAD_TX, b"b")]
    outcomes = call("tx_submitBatch", txs=txs)["result"]["outcomes"]
    assert [item["status"] for item in outcomes] == ["accepted", "refused", "accepted"]
    assert outcomes[1]["error"]["data"]["reason"] == "tx/bad-nonce"


def test_a_bug_is_answered_without_its_details() -> None:
    found = call("tx_submit", tx=text_of_bytes(BUG_TX))
    assert found["error"]["code"] == RpcCode.INTERNAL_ERROR
    assert "secret" not in json.dumps(found)


def test_a_slow_call_times_out_and_leaves_no_trace() -> None:
    under_test = dispatcher(call_timeout_ms=20)
    found = call("tx_submit", under_test, tx=text_of_bytes(SLOW_TX))
    assert found["error"]["code"] == RpcCode.TIMED_OUT
    assert found["error"]["data"]["retry"] is True
    assert under_test.inflight_count == 0


def test_calls_over_the_inflight_limit_are_told_to_come_back() -> None:
    under_test = dispatcher(call_timeout_ms=50, calls_inflight_max=2)
    slow = request("tx_submit", params=[text_of_bytes(SLOW_TX)])
    codes = [item["error"]["code"] for item in answer(json.dumps([slow] * 3), under_test)]
    assert codes == [RpcCode.TIMED_OUT, RpcCode.TIMED_OUT, RpcCode.RATE_LIMITED]


def test_a_stopping_node_refuses_new_calls() -> None:
    under_test = dispatcher()
    under_test.stopping = True
    error = call("node_peers", under_test)["error"]
    assert (error["code"], error["data"]["retry"]) == (RpcCode.NOT_READY, True)


def test_subscribing_without_a_websocket_is_unsupported() -> None:
    assert call("subscribe", topic="blocks")["error"]["code"] == RpcCode.UNSUPPORTED


def test_rate_limited_addresses_are_refused_batches_included() -> None:
    under_test = dispatcher(calls_per_s_per_ip_max=2)
    assert "result" in answer(json.dumps([request()] * 2), under_test)[0]
    assert answer(json.dumps(request()), under_test)["error"]["code"] == RpcCode.RATE_LIMITED


@pytest.mark.parametrize(
    ("error", "carries_tx", "code", "reason"),
    [
        (InvalidInputError("x"), False, RpcCode.INVALID_PARAMS, "invalid-params"),
        (InvalidInputError("x"), True, RpcCode.TX_REFUSED, "tx/invalid"),
        (UsageError("x"), False, RpcCode.INVALID_PARAMS, "invalid-params"),
        (TxFailure("did/bad-seq", "x"), False, RpcCode.TX_REFUSED, "did/bad-seq"),
        (TxFailure("did/bad-seq", "x"), True, RpcCode.TX_REFUSED, "did/bad-seq"),
        (DurabilityError("x"), True, RpcCode.STORAGE_FAILED, "storage-failed"),
        (history_pruned(3, 9), True, RpcCode.HISTORY_PRUNED, "history-pruned"),
    ],
)
def test_errors_of_the_node_become_their_code(
    error: ZynkError, carries_tx: bool, code: RpcCode, reason: str
) -> None:
    found = as_rpc_error(error, carries_tx=carries_tx)
    assert (found.code, found.reason) == (code, reason)


def test_every_code_has_a_meaning_and_its_own_reason() -> None:
    assert set(MEANING_BY_CODE) == set(RpcCode)
    assert len({reason for reason, _, _ in MEANING_BY_CODE.values()}) == len(RpcCode)


def test_an_error_never_mirrors_a_large_input() -> None:
    error = RpcError(RpcCode.NOT_FOUND, "m" * 9999, expected="e" * 9999, got="g" * 9999)
    assert len(json.dumps(error.to_json())) < 1200


def test_a_rate_bucket_refills_and_large_batches_pay_later() -> None:
    now = [0.0]
    rate = RateLimiter(10, clock=lambda: now[0])
    assert rate.take("a", 30)
    assert not rate.take("a", 1)
    assert rate.take("b", 1)
    now[0] = 2.05
    assert not rate.take("a", 1)
    now[0] = 2.2
    assert rate.take("a", 1)


def test_a_rate_limiter_keeps_a_bounded_number_of_addresses() -> None:
    rate = RateLimiter(10, clock=lambda: 0.0)
    for i in range(10_050):
        assert rate.take(str(i), 1)
    assert len(rate._bucket_by_ip) <= 10_000


def test_connections_count_by_address_and_in_all() -> None:
    counter = ConnectionCounter(3, 2)
    counter.add("a")
    counter.add("a")
    assert counter.is_full("a")
    assert not counter.is_full("b")
    counter.add("b")
    assert counter.is_full("c")
    counter.remove("a")
    assert not counter.is_full("c")


def test_a_byte_budget_is_given_back() -> None:
    budget = ByteBudget("things", 10, 10)
    held = budget.hold("a")
    held.add(8)
    with pytest.raises(RpcError, match="too many things"):
        budget.hold("b").add(3)
    held.release()
    held.release()
    with budget.hold("b") as again:
        again.add(10)
        with pytest.raises(RpcError):
            held.check()
    assert budget.bytes_held == 0


def test_one_address_gets_no_more_than_its_share_of_a_byte_budget() -> None:
    budget = ByteBudget("things", 10, 6)
    budget.hold("a").add(6)
    with pytest.raises(RpcError):
        budget.hold("a").add(1)
    budget.hold("b").add(4)


def test_what_a_request_turned_out_to_cost_is_paid_later() -> None:
    now = [0.0]
    rate = RateLimiter(10, clock=lambda: now[0])
    assert rate.take("a", 1)
    rate.charge("a", 29)
    now[0] = 2.05
    assert not rate.take("a", 1)
    now[0] = 2.2
    assert rate.take("a", 1)
