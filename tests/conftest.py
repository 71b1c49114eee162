"""The longest tests begin first, so that no worker is left alone with one at the end."""

from __future__ import annotations

import pytest

LONGEST = ("test_validator_guide", "test_fork", "test_seven", "test_crashes", "test_upgrade")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stable: the others keep their order."""

    def rank(item: pytest.Item) -> int:
        return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)

    items.sort(key=rank)
