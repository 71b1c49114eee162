"""Pearson's chi-square test in the standard library, for tests of what is drawn by lot."""

from __future__ import annotations

import math
from collections.abc import Sequence

EXPECTED_MIN = 5.0
"""The approximation wants at least so many expected draws in each cell; smaller ones are pooled."""


def p_value(counts: Sequence[int], weights: Sequence[int]) -> float:
    """How likely draws in proportion to `weights` differ from them by as much as `counts` do."""
    draws, total = sum(counts), sum(weights)
    cells = sorted(
        (draws * weight / total, count) for weight, count in zip(weights, counts, strict=True)
    )
    pooled = [(0.0, 0)]
    for expected, count in cells:
        if pooled[-1][0] < EXPECTED_MIN:
            pooled[-1] = (pooled[-1][0] + expected, pooled[-1][1] + count)
        else:
            pooled.append((expected, count))
    statistic = sum((count - expected) ** 2 / expected for expected, count in pooled)
    return survival(statistic, len(pooled) - 1)


def survival(statistic: float, degrees: int) -> float:
    """P(X > statistic) for chi-square with `degrees` of freedom: the finite sums of Abramowitz and
    Stegun 26.4.4 (odd) and 26.4.5 (even)."""
    assert degrees >= 1, "one cell tells nothing"
    half = statistic / 2
    if half == 0:
        return 1.0
    is_odd = degrees % 2 == 1
    powers = [j + 0.5 if is_odd else float(j) for j in range(degrees // 2)]
    terms = (math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers)
    return (math.erfc(math.sqrt(half)) if is_odd else 0.0) + sum(terms)
