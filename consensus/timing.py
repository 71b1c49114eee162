"""The local timing of consensus. Nothing here is hashed or agreed on: peers may differ."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All values are milliseconds of the local monotonic clock.

    view_timeout_base_ms      the first base; adapted after each height (rule 18)
    view_timeout_min_ms       floor of the base. Measured one-way delays are 10 ms (p50) and 34 ms
                              beside heavy load; 600 ms leaves room for a 2 MB block, its execution
                              and a slow fsync, so that load alone never nullifies a view, and two
                              dead leaders in a row (0.6 + 1.2 s) still stay under 2 s
    view_timeout_max_ms       ceiling of one view's timeout
    retry_ms                  first interval of sending again; doubles within a view up to 4x
    block_interval_min_ms     parent's finality to the next proposal. 20 ms is well below the three
                              message delays of a height, so it costs latency only to a tx that
                              arrives right after a block, and gathers a batch under load
    empty_interval_ms         least age of the parent before a block without a pending tx
    heartbeat_ms              an idle chain makes a block this often
    early_retry_ms            how soon a block from the future is judged again
    """

    view_timeout_base_ms: int = 1000
    view_timeout_min_ms: int = 600
    view_timeout_max_ms: int = 10_000
    retry_ms: int = 250
    block_interval_min_ms: int = 20
    empty_interval_ms: int = 1000
    heartbeat_ms: int = 10_000
    early_retry_ms: int = 50

    def __post_init__(self) -> None:
        if not (
            0 < self.retry_ms <= self.view_timeout_min_ms
            and self.view_timeout_min_ms <= self.view_timeout_base_ms <= self.view_timeout_max_ms
            and 0 <= self.block_interval_min_ms <= self.empty_interval_ms <= self.heartbeat_ms
            and self.early_retry_ms > 0
        ):
            raise UsageError(
                "timing makes no sense",
                expected="0 < retry <= min <= base <= max; block interval <= empty <= heartbeat",
                got=repr(self),
            )

    def view_timeout_ms(self, base_ms: int, view: int) -> int:
        """Timeout of `view`: doubles each view up to 64 times the base, then the ceiling."""
        return min(base_ms << min(view - 1, 6), self.view_timeout_max_ms)

    def next_base_ms(self, base_ms: int, took_ms: int) -> int:
        """The base after a height whose view took `took_ms` from timer start to finality."""
        wanted = max(3 * base_ms // 4, 3 * took_ms // 2)
        return max(self.view_timeout_min_ms, min(wanted, self.view_timeout_max_ms))
