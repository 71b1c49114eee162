"""Registration by the DIF binding over a real chain: the client holds all keys; every step of the
job, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from did import resolver
from did.control import Control, KeyList
from did.multikey import decode_base64url, encode_hash, encode_multikey
from did.operation import Operation, decode_operation
from did.oplog import ENTRY_BYTES_MAX, LogEntry
from ledger.ed25519 import KeyPair
from rpc.config import RpcConfig
from rpc.server import RpcServer
from tests.unit.chain_fixture import FAUCET
from tests.unit.test_node_api import ApiWorld
from tests.unit.test_node_api import run as run_world
from tests.vectors.did_world import document, key

OPTIONS = {"clientSecretMode": True}


def _method(pair: KeyPair, *purpose: str) -> dict[str, Any]:
    return {
        "type": "Multikey",
        "publicKeyMultibase": encode_multikey(pair.public_key),
        "purpose": list(purpose),
    }


PAYMENT = _method(FAUCET, "payment")


class Client:
    """Talks to the binding and signs with the keys it holds."""

    def __init__(self, world: ApiWorld, url: str, http: aiohttp.ClientSession) -> None:
        self.world = world
        self.url = url
        self.http = http
        self.keys = {
            encode_multikey(pair.public_key): pair
            for pair in (FAUCET, *(key(name) for name in "abcd"))
        }

    async def post(
        self, operation: str, body: object, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        async with self.http.post(
            f"{self.url}/1.0/{operation}", json=body, headers=headers
        ) as answer:
            return answer.status, await answer.json()

    def sign(self, state: dict[str, Any], *names: str) -> dict[str, Any]:
        """The responses to those signing requests whose keys are held (and named, if any are)."""
        chosen = {encode_multikey(key(name).public_key) for name in names}
        return {
            request_id: {
                "signature": base64.b64encode(
                    self.keys[item["kid"]].sign(base64.b64decode(item["serializedPayload"]))
                ).decode(),
                "kid": item["kid"],
                "alg": "EdDSA",
            }
            for request_id, item in state["signingRequest"].items()
            if not chosen or item["kid"] in chosen
        }

    async def go_on(
        self, operation: str, before: dict[str, Any], *names: str
    ) -> tuple[int, dict[str, Any]]:
        responses = self.sign(before["didState"], *names)
        body = {"jobId": before["jobId"], "secret": {"signingResponse": responses}}
        return await self.post(operation, body)

    async def finish(
        self, operation: str, body: dict[str, Any], *names: str
    ) -> tuple[int, dict[str, Any]]:
        """All steps of a request that has its keys; blocks are made meanwhile."""
        status, found = await self.post(operation, body)
        assert (status, found["didState"]["state"]) == (200, "action"), found
        assert found["didState"]["action"] == "signPayload"
        assert all(item["alg"] == "EdDSA" for item in found["didState"]["signingRequest"].values())
        status, found = await self.go_on(operation, found, *names)
        assert (status, found["didState"]["state"]) == (200, "action"), found
        assert list(found["didState"]["signingRequest"]) == ["payment"]
        committing = asyncio.create_task(self._commit_soon())
        try:
            return await self.go_on(operation, found)
        finally:
            await committing

    async def _commit_soon(self) -> None:
        await self.world.parts.until_pending()
        self.world.parts.commit()

    def head(self, did: str) -> Operation:
        """The newest operation."""
        page = resolver.history(self.world.parts.chain.view(), did, 0, 100)
        entry = decode_base64url(page["operations"][-1]["entry"], bytes_max=ENTRY_BYTES_MAX)
        return decode_operation(LogEntry.decode(entry).operation)

    def resolve(self, did: str) -> dict[str, Any]:
        return resolver.resolve(self.world.parts.chain.view(), did)


def _run(
    folder: Path,
    test: Callable[[Client], Awaitable[None]],
    *,
    wait_ms: int = 10_000,
    cost_per_s_max: int = 5_000,
) -> None:
    async def body(world: ApiWorld) -> None:
        world.parts.commit()
        config = RpcConfig(port=0, registrar_wait_ms=wait_ms, calls_per_s_per_ip_max=cost_per_s_max)
        server = RpcServer(world.api, config)
        url = f"http://127.0.0.1:{await server.start()}"
        try:
            async with aiohttp.ClientSession() as http:
                await test(Client(world, url, http))
        finally:
            await server.stop()

    run_world(folder, body)


def _create(**options: Any) -> dict[str, Any]:
    return {
        "method": "zynk",
        "options": {**OPTIONS, **options},
        "secret": {"verificationMethod": [_method(key("a"), "control"), PAYMENT]},
        "didDocument": {"@context": ["https://www.w3.org/ns/did/v1.1"], **document("one")},
    }


@pytest.mark.slow
def test_did_is_created_updated_and_deactivated_by_a_client_that_keeps_its_keys(
    tmp_path: Path,
) -> None:
    async def test(client: Client) -> None:
        status, created = await client.finish("create", _create())
        did = created["didState"]["did"]
        assert (status, created["jobId"]) == (201, None)
        assert created["didState"]["state"] == "finished"
        assert created["didState"]["didDocument"] == client.resolve(did)["didDocument"]
        assert created["didRegistrationMetadata"]["height"] == client.world.parts.chain.height

        changed = copy.deepcopy(created["didState"]["didDocument"])
        changed["service"][0]["serviceEndpoint"] = "https://two.example/"
        status, updated = await client.finish(
            "update",
            {
                "did": did, "options": OPTIONS, "secret": {"verificationMethod": [PAYMENT]},
                "didDocumentOperation": ["setDidDocument"], "didDocument": [changed],
            },
        )  # fmt: skip
        assert (status, updated["didState"]["state"]) == (200, "finished"), updated
        found = client.resolve(did)
        assert found["didDocument"] == changed
        assert (
            found["didDocumentMetadata"]["versionId"]
            == (updated["didDocumentMetadata"]["versionId"])
        )
        status, ended = await client.finish(
            "deactivate",
            {"did": did, "options": OPTIONS, "secret": {"verificationMethod": [PAYMENT]}},
        )
        assert (status, ended["didDocumentMetadata"]["deactivated"]) == (200, True)
        assert client.resolve(did)["didDocumentMetadata"]["deactivated"] is True
        status, late = await client.post("deactivate", {
            "did": did, "options": OPTIONS, "secret": {"verificationMethod": [PAYMENT]},
        })  # fmt: skip
        assert (status, late["didState"]["state"]) == (400, "failed")

    _run(tmp_path, test)


@pytest.mark.slow
def test_keys_that_are_missing_are_asked_for_and_the_job_goes_on(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        body = _create()
        secret = body.pop("secret")
        status, asked = await client.post("create", body)
        assert (status, asked["didState"]["action"]) == (200, "getVerificationMethod")
        purposes = [item["purpose"] for item in asked["didState"]["verificationMethodTemplate"]]
        assert purposes == [["control"], ["payment"]]
        status, created = await client.finish(
            "create", {"jobId": asked["jobId"], "options": OPTIONS, "secret": secret}
        )
        assert (status, created["didState"]["state"]) == (201, "finished")

    _run(tmp_path, test)


@pytest.mark.slow
def test_threshold_and_pre_rotation_are_kept_to(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        following = KeyList(keys=(key("c").public_key, key("d").public_key), threshold=2)
        body = _create(threshold=2, next=encode_hash(following.compute_commitment()))
        body["secret"]["verificationMethod"].insert(1, _method(key("b"), "control"))
        _, first = await client.post("create", body)
        status, found = await client.go_on("create", first, "a")  # one of two
        assert (status, found["didState"]["state"]) == (400, "failed")
        status, created = await client.finish("create", body, "a", "b")
        assert status == 201
        did = created["didState"]["did"]
        update: dict[str, Any] = {
            "did": did, "options": OPTIONS, "secret": {"verificationMethod": [PAYMENT]},
            "didDocument": [document("two")],
        }  # fmt: skip
        _, asked = await client.post("update", update)
        assert asked["didState"]["action"] == "getVerificationMethod"
        update["options"] = {**OPTIONS, "threshold": 2}
        update["secret"]["verificationMethod"] += [
            _method(key("c"), "control"), _method(key("a"), "control"),
        ]  # fmt: skip
        status, wrong = await client.post("update", update)
        assert (status, "committed" in wrong["didState"]["reason"]) == (400, True)
        update["secret"]["verificationMethod"][-1] = _method(key("d"), "control")
        status, silent = await client.post("update", update)
        assert (status, "end pre-rotation" in silent["didState"]["reason"]) == (400, True)
        update["options"]["next"] = encode_hash(following.compute_commitment())
        status, updated = await client.finish("update", update)
        assert (status, updated["didState"]["state"]) == (200, "finished"), updated
        assert client.head(did).control == Control(
            current=following, next=following.compute_commitment()
        )
        deactivation = {name: update[name] for name in ("did", "secret")}
        _, wrong = await client.post("deactivate", {**deactivation, "options": OPTIONS})
        assert "threshold" in wrong["didState"]["reason"]
        update["options"]["next"] = None  # it is ended when it is asked for
        status, updated = await client.finish("update", update)
        assert (status, updated["didState"]["state"]) == (200, "finished"), updated
        assert client.head(did).control == Control(current=following)

    _run(tmp_path, test)


@pytest.mark.slow
def test_tx_that_is_not_final_in_time_is_waited_for_by_the_job(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        _, first = await client.post("create", _create())
        _, second = await client.go_on("create", first)
        status, waiting = await client.go_on("create", second)
        assert (status, waiting["didState"]["state"]) == (200, "wait")
        assert waiting["didState"]["waitTime"] > 0
        job = {"jobId": waiting["jobId"], "options": OPTIONS}
        status, still = await client.post("create", job)
        assert (status, still["didState"]["state"]) == (200, "wait")
        client.world.parts.commit()
        status, created = await client.post("create", {"jobId": still["jobId"]})
        assert (status, created["didState"]["state"]) == (201, "finished")
        assert client.resolve(created["didState"]["did"])["didDocument"] is not None

    _run(tmp_path, test, wait_ms=50)


@pytest.mark.slow
def test_wrong_requests_fail_with_a_reason_and_change_nothing(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        good = _create()
        private = copy.deepcopy(good)
        private["secret"]["verificationMethod"][0]["privateKeyMultibase"] = "z3u2"
        wrong: list[tuple[str, Any]] = [
            ("create", []),
            ("create", {**good, "options": {}}),
            ("create", {**good, "options": {"clientSecretMode": False, "storeSecrets": True}}),
            ("create", {**good, "options": {**OPTIONS, "network": "other"}}),
            ("create", {**good, "options": {**OPTIONS, "threshold": 2}}),
            ("create", {**good, "method": "web"}),
            ("create", {**good, "did": "did:zynk:z"}),
            ("create", {**good, "more": 1}),
            ("create", {**good, "options": {**OPTIONS, "threshold": 0}}),
            ("create", {**good, "options": {**OPTIONS, "threshold": True}}),
            ("create", {**good, "options": {**OPTIONS, "network": 5}}),
            ("create", {**good, "options": {**OPTIONS, "next": "z"}}),
            ("create", {**good, "didDocumentOperation": ["setDidDocument"]}),
            ("create", {**good, "secret": {"verificationMethod": [PAYMENT, PAYMENT]}}),
            ("create", {**good, "didDocument": {"alsoKnownAs": [[]] * 3000}}),
            ("create", {**good, "didDocument": {"service": 1}}),
            ("create", private),
            ("create", {**good, "jobId": "AAAA"}),
            ("create", {**good, "jobId": 5}),
            ("update", good),
            ("update", {"did": "did:zynk:zzz", "options": OPTIONS, "didDocument": [{}]}),
            ("update", {"did": "did:zynk:", "options": OPTIONS, "didDocument": {}}),
            ("deactivate", {"did": "did:zynk:z", "options": OPTIONS, "didDocument": [{}]}),
        ]
        for operation, body in wrong:
            status, found = await client.post(operation, body)
            assert (status, found["didState"]["state"]) == (400, "failed"), body
            assert found["didState"]["reason"]
            assert found["jobId"] is None
        _, first = await client.post("create", good)
        responses = client.sign(first["didState"])
        secrets: list[dict[str, Any]] = [
            {}, {"signingResponse": {}}, {"signingResponse": {"other": responses["control0"]}},
            {"signingResponse": {"control0": {"signature": "AAAA"}}},
            {"signingResponse": {"control0": {"signature": base64.b64encode(bytes(64)).decode()}}},
            {"signingResponse": {"control0": {**responses["control0"], "alg": "ES256K"}}},
            {"signingResponse": {"control0": {**responses["control0"], "kid": "did:a:b#c"}}},
            {"signingResponse": {str(i): {} for i in range(9)}},
        ]  # fmt: skip
        for changes in secrets:
            status, found = await client.post(
                "create", {"jobId": first["jobId"], "secret": changes}
            )
            assert (status, found["didState"]["state"]) == (400, "failed"), changes
        status, _ = await client.post("update", {"jobId": first["jobId"], "secret": {}})
        assert status == 400
        job = json.loads(base64.urlsafe_b64decode(first["jobId"] + "=="))
        forgeries: list[Any] = [
            {**job, "form": {}}, {**job, "payer": "x"}, {**job, "kids": {"control0": 5}},
            {**job, "step": "final"}, {**job, "step": []}, [], {**job, "threshold": "1"},
        ]  # fmt: skip
        for forged in forgeries:
            text = json.dumps(forged, separators=(",", ":"), sort_keys=True).encode()
            body = {
                "jobId": base64.urlsafe_b64encode(text).rstrip(b"=").decode(),
                "secret": {"signingResponse": responses},
            }
            status, found = await client.post("create", body)
            assert (status, found["didState"]["state"]) == (400, "failed"), forged
        assert len(client.world.parts.pool.mempool) == 0

    _run(tmp_path, test)


@pytest.mark.slow
def test_wrong_signature_is_named_in_the_call_that_brings_it(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        body = _create(threshold=2)
        body["secret"]["verificationMethod"][1:1] = [
            _method(key(name), "control") for name in "bcd"
        ]
        _, first = await client.post("create", body)
        responses = client.sign(first["didState"])
        kids = [item["kid"] for item in first["didState"]["signingRequest"].values()]
        for wrong in (["control1"], ["control0", "control3"]):
            sent = copy.deepcopy(responses)
            for name in wrong:
                sent[name]["signature"] = responses["control2"]["signature"]
            status, found = await client.post(
                "create", {"jobId": first["jobId"], "secret": {"signingResponse": sent}}
            )
            assert (status, found["didState"]["state"]) == (400, "failed")
            reason = found["didState"]["reason"]
            assert [f"control{i}" in reason for i in range(4)] == [
                f"control{i}" in wrong for i in range(4)
            ]
            assert all(kids[int(name[-1])] in reason for name in wrong)
        _, second = await client.go_on("create", first, "b", "d")
        payment = client.sign(second["didState"])
        payment["payment"]["signature"] = responses["control0"]["signature"]
        status, found = await client.post(
            "create", {"jobId": second["jobId"], "secret": {"signingResponse": payment}}
        )
        assert (status, "payment" in found["didState"]["reason"]) == (400, True)
        assert len(client.world.parts.pool.mempool) == 0

    _run(tmp_path, test)


@pytest.mark.slow
def test_what_an_update_does_not_name_stays_and_what_it_names_counts(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        body = _create(threshold=1)
        body["secret"]["verificationMethod"].insert(1, _method(key("b"), "control"))
        _, created = await client.finish("create", body, "a")
        did = created["didState"]["did"]
        before = client.head(did)
        keys = (key("a").public_key, key("b").public_key)
        update: dict[str, Any] = {
            "did": did, "options": OPTIONS, "secret": {"verificationMethod": [PAYMENT]},
        }  # fmt: skip
        status, nothing = await client.post("update", update)
        assert (status, "nothing" in nothing["didState"]["reason"]) == (400, True)
        stricter = {**update, "options": {**OPTIONS, "threshold": 2}}
        status, _ = await client.finish("update", stricter, "b")
        assert status == 200
        after = client.head(did)
        assert after.control == Control(current=KeyList(keys=keys, threshold=2))
        assert (after.document, after.tiers) == (before.document, before.tiers)
        tier = KeyList(keys=(key("c").public_key,), threshold=1)
        tiered = {**update, "options": {**OPTIONS, "recovery": [tier.to_json()]}}
        _, first = await client.post("update", tiered)
        status, early = await client.go_on("update", first, "a")
        assert (status, "too few" in early["didState"]["reason"]) == (400, True)
        status, _ = await client.finish("update", tiered)
        assert (status, client.head(did).tiers) == (200, (tier,))
        status, stale = await client.go_on("update", first)
        assert (status, "changed meanwhile" in stale["didState"]["reason"]) == (400, True)
        assert client.head(did).control == after.control
        for options, methods in (
            ({"next": None}, []), ({"recovery": [tier.to_json()]}, []), ({"threshold": 1}, []),
            ({"threshold": 1}, [_method(key("c"), "control")]),
        ):  # fmt: skip
            ending = {
                **update, "options": {**OPTIONS, **options},
                "secret": {"verificationMethod": [PAYMENT, *methods]},
            }  # fmt: skip
            status, found = await client.post("deactivate", ending)
            assert (status, found["didState"]["state"]) == (400, "failed"), options
        status, _ = await client.post("update", {**stricter, "method": "web"})
        assert status == 400

    _run(tmp_path, test)


@pytest.mark.slow
def test_options_of_the_first_request_are_kept_when_the_job_goes_on(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        following = KeyList(keys=(key("c").public_key,), threshold=1)
        commitment = following.compute_commitment()
        body = _create(threshold=2, next=encode_hash(commitment))
        secret = body.pop("secret")
        secret["verificationMethod"].insert(1, _method(key("b"), "control"))
        _, asked = await client.post("create", body)
        assert asked["didState"]["action"] == "getVerificationMethod"
        status, created = await client.finish(
            "create", {"jobId": asked["jobId"], "options": OPTIONS, "secret": secret}
        )
        assert status == 201
        control = client.head(created["didState"]["did"]).control
        assert control is not None
        assert (control.current.threshold, control.next) == (2, commitment)

    _run(tmp_path, test)


def test_page_of_another_origin_may_not_register(tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        status, found = await client.post(
            "create", _create(), headers={"Origin": "https://evil.example"}
        )
        assert status == 403
        assert "didState" not in found

    _run(tmp_path, test)
