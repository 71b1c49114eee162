"""Named counters of one process; names are the metric labels the node exports."""

from __future__ import annotations


class Counters:
    """Monotonic counts by name. Names come from our code, never from a peer: bounded."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        values = self.values
        values[name] = values.get(name, 0) + amount
