"""What a registration request costs its caller, by what it makes the node do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from did.operation import OperationType
from rpc.config import RpcConfig
from rpc.dispatch import Caller, Dispatcher
from rpc.errors import RpcCode
from rpc.methods import METHODS
from rpc.metrics import RpcMetrics
from rpc.registrar import BYTES_PER_COST, REQUEST_COST, SIGNATURE_COST, Registrar
from rpc.registry import Registry
from tests.unit.test_rpc_registrar import Client, _create, _run


class Ledger(Dispatcher):
    """Counts what callers pay."""

    paid = 0

    async def pay(self, caller: Caller, cost: int) -> None:
        self.paid += cost
        await super().pay(caller, cost)


def test_request_is_paid_for_by_its_bytes_signatures_and_the_calls_it_leads_to(
    tmp_path: Path,
) -> None:
    async def test(client: Client) -> None:
        api, config = client.world.api, RpcConfig()
        ledger = Ledger(api, Registry(METHODS), config, RpcMetrics(api.metrics))
        registrar = Registrar(ledger, final_wait_ms=10)

        async def cost(body: object) -> tuple[int, dict[str, Any]]:
            ledger.paid = 0
            data = json.dumps(body).encode()
            _, found = await registrar.answer(OperationType.CREATE, data, Caller("1.2.3.4"))
            return ledger.paid, found

        small, _ = await cost([])
        assert small == REQUEST_COST
        large, _ = await cost({"a": "a" * 90_000})
        assert large == REQUEST_COST + 90_009 // BYTES_PER_COST
        start, first = await cost(_create())
        assert start > REQUEST_COST  # node_status
        job = {"jobId": first["jobId"]}
        unsigned, _ = await cost({**job, "secret": {"signingResponse": {}}})
        signed, _ = await cost(
            {**job, "secret": {"signingResponse": client.sign(first["didState"])}}
        )
        assert signed >= unsigned + SIGNATURE_COST

    _run(tmp_path, test)


def test_requests_over_an_address_s_allowance_are_refused(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        status, found = await client.post("create", [])
        assert (status, found["error"]["code"]) == (429, RpcCode.RATE_LIMITED)

    _run(tmp_path, test, cost_per_s_max=1)
