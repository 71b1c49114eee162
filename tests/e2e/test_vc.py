"""Credentials on a real network, by the command line alone: issue, verify, revoke, rotate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from did.data_integrity import add_proof, decode_document, read_date_time
from node import config as cfg
from node.devnet import Devnet
from node.keys import load_key
from tests.e2e.network import running_devnet, zynk

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LIST_URL = "https://issuer.example/status/1"
CONTEXTS = [
    "https://www.w3.org/ns/credentials/v2",
    "https://www.w3.org/ns/credentials/undefined-terms/v2",
]


def do(*arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a command with --json; its object. The exit code must be `code`."""
    result = zynk(*arguments, "--json")
    assert result.returncode == code, (arguments, result.stdout, result.stderr)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


class Issuer:
    """Somebody with a shell, a folder, a DID, a stream and a status list."""

    def __init__(self, devnet: Devnet, folder: Path) -> None:
        home = devnet.nodes[0].home
        self.folder = folder
        self.rpc = devnet.nodes[0].url
        self.genesis = str(home / cfg.GENESIS_FILE)
        self.payer = str(home / cfg.FAUCET_KEY_FILE)
        for name in ("first", "second"):
            do("keys", "new", self.path(name))
        node = ("--rpc", self.rpc)
        self.did = do("did", "create", "--key", self.payer, "--control", self.path("first"), *node)[
            "did"
        ]
        self.stream = do(
            "audit", "stream", "create", "--key", self.payer, "--owner", self.did,
            "--control", self.path("first"), *node,
        )["stream"]  # fmt: skip
        self.sign = (*node, "--trust", self.genesis)
        self.list = self.path("list.json")
        do(
            "vc", "status-list", self.list, "--url", LIST_URL, "--issuer", self.did,
            "--key", self.path("first"), "--stream", self.stream, *self.sign,
        )  # fmt: skip

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def issue(self, name: str, suite: str, key: str = "first", code: int = 0) -> dict[str, Any]:
        subject = {"id": f"did:example:{name}", "degree": {"type": "Degree", "grade": 2}}
        template = {"@context": CONTEXTS, "credentialSubject": subject}
        Path(self.path(name + ".template")).write_text(json.dumps(template))
        arguments = (
            "vc", "issue", self.path(name + ".template"), "--issuer", self.did, "--suite", suite,
            "--key", self.path(key), "--status-list", self.list, "--out", self.path(name),
        )  # fmt: skip
        if code:
            result = zynk(*arguments, *self.sign)
            assert result.returncode == code, result.stdout
            return {"error": result.stderr}
        return do(*arguments, *self.sign)

    def verify(self, name: str, *more: str, code: int = 0) -> dict[str, Any]:
        """Without --rpc this is offline: nothing names a node."""
        return do(
            "vc", "verify", self.path(name), "--trust", self.genesis,
            "--status-list", self.list, *more, code=code,
        )  # fmt: skip

    def revoke(self, *names: str) -> dict[str, Any]:
        return do(
            "vc", "revoke", *map(self.path, names), "--status-list", self.list,
            "--key", self.path("first"), "--stream", self.stream, *self.sign,
        )  # fmt: skip


@contextmanager
def altered(path: Path, old: str, new: str) -> Iterator[None]:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    try:
        yield
    finally:
        path.write_text(text)


def test_a_credential_from_issue_to_revocation_and_through_a_rotation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_devnet(validators=1) as devnet:
            issuer = await asyncio.to_thread(Issuer, devnet, tmp_path)
            await asyncio.to_thread(life_of_credentials, issuer)
            await rotation(issuer)

    asyncio.run(asyncio.wait_for(scenario(), 240))


def life_of_credentials(issuer: Issuer) -> None:
    issued = [
        issuer.issue(name, suite)["status_index"]
        for name, suite in (("jcs", "eddsa-jcs-2022"), ("rdfc", "eddsa-rdfc-2022"))
    ]
    assert issued[0] != issued[1]
    for name in ("jcs", "rdfc"):
        found = issuer.verify(name)
        assert (found["ok"], found["revoked"]) == (True, False)
        steps = {step["name"] for step in found["steps"]}
        assert {"key", "signature", "list-signature", "anchor-finality", "revocation"} <= steps
    with altered(issuer.folder / "jcs", '"grade":2', '"grade":1'):
        assert "signature does not match" in issuer.verify("jcs", code=1)["reason"]
    with altered(issuer.folder / "rdfc", '"grade":2', '"grade":1'):
        assert "signature does not match" in issuer.verify("rdfc", code=1)["reason"]

    old = (issuer.folder / "list.json").read_bytes()
    assert issuer.revoke("jcs")["revoked"] == [issued[0]]
    found = issuer.verify("jcs", code=1)
    assert found["revoked"]
    assert found["reason"].startswith("REVOKED")
    assert issuer.verify("rdfc")["ok"]
    # the list as it was before is not the one that the receipt is for
    new = (issuer.folder / "list.json").read_bytes()
    (issuer.folder / "list.json").write_bytes(old)
    found = issuer.verify("jcs", code=1)
    assert not found["revoked"]
    assert "another content" in found["reason"]
    (issuer.folder / "list.json").write_bytes(new)
    # whose stream it is anchored in is shown beside the list, or by a node
    shown = (issuer.folder / "list.json.zstream").rename(issuer.folder / "elsewhere")
    assert issuer.verify("rdfc", code=9)["steps"][-1]["name"] == "list-stream"
    assert issuer.verify("rdfc", "--rpc", issuer.rpc)["ok"]
    shown.rename(issuer.folder / "list.json.zstream")
    # the list's bytes are what was anchored
    do("audit", "verify", issuer.list, "--trust", issuer.genesis)


async def rotation(issuer: Issuer) -> None:
    await asyncio.to_thread(
        do, "did", "rotate", issuer.did, "--key", issuer.payer, "--control", issuer.path("first"),
        "--new", issuer.path("second"), "--rpc", issuer.rpc,
    )  # fmt: skip
    first = load_key(issuer.folder / "first")
    for online in ((), ("--rpc", issuer.rpc)):
        assert (await asyncio.to_thread(issuer.verify, "rdfc", *online))["ok"]
    refused = await asyncio.to_thread(issuer.issue, "late", "eddsa-jcs-2022", "first", 2)
    assert "not one that the DID's document lists" in refused["error"]
    await asyncio.to_thread(issuer.issue, "new", "eddsa-jcs-2022", "second")
    assert (await asyncio.to_thread(issuer.verify, "new"))["ok"]

    # signed by the old key at the very time at which the new key signed
    new = decode_document((issuer.folder / "new").read_bytes())
    old = decode_document((issuer.folder / "rdfc").read_bytes())
    forged = add_proof(
        {name: value for name, value in new.items() if name != "proof"},
        suite="eddsa-jcs-2022",
        verification_method=old["proof"]["verificationMethod"],
        created_ms=read_date_time(new["proof"]["created"], "created"),
        key=first,
    )
    (issuer.folder / "forged").write_text(json.dumps(forged))
    found = await asyncio.to_thread(issuer.verify, "forged", "--rpc", issuer.rpc, code=1)
    assert found["steps"][-1]["name"] in ("key", "signature")
    assert not found["ok"]

    # answers of before the proof, as they lie beside the files, can not tell
    found = await asyncio.to_thread(issuer.verify, "forged", code=9)
    assert "older than the time asked for" in found["reason"]
