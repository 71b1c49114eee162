"""`zynk did verify` and `zynk did resolve`: the verdicts, their exit codes, and whom they trust."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from did import resolver
from did.batch import resolve_batch
from did.build import create_operation
from did.operation import decode_operation
from did.resolution_options import read_version_query
from did.syntax import encode_did
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import CannotTellError
from ledger.light import Verdict, verdict_of
from node.cli_did import did
from node.cli_trust import EXIT_BY_VERDICT, HEADLINE_BY_VERDICT, load_trust
from rpc.params import text_of_bytes
from tests.unit.trust_fixture import at, write_genesis, write_state
from tests.vectors.did_world import (
    EXP,
    NET,
    VALIDATORS,
    World,
    WorldView,
    control,
    document,
    finalize,
    key,
)

DAY_S = 24 * 3600
ABSENT = "did:zynk:zQmYtUc4iTCbbfVSDNKvtQqrfyezPPnFvE33wFmutw9PBBk"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    return write_genesis(tmp_path)


def create(world: World, *names: str) -> str:
    operation = create_operation(
        net=NET,
        exp_height=EXP,
        document=document(),
        control=control(*(names or ("a",))),
        recovery=(),
        signers=[key("a")],
    )
    assert world.run(operation) == "ok"
    return decode_operation(operation).did_text


def save(folder: Path, answer: object) -> Path:
    path = folder / "answer.json"
    path.write_text(json.dumps(answer, indent=2))
    return path


def save_one(folder: Path, world: World) -> Path:
    """The answer about a new DID."""
    name = create(world)
    return save(folder, resolver.resolve(world.view(), name))


def verify(world: World, path: Path, trust: Path, *more: str, age_ms: int = 2_000) -> Result:
    arguments = ["verify", str(path), "--trust", str(trust), *at(world, age_ms), *more]
    return CliRunner().invoke(did, arguments)


def shown(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.output.splitlines()[-1])
    return found


# --- kinds of answers ---


def test_a_true_answer_verifies_in_words_and_in_json(
    world: World, trust: Path, tmp_path: Path
) -> None:
    name = create(world)
    path = save(tmp_path, resolver.resolve(world.view(), name))
    result = verify(world, path, trust)
    assert result.exit_code == 0, result.output
    assert f"\nVERIFIED: {name} exists and is active as of block 2" in result.output
    assert "the block is 2 s old, at most 60 s are allowed" in result.output
    found = shown(verify(world, path, trust, "--json"))
    assert (found["ok"], found["verdict"], found["outcome"]) == (True, "valid", "found")


def test_an_altered_answer_is_wrong_however_old_it_is(
    world: World, trust: Path, tmp_path: Path
) -> None:
    path = save_one(tmp_path, world)
    path.write_text(path.read_text().replace("doc.example", "bad.example"))
    for age_ms in (2_000, 3_600_000, 30 * DAY_S * 1000):
        result = verify(world, path, trust, age_ms=age_ms)
        assert result.exit_code == 1
        assert "FAILED" in result.output
        assert "\nNOT VERIFIED" in result.output
        found = shown(verify(world, path, trust, "--json", age_ms=age_ms))
        assert (found["ok"], found["verdict"]) == (False, "wrong")


def test_an_answer_about_another_did_is_wrong(world: World, trust: Path, tmp_path: Path) -> None:
    name, other = create(world), create(world, "a", "b")
    path = save(tmp_path, resolver.resolve(world.view(), name))
    assert verify(world, path, trust, "--did", name).exit_code == 0
    assert verify(world, path, trust, "--did", other).exit_code == 1


def test_an_older_version_verifies_when_it_was_asked_for(
    world: World, trust: Path, tmp_path: Path
) -> None:
    name = create(world)
    world.block([])
    query = read_version_query(None, None, world.height - 1)
    path = save(tmp_path, resolver.resolve(world.view(), name, query))
    height = str(world.height - 1)
    assert verify(world, path, trust, "--as-of-height", height).exit_code == 0
    assert verify(world, path, trust, "--as-of-height", "1").exit_code == 1
    assert verify(world, path, trust, "--version-time", "yesterday").exit_code == 1


def test_a_batch_verifies_and_each_did_is_told(world: World, trust: Path, tmp_path: Path) -> None:
    name, absent = create(world), encode_did(bytes(32))
    path = save(tmp_path, resolve_batch(world.view(), [name, absent]))
    asked = ("--did", name, "--did", absent)
    result = verify(world, path, trust, *asked)
    assert result.exit_code == 0
    assert f"\nVERIFIED: {name} exists" in result.output
    assert f"\nVERIFIED: {absent} does not exist" in result.output
    found = shown(verify(world, path, trust, *asked, "--json"))
    assert [item["outcome"] for item in found["answers"]] == ["found", "not found"]
    assert verify(world, path, trust, "--did", absent, "--did", name).exit_code == 1
    old = verify(world, path, trust, *asked, age_ms=61_000)
    assert (old.exit_code, old.output.count("\nTOO OLD: ")) == (8, 2)


def test_an_absent_did_verifies_when_it_is_named(world: World, trust: Path, tmp_path: Path) -> None:
    world.block([])
    path = save(tmp_path, resolver.resolve(world.view(), ABSENT))
    assert isinstance(verify(world, path, trust).exception, UsageError)
    result = verify(world, path, trust, "--did", ABSENT)
    assert result.exit_code == 0
    assert "does not exist" in result.output


# --- verdicts ---


def test_every_verdict_has_its_own_words_and_exit_code() -> None:
    for table in (EXIT_BY_VERDICT, HEADLINE_BY_VERDICT):
        assert set(table) == set(Verdict)
        assert len(set(table.values())) == len(Verdict)
    assert not set(EXIT_BY_VERDICT.values()) & {2, 3, 4, 5, 6, 130}, "they mean something else"


@pytest.mark.parametrize(
    ("age_s", "options", "code", "words"),
    [
        (60, (), 0, "VERIFIED: "),
        (61, (), 8, "TOO OLD: "),
        (61, ("--max-age", "61.5"), 0, "VERIFIED: "),
        (13 * DAY_S, ("--max-age", "any"), 0, "VERIFIED: "),
        (15 * DAY_S, ("--max-age", "any"), 7, "VERIFIED, BUT BY AN EXPIRED TRUST POINT: "),
        (15 * DAY_S, (), 8, "TOO OLD: "),
        (15 * DAY_S, ("--max-age", "any", "--trusting-period", str(16 * DAY_S)), 0, "VERIFIED: "),
        (61, ("--max-age", "any", "--trusting-period", "50"), 7, "VERIFIED, BUT"),
        (-12, (), 1, "NOT VERIFIED: "),
    ],
)
def test_an_answer_is_judged_by_its_age_and_by_that_of_the_trust_point(
    world: World,
    trust: Path,
    tmp_path: Path,
    age_s: int,
    options: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    path = save_one(tmp_path, world)
    result = verify(world, path, trust, *options, age_ms=age_s * 1000)
    assert result.exit_code == code, result.output
    assert result.output.splitlines()[-1].startswith(words)
    found = shown(verify(world, path, trust, *options, "--json", age_ms=age_s * 1000))
    assert found["ok"] is (code == 0)
    assert EXIT_BY_VERDICT[Verdict(found["verdict"])] == code


@pytest.mark.parametrize(
    "option",
    [
        ("--max-age", "soon"), ("--max-age", "-1"), ("--max-age", "nan"), ("--at", "now"),
        ("--at", "2026-02-30T00:00:00Z"),
    ],
)  # fmt: skip
def test_an_option_that_means_nothing_is_wrong_usage(
    world: World, trust: Path, tmp_path: Path, option: tuple[str, str]
) -> None:
    path = save_one(tmp_path, world)
    assert verify(world, path, trust, *option).exit_code == 2


# --- whom to trust ---


def test_the_kept_state_of_a_light_client_is_trusted_without_a_node(
    world: World, tmp_path: Path
) -> None:
    name = create(world)
    before = save(tmp_path, resolver.resolve(world.view(), name))
    world.block([])
    state = write_state(tmp_path / "trusted.bin", world)
    older = verify(world, before, state)
    assert older.exit_code == 9, older.output
    assert "CANNOT TELL: " in older.output
    path = save(tmp_path, resolver.resolve(world.view(), name))
    assert verify(world, path, state).exit_code == 0, "the trusted block itself"
    world.block([])
    world.block([])  # headers of this world name no parents, so the next height does not do
    path = save(tmp_path, resolver.resolve(world.view(), name))
    result = verify(world, path, state)
    assert result.exit_code == 0, result.output
    assert f"block {world.height - 2} on" in result.output
    late = verify(world, path, state, "--max-age", "any", age_ms=15 * DAY_S * 1000)
    assert late.exit_code == 7
    fork = write_state(tmp_path / "other.bin", world)
    fork.write_bytes(fork.read_bytes().replace(world.header().hash, b"\7" * 32))
    assert verify(world, path, fork).exit_code == 1, "another header at the trusted height"


def test_a_damaged_or_older_state_file_is_wrong_usage(tmp_path: Path, world: World) -> None:
    path = write_state(tmp_path / "trusted.bin", world)
    data = path.read_bytes()
    for damaged in (data[:-1], data + b"\0", data.replace(NET.encode(), b"\xff" * len(NET)), b""):
        path.write_bytes(damaged)
        with pytest.raises(UsageError):
            load_trust(path, None)
    path.write_bytes(data.replace(b"zynk-light/2", b"zynk-light/1"))
    with pytest.raises(UsageError):
        load_trust(path, None)


def test_what_is_no_trust_file_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(UsageError, match="no genesis file, trust point or state"):
        load_trust(path, None)
    with pytest.raises(UsageError, match="no such trust file"):
        load_trust(tmp_path / "missing.json", None)


# --- asking a node ---


class _Node:
    """A JSON-RPC server over a world, with what resolving and a trust point need."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pinned = world.header()
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                result = getattr(node, request["method"])(**request["params"])
                body = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result})
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def view(self) -> WorldView:
        return self.world.view()

    def did_resolve(
        self,
        did: str,
        version_id: str | None = None,
        version_time: str | None = None,
        as_of_height: int | None = None,
        trusted_height: int = 0,
    ) -> object:
        query = read_version_query(version_id, version_time, as_of_height)
        return resolver.resolve(self.view(), did, query)

    def did_history(self, did: str, cursor: int, limit: int, trusted_height: int) -> object:
        return resolver.history(self.view(), did, cursor, limit)

    def chain_header(self, block: int, trusted_height: int) -> object:
        assert block == self.pinned.height
        return {"finality": text_of_bytes(finalize(self.pinned).encode())}

    def chain_validators(self, height: int, trusted_height: int) -> object:
        return {"encoded": text_of_bytes(VALIDATORS.encoded)}


