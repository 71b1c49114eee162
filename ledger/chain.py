"""The chain: final blocks, the state after the last of them, and candidates for the next.

- `build` and `judge` execute a candidate beside the tip and cache the result by block hash; a node
  executes each block once. Neither changes the chain.
- `commit` writes one synced batch: block, certificate, results, state, side rows, indexes, log
  tiles, height. Only then does RAM follow. After a DurabilityError the chain refuses further
  writes; opening the store again finds the last height that was synced.
- Signatures of txs are the caller's duty; everything else that makes a block valid is checked
  here, except who leads a view (consensus).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ledger import block_rows
from ledger.block import PROTOCOL_VERSIONS, Block, Header, compute_body_hash
from ledger.certificate import Certificate, SignatureCheck, VoteKind, verify_certificate
from ledger.chain_reader import ChainReader
from ledger.ed25519 import is_valid_signature
from ledger.errors import InvalidInputError, UsageError
from ledger.execution import AuditLog, BlockFacts, BlockModule, Event, TxHandler
from ledger.executor import BlockPlace, Execution, Executor
from ledger.genesis_state import AUDIT_FRONTIER_KEY, GenesisState
from ledger.state import StateTree
from ledger.state.top import choose_levels
from ledger.store import Batch, Store
from ledger.tx import Tx
from ledger.tx_result import TxResult
from ledger.upgrade import UpgradeNeeded
from ledger.validator_rows import SET_BY_HASH, add_validator_rows

CANDIDATES_MAX = 16
RESULTS_KEPT = 8  # heights whose results stay decoded: clients ask for them at once

CommitRows = Callable[[Store, int, list[bytes]], Iterable[tuple[bytes, bytes]]]
"""(store, log size before, new entries) -> rows to write with the height (audit tiles)."""


class BlockTooEarly(InvalidInputError):
    """A fresh block's time is too far ahead of the local clock: hold it, don't drop it."""

    def __init__(self, time_ms: int, latest_ms: int) -> None:
        super().__init__(
            "block is too early", expected=f"time <= {latest_ms}", got=str(time_ms), retry=True
        )
        self.wait_ms = time_ms - latest_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What a height brought. `next_nonces` and `balances` are those of the payers in the block
    (for the mempool); `audit_size_before` is the log's size before `log_entries`; `events` are the
    block's own."""

    height: int
    block_hash: bytes
    time_ms: int
    tx_ids: tuple[bytes, ...]
    results: tuple[TxResult, ...]
    events: tuple[Event, ...]
    audit_size_before: int
    log_entries: list[bytes] = field(repr=False)
    side_rows: dict[bytes, bytes] = field(repr=False)
    next_nonces: dict[bytes, int] = field(repr=False)
    balances: dict[bytes, int] = field(repr=False)


