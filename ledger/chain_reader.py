"""The chain as it is read: final blocks, what makes them true, the state after the last of them.

`ledger.chain.Chain` is the reader that also builds, judges and commits. Everything about the tip is
kept decoded here and follows the store at each commit (`_follow_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator

from ledger import block_rows, codec
from ledger.accounts import ACCOUNT_PREFIX, POOL_PREFIX, Account, parse_account_row, read_account
from ledger.block import Block, Header
from ledger.certificate import Certificate
from ledger.chain_view import ChainView
from ledger.consensus_rows import ConsensusRows
from ledger.errors import InvalidInputError
from ledger.finality import FinalityProof, Handoff
from ledger.genesis_state import BEACON_KEY, SUPPLY_KEY, GenesisState
from ledger.handoffs import Handoffs
from ledger.params import PARAMS_KEY, ChainParams
from ledger.state import StateTree
from ledger.store import Store
from ledger.tx_result import BLOCK_RESULT_ID, TxResult
from ledger.upgrade import UpgradeState, read_upgrade_state
from ledger.validator_rows import (
    LAST_KEY,
    LEADERS_KEY,
    NEXT_KEY,
    SET_KEY,
    read_handoff_heights,
    read_last_handoff_height,
    read_validator_set,
)
from ledger.validator_set import ValidatorSet

TIP_FINALITY_MAX = 64


class ChainReader:
    """See the module docstring."""

    def __init__(self, store: Store, genesis: GenesisState, tree: StateTree) -> None:
        """Raises InvalidInputError if the store's state and blocks are of different heights."""
        self.genesis = genesis
        self.tree = tree
        self._store = store
        self._consensus = ConsensusRows(store)
        self._recent_results: dict[int, list[TxResult]] = {}
        self._handoffs = Handoffs(self)
        self._tip_finality: dict[int, FinalityProof] = {}  # by trusted height
        self.height = block_rows.read_height(store) or 0
        self.head: Header | None = None
        self.head_certificate: Certificate | None = None
        if self.height:
            self.head = block_rows.read_header(store, self.height)
            self.head_certificate = block_rows.read_certificate(store, self.height)
        if tree.height != self.height or (self.head and tree.root != self.head.state_root):
            raise InvalidInputError(
                "the store's state and blocks are of different heights",
                expected=f"state at height {self.height}",
                got=f"height {tree.height}, root {tree.root.hex()}",
            )
        self._rows: dict[bytes, bytes] = {}
        self.params: ChainParams
        self.last_validators: ValidatorSet
        self.validators: ValidatorSet
        self.next_validators: ValidatorSet
        self.leaders: ValidatorSet
        self.upgrades: UpgradeState
        self._follow_rows()

    def _follow_rows(self) -> None:
        """Decode what the tip says of upgrades, and of parameters and validator sets if it
        changed."""
        self.upgrades = read_upgrade_state(self.tree)
        for key in (PARAMS_KEY, LAST_KEY, SET_KEY, NEXT_KEY, LEADERS_KEY):
            row = _need_row(self.tree, key)
            if row == self._rows.get(key):
                continue
            self._rows[key] = row
            if key == PARAMS_KEY:
                self.params = ChainParams.decode(row)
            elif key == LAST_KEY:
                self.last_validators = ValidatorSet.decode(row)
            elif key == SET_KEY:
                self.validators = ValidatorSet.decode(row)
            elif key == NEXT_KEY:
                self.next_validators = ValidatorSet.decode(row)
            else:
                self.leaders = ValidatorSet.decode(row)

    # --- the tip ---

    @property
    def chain_id(self) -> str:
        return self.genesis.chain_id

    @property
    def head_hash(self) -> bytes:
        """Hash of the last final block; the genesis hash at height 0."""
        return self.head.hash if self.head else self.genesis.genesis_hash

    @property
    def head_time_ms(self) -> int:
        return self.head.time_ms if self.head else self.genesis.time_ms

    @property
    def seed(self) -> bytes:
        """What picks the leaders of height + 1 (32 B): the beacon after the tip."""
        return _need_row(self.tree, BEACON_KEY)

    def account(self, account_id: bytes) -> Account:
        """At the tip."""
        return read_account(self.tree, account_id)

    # --- reading ---

    def header(self, height: int) -> Header:
        """Raises InvalidInputError if there is no such block; so do the next three."""
        return block_rows.read_header(self._store, height)

    def certificate(self, height: int) -> Certificate:
        """The finalization certificate that this node holds of `height`."""
        return block_rows.read_certificate(self._store, height)

    def block(self, height: int) -> Block:
        return block_rows.read_block(self._store, height)

    def results(self, height: int) -> list[TxResult]:
        """In tx order."""
        return [r for r in self.all_results(height) if r.tx_id != BLOCK_RESULT_ID]

    def all_results(self, height: int) -> list[TxResult]:
        """The leaves of the results tree: those of the txs, then the block's own if it has one."""
        return self._recent_results.get(height) or block_rows.read_results(self._store, height)

    def height_of(self, block_hash: bytes) -> int | None:
        """Height of a final block by its hash."""
        return block_rows.read_height_of(self._store, block_hash)

    def validators_at(self, height: int) -> ValidatorSet:
        """The set that voted on a final `height`, or that votes on the next one. Raises
        InvalidInputError."""
        if height == self.height + 1:
            return self.validators
        return self.validators_by_hash(self.header(height).validators_hash)

    def validators_by_hash(self, set_hash: bytes) -> ValidatorSet:
        """A set that voted here or votes next. Raises InvalidInputError."""
        for known in (self.validators, self.last_validators, self.next_validators):
            if known.hash == set_hash:
                return known
        return read_validator_set(self._store, set_hash)

    def handoff_heights(self, first: int, last: int, count_max: int) -> list[int]:
        """The first `count_max` heights in first..last whose headers name another next set."""
        return read_handoff_heights(self._store, first, last, count_max)

    def last_handoff_height(self, last: int) -> int:
        """The highest such height up to `last`; 0 if there is none."""
        return read_last_handoff_height(self._store, last)

    def side_keys(self, first: int) -> Iterator[tuple[int, list[bytes]]]:
        """(height, keys of its side rows in order) from `first` on; heights without any are left
        out."""
        return block_rows.read_side_keys(self._store, first)

    def tx_location(self, tx_id: bytes) -> tuple[int, int] | None:
        """(height, index in the block) of a final tx, or None."""
        return block_rows.read_tx_location(self._store, tx_id)

    def view(self) -> ChainView:
        """The tip with its proofs. Raises InvalidInputError (retry) before block 1."""
        return self.view_at(self.height)

    def view_at(self, height: int, trusted_height: int = 0) -> ChainView:
        """The state after `height`; what history no longer keeps fails on reading. Its proofs
        begin at the set that the header of `trusted_height` names for the next height (0: genesis).
        """
        if self.head is None or self.head_certificate is None or not 1 <= height <= self.height:
            raise InvalidInputError(
                "no final block at this height",
                expected=f"1..{self.height}" if self.height else "block 1, which is still to come",
                got=str(height),
                retry=height >= self.height,
            )
        return ChainView(self.tree, self._store, self.finality(height, trusted_height))

    def finality(self, height: int, trusted_height: int = 0) -> FinalityProof:
        """Why the header of `height` is final, for whoever trusts the set that `trusted_height`
        names for the next height, in the fewest steps. Raises InvalidInputError, with `retry` if
        the trusted height is above this one."""
        if trusted_height > height:
            raise InvalidInputError(
                "the trusted height is above the one that is asked for",
                expected=f"<= {height}",
                got=str(trusted_height),
                retry=height == self.height,
            )
        if height != self.height or not self.head or not self.head_certificate:
            return FinalityProof(
                header=self.header(height),
                certificate=self.certificate(height),
                handoffs=self._handoffs.find(trusted_height, height),
            )
        known = self._tip_finality.get(trusted_height)
        if known is None or known.header is not self.head:
            known = FinalityProof(
                header=self.head,
                certificate=self.head_certificate,
                handoffs=self._handoffs.find(trusted_height, height),
            )
            if len(self._tip_finality) == TIP_FINALITY_MAX:
                self._tip_finality.clear()
            self._tip_finality[trusted_height] = known
        return known

    def handoffs_to(self, height: int) -> tuple[Handoff, ...]:
        """The steps from the genesis set to the one that votes on `height`, which may be the next
        one, by headers below it. Raises InvalidInputError."""
        return self._handoffs.find_to_voters(height)

    # --- what consensus keeps ---

    def load_consensus(self, height: int) -> tuple[list[Block], list[Certificate]]:
        """The candidates and certificates that are kept of `height`."""
        return self._consensus.load(height)

    def other_certificates(self, height: int, count_max: int) -> list[Certificate]:
        """Those kept of a final height beside its finalization, of the lowest views: what would
        name the guilty if another block were final there too."""
        kept = self._consensus.load(height)[1]
        return sorted(kept, key=lambda c: (c.view, c.kind, c.block_hash))[:count_max]

    # --- invariants ---

    def check_invariants(self) -> None:
        """Balances and pools add up to the supply. Walks all accounts: slow.

        Raises InvalidInputError if the store breaks that.
        """
        balances = sum(parse_account_row(row)[0] for _, row in self.tree.iterate(ACCOUNT_PREFIX))
        pools = sum(
            codec.read_int(codec.decode(row, bytes_max=9), "pool")
            for _, row in self.tree.iterate(POOL_PREFIX)
        )
        supply = codec.read_int(
            codec.decode(_need_row(self.tree, SUPPLY_KEY), bytes_max=9), "supply"
        )
        if balances + pools != supply:
            raise InvalidInputError(
                "the supply is not conserved",
                expected=f"{supply} uzynk",
                got=f"{balances} in accounts and {pools} in pools",
            )


def _need_row(tree: StateTree, key: bytes) -> bytes:
    row = tree.get(key)
    if row is None:
        raise InvalidInputError("the state lacks a row that every chain has", got=key.hex())
    return row
