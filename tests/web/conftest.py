"""One network and one browser for all tests of the page: they take 10 s to start, and only read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.web.place import Place


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place()
    made.chromium.run(made.start(tmp_path_factory.mktemp("page")))
    try:
        yield made
    finally:
        made.chromium.run(made.stop())
        made.chromium.close()
