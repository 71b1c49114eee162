"""docs/rpc.md says what is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from rpc.errors import MEANING_BY_CODE, RpcCode
from rpc.methods import METHODS
from rpc.registry import Method
from rpc.subscriptions import SUBSCRIPTION_METHODS

TEXT = (Path(__file__).parents[2] / "docs" / "rpc.md").read_text()


@pytest.mark.parametrize("method", [*METHODS, *SUBSCRIPTION_METHODS], ids=lambda m: m.name)
def test_a_method_is_documented_with_its_parameters(method: Method) -> None:
    names = ", ".join(p.name if p.required else f"{p.name}?" for p in method.params)
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{method.name}` |"))
    assert row.split("|")[2].strip().strip("`") == names


@pytest.mark.parametrize("code", RpcCode)
def test_a_code_is_documented_with_its_reason_and_retry(code: RpcCode) -> None:
    reason, retry, _ = MEANING_BY_CODE[code]
    assert f"| {int(code)} | `{reason}` | {'yes' if retry else 'no'} |" in TEXT
