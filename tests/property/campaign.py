"""How many cases a property test tries: few by default, all with ZYNK_SOAK=1 (./dev soak)."""

from __future__ import annotations

import os

SOAK_CASES_MIN = 10_000


def is_soak() -> bool:
    return os.environ.get("ZYNK_SOAK") == "1"


def examples(default: int, soak: int = SOAK_CASES_MIN) -> int:
    """`default` cases, or `soak` in a soak run."""
    return soak if is_soak() else default
