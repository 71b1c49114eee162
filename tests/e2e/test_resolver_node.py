"""A resolver on a full node without a vote answers as a validator does: byte-equal documents, and
proofs that verify, of present and older versions. A proxy in front of it that lies is caught by
both verifiers, which know the genesis file alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from did import strict_json
from did.multikey import encode_base64url
from did.syntax import encode_did
from did.verify import Outcome
from did.verify_answer import verify_answer
from ledger.errors import InvalidInputError
from ledger.light import TrustPoint
from node import config as cfg
from rpc.client import RpcClient
from tests.e2e.liar import Lie, running_liar, tell_truth
from tests.e2e.network import height_of, until_height, zynk
from tests.e2e.resolver_place import RESULT, Place, build, get
from tests.property.light_bundles import Bundle
from tests.property.test_light_bundles import run_js

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

STRANGER = encode_did(bytes(32))
DOCUMENT, JSON = "application/did", "application/json"
DEREFERENCING, URLS = "application/did-url-dereferencing", "text/uri-list"
TRUSTING_PERIOD_MS = 14 * 24 * 3_600_000


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(build(runner, stack))
        finally:
            runner.run(stack.aclose())


# --- the same answers ---


def _questions(place: Place) -> list[tuple[str, str, int]]:
    """(DID URL, Accept, status)"""
    did, ids = place.identity.did, [o.version_id for o in place.identity.operations]
    stolen_at = place.identity.heights[2]
    return [
        (did, RESULT, 200), (did, DOCUMENT, 200), (did, JSON, 200), (did, DEREFERENCING, 200),
        (place.gone, RESULT, 410), (STRANGER, RESULT, 404), ("did:web:a.example", RESULT, 501),
        *((f"{did}?versionId={v}", RESULT, 404 if v == ids[2] else 200) for v in ids),
        (f"{did}?versionId={ids[0]}", DOCUMENT, 200),
        (f"{did}?versionId={ids[2]}&asOfHeight={stolen_at}", RESULT, 200),
        (f"{did}?asOfHeight={stolen_at}", RESULT, 200),
        (f"{did}?asOfHeight={stolen_at}", DOCUMENT, 200),
        (f"{did}?asOfHeight={place.identity.heights[0] - 1}", RESULT, 404),
        (f"{place.gone}?asOfHeight={place.identity.heights[0]}", RESULT, 200),
        (f"{STRANGER}?asOfHeight=1", RESULT, 404),
        (f"{did}#k1", RESULT, 200), (f"{did}#k1", DOCUMENT, 200), (f"{did}#nothing", RESULT, 404),
        (f"{did}?versionId={ids[1]}#k1", DEREFERENCING, 200),
        (f"{did}?service=s", DEREFERENCING, 200), (f"{did}?service=s&relativeRef=/x", URLS, 303),
        (f"{did}?service=s&versionId={ids[0]}", URLS, 303),
        (f"{did}?verificationRelationship=authentication#k1", DEREFERENCING, 200),
        (f"{did}?versionId=1", RESULT, 400),
    ]  # fmt: skip


def _plain(body: bytes) -> Any:
    """An answer but for its proof."""
    answer = json.loads(body)
    for holder in answer.values():
        if isinstance(holder, dict):
            holder.pop("proof", None)
            holder.get("didDocumentMetadata", {}).pop("proof", None)
    return answer


def test_full_node_gives_the_same_documents_with_proofs_that_verify(place: Place) -> None:
    basis = place.basis(now_ms=time.time_ns() // 1_000_000, max_age_ms=600_000)

    async def run() -> None:
        _, _, newest = await get(place.full.url, place.identity.did)
        metadata = json.loads(newest)["didDocumentMetadata"]
        then = [f"{place.identity.did}?versionTime={metadata[n]}" for n in ("created", "updated")]
        outcomes = set()
        for url, accept, status in [*_questions(place), *((url, RESULT, 200) for url in then)]:
            target = quote(url, safe=":")
            expected = await get(place.devnet.nodes[0].url, target, accept)
            found = await get(place.full.url, target, accept)
            assert found[0] == expected[0] == status, (url, found)
            assert found[1] == expected[1], url
            if accept in (DOCUMENT, JSON, URLS):
                assert found[2] == expected[2], url
                continue
            assert strict_json.encode(_plain(found[2])) == strict_json.encode(_plain(expected[2]))
            if status in (200, 404, 410):
                (verdict,) = verify_answer(found[2], asked=[url], options={}, basis=basis)
                outcomes.add(verdict.outcome)
        assert outcomes == set(Outcome)

    place.runner.run(run())


def test_full_node_gives_the_same_batch_and_history(place: Place) -> None:
    dids = [place.identity.did, place.gone, STRANGER]
    basis = place.basis()

    async def run() -> None:
        height = await height_of(place.devnet, place.full.index)
        await until_height(place.devnet, height, [0])
        shown = []
        for node in (place.devnet.nodes[0], place.full):
            async with RpcClient(node.url) as client:
                batch = await client.call("did_resolveBatch", dids=dids, height=height)
                history = await client.call("did_history", did=dids[0], limit=100)
            for answer, asked in ((batch, dids), (history, dids[:1])):
                data = json.dumps(answer).encode()
                assert len(verify_answer(data, asked=asked, options={}, basis=basis)) == len(asked)
            batch["proof"].pop("certificate")  # nodes hold different signers of the same block
            shown.append((batch, history["operations"]))
        assert shown[0] == shown[1]
        flags = [operation["nullifiedBy"] for operation in shown[0][1]]
        assert flags == [None, None, 3, None]

    place.runner.run(run())


# --- lies ---


def _lies(place: Place, honest: bytes, absent: bytes) -> dict[str, Lie]:
    """By name. `absent` is the full node's answer about a DID that nobody created."""
    answer = json.loads(honest)

    def alter(body: bytes) -> bytes:
        return body.replace(b"https://again.example/", b"https://evil.example/")

    def flip(body: bytes) -> bytes:
        lie = json.loads(body)
        lie["didDocumentMetadata"]["versionId"] = place.identity.operations[1].version_id
        return json.dumps(lie).encode()

    def dress_up(body: bytes) -> bytes:
        """The older state under the newest header."""
        lie, fresh = json.loads(place.older), _proof(answer)
        _proof(lie).update(header=fresh["header"], certificate=fresh["certificate"])
        return json.dumps(lie).encode()

    def sign_off(body: bytes) -> bytes:
        lie = json.loads(body)
        _proof(lie)["certificate"] = encode_base64url(bytes(300))
        return json.dumps(lie).encode()

    return {
        "altered document": alter,
        "altered metadata": flip,
        "stale height": lambda body: place.older,
        "stale height, new header": dress_up,
        "no votes": sign_off,
        "wrong chain": lambda body: place.foreign,
        "hidden DID": lambda body: absent.replace(STRANGER.encode(), place.identity.did.encode()),
        "hidden DID, as of before it was": lambda body: place.hidden,
    }


