"""`zynk audit verify` offline, anchoring against a node that misbehaves, and exit codes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from audit.intake import Request
from audit.issue import build_receipt, issue_receipts
from audit.leaf import SHA2_512, encode_leaves, encode_stream_text, hash_chunks
from audit.pipeline import BATCH_AGE_MAX_MS, Pipeline
from ledger.errors import DurabilityError, InvalidInputError, UsageError, ZynkError
from ledger.light import Verdict
from ledger.merkle import compute_leaf_hash
from ledger.store import MemoryStore
from ledger.tx import Tx
from node.anchor_client import (
    GROUP_LEAVES,
    HashedFile,
    fetch_receipts,
    hash_files,
    submit_files,
    wait_receipted,
)
from node.cli_audit import audit
from node.cli_trust import EXIT_BY_VERDICT
from node.files import read_small, replace_file
from rpc.client import Call
from rpc.errors import RpcError, not_ready
from rpc.params import bytes_of_text, text_of_bytes
from tests.unit.genesis_fixture import document_of
from tests.vectors.audit_chain import ANCHOR_KEY, CHAIN_ID, START_MS, Chain, create_stream

CHAIN = Chain()
STREAM = create_stream(CHAIN)
STREAM_TEXT = encode_stream_text(STREAM)
CONTENTS = [b"one", b"two", b"three"]


def issue(multihashes: Sequence[bytes]) -> list[bytes]:
    """Receipts of these contents, from the real pipeline and chain."""
    store = MemoryStore()
    pipeline = Pipeline(store)
    pipeline.catch_up(CHAIN.height, CHAIN.lookup)
    leaves = encode_leaves(STREAM, multihashes)
    pipeline.accept(Request(stream=STREAM, request_id=b"r", leaves=leaves), 0)
    pipeline.tick(BATCH_AGE_MAX_MS)
    draft = pipeline.next_anchor(lambda stream: 0)
    assert draft is not None
    tx = Tx.sign(
        ANCHOR_KEY,
        chain_id=CHAIN_ID,
        nonce=1,
        fee=1,
        valid_until=2**40,
        messages=draft.messages,
    )
    pipeline.record_signed(draft, tx)
    pipeline.on_final(CHAIN.height + 1, CHAIN.add_block([tx]))
    issue_receipts(pipeline, CHAIN.view, store, CHAIN.tree, ANCHOR_KEY.public_key)
    return [build_receipt(CHAIN.view, store, compute_leaf_hash(leaf)) for leaf in leaves]


RECEIPTS = issue(
    [*(hash_chunks([content]) for content in CONTENTS), hash_chunks([b"long"], SHA2_512)]
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """genesis.json; the contents as files 0, 1, 2 with their receipts beside them."""
    document = document_of(CHAIN_ID, CHAIN.keys, (10,) * 4, {ANCHOR_KEY.public_key: 1}, START_MS)
    (tmp_path / "genesis.json").write_bytes(document.encode())
    for i, content in enumerate(CONTENTS):
        (tmp_path / str(i)).write_bytes(content)
        (tmp_path / f"{i}.zreceipt").write_bytes(RECEIPTS[i])
    return tmp_path


def verify(folder: Path, name: str, *more: str, age_s: int = 0) -> Result:
    """`age_s` after the newest block."""
    trust = str(folder / "genesis.json")
    arguments = ["verify", str(folder / name), "--trust", trust, *at(age_s), *more]
    return CliRunner().invoke(audit, arguments)


def at(age_s: int) -> tuple[str, str]:
    moment = datetime.fromtimestamp(CHAIN.time_ms // 1000 + age_s, UTC)
    return "--at", moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_a_file_and_its_receipt_verify_in_words_and_in_json(folder: Path) -> None:
    result = verify(folder, "1", "--stream", STREAM_TEXT)
    assert result.exit_code == 0
    assert "VERIFIED" in result.output
    assert result.output.count("ok ") >= 7
    shown = json.loads(verify(folder, "1", "--json").output.splitlines()[-1])
    assert shown["ok"] is True
    assert shown["stream"] == STREAM_TEXT


def test_the_hash_function_is_the_one_the_receipt_names(folder: Path) -> None:
    (folder / "long").write_bytes(b"long")
    (folder / "r").write_bytes(RECEIPTS[3])
    assert verify(folder, "long", "--receipt", str(folder / "r")).exit_code == 0


def test_another_file_and_an_altered_receipt_exit_with_1(folder: Path) -> None:
    other = verify(folder, "0", "--receipt", str(folder / "1.zreceipt"))
    assert other.exit_code == 1
    assert "another content" in other.output
    altered = bytearray(RECEIPTS[0])
    for position in range(0, len(altered), 37):
        altered[position] ^= 1
        (folder / "0.zreceipt").write_bytes(altered)
        assert verify(folder, "0").exit_code == 1, position
        altered[position] ^= 1
    (folder / "0.zreceipt").write_bytes(RECEIPTS[0])
    assert verify(folder, "0").exit_code == 0


def test_old_age_and_an_expired_trust_point_have_their_own_exit_codes(folder: Path) -> None:
    for age_s, options, code, words in (
        (100, (), 0, "VERIFIED: "),
        (100, ("--max-age", "99"), 8, "TOO OLD: "),
        (15 * 24 * 3600, (), 7, "VERIFIED, BUT BY AN EXPIRED TRUST POINT: "),
        (15 * 24 * 3600, ("--max-age", "99"), 8, "TOO OLD: "),
    ):
        result = verify(folder, "0", *options, age_s=age_s)
        assert result.exit_code == code, result.output
        assert result.output.splitlines()[-1].startswith(words)
        shown = json.loads(verify(folder, "0", *options, "--json", age_s=age_s).output)
        assert shown["ok"] is (code == 0)
        assert EXIT_BY_VERDICT[Verdict(shown["verdict"])] == code


def test_a_missing_receipt_and_a_malformed_option_are_wrong_usage(folder: Path) -> None:
    (folder / "bare").write_bytes(b"bare")
    assert isinstance(verify(folder, "bare").exception, UsageError)
    assert isinstance(verify(folder, "0", "--stream", "zz").exception, UsageError)
    assert isinstance(verify(folder, "0", "--salt", "zz").exception, UsageError)
    assert verify(folder, "absent").exit_code == 2


def test_two_files_that_would_share_a_receipt_are_refused_before_anything_is_sent(
    folder: Path,
) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "0").write_bytes(b"another")
    paths = [str(folder / "0"), str(folder / "sub" / "0")]
    arguments = ["anchor", *paths, "--stream", STREAM_TEXT, "--receipt-folder", str(folder / "r")]
    result = CliRunner().invoke(audit, [*arguments, "--rpc", "http://127.0.0.1:1"])
    assert isinstance(result.exception, UsageError)
    assert "same receipt" in str(result.exception)


class FakeNode:
    """Answers audit calls from the receipts above. `busy` calls are refused first; leaves in
    `rejected` are rejected; `lies` makes it hand out its first receipt for everything."""

    def __init__(self, *, busy: int = 0, rejected: Sequence[bytes] = (), lies: bool = False):
        self.busy = busy
        self.rejected = rejected
        self.lies = lies
        self.request_ids: list[object] = []
        self.group_sizes: list[int] = []

    async def call(self, method: str, **params: object) -> Any:
        if self.busy:
            self.busy -= 1
            raise not_ready("too many submissions wait")
        leaves = params["leaves"]
        assert isinstance(leaves, list)
        if method == "audit_submit":
            self.request_ids.append(params["request_id"])
            self.group_sizes.append(len(leaves))
            encoded = encode_leaves(STREAM, [bytes_of_text(text) for text in leaves])
            leaves = [compute_leaf_hash(leaf).hex() for leaf in encoded]
        return {"leaves": [self._status(leaf) for leaf in leaves]}

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        found: list[Any] = []
        for _, params in calls:
            receipt = self._find(str(params["leaf"]))
            found.append(
                RpcError(-32003, "leaf not found")
                if receipt is None
                else {"receipt": text_of_bytes(RECEIPTS[0] if self.lies else receipt)}
            )
        return found

    def _find(self, leaf: str) -> bytes | None:
        for number, content in enumerate(CONTENTS):
            encoded = encode_leaves(STREAM, [hash_chunks([content])])[0]
            if compute_leaf_hash(encoded).hex() == leaf:
                return RECEIPTS[number]
        return None

    def _status(self, leaf: str) -> dict[str, object]:
        if bytes.fromhex(leaf) in self.rejected:
            return {"leaf": leaf, "status": "rejected", "reason": "audit/over-quota"}
        known = self._find(leaf) is not None
        return {"leaf": leaf, "status": "receipted" if known else "accepted", "height": 2}


def hashed(folder: Path) -> list[HashedFile]:
    return hash_files([folder / str(i) for i in range(3)], STREAM_TEXT, "sha2-256", _ignore)


def _ignore(count: int) -> None:
    del count


def test_hashing_reads_every_byte_and_reports_it(folder: Path) -> None:
    content = bytes(range(256)) * 10_000
    (folder / "large").write_bytes(content)
    seen: list[int] = []
    (found,) = hash_files([folder / "large"], STREAM_TEXT, "sha2-256", seen.append)
    assert found.multihash[2:] == hashlib.sha256(content).digest()
    assert sum(seen) == found.size_bytes == len(content)
    assert max(seen) <= 1024 * 1024
    with pytest.raises(UsageError, match="no such file"):
        hash_files([folder / "gone"], STREAM_TEXT, "sha2-256", _ignore)


@pytest.mark.slow
def test_files_go_in_groups_and_come_back_as_their_own_receipts(folder: Path) -> None:
    files = hashed(folder)
    many = [files[i % 3] for i in range(GROUP_LEAVES + 500)]
    node = FakeNode(busy=1)

    async def work() -> dict[bytes, bytes]:
        await submit_files(node, STREAM_TEXT, many, timeout_s=5, progress=_ignore)
        leaves = [item.leaf for item in files]
        statuses = await wait_receipted(node, leaves, timeout_s=5, progress=_ignore)
        assert {status["status"] for status in statuses.values()} == {"receipted"}
        return await fetch_receipts(node, leaves, progress=_ignore)

    receipts = asyncio.run(work())
    assert [receipts[item.leaf] for item in files] == RECEIPTS[:3]
    assert node.group_sizes == [GROUP_LEAVES, 500]
    assert len(set(node.request_ids)) == 2


def test_rejected_leaves_end_the_wait_and_late_ones_say_so(folder: Path) -> None:
    files = hashed(folder)
    node = FakeNode(rejected=[files[1].leaf])

    async def work(leaves: list[bytes]) -> dict[bytes, dict[str, Any]]:
        return await wait_receipted(node, leaves, timeout_s=0, progress=_ignore)

    statuses = asyncio.run(work([item.leaf for item in files]))
    assert statuses[files[1].leaf]["reason"] == "audit/over-quota"
    with pytest.raises(ZynkError, match="no receipt yet") as caught:
        asyncio.run(work([bytes(32)]))
    assert caught.value.retry


def test_a_receipt_of_another_leaf_is_refused(folder: Path) -> None:
    files = hashed(folder)
    leaves = [item.leaf for item in files]
    with pytest.raises(InvalidInputError, match="another leaf"):
        asyncio.run(fetch_receipts(FakeNode(lies=True), leaves, progress=_ignore))
    with pytest.raises(RpcError, match="not found"):
        asyncio.run(fetch_receipts(FakeNode(), [bytes(32)], progress=_ignore))


def test_files_are_replaced_whole_and_bounded_when_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
    assert read_small(path, "thing", 3) == b"new"
    with pytest.raises(UsageError, match="too long"):
        read_small(path, "thing", 2)
    with pytest.raises(DurabilityError):
        replace_file(tmp_path / "absent" / "file", b"x")


@pytest.mark.slow
def test_exit_codes_are_those_documented(folder: Path) -> None:
    def code_of(*args: str) -> int:
        command = [sys.executable, "-m", "node", *args]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

    check = ("audit", "verify", str(folder / "0"), "--trust", str(folder / "genesis.json"))
    assert code_of(*check, *at(1)) == 0
    assert code_of(*check, *at(1), "--receipt", str(folder / "1.zreceipt")) == 1
    assert code_of(*check) == 7, "the chain of this test began in 2023"
    assert code_of(*check, "--max-age", "1") == 8
    assert code_of("audit", "verify", str(folder / "0"), "--trust", str(folder / "0")) == 2
    assert code_of("audit", "status", "--rpc", "http://127.0.0.1:1") == 3
    assert code_of("keys", "new", "/proc/none/key.json") == 4
