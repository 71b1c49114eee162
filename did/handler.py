"""Executing DID operations (message type `did/op`, body = the operation's JCS bytes).

`check` refuses a body that can be right in no state: malformed, or a signature that does not
verify. `apply` judges it against state and fails the tx with one of these codes, stable and the
same on every node:

| code | meaning |
| --- | --- |
| did/malformed | the body breaks a rule of form (a body that skipped `check`) |
| did/wrong-net | made for another chain |
| did/expired | past its expHeight |
| did/exists | create of a DID that is there already |
| did/not-found | no such DID |
| did/deactivated | the DID is deactivated, and this operation can not change that |
| did/rate-block | too many operations of the DID in one block (chain parameter) |
| did/rate-day | too many operations of this authority today, or too many in dispute |
| did/bad-seq | seq is not the head's plus one |
| did/bad-prev | prev is not the head (recover: nor an operation to fork from) |
| did/not-revealed | pre-rotation: the key list is not the committed one, or is missing |
| did/not-authorised | signers are not the ones required, or too few |
| did/no-tier | no such recovery tier was in force at the fork |
| did/window-closed | the window to fork from prev was open when the head came, and is closed now |
| did/weaker-tier | an operation to be nullified has the same or more authority |

Recovery: tier i, of those in force at `prev`, may go back to any operation `prev` from which on
everything is of lower authority, until the dispute window of the one that followed it has passed
(`until_ms`, exclusive; what came later is younger). What followed `prev` is nullified: it stays in
the log, flagged, and blocks are never undone. With `prev` = head nothing is nullified: lost keys.
Daily limits count per authority, so that a thief can not use up the owner's.

The control row keeps the operations in dispute from the oldest that a tier can still nullify up to
the head: nothing older can go, and everything younger goes with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from did.control import (
    AUTHORITY_CONTROL,
    TIERS_MAX,
    Control,
    KeyList,
    authority_of_tier,
    compute_control_hash,
)
from did.operation import (
    OPERATION_BYTES_MAX,
    Operation,
    OperationType,
    decode_verified,
    is_satisfied,
)
from did.oplog import (
    LogEntry,
    append_leaf,
    compute_log_root,
    entry_key,
    hash_entry,
    node_key,
    nullified_key,
)
from did.record import (
    AUTHORITIES,
    DISPUTES_MAX,
    ControlState,
    Dispute,
    Record,
    Status,
    control_key,
    document_key,
    record_key,
)
from ledger.errors import InvalidInputError
from ledger.execution import Event, ExecutionContext, TxFailure
from ledger.params import DAY_MS, ChainParams, read_params

MESSAGE_TYPE = "did/op"
WEIGHT_BASE = 3
"""Two signatures' worth beside a transfer's one: three rows, two hashes of the log, JSON."""

_EVENT = {
    OperationType.CREATE: "did.created",
    OperationType.UPDATE: "did.updated",
    OperationType.RECOVER: "did.recovered",
    OperationType.DEACTIVATE: "did.deactivated",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What an allowed operation does: its authority, the control and tiers from now on, and the
    disputes that stay open without and that it closes by nullifying."""

    authority: int
    control: Control
    tiers: tuple[KeyList, ...]
    open: tuple[Dispute, ...]
    nullified: tuple[Dispute, ...]