def _proof(answer: dict[str, Any]) -> dict[str, Any]:
    found: list[dict[str, Any]] = answer["didDocumentMetadata"]["proof"]
    return found[0]


@dataclass
class Heard:
    """What the proxy said, by lie, "" being the truth; and the age that the caller accepts then."""

    bodies: dict[str, bytes]
    now_ms: int
    max_age_ms: int


@pytest.fixture(scope="module")
def heard(place: Place) -> Heard:
    did = place.identity.did

    async def run() -> Heard:
        async with running_liar(place.full.url) as liar:
            _, _, honest = await get(liar.url, did)
            _, _, absent = await get(liar.url, STRANGER)
            bodies = {}
            for name, lie in {"": tell_truth, **_lies(place, honest, absent)}.items():
                liar.lie = lie
                _, _, bodies[name] = await get(liar.url, did)
        now_ms = time.time_ns() // 1_000_000
        # Younger than the older answers by a second at least, older than the newest block.
        stale_ms = max(_block_time_ms(place, body) for body in (place.older, place.hidden))
        return Heard(bodies, now_ms, now_ms - stale_ms - 1000)

    return place.runner.run(run())


def _block_time_ms(place: Place, body: bytes) -> int:
    basis = place.basis()
    (verdict,) = verify_answer(body, asked=[place.identity.did], options={}, basis=basis)
    return verdict.time_ms


def test_lies_are_caught_by_the_python_verifier(place: Place, heard: Heard) -> None:
    basis = place.basis(now_ms=heard.now_ms, max_age_ms=heard.max_age_ms)
    for name, body in heard.bodies.items():
        if not name:
            verify_answer(body, asked=[place.identity.did], options={}, basis=basis)
            continue
        assert body != heard.bodies[""]
        with pytest.raises(InvalidInputError) as caught:
            verify_answer(body, asked=[place.identity.did], options={}, basis=basis)
        assert ("stale" in str(caught.value)) is (body in (place.older, place.hidden)), name


