"""All operations in order: pages, cursors, and what they leave out: failures."""

from __future__ import annotations

import asyncio
import json

import pytest

from did import strict_json
from did.build import create_operation, update_operation
from did.export import EXPORT_MAX, find_entries, parse_cursor
from did.handler import DidHandler
from did.operation import decode_operation
from ledger.chain import Chain
from ledger.errors import DurabilityError, InvalidInputError
from ledger.execution import TxHandler
from ledger.fees import sign_tx
from ledger.store import Batch, MemoryStore
from ledger.tx import Message, Tx
from node.api_did import export_json, operations_json
from tests.unit.chain_fixture import (
    CHAIN_ID,
    FAUCET,
    GENESIS,
    PARAMS,
    LeafListLog,
    advance,
    handlers,
)
from tests.vectors.did_world import control, document, key


class Exported:
    """A chain with operations in some of its blocks, and the list of them as they were made."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        did_handler: dict[str, TxHandler] = {DidHandler.type: DidHandler()}
        self.chain = Chain.open(self.store, GENESIS, {**handlers(), **did_handler}, LeafListLog())
        self.nonce = 0
        creates = [self._create(str(n)) for n in range(7)]
        self.run([creates[0]])
        self.run([])
        self.run(creates[1:4], creates[4:6])
        self.run([self._update(creates[0])], [creates[0]])  # the second exists and fails
        self.run([])
        self.run([creates[6]])
        self.expected = [*creates[:6], self._update(creates[0]), creates[6]]

    def run(self, *txs: list[bytes]) -> None:
        """One block."""
        advance(self.chain, [self._tx(bodies) for bodies in txs if bodies])

    def _tx(self, bodies: list[bytes]) -> Tx:
        self.nonce += 1
        return sign_tx(
            FAUCET,
            chain_id=CHAIN_ID,
            nonce=self.nonce - 1,
            valid_until=1000,
            messages=[Message(DidHandler.type, body) for body in bodies],
            params=PARAMS,
        )

    def _create(self, name: str) -> bytes:
        return create_operation(
            net=CHAIN_ID, exp_height=1000, document=document(name), control=control("a"),
            signers=[key("a")],
        )  # fmt: skip

    def _update(self, create: bytes) -> bytes:
        operation = decode_operation(create)
        return update_operation(
            net=CHAIN_ID, exp_height=1000, did=operation.did_text, prev=operation.hash, seq=1,
            document=document("next"), control=control("b"), signers=[key("a")],
        )  # fmt: skip

    def page(self, after: str | None, limit: int) -> tuple[list[dict[str, object]], object]:
        answer = asyncio.run(export_json(self.chain, self.store, after, limit))
        plain = json.loads(json.dumps(answer))
        return plain["operations"], plain["nextCursor"]


@pytest.fixture(scope="module")
def exported() -> Exported:
    return Exported()


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 9, EXPORT_MAX])
def test_pages_hold_every_operation_once_in_the_order_of_execution(
    exported: Exported, limit: int
) -> None:
    lines: list[dict[str, object]] = []
    after: str | None = None
    while True:
        page, following = exported.page(after, limit)
        assert len(page) <= limit
        lines += page
        if following is None:
            break
        assert following == page[-1]["cursor"]
        after = str(following)
    assert [strict_json.encode(line["operation"]) for line in lines] == exported.expected
    for line, body in zip(lines, exported.expected, strict=True):
        operation = decode_operation(body)
        assert (line["did"], line["seq"]) == (operation.did_text, operation.seq)
        assert line["versionId"] == operation.version_id
    assert [line["cursor"] for line in lines] == [
        "1-0", "3-0", "3-1", "3-2", "3-3", "3-4", "4-0", "6-0",
    ]  # fmt: skip
    assert [line["height"] for line in lines] == [1, 3, 3, 3, 3, 3, 4, 6]


def test_page_after_the_last_line_is_empty_and_any_cursor_is_a_place(exported: Exported) -> None:
    assert exported.page("6-0", 10) == ([], None)
    assert exported.page("99-0", 10) == ([], None)
    page, _ = exported.page("2-5", 1)
    assert page[0]["cursor"] == "3-0"
    page, _ = exported.page("3-9", 1)
    assert page[0]["cursor"] == "4-0"


def test_operations_of_one_height(exported: Exported) -> None:
    counts = [
        len(operations_json(exported.chain, exported.store, height)) for height in range(1, 7)
    ]
    assert counts == [1, 0, 5, 1, 0, 1]


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "01-0", "1-01", "1-0 ", "1-0-0", "٣-0"])
def test_malformed_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_cursor(text)


def test_other_side_rows_do_not_count() -> None:
    keys = [b"d/nx", b"d/oa", b"d/xx", b"d/ob"]
    assert list(find_entries(1, keys)) == [((1, 0), b"d/oa"), ((1, 1), b"d/ob")]
    assert list(find_entries(1, keys, (1, 0))) == [((1, 1), b"d/ob")]


def test_missing_row_is_the_stores_fault_and_not_the_callers() -> None:
    world = Exported()
    (_, keys), *_ = world.chain.side_keys(1)
    batch = Batch()
    batch.delete(keys[0])
    world.store.write(batch, sync=True)
    with pytest.raises(DurabilityError):
        world.page(None, 1)