class DidHandler:
    """The `TxHandler` of DID operations. Holds no state."""

    type = MESSAGE_TYPE

    def check(self, body: bytes) -> None:
        """Raise InvalidInputError for a malformed operation or a bad signature."""
        decode_verified(body)

    def weight_of(self, body: bytes) -> int:
        """Weight by the number of signatures. Raises InvalidInputError as `check` does."""
        return WEIGHT_BASE + len(decode_verified(body).signatures)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Run it. Raises TxFailure with a code of the table above."""
        if len(body) > OPERATION_BYTES_MAX:
            raise TxFailure("did/malformed", "operation is too long", got=f"{len(body)} B")
        try:
            operation = decode_verified(body)
        except InvalidInputError as error:
            raise TxFailure("did/malformed", str(error)) from error
        if operation.net != context.chain_id:
            raise TxFailure("did/wrong-net", "operation is for another chain", got=operation.net)
        if context.height > operation.exp_height:
            raise TxFailure(
                "did/expired",
                "operation has expired",
                expected=f"height <= {operation.exp_height}",
                got=str(context.height),
            )
        if operation.type is OperationType.CREATE:
            _create(context, operation)
        else:
            _change(context, operation)


def _create(context: ExecutionContext, operation: Operation) -> None:
    assert operation.control is not None
    if context.state.get(record_key(operation.did)) is not None:
        raise TxFailure("did/exists", "DID exists already", got=operation.did_text)
    judged = _Judged(
        authority=AUTHORITY_CONTROL,
        control=operation.control,
        tiers=operation.tiers,
        open=(),
        nullified=(),
    )
    _write(context, operation, judged, None, None, 1, (1, 0, 0, 0))


def _change(context: ExecutionContext, operation: Operation) -> None:
    state = context.state
    record_bytes = state.get(record_key(operation.did))
    control_bytes = state.get(control_key(operation.did))
    if record_bytes is None or control_bytes is None:
        raise TxFailure("did/not-found", "no such DID", got=operation.did_text)
    record, before = Record.decode(record_bytes), ControlState.decode(control_bytes)
    params = read_params(state)
    block_count = _count_block(before, context.height, params)
    if operation.seq != record.seq + 1:
        raise TxFailure(
            "did/bad-seq",
            "operation is out of order",
            expected=str(record.seq + 1),
            got=str(operation.seq),
        )
    if operation.type is OperationType.RECOVER:
        judged = _judge_recovery(operation, record, before, context.time_ms)
    else:
        judged = _judge_by_control(operation, record, before, context.time_ms)
    counts = _count_day(before, judged, context.time_ms, params)
    _write(context, operation, judged, record, before, block_count, counts)


def _judge_by_control(
    operation: Operation, record: Record, before: ControlState, time_ms: int
) -> _Judged:
    """An update or a deactivation, signed by the control keys or the revealed ones."""
    if record.status is Status.DEACTIVATED:
        raise TxFailure("did/deactivated", "DID is deactivated", got=operation.did_text)
    if operation.prev != record.head:
        raise TxFailure("did/bad-prev", "operation does not follow the head")
    revealed = operation.reveal if operation.control is None else operation.control.current
    if before.control.next is None:
        if operation.reveal is not None:
            raise TxFailure("did/not-revealed", "nothing was committed that could be revealed")
        required = before.control.current
    elif revealed is None or revealed.compute_commitment() != before.control.next:
        raise TxFailure("did/not-revealed", "key list is not the one committed to")
    else:
        required = revealed
    _require_signers(operation, required)
    return _Judged(
        authority=AUTHORITY_CONTROL,
        control=operation.control or before.control,
        tiers=before.tiers if operation.control is None else operation.tiers,
        open=_keep_disputed(before.disputes, time_ms),
        nullified=(),
    )


def _judge_recovery(
    operation: Operation, record: Record, before: ControlState, time_ms: int
) -> _Judged:
    assert operation.tier is not None
    assert operation.control is not None
    opened = _keep_disputed(before.disputes, time_ms)
    if operation.prev == record.head:
        if record.status is Status.DEACTIVATED:
            raise TxFailure("did/deactivated", "recover from before the deactivation")
        tiers, at = before.tiers, len(opened)
    else:
        at = next((i for i, d in enumerate(opened) if d.prev == operation.prev), -1)
        if at < 0 or opened[at].until_ms <= time_ms:
            known = any(d.prev == operation.prev for d in before.disputes)
            raise TxFailure(
                "did/window-closed" if known else "did/bad-prev",
                "there is nothing to fork from at prev",
            )
        tiers = opened[at].tiers
    if operation.tier >= len(tiers):
        raise TxFailure(
            "did/no-tier", "no such tier at the fork", expected=f"{len(tiers)} tiers at most"
        )
    authority = authority_of_tier(operation.tier)
    if any(d.authority >= authority for d in opened[at:]):
        raise TxFailure("did/weaker-tier", "tier is not stronger than what it would nullify")
    _require_signers(operation, tiers[operation.tier])
    return _Judged(
        authority=authority,
        control=operation.control,
        tiers=operation.tiers,
        open=opened[:at],
        nullified=opened[at:],
    )


def _require_signers(operation: Operation, required: KeyList) -> None:
    if not is_satisfied(required, (key for key, _ in operation.signatures)):
        raise TxFailure(
            "did/not-authorised",
            "operation is not signed by those in charge",
            expected=f"{required.threshold} of {len(required.keys)} keys",
            got=f"{len(operation.signatures)} signatures",
        )


def _count_block(before: ControlState, height: int, params: ChainParams) -> int:
    """The DID's operations in this block with this one. Raises TxFailure `did/rate-block`."""
    count = before.last_height_count + 1 if before.last_height == height else 1
    if count > params.did_ops_per_block_max:
        raise TxFailure(
            "did/rate-block",
            "too many operations of the DID in one block",
            expected=f"at most {params.did_ops_per_block_max}",
        )
    return count