class Chain(ChainReader):
    """See the module docstring. Build with `open`."""

    def __init__(
        self,
        store: Store,
        genesis: GenesisState,
        tree: StateTree,
        executor: Executor,
        audit_log: AuditLog,
        commit_rows: CommitRows | None,
        protocol_versions: Collection[int],
    ) -> None:
        super().__init__(store, genesis, tree)
        self.protocol_versions = frozenset(protocol_versions)
        self.executor = executor
        self._audit_log = audit_log
        self._commit_rows = commit_rows
        self._candidates: dict[bytes, Execution] = {}
        self.signature_check: SignatureCheck = is_valid_signature
        """Checks the signatures of a parent certificate; a node puts its cache here."""

    @classmethod
    def open(
        cls,
        store: Store,
        genesis: GenesisState,
        handlers: Mapping[str, TxHandler],
        audit_log: AuditLog,
        commit_rows: CommitRows | None = None,
        modules: Sequence[BlockModule] = (),
        protocol_versions: Collection[int] = PROTOCOL_VERSIONS,
    ) -> Chain:
        """Start an empty store at height 0 in one synced batch, or load what it holds.
        `protocol_versions` are those that `handlers` and `modules` can execute.

        Raises InvalidInputError for a store of another genesis, DurabilityError.
        """
        found = store.get(block_rows.META_GENESIS)
        if found is not None and found != genesis.genesis_hash:
            raise InvalidInputError(
                "the store belongs to another chain; use its genesis file or another folder",
                expected=f"genesis hash {genesis.genesis_hash.hex()}",
                got=found.hex(),
            )
        if found is None:
            _write_genesis(store, genesis)
        tree = StateTree.open(store)
        executor = Executor(genesis.chain_id, handlers, audit_log, modules)
        return cls(store, genesis, tree, executor, audit_log, commit_rows, protocol_versions)

    # --- protocol versions ---

    @property
    def next_protocol_version(self) -> int:
        """What the header of height + 1 carries."""
        return self.upgrades.at(self.height + 1).version

    def upgrade_needed(self) -> UpgradeNeeded | None:
        """Why this software can not go past the tip; None if it can."""
        upgrade = self.upgrades.at(self.height + 1)
        if upgrade.version in self.protocol_versions:
            return None
        return UpgradeNeeded(self.height + 1, upgrade, self.protocol_versions)

    def _require_known_version(self) -> None:
        """Raises UpgradeNeeded."""
        needed = self.upgrade_needed()
        if needed is not None:
            raise needed

    # --- candidates ---

    def build(
        self,
        *,
        view: int,
        time_ms: int,
        facts: BlockFacts,
        candidates: Sequence[Tx],
    ) -> Block:
        """A block for height + 1 of those `candidates` that are admissible, in order, within the
        limits. Its time is `time_ms`, or 1 ms after the parent's if that is later.

        Raises InvalidInputError if a block module refuses `facts`, UpgradeNeeded.
        """
        self._require_known_version()
        time_ms = max(time_ms, self.head_time_ms + 1)
        execution = self._execute(time_ms, facts, candidates, skip_inadmissible=True)
        included = execution.included
        header = Header(
            protocol_version=self.next_protocol_version,
            chain_id=self.chain_id,
            height=self.height + 1,
            time_ms=time_ms,
            parent_hash=self.head_hash,
            origin_view=view,
            proposer=facts.proposer,
            vrf_proof=facts.vrf_proof,
            body_hash=compute_body_hash(
                [tx.id for tx in included],
                facts.parent_certificate,
                facts.late_votes,
                facts.evidence,
            ),
            state_root=execution.overlay.root,
            audit_size=execution.audit_size,
            audit_root=execution.audit_root,
            results_root=execution.results_root,
            validators_hash=self.validators.hash,
            next_validators_hash=self.next_validators.hash,
        )
        self._remember(header.hash, execution)
        return Block(
            header,
            tuple(tx.encoded for tx in included),
            facts.parent_certificate,
            facts.late_votes,
            facts.evidence,
        )

    def plain_facts(self, proposer: bytes) -> BlockFacts:
        """Those of a block that says nothing but its txs, with the certificate held here."""
        return BlockFacts(proposer=proposer, parent_certificate=self.head_certificate)

    def _execute(
        self, time_ms: int, facts: BlockFacts, txs: Sequence[Tx], *, skip_inadmissible: bool
    ) -> Execution:
        return self.executor.execute(
            self.tree,
            None,
            place=BlockPlace(
                height=self.height + 1,
                time_ms=time_ms,
                parent_time_ms=self.head_time_ms,
                parent_hash=self.head_hash,
            ),
            facts=facts,
            txs=txs,
            params=self.params,
            skip_inadmissible=skip_inadmissible,
        )

    def judge(self, block: Block, txs: Sequence[Tx], *, now_ms: int | None) -> None:
        """Raise InvalidInputError unless `block` is valid for height + 1.

        `txs` are the block's, decoded, signatures verified by the caller. `now_ms` None: a
        re-proposal, for which the time window does not count. Raises BlockTooEarly, and then the
        same block may be judged again later. Raises UpgradeNeeded, and then no block can be judged.
        """
        self._require_known_version()
        self._check_header(block.header)
        self._check_body(block, txs)
        if now_ms is not None and block.header.time_ms > now_ms + self.params.time_ahead_max_ms:
            raise BlockTooEarly(block.header.time_ms, now_ms + self.params.time_ahead_max_ms)
        if block.hash not in self._candidates:
            self._check_parent_certificate(block.parent_certificate)
            self._remember(block.hash, self._execute_and_compare(block, txs))

    def _check_header(self, header: Header) -> None:
        for what, expected, got in (
            ("protocol version", self.next_protocol_version, header.protocol_version),
            ("chain id", self.chain_id, header.chain_id),
            ("height", self.height + 1, header.height),
            ("parent", self.head_hash, header.parent_hash),
            ("validators hash", self.validators.hash, header.validators_hash),
            ("next validators hash", self.next_validators.hash, header.next_validators_hash),
        ):
            if expected != got:
                raise InvalidInputError(
                    f"block has a wrong {what}", expected=_text(expected), got=_text(got)
                )
        if header.time_ms <= self.head_time_ms:
            raise InvalidInputError(
                "block is not later than its parent",
                expected=f"time > {self.head_time_ms}",
                got=str(header.time_ms),
            )
        if header.origin_view < 1:
            raise InvalidInputError("block has a wrong origin view", expected="at least 1")
        if header.proposer not in self.validators:
            raise InvalidInputError("proposer is no validator", got=header.proposer.hex())

    def _check_body(self, block: Block, txs: Sequence[Tx]) -> None:
        if block.computed_body_hash != block.header.body_hash:
            raise InvalidInputError("block body does not match its header")
        if tuple(tx.id for tx in txs) != block.tx_ids:
            raise UsageError("the txs given are not those of the block")
        header = block.header
        if not self.executor.modules and (
            header.vrf_proof or block.late_votes or block.evidence
        ):  # bytes that nobody judges have no place in a chain
            raise InvalidInputError("block carries what no module of this chain judges")

    def _check_parent_certificate(self, certificate: Certificate | None) -> None:
        if certificate == self.head_certificate:
            return
        if certificate is None or self.head is None:
            raise InvalidInputError(
                "block has a wrong parent certificate", expected="one, except in block 1"
            )
        if (
            certificate.kind is not VoteKind.FINALIZE
            or certificate.height != self.height
            or certificate.block_hash != self.head.hash
        ):
            raise InvalidInputError("parent certificate does not finalize the parent")
        verify_certificate(certificate, self.last_validators, self.chain_id, self.signature_check)

    def _execute_and_compare(self, block: Block, txs: Sequence[Tx]) -> Execution:
        header = block.header
        execution = self._execute(header.time_ms, facts_of(block), txs, skip_inadmissible=False)
        for what, expected, got in (
            ("state root", execution.overlay.root, header.state_root),
            ("audit size", execution.audit_size, header.audit_size),
            ("audit root", execution.audit_root, header.audit_root),
            ("results root", execution.results_root, header.results_root),
        ):
            if expected != got:
                raise InvalidInputError(
                    f"block has a wrong {what}", expected=_text(expected), got=_text(got)
                )
        return execution

    def _remember(self, block_hash: bytes, execution: Execution) -> None:
        if len(self._candidates) >= CANDIDATES_MAX:
            self._candidates.pop(next(iter(self._candidates)))  # the oldest; executing again works
        self._candidates[block_hash] = execution

    # --- commit ---

    def commit(
        self, block: Block, certificate: Certificate, txs: Sequence[Tx] | None = None
    ) -> Commit:
        """Make `block` final, durably. The certificate's signatures are the caller's duty.

        `txs` spares decoding them for a block that was never judged. Raises InvalidInputError
        for a block or certificate that does not fit, DurabilityError if it could not be written;
        in both cases nothing has changed.
        """
        if (
            certificate.kind is not VoteKind.FINALIZE
            or certificate.height != block.height
            or certificate.block_hash != block.hash
        ):
            raise InvalidInputError("certificate does not finalize this block")
        if txs is None and (block.hash not in self._candidates or not self._fits(block)):
            txs = [Tx.decode(tx) for tx in block.txs]
        if txs is not None:
            self.judge(block, txs, now_ms=None)
        execution = self._candidates[block.hash]
        old_size = self._audit_log.size_and_root(self._frontier())[0]
        batch = Batch()
        block_rows.add_block_rows(batch, block, certificate, _all_results(execution))
        add_validator_rows(batch, block.header, self.next_validators)
        self.tree.add_rows(
            execution.overlay, batch, height=block.height, time_ms=block.header.time_ms
        )
        block_rows.add_side_rows(batch, block.height, execution.side_rows)
        if self._commit_rows and execution.log_entries:
            for key, value in self._commit_rows(self._store, old_size, execution.log_entries):
                batch.put(key, value)
        oldest_ms = block.header.time_ms - self.params.evidence_window_ms
        old_keys = self._consensus.keys_to_drop(
            certificate, lambda height: self._time_of(height) < oldest_ms
        )
        for key in old_keys:
            batch.delete(key)
        self._store.write(batch, sync=True)
        self._adopt(block, certificate, execution, old_keys)
        return Commit(
            height=block.height,
            block_hash=block.hash,
            time_ms=block.header.time_ms,
            tx_ids=block.tx_ids,
            results=execution.results,
            events=execution.block_result.events if execution.block_result else (),
            audit_size_before=old_size,
            log_entries=execution.log_entries,
            side_rows=execution.side_rows,
            next_nonces=execution.next_nonces,
            balances=execution.balances,
        )

    def _fits(self, block: Block) -> bool:
        return block.computed_body_hash == block.header.body_hash

    def _frontier(self) -> bytes:
        return self.tree.get(AUDIT_FRONTIER_KEY) or b""

    def _adopt(
        self, block: Block, certificate: Certificate, execution: Execution, old_keys: list[bytes]
    ) -> None:
        """RAM follows the store."""
        self.tree.adopt(execution.overlay)
        self._consensus.forget(old_keys)
        self._candidates.clear()
        self._recent_results[block.height] = _all_results(execution)
        self._recent_results.pop(block.height - RESULTS_KEPT, None)
        self.height = block.height
        self.head = block.header
        self.head_certificate = certificate
        self._follow_rows()

    # --- consensus durability ---

    def store_consensus(self, blocks: Sequence[Block], certificates: Sequence[Certificate]) -> None:
        """Write candidates and certificates durably, before a vote that relies on them leaves.
        They go away when their height is final. Raises DurabilityError."""
        self._consensus.add(blocks, certificates)

    def _time_of(self, height: int) -> int:
        """Block time of a final height, 0 if it is not kept."""
        try:
            return self.header(height).time_ms
        except InvalidInputError:
            return 0

    @property
    def fork_records_lost_total(self) -> int:
        """Certificates that could have named culprits, dropped before their time: there were too
        many."""
        return self._consensus.lost_total


def _write_genesis(store: Store, genesis: GenesisState) -> None:
    """Height 0 in one synced batch. A tree of fitting depth keeps a large genesis linear."""
    rows, batch = genesis.state_rows(), Batch()
    tree = StateTree.open(store, top_levels=choose_levels(len(rows)))
    tree.add_rows(tree.compute(rows), batch, height=0, time_ms=genesis.time_ms)
    batch.put(SET_BY_HASH + genesis.validators.hash, genesis.validators.encoded)
    batch.put(block_rows.META_GENESIS, genesis.genesis_hash)
    batch.put(block_rows.META_HEIGHT, bytes(8))
    store.write(batch, sync=True)


def facts_of(block: Block) -> BlockFacts:
    """What `block` says besides its txs."""
    return BlockFacts(
        proposer=block.header.proposer,
        vrf_proof=block.header.vrf_proof,
        parent_certificate=block.parent_certificate,
        late_votes=block.late_votes,
        evidence=block.evidence,
    )


def _all_results(execution: Execution) -> list[TxResult]:
    block_result = execution.block_result
    return [*execution.results] if block_result is None else [*execution.results, block_result]


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
