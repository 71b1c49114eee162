"""Lists that the command line reads page by page."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from node.cli_stake import ask_pages
from rpc.client import RpcClient


class PagedClient:
    """Answers with the given cursor after each."""

    def __init__(self, next_by_cursor: dict[int, int | None]) -> None:
        self._next_by_cursor = next_by_cursor

    async def call(self, method: str, *, cursor: int, limit: int) -> dict[str, Any]:
        return {"items": [cursor], "next_cursor": self._next_by_cursor[cursor], "height": 7}


@pytest.mark.parametrize(
    ("next_by_cursor", "expected"),
    [
        ({0: None}, [0]),
        ({0: 2, 2: 4, 4: None}, [0, 2, 4]),
        ({0: 30, 30: 20, 20: 10, 10: None}, [0, 30, 20, 10]),
        ({0: 5, 5: 5}, [0, 5]),
        ({0: 5, 5: 0}, [0, 5]),
    ],
    ids=["one page", "rising", "newest first", "stuck", "in a circle"],
)
def test_pages_are_read_to_their_end_whichever_way_the_cursor_goes(
    next_by_cursor: dict[int, int | None], expected: list[int]
) -> None:
    client = cast(RpcClient, PagedClient(next_by_cursor))
    answer = asyncio.run(ask_pages(client, "gov_proposals", "items"))
    assert answer["items"] == expected
