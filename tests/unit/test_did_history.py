"""Pages of one DID's operations: made in slices, and of the moment at which they were asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from did import resolver
from did.build import create_operation, update_operation
from did.document import DOCUMENT_BYTES_MAX
from did.operation import decode_operation
from did.record import Record, record_key
from did.syntax import decode_did
from did.verify_history import verify_history_operation
from ledger.errors import InvalidInputError
from node.api_did import HISTORY_SLICE_BYTES, history_json
from tests.unit.test_did_version import History
from tests.vectors.did_world import EXP, NET, World, control, document, key

LARGE_COUNT = 60
LINE_BYTES_MAX = 2 * DOCUMENT_BYTES_MAX


def _make_large() -> tuple[World, str]:
    """A DID with many operations whose documents are nearly as large as they may be."""
    world = World()
    body = document()
    body["service"] = [
        {"id": f"#s{n}", "type": "Files", "serviceEndpoint": "https://x.example/" + "a" * 400}
        for n in range(15)
    ]
    create = create_operation(
        net=NET, exp_height=EXP, document=body, control=control("a"), signers=[key("a")]
    )
    assert len(create) > DOCUMENT_BYTES_MAX * 4 // 5
    assert world.run(create) == "ok"
    head = decode_operation(create)
    did = head.did_text
    for seq in range(1, LARGE_COUNT):
        update = update_operation(
            net=NET, exp_height=EXP, did=did, prev=head.hash, seq=seq, document=body,
            control=control("a"), signers=[key("a")],
        )  # fmt: skip
        assert world.run(update) == "ok"
        head = decode_operation(update)
    return world, did


@pytest.mark.slow
def test_a_page_of_large_operations_lets_others_run_in_between() -> None:
    world, did = _make_large()
    turns = 0

    async def ask() -> dict[str, Any]:
        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count_turns())
        page = await history_json(world.view(), did, 0, LARGE_COUNT)
        counting.cancel()
        return page

    page = asyncio.run(ask())
    shown_bytes = sum(len(item["entry"]) for item in page["operations"])
    assert turns >= shown_bytes // (HISTORY_SLICE_BYTES + LINE_BYTES_MAX) >= 3
    assert page == resolver.history(world.view(), did, 0, LARGE_COUNT)


def test_every_line_says_what_its_operation_does() -> None:
    past = History()
    past.create()
    past.update()
    past.recover(1)
    past.deactivate()
    view = past.world.view()
    page = asyncio.run(history_json(view, past.did, 0, 10))
    kinds = [(item["type"], item["nullifiedBy"]) for item in page["operations"]]
    assert kinds == [("create", None), ("update", 2), ("recover", None), ("deactivate", None)]
    assert [item["versionId"] for item in page["operations"]] == past.versions
    row = view.get(record_key(decode_did(past.did)))
    assert row is not None
    for item in page["operations"]:
        verify_history_operation(item, Record.decode(row))


def test_a_page_is_of_the_block_in_which_it_was_begun() -> None:
    past = History()
    past.create()
    past.update()
    page, items = resolver.begin_history(past.world.view(), past.did, 0, 10)
    expected = resolver.history(past.world.view(), past.did, 0, 10)
    first = next(items)
    past.recover(1)  # nullifies the update
    page["operations"] += [first, *items]
    assert page == expected
    later = resolver.history(past.world.view(), past.did, 0, 10)
    assert [item["nullifiedBy"] for item in later["operations"]] == [None, 2, None]


@pytest.mark.parametrize(("cursor", "limit"), [(-1, 1), (0, 0), (0, 101)])
def test_a_page_out_of_bounds_is_refused(cursor: int, limit: int) -> None:
    past = History()
    past.create()
    with pytest.raises(InvalidInputError):
        asyncio.run(history_json(past.world.view(), past.did, cursor, limit))
