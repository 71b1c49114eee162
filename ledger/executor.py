"""Executing a block's txs on the state tree.

Rules (docs/protocol.md, "Execution"):
- A tx is admissible if it is of this chain, its types are known, its handlers' `check` accepts each
  body, it fits the limits, pays at least the least fee, is valid at this height, carries exactly
  the payer's nonce and a fee that the payer can pay. An inadmissible tx makes a block invalid.
- An admissible tx pays its fee and uses its nonce. Its messages then run in order on a journal. A
  `TxFailure` drops every write, log entry, side row and event of the tx; fee and nonce stay, and
  the result carries the code.
- Fees of the block are added to the fee pool once, after the last tx; audit entries go into the
  frontier once, in tx order.
- Block modules begin before the first tx and end after the fees are in the pool. Before they end,
  the validator sets move up by a height (`ledger.validator_rows`). What the modules emit is the
  block's own result, the last leaf of the results tree; without events there is none.

Signatures are checked elsewhere, once per tx. Whoever builds leaves inadmissible txs out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgpack

from ledger import codec
from ledger.accounts import FEES_KEY, account_key, parse_account_row
from ledger.errors import DurabilityError, InvalidInputError, UsageError
from ledger.execution import (
    AuditLog,
    BlockFacts,
    BlockModule,
    Event,
    HandlerError,
    StateView,
    TxFailure,
    TxHandler,
)
from ledger.genesis_state import AUDIT_FRONTIER_KEY
from ledger.merkle import compute_leaf_hash, compute_root
from ledger.params import ChainParams
from ledger.state import Overlay, StateTree
from ledger.tx import TX_BYTES_MAX, Tx
from ledger.tx_result import BLOCK_RESULT_ID, CODE_MAX, EVENTS_MAX, RESULT_MESSAGE_MAX, TxResult
from ledger.validator_rows import move_up_validator_sets

CHECKED_MAX = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What executing a block gives; nothing is written yet.

    `included` are the txs executed (when building, those left out are missing), `results` theirs;
    `block_result` holds the block modules' events, if there are any.
    `next_nonces` and `balances`: after the block, for each payer in it.
    """

    overlay: Overlay
    results: tuple[TxResult, ...]
    block_result: TxResult | None
    included: tuple[Tx, ...]
    side_rows: dict[bytes, bytes]
    log_entries: list[bytes]
    audit_size: int
    audit_root: bytes
    results_root: bytes
    weight: int
    next_nonces: dict[bytes, int]
    balances: dict[bytes, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlace:
    """Where a block stands: its height and time (Unix milliseconds), and its parent's."""

    height: int
    time_ms: int
    parent_time_ms: int
    parent_hash: bytes


class Executor:
    """The handlers of a chain, and the loop that runs them. Holds no chain state: the only thing
    it remembers is which tx ids passed `check`, which is a pure function of the tx."""

    def __init__(
        self,
        chain_id: str,
        handlers: Mapping[str, TxHandler],
        audit_log: AuditLog,
        modules: Sequence[BlockModule] = (),
    ) -> None:
        for name, handler in handlers.items():
            if name != handler.type:
                raise UsageError("handler under a wrong name", expected=handler.type, got=name)
        self.chain_id = chain_id
        self.handlers = dict(handlers)
        self.modules = tuple(modules)
        self._audit_log = audit_log
        self._weights: dict[bytes, int] = {}

    def check(self, tx: Tx, params: ChainParams) -> None:
        """Stateless admission. Raises InvalidInputError naming the first rule that is broken."""
        self._check(tx, params)

    def _check(self, tx: Tx, params: ChainParams) -> int:
        """`check`; returns the weight. Bodies are checked once per tx id."""
        size = len(tx.encoded)
        if tx.fee < params.fee_base + params.fee_per_byte * size:
            raise InvalidInputError(
                "tx fee is too low",
                expected=f"at least {params.compute_fee_min(size)} uzynk",
                got=f"{tx.fee} uzynk",
            )
        weight = self._weights.get(tx.id)
        if weight is None:
            weight = self._check_messages(tx)
            if len(self._weights) >= CHECKED_MAX:
                self._weights.clear()
            self._weights[tx.id] = weight
        if weight > params.block_weight_max or size > params.block_bytes_max:
            raise InvalidInputError(
                "tx is larger than a block may be",
                expected=f"weight <= {params.block_weight_max}, {params.block_bytes_max} B",
                got=f"weight {weight}, {size} B",
            )
        return weight

    def _check_messages(self, tx: Tx) -> int:
        if tx.chain_id != self.chain_id:
            raise InvalidInputError(
                "tx is of another chain", expected=self.chain_id, got=tx.chain_id
            )
        if len(tx.encoded) > TX_BYTES_MAX:
            raise InvalidInputError("tx is too long", expected=f"at most {TX_BYTES_MAX} B")
        weight = 0
        for message in tx.messages:
            handler = self.handlers.get(message.type)
            if handler is None:
                raise InvalidInputError(
                    "message type is unknown",
                    expected=" | ".join(sorted(self.handlers)),
                    got=message.type,
                )
            handler.check(message.body)
            weight += handler.weight_of(message.body)
        return weight

    def execute(
        self,
        tree: StateTree,
        parent: Overlay | None,
        *,
        place: BlockPlace,
        facts: BlockFacts,
        txs: Sequence[Tx],
        params: ChainParams,
        skip_inadmissible: bool,
    ) -> Execution:
        """Run a block with `txs` in order after `parent` (None: after the tip of `tree`), changing
        neither.

        With `skip_inadmissible` (building) txs that can not be in the block are left out; without
        it (judging) the first one raises InvalidInputError, as do facts that a module refuses.
        """
        source = tree if parent is None else parent
        frontier = source.get(AUDIT_FRONTIER_KEY) or b""
        audit_size, audit_root = self._audit_log.size_and_root(frontier)
        run = _BlockRun(self.chain_id, place, facts, params, source, audit_size)
        for module in self.modules:
            module.begin(run)
        block_events = list(run.keep())
        limits = _BlockLimits(params)
        results, included = self._run_txs(run, limits, txs, params, skip_inadmissible)
        run.pay_fees_to_pool()
        move_up_validator_sets(run)
        for module in self.modules:
            module.end(run)
        block_events += run.keep()
        block_result = _block_result(block_events)
        if run.log_entries:
            frontier = self._audit_log.append(frontier, run.log_entries)
            run.rows[AUDIT_FRONTIER_KEY] = frontier
            audit_size, audit_root = self._audit_log.size_and_root(frontier)
        next_nonces, balances = run.payers_after()
        leaves = results if block_result is None else [*results, block_result]
        return Execution(
            overlay=tree.compute(run.rows, parent),
            results=tuple(results),
            block_result=block_result,
            included=tuple(included),
            side_rows=run.side_rows,
            log_entries=run.log_entries,
            audit_size=audit_size,
            audit_root=audit_root,
            results_root=compute_root([compute_leaf_hash(r.leaf_bytes()) for r in leaves]),
            weight=limits.weight,
            next_nonces=next_nonces,
            balances=balances,
        )

    def _run_txs(
        self,
        run: _BlockRun,
        limits: _BlockLimits,
        txs: Sequence[Tx],
        params: ChainParams,
        skip_inadmissible: bool,
    ) -> tuple[list[TxResult], list[Tx]]:
        results: list[TxResult] = []
        included: list[Tx] = []
        for tx in txs:
            try:
                weight = self._check(tx, params)
                _check_height(tx, run.height, params)
                limits.check(len(tx.encoded), weight)
                run.take_fee(tx)
            except InvalidInputError:
                if skip_inadmissible:
                    continue
                raise
            limits.take(len(tx.encoded), weight)
            results.append(self._run_messages(run, tx, weight))
            included.append(tx)
        return results, included

    def _run_messages(self, run: _BlockRun, tx: Tx, weight: int) -> TxResult:
        handlers = self.handlers
        run.begin(tx)
        try:
            for message in tx.messages:
                handlers[message.type].apply(run, message.body)
        except TxFailure as failure:
            run.drop()
            return TxResult(
                tx.id,
                failure.code[:CODE_MAX] or "unknown",
                str(failure)[:RESULT_MESSAGE_MAX],
                tx.fee,
                weight,
                (),
            )
        except DurabilityError:
            raise  # a store that can not be read is no bug of the handler
        except Exception as error:
            raise HandlerError(tx.id, message.type, error) from error
        return TxResult(tx.id, "", "", tx.fee, weight, run.keep())


def _block_result(events: Sequence[Event]) -> TxResult | None:
    if not events:
        return None
    return TxResult(BLOCK_RESULT_ID, "", "", 0, 0, tuple(events))


def _check_height(tx: Tx, height: int, params: ChainParams) -> None:
    if not height <= tx.valid_until <= height + params.tx_valid_blocks_max:
        raise InvalidInputError(
            "tx is not valid at this height",
            expected=f"valid_until in {height}..{height + params.tx_valid_blocks_max}",
            got=str(tx.valid_until),
        )


class _BlockLimits:
    """Counts a block's txs, bytes and weight against the parameters."""

    __slots__ = ("_params", "bytes", "count", "weight")

    def __init__(self, params: ChainParams) -> None:
        self._params = params
        self.count = 0
        self.bytes = 0
        self.weight = 0

    def check(self, size: int, weight: int) -> None:
        params = self._params
        if (
            self.count >= params.block_txs_max
            or self.bytes + size > params.block_bytes_max
            or self.weight + weight > params.block_weight_max
        ):
            raise InvalidInputError(
                "block is over its limits",
                expected=f"<= {params.block_txs_max} txs, {params.block_bytes_max} B, "
                f"weight {params.block_weight_max}",
            )

    def take(self, size: int, weight: int) -> None:
        self.count += 1
        self.bytes += size
        self.weight += weight


class _BlockRun:
    """The journal of one block: the `BlockContext` of its modules, the `ExecutionContext` of each
    of its txs in turn, and their `StateView`. Block rows lie over the source, the rows of the
    running tx (or module) over the block's."""

    def __init__(
        self,
        chain_id: str,
        place: BlockPlace,
        facts: BlockFacts,
        params: ChainParams,
        source: StateTree | Overlay,
        audit_size: int,
    ) -> None:
        self.chain_id = chain_id
        self.height = place.height
        self.time_ms = place.time_ms
        self.parent_time_ms = place.parent_time_ms
        self.parent_hash = place.parent_hash
        self.params = params
        self.facts = facts
        self.payer = b""
        self.tx_id = b""
        self.rows: dict[bytes, bytes | None] = {}
        self.side_rows: dict[bytes, bytes] = {}
        self.log_entries: list[bytes] = []
        self.state: StateView = self
        self._read = source.get
        self._audit_size = audit_size
        self._fees = 0
        self._payers: dict[bytes, bytes] = {}
        self._tx_rows: dict[bytes, bytes | None] = {}
        self._tx_side_rows: dict[bytes, bytes] = {}
        self._tx_log_entries: list[bytes] = []
        self._tx_events: list[Event] = []

    # --- StateView ---

    def get(self, key: bytes) -> bytes | None:
        if key in self._tx_rows:
            return self._tx_rows[key]
        if key in self.rows:
            return self.rows[key]
        return self._read(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._tx_rows[key] = value

    def delete(self, key: bytes) -> None:
        self._tx_rows[key] = None

    # --- the rest of ExecutionContext ---

    def side_put(self, key: bytes, value: bytes) -> None:
        self._tx_side_rows[key] = value

    def log_append(self, entry: bytes) -> int:
        self._tx_log_entries.append(entry)
        return self._audit_size + len(self.log_entries) + len(self._tx_log_entries) - 1

    def emit(self, event: Event) -> None:
        if len(self._tx_events) >= EVENTS_MAX:
            raise TxFailure("tx/too-many-events", "the tx does too much", expected=f"{EVENTS_MAX}")
        self._tx_events.append(event)

    # --- the loop's side ---

    def take_fee(self, tx: Tx) -> None:
        """Check nonce and balance, then take both. Raises InvalidInputError, nothing changed."""
        key = self._payers.get(tx.payer) or account_key(tx.payer)
        row = self.rows[key] if key in self.rows else self._read(key)
        balance, nonce = (0, 0) if row is None else parse_account_row(row)
        if tx.nonce != nonce:
            raise InvalidInputError("tx nonce is wrong", expected=str(nonce), got=str(tx.nonce))
        if balance < tx.fee:
            raise InvalidInputError(
                "payer can not pay the fee",
                expected=f"at least {tx.fee} uzynk",
                got=f"{balance} uzynk",
            )
        if nonce == codec.U64_MAX:
            raise InvalidInputError("account has used its last nonce")
        self.rows[key] = codec.encode([balance - tx.fee, nonce + 1])
        self._fees += tx.fee
        self._payers[tx.payer] = key

    def begin(self, tx: Tx) -> None:
        self.payer = tx.payer
        self.tx_id = tx.id

    def drop(self) -> None:
        """The tx failed: forget what its messages did."""
        self._tx_rows.clear()
        self._tx_side_rows.clear()
        self._tx_log_entries.clear()
        self._tx_events.clear()

    def keep(self) -> tuple[Event, ...]:
        """The tx succeeded: its writes become the block's. Returns its events."""
        events = tuple(self._tx_events)
        self.rows.update(self._tx_rows)
        self.side_rows.update(self._tx_side_rows)
        self.log_entries.extend(self._tx_log_entries)
        self.drop()
        return events

    def pay_fees_to_pool(self) -> None:
        if not self._fees:
            return
        row = self.get(FEES_KEY)
        pool = 0 if row is None else msgpack.unpackb(row)
        assert pool + self._fees <= codec.U64_MAX, "the supply fits u64, so its parts do"
        self.rows[FEES_KEY] = codec.encode(pool + self._fees)

    def payers_after(self) -> tuple[dict[bytes, int], dict[bytes, int]]:
        """(next nonce, balance) by payer."""
        nonces: dict[bytes, int] = {}
        balances: dict[bytes, int] = {}
        for payer, key in self._payers.items():
            row = self.rows[key]
            assert row is not None, "an account's row is never deleted"
            balances[payer], nonces[payer] = parse_account_row(row)
        return nonces, balances
