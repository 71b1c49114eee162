"""`zynk evidence submit`: what is read from a file, and what is said of each item."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from consensus.evidence import EVIDENCE_WIRE_BYTES_MAX, Evidence
from ledger.accounts import encode_account_id
from ledger.errors import InvalidInputError, UsageError
from node.cli_evidence import evidence as evidence_command
from node.cli_evidence import read_evidence, submit_all
from rpc.errors import RpcCode, RpcError
from rpc.methods_stake import EVIDENCE_BYTES_MAX
from rpc.params import bytes_of_text
from tests.unit.test_accountability import evidence

ONE, OTHER = evidence(height=5), evidence(height=6)
OPERATOR = bytes(range(32))


def fork_json(*items: Evidence) -> bytes:
    return json.dumps({"culprits": [{"evidence": item.encode().hex()} for item in items]}).encode()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (ONE.encode(), [ONE]),
        (ONE.encode().hex().encode(), [ONE]),
        (ONE.encode().hex().encode() + b"\n", [ONE]),
        (fork_json(ONE, OTHER), [ONE, OTHER]),
        (b"\n " + fork_json(ONE), [ONE]),
    ],
)
def test_a_file_holds_bytes_hex_or_the_culprits_of_a_fork(
    data: bytes, expected: list[Evidence]
) -> None:
    assert read_evidence(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"zz",
        b"\xff" * 9,
        ONE.encode()[:-1],
        b"00" * 2000,
        b"{",
        b"{}",
        b'{"culprits": []}',
        b'{"culprits": [{"evidence": 5}]}',
        b'{"culprits": 7}',
        b'{"culprits": [{"evidence": "00"}]}',
        b'{"a":' * 100_000,
        fork_json(*[ONE] * 257),
    ],
)
def test_a_malformed_file_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_evidence(data)


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    result = CliRunner().invoke(evidence_command, ["submit", str(tmp_path / "none")])
    assert isinstance(result.exception, UsageError)


def test_each_item_is_told_with_what_the_node_said() -> None:
    sent = []

    async def call(method: str, **params: object) -> dict[str, object]:
        assert method == "evidence_submit"
        sent.append(bytes_of_text(str(params["evidence"])))
        if sent[-1] == OTHER.encode():
            raise RpcError(RpcCode.EVIDENCE_REFUSED, "known", reason="evidence/not-needed")
        return {"operator": OPERATOR.hex(), "height": 5}

    rows = asyncio.run(submit_all(call, [ONE, OTHER]))
    assert sent == [ONE.encode(), OTHER.encode()]
    assert [row["status"] for row in rows] == ["kept", "evidence/not-needed: known"]
    assert [row["offender"] for row in rows] == [encode_account_id(OPERATOR), ""]


def test_any_other_error_ends_the_command() -> None:
    async def call(method: str, **params: object) -> dict[str, object]:
        raise RpcError(RpcCode.RATE_LIMITED, "slow down")

    with pytest.raises(RpcError, match="slow down"):
        asyncio.run(submit_all(call, [ONE]))


def test_the_rpc_takes_all_evidence_there_is() -> None:
    assert EVIDENCE_BYTES_MAX == EVIDENCE_WIRE_BYTES_MAX
