"""uvloop, chosen in one place."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a new uvloop."""
    return uvloop.run(coroutine)
