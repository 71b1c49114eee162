"""Moving through the views of a height: waking up, timers, entering (rules 10-12, 18, 19)."""

from __future__ import annotations

from consensus.context import Context
from consensus.effects import Broadcast
from consensus.inputs import TimerId
from consensus.messages import CertificateMessage, Status
from consensus.statement import status_sign_bytes
from consensus.voting import cast
from ledger.certificate import VoteKind

RETRY_DOUBLINGS_MAX = 2


def wake(c: Context) -> None:
    """Rule 19: an idle height begins to count time when there is something to decide."""
    s = c.s
    if s.awake or s.final is not None:
        return
    s.awake = True
    c.out.cancel_timer(TimerId.HEARTBEAT)
    start_view_timer(c)
    arm_retry(c)


def start_view_timer(c: Context) -> None:
    """Rules 12 and 18: in view 1 the timer starts after the minimum block interval."""
    s = c.s
    start_ms = c.now_ms
    if s.view == 1:
        start_ms = max(start_ms, s.started_ms + c.timing.block_interval_min_ms)
    s.view_started_ms[s.view] = start_ms
    timeout_ms = c.timing.view_timeout_ms(c.base_ms, s.view)
    c.out.set_timer(TimerId.VIEW, c.now_ms, start_ms - c.now_ms + timeout_ms)


def arm_retry(c: Context) -> None:
    """Rule 16. The interval doubles within a view, so that a long outage stays cheap."""
    delay_ms = c.timing.retry_ms << min(c.s.retries, RETRY_DOUBLINGS_MAX)
    c.out.set_timer(TimerId.RETRY, c.now_ms, delay_ms)


def change_view(c: Context) -> bool:
    """Rules 10 and 11: enter the highest view that the certificates allow. True if moved."""
    s = c.s
    target = max(s.book.highest_nullified + 1, s.book.highest_notarized, s.proposed_view, s.view)
    if (
        target == s.view
        and s.view in s.book.notarized
        and c.rules.may_leave_notarized_view(
            expired=s.expired, later_view_seen=s.later_view_seen > s.view
        )
    ):
        target += 1
    if target == s.view:
        return False
    enter(c, target)
    return True


def enter(c: Context, view: int) -> None:
    """Rule 12."""
    s = c.s
    s.view = view
    s.awake = True
    s.expired = view in s.own.nullified
    s.building_view = None
    s.retries = 0
    c.out.cancel_timer(TimerId.HEARTBEAT)
    c.out.cancel_timer(TimerId.PROPOSE)
    start_view_timer(c)
    arm_retry(c)
    entry = s.book.entry_to(view)
    if entry is not None:
        c.out.emit(Broadcast(message=CertificateMessage(certificate=entry)))
    c.out.emit(Broadcast(message=status(c)))


def status(c: Context) -> Status:
    """Rule 5; signed by a validator, so that its view counts for rule 11."""
    s = c.s
    need = s.book.needed(s.view)
    if c.key is None or c.sign is None or c.key not in s.validators.index_by_key:
        return Status(height=s.height, view=s.view, need=need)
    signature = c.sign(status_sign_bytes(c.chain_id, s.height, s.view))
    return Status(height=s.height, view=s.view, need=need, signer=c.key, signature=signature)


def on_view_timer(c: Context) -> None:
    """Rule 14, timer expiry: `change_view` leaves a notarized view; else nullify."""
    s = c.s
    s.expired = True
    is_notarized = s.view in s.book.notarized
    if c.may_sign(s.view) and c.rules.may_nullify(s.own, s.view, is_notarized=is_notarized):
        cast(c, VoteKind.NULLIFY, s.view, b"")