def test_lies_about_older_versions_are_caught_by_both_verifiers(place: Place) -> None:
    did, ids = place.identity.did, [o.version_id for o in place.identity.operations]
    stolen = f"{did}?versionId={ids[2]}"
    basis = place.basis()

    async def run() -> list[tuple[str, bytes, bool]]:
        """(DID URL, answer, whether it is a lie)"""
        said = []
        async with running_liar(place.full.url) as liar:
            _, _, theft = await get(liar.url, f"{stolen}&asOfHeight={place.identity.heights[2]}")
            _, _, first = await get(liar.url, f"{did}?versionId={ids[0]}")
            created = json.loads(first)["didDocumentMetadata"]["created"]
            for asked, lie in (
                (stolen, lambda _: theft),  # as if nobody had set it aside
                (f"{did}?versionId={ids[1]}", lambda _: first),
                (f"{did}?versionTime={created}", lambda _: place.hidden),  # of a block before
                (f"{did}?versionId={ids[1]}", lambda body: body.replace(b"second", b"evil12")),
            ):
                liar.lie = tell_truth
                _, _, honest = await get(liar.url, asked)
                liar.lie = lie
                _, _, heard = await get(liar.url, asked)
                assert heard != honest
                said += [(asked, honest, False), (asked, heard, True)]
        return said

    said = place.runner.run(run())
    for asked, body, is_lie in said:
        if not is_lie:
            verify_answer(body, asked=[asked], options={}, basis=basis)
            continue
        with pytest.raises(InvalidInputError):
            verify_answer(body, asked=[asked], options={}, basis=basis)
    items = [_js_item(place, "answer", asked, body, options={}) for asked, body, _ in said]
    for (asked, _, is_lie), verdict in zip(said, run_js(items), strict=True):
        assert verdict == ("wrong" if is_lie else "valid"), asked


def test_lies_are_caught_by_the_javascript_verifier(place: Place, heard: Heard) -> None:
    ages = {"now_ms": heard.now_ms, "max_age_ms": heard.max_age_ms}
    items = [
        _js_item(place, "resolution", place.identity.did, body, **ages)
        for body in heard.bodies.values()
    ]
    verdicts = dict(zip(heard.bodies, run_js(items), strict=True))
    for name, verdict in verdicts.items():
        assert (verdict == "valid") is (not name), verdicts
        is_old = heard.bodies[name] in (place.older, place.hidden)
        assert (verdict == "too-old") is is_old, verdicts


def _js_item(
    place: Place,
    kind: str,
    asked: str,
    body: bytes,
    *,
    now_ms: int | None = None,
    max_age_ms: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """For `judge_bundles.mjs`."""
    genesis = place.genesis
    trust = TrustPoint(
        chain_id=genesis.chain_id, height=0, time_ms=genesis.time_ms,
        validators=genesis.validators, trusting_period_ms=TRUSTING_PERIOD_MS,
        header_hash=genesis.genesis_hash,
    )  # fmt: skip
    basis = Bundle(
        name="", trust=trust, proof=b"", now_ms=now_ms or time.time_ns() // 1_000_000,
        max_age_ms=max_age_ms, expected=None,
    )  # fmt: skip
    return {**basis.to_json(), "kind": kind, "asked": asked, "texts": [body.decode()], **more}


def test_lies_are_caught_on_the_command_line(place: Place, heard: Heard, tmp_path: Path) -> None:
    trust = place.devnet.nodes[0].home / cfg.GENESIS_FILE
    for name, age_s, code, said in (
        ("", "3600", 0, "VERIFIED"),
        ("altered document", "3600", 1, "NOT VERIFIED"),
        ("stale height", "1", 8, "TOO OLD"),
    ):
        path = tmp_path / "answer.json"
        path.write_bytes(heard.bodies[name])
        done = zynk(
            *("did", "verify", str(path), "--trust", str(trust)),
            *("--did", place.identity.did, "--max-age", age_s),
        )
        assert done.returncode == code, (name, done.stdout, done.stderr)
        assert said in done.stdout + done.stderr, name