def _count_day(
    before: ControlState, judged: _Judged, time_ms: int, params: ChainParams
) -> tuple[int, ...]:
    """Today's counters with this operation. Raises TxFailure `did/rate-day` past a limit.

    Half of the dispute list is kept free for recoveries, which shorten it."""
    same_day = before.day == time_ms // DAY_MS
    counts = list(before.day_counts) if same_day else [0] * AUTHORITIES
    counts[judged.authority] += 1
    disputes_max = DISPUTES_MAX // 2 if judged.authority == AUTHORITY_CONTROL else DISPUTES_MAX
    if counts[judged.authority] > params.did_ops_per_day_max or len(judged.open) >= disputes_max:
        raise TxFailure(
            "did/rate-day",
            "too many operations of the DID",
            expected=f"at most {params.did_ops_per_day_max} a day, {disputes_max} in dispute",
        )
    return tuple(counts)


def _write(
    context: ExecutionContext,
    operation: Operation,
    judged: _Judged,
    record: Record | None,
    before: ControlState | None,
    block_count: int,
    day_counts: tuple[int, ...],
) -> None:
    """Put the three state rows and the side rows, and tell."""
    params = read_params(context.state)
    did, seq = operation.did, operation.seq
    until_ms = context.time_ms + params.dispute_window_ms
    disputes = _add_dispute(operation, judged, before, until_ms, context.time_ms)
    entry = LogEntry(
        seq=seq, height=context.height, time_ms=context.time_ms, operation=operation.encoded
    ).encode()
    peaks, completed = append_leaf(() if before is None else before.peaks, seq, hash_entry(entry))
    after = Record(
        did=did,
        seq=seq,
        head=operation.hash,
        head_bytes_hash=hashlib.sha256(operation.encoded).digest(),
        doc_hash=operation.document_hash,
        control_hash=compute_control_hash(judged.control, judged.tiers),
        status=Status.ACTIVE if operation.document is not None else Status.DEACTIVATED,
        created_height=context.height if record is None else record.created_height,
        created_ms=context.time_ms if record is None else record.created_ms,
        updated_height=context.height,
        updated_ms=context.time_ms,
        log_root=compute_log_root(peaks),
        dispute_until_ms=_compute_dispute_until(disputes, context.time_ms),
    )
    control = ControlState(
        control=judged.control,
        tiers=judged.tiers,
        peaks=peaks,
        last_height=context.height,
        last_height_count=block_count,
        day=context.time_ms // DAY_MS,
        day_counts=day_counts,
        disputes=disputes,
    )
    context.state.put(record_key(did), after.encode())
    context.state.put(control_key(did), control.encode())
    if operation.document is not None:
        context.state.put(document_key(did), operation.document)
    else:
        context.state.delete(document_key(did))
    context.side_put(entry_key(did, seq), entry)
    for level, index, node in completed:
        context.side_put(node_key(did, level, index), node)
    for dispute in judged.nullified:
        context.side_put(nullified_key(did, dispute.seq), seq.to_bytes(8, "big"))
    attributes = (("did", operation.did_text), ("versionId", operation.version_id))
    context.emit(Event(_EVENT[operation.type], attributes))


def _add_dispute(
    operation: Operation, judged: _Judged, before: ControlState | None, until_ms: int, time_ms: int
) -> tuple[Dispute, ...]:
    """The disputes once `operation` is the head: with it, if a tier can nullify it."""
    if before is None or operation.prev is None:
        return ()
    dispute = Dispute(
        op_hash=operation.hash,
        prev=operation.prev,
        seq=operation.seq,
        until_ms=until_ms,
        authority=judged.authority,
        tiers=judged.nullified[0].tiers if judged.nullified else before.tiers,
    )
    return _keep_disputed((*judged.open, dispute), time_ms)


def _keep_disputed(disputes: tuple[Dispute, ...], time_ms: int) -> tuple[Dispute, ...]:
    """Those from the oldest on that can be forked from before: in its window, and with a tier."""
    for at, dispute in enumerate(disputes):
        if dispute.tiers and dispute.until_ms > time_ms:
            return disputes[at:]
    return ()


def _compute_dispute_until(disputes: tuple[Dispute, ...], time_ms: int) -> int:
    """The block time from which on no tier can nullify the last of `disputes`; 0 if none could."""
    until_ms = 0
    for dispute in reversed(disputes):
        if dispute.authority == TIERS_MAX:  # by the strongest tier, which nothing overrules
            break
        if dispute.tiers and dispute.until_ms > time_ms:
            until_ms = max(until_ms, dispute.until_ms)
    return until_ms