@pytest.fixture
def node(world: World) -> Iterator[_Node]:
    found = _Node(world)
    yield found
    found.server.shutdown()
    found.server.server_close()


def resolve(node: _Node, name: str, *more: str) -> Result:
    return CliRunner().invoke(did, ["resolve", name, "--rpc", node.url, *more])


def test_a_trust_point_files_header_is_fetched_and_believed_by_its_hash(
    world: World, node: _Node, tmp_path: Path
) -> None:
    world.block([])
    path = save_one(tmp_path, world)
    point = {
        "type": "zynk-trust-point/1",
        "chain_id": NET,
        "height": node.pinned.height,
        "header_hash": node.pinned.hash.hex(),
    }
    trust = tmp_path / "trust.json"
    trust.write_text(json.dumps(point))
    offline = verify(world, path, trust)
    assert isinstance(offline.exception, UsageError)
    assert "--rpc URL" in str(offline.exception)
    result = verify(world, path, trust, "--rpc", node.url)
    assert result.exit_code == 0, result.output
    trust.write_text(json.dumps({**point, "header_hash": "07" * 32}))
    other = verify(world, path, trust, "--rpc", node.url)
    assert isinstance(other.exception, InvalidInputError)
    assert "not the trusted one" in str(other.exception)


def test_every_question_is_asked_and_its_answer_verifies_as_it_was_asked(
    world: World, node: _Node, trust: Path, tmp_path: Path
) -> None:
    name = create(world)
    version = resolver.resolve(world.view(), name)["didDocumentMetadata"]["versionId"]
    created = resolver.resolve(world.view(), name)["didDocumentMetadata"]["created"]
    world.block([], step_ms=2000)
    for target, *options in (
        (name,),
        (name, "--version-id", version),
        (name, "--version-time", created),
        (name, "--as-of-height", str(world.height)),
        (name, "--service", "s"),
        (name, "--service", "s", "--relative-ref", "/a?b"),
        (name, "--service-type", "Files", "--version-id", version),
        (f"{name}#k1", "--relationship", "authentication"),
        (f"{name}?versionId={version}#k1",),
    ):
        result = resolve(node, target, *options)
        assert result.exit_code == 0, (target, options, result.output, result.exception)
        assert "Not checked" in result.stderr
        path = save(tmp_path, json.loads(result.stdout))
        asked = ("--did", target, *options)
        assert verify(world, path, trust, *asked).exit_code == 0, (target, options)
    assert (
        "URL: https://doc.example/a?b\n"
        in resolve(node, name, "--service", "s", "--relative-ref", "/a?b").stderr
    )
    other = json.loads(resolve(node, name, "--service", "s").stdout)
    other["content"]["service"] = other["contentStream"]["service"] = []
    path = save(tmp_path, other)
    assert verify(world, path, trust, "--did", name, "--service", "s").exit_code == 1


