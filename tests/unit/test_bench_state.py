"""The state tree's benchmark measures what README quotes, at both sizes, unless told otherwise."""

from __future__ import annotations

from bench.state import parse_options


def test_both_sizes_are_measured_by_default() -> None:
    assert parse_options([]).keys == [100_000, 1_000_000]
    assert parse_options(["--json"]).keys == [100_000, 1_000_000]
    assert parse_options(["--keys", "50", "70"]).keys == [50, 70]
