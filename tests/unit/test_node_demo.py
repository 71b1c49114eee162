"""The demo's last step fails if the receipt does not hold."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import InvalidInputError
from node.demo import Demo
from node.devnet import Devnet
from rpc.client import RpcClient
from rpc.params import text_of_bytes


class FalseClient(RpcClient):
    """A node that answers every question with a receipt of nothing."""

    async def call(self, method: str, **params: object) -> Any:
        return {"receipt": text_of_bytes(b"no receipt")}


def test_a_receipt_that_does_not_hold_fails_the_demo(tmp_path: Path) -> None:
    document = tmp_path / "paper.txt"
    document.write_text("anchored?")
    demo = Demo(Devnet.create(tmp_path / "net", validators=1), lambda _: None)
    with pytest.raises(InvalidInputError, match="does not hold"):
        asyncio.run(demo._verify_receipt(FalseClient("http://nowhere"), bytes(32), document))