def test_a_question_without_an_answer_or_sense_is_told(world: World, node: _Node) -> None:
    name = create(world)
    for target, *options in (
        ("did:web:a", "--version-id", "x"),
        (name, "--version-id", "x"),
        (name, "--version-time", "2026-01-01"),
        (name, "--relative-ref", "/a"),
        (f"{name}?versionId=0-z1", "--version-id", "0-z1"),
    ):
        assert isinstance(resolve(node, target, *options).exception, UsageError), options
    for target, *options in (
        (ABSENT,), (f"{name}#nothing",), (name, "--service", "none"),
        (f"{name}#k1", "--relationship", "keyAgreement"),
    ):  # fmt: skip
        result = resolve(node, target, *options)
        assert isinstance(result.exception, InvalidInputError), options
        assert json.loads(result.stdout), "the answer is shown all the same"


def test_resolve_with_trust_exits_with_the_verdict(world: World, node: _Node, trust: Path) -> None:
    name = create(world)
    result = resolve(node, name, "--trust", str(trust))
    assert result.exit_code == 8, "the world's newest block is of January"
    assert "TOO OLD: " in result.stderr
    assert json.loads(result.stdout)["didDocument"]["id"] == name
    expired = resolve(node, name, "--trust", str(trust), "--max-age", "any")
    assert expired.exit_code == 7


def test_other_commands_check_too_and_warn_of_an_expired_trust_point(
    world: World, node: _Node, trust: Path, tmp_path: Path
) -> None:
    name = create(world)

    def history(path: Path) -> Result:
        arguments = ["history", name, "--rpc", node.url, "--trust", str(path)]
        return CliRunner().invoke(did, arguments)

    result = history(trust)
    assert result.exit_code == 0
    assert "is past its trusting period of 14 days" in result.stderr
    assert "all 1 operation(s) are in the log" in result.stdout
    ahead = World()
    for _ in range(3):
        ahead.block([])
    untold = history(write_state(tmp_path / "trusted.bin", ahead)).exception
    assert isinstance(untold, CannotTellError)
    assert EXIT_BY_VERDICT[verdict_of(untold)] == 9
