"""A resolver on a full node without a vote answers as a validator does; one that lies is caught by
`zynk did verify`, with the genesis file alone."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from did.multikey import encode_base64url
from did.syntax import encode_did
from did.verify_batch import verify_batch
from node import config as cfg
from node.devnet import Devnet, DevnetNode
from rpc.client import RpcClient
from tests.e2e.network import (
    genesis_of,
    height_of,
    running_devnet,
    until_height,
    until_status,
    zynk,
)
from tests.e2e.test_joining import add_full_node

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

STRANGER = encode_did(bytes(32))


def _did(devnet: Devnet, *arguments: str) -> dict[str, Any]:
    """A `zynk did` command at the first validator, paid for by the faucet."""
    key = str(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE)
    done = zynk(
        "did", arguments[0], *arguments[1:], "--key", key, "--rpc", devnet.nodes[0].url, "--json",
        *(() if arguments[0] == "create" else ("--control", key)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def _get(node: DevnetNode, target: str, accept: str = "*/*") -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession(headers={"Accept": accept}) as http,
        http.get(f"{node.url}/1.0/identifiers/{target}", allow_redirects=False) as answer,
    ):
        text = await answer.read()
        return answer.status, json.loads(text) if text else answer.headers["Location"]


def _without_proof(answer: Any) -> Any:
    plain = copy.deepcopy(answer)
    for name in ("didDocumentMetadata", "didResolutionMetadata", "contentMetadata"):
        if isinstance(plain, dict) and name in plain:
            plain[name].pop("proof", None)
    return plain


def _verify(folder: Path, trust: Path, answer: Any, did: str, *more: str) -> tuple[int, str]:
    path = folder / "answer.json"
    path.write_text(json.dumps(answer))
    done = zynk("did", "verify", str(path), "--trust", str(trust), "--did", did, *more)
    return done.returncode, done.stdout + done.stderr


async def _same_answers(devnet: Devnet, full: DevnetNode, did: str, versions: list[str]) -> None:
    validator = devnet.nodes[0]
    _, newest = await _get(validator, did)
    created = newest["didDocumentMetadata"]["created"]
    for target, accept in (
        (did, "*/*"), (did, "application/did+json"), (STRANGER, "*/*"), ("did:web:a", "*/*"),
        (f"{did}?versionId={versions[0]}", "*/*"), (f"{did}?versionId={versions[1]}", "*/*"),
        (f"{did}?versionTime={created}", "*/*"), (f"{did}?asOfHeight=1", "*/*"),
        (f"{did}%23nothing", "*/*"), (f"{did}?service=files", "text/uri-list"),
        (f"{did}?service=files", "application/did-url-dereferencing"),
    ):  # fmt: skip
        expected, found = await _get(validator, target, accept), await _get(full, target, accept)
        assert found[0] == expected[0], target
        if found[0] == 200 or isinstance(found[1], str):
            assert _without_proof(found[1]) == _without_proof(expected[1]), target


async def _same_batch(devnet: Devnet, full: DevnetNode, did: str) -> None:
    genesis, height = genesis_of(devnet), await height_of(devnet, 4)
    shown = []
    for node in (devnet.nodes[0], full):
        async with RpcClient(node.url) as client:
            answer = await client.call("did_resolveBatch", dids=[did, STRANGER], height=height)
        verify_batch(
            answer, dids=[did, STRANGER], trusted=genesis.validators, chain_id=genesis.chain_id,
            max_age_ms=None, now_ms=None,
        )  # fmt: skip
        answer["proof"].pop("certificate")  # nodes hold different signers of the same block
        shown.append(answer)
    assert shown[0] == shown[1]


def _lies(
    answer: dict[str, Any], older: dict[str, Any]
) -> dict[str, Callable[[dict[str, Any]], Any]]:
    (proof,) = answer["didDocumentMetadata"]["proof"]
    (old_proof,) = older["didDocumentMetadata"]["proof"]

    def move(lie: dict[str, Any]) -> None:
        lie["didDocument"]["service"][0]["serviceEndpoint"] = "https://evil.example/"

    def dress_up(lie: dict[str, Any]) -> None:
        lie.update(copy.deepcopy(older))
        lie["didDocumentMetadata"]["proof"][0].update(
            header=proof["header"], certificate=proof["certificate"]
        )

    def forge(lie: dict[str, Any]) -> None:
        lie["didDocumentMetadata"]["proof"][0]["certificate"] = encode_base64url(bytes(300))

    def mix(lie: dict[str, Any]) -> None:
        lie["didDocumentMetadata"]["proof"][0]["header"] = old_proof["header"]

    return {"altered document": move, "stale state": dress_up, "no votes": forge, "mixed": mix}


def test_full_node_resolves_as_a_validator_does_and_a_liar_is_caught(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_devnet() as devnet:
            service = ("--service", "files", "Files", "https://files.example/")
            made = await asyncio.to_thread(_did, devnet, "create", *service)
            did = made["did"]
            _, older = await _get(devnet.nodes[0], did)
            await asyncio.sleep(1.1)  # so that the two versions have different times
            moved = ("--service", "files", "Files", "https://files.example/2")
            changed = await asyncio.to_thread(_did, devnet, "update", did, *moved)
            index = add_full_node(devnet)
            await devnet.start([index])
            await until_height(devnet, await height_of(devnet, 0), [index])
            await until_status(
                devnet, index, "the node has synced", lambda s: not s["sync"]["syncing"]
            )
            full = devnet.nodes[index]
            await _same_answers(devnet, full, did, [made["version"], changed["version"]])
            await _same_batch(devnet, full, did)

            trust = devnet.nodes[0].home / cfg.GENESIS_FILE
            _, answer = await _get(full, did)
            _, absent = await _get(full, STRANGER)
            _, version = await _get(full, f"{did}?versionId={made['version']}")
            other = Devnet.create(tmp_path / "other", chain_id="zynk-e2e")
            foreign = other.nodes[0].home / cfg.GENESIS_FILE

            def check() -> None:
                def verify(answer: Any, *more: str, trust: Path = trust) -> tuple[int, str]:
                    return _verify(tmp_path, trust, answer, did, *more)

                assert verify(answer)[0] == 0, verify(answer)
                assert verify(version, "--version-id", made["version"])[0] == 0
                for name, change in _lies(answer, older).items():
                    lie = copy.deepcopy(answer)
                    change(lie)
                    code, text = verify(lie)
                    assert (code, "NOT VERIFIED" in text) == (1, True), (name, text)
                hidden = json.loads(json.dumps(absent).replace(STRANGER, did))
                for lie, more in (
                    (hidden, ()), (version, ()), (answer, ("--version-id", made["version"])),
                ):  # fmt: skip
                    assert verify(lie, *more)[0] == 1
                assert verify(answer, trust=foreign)[0] == 1
                time.sleep(2)
                code, text = verify(older, "--max-age", "1")
                assert (code, "stale" in text) == (1, True), text

            await asyncio.to_thread(check)

    asyncio.run(run())
