"""What the ledger needs of a genesis document to start a chain at height 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ledger import codec
from ledger.accounts import ACCOUNT_ID_BYTES, FEES_KEY, Account, account_key
from ledger.errors import InvalidInputError
from ledger.params import PARAMS_KEY, ChainParams
from ledger.state import state_key
from ledger.tx import CHAIN_ID_MAX
from ledger.validator_rows import genesis_validator_rows
from ledger.validator_set import ValidatorSet

ACCOUNTS_MAX = 2_000_000
AUDIT_FRONTIER_KEY = state_key("audit", b"frontier")
BEACON_KEY = state_key("beacon", b"seed")
"""The seed of the next height's leaders, 32 B."""
SUPPLY_KEY = state_key("supply", b"")
"""All uzynk there is, u64: balances and pools always add up to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisState:
    """The state at height 0. `accounts` are (id, balance in uzynk); `genesis_hash` takes the place
    of a block hash; `time_ms` is the parent time of block 1. `module_rows` are those of the block
    modules, and `pooled` the uzynk in their pools."""

    chain_id: str
    genesis_hash: bytes
    params: ChainParams
    validators: ValidatorSet
    accounts: tuple[tuple[bytes, int], ...]
    time_ms: int
    module_rows: Mapping[bytes, bytes] = field(default_factory=dict)
    pooled: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.chain_id) <= CHAIN_ID_MAX:
            raise InvalidInputError("genesis chain id is malformed", expected="1..64 characters")
        if len(self.genesis_hash) != codec.HASH_BYTES:
            raise InvalidInputError("genesis hash is malformed", expected="32 B")
        if len(self.accounts) > ACCOUNTS_MAX:
            raise InvalidInputError("genesis has too many accounts", expected=f"<= {ACCOUNTS_MAX}")
        if any(len(account_id) != ACCOUNT_ID_BYTES for account_id, _ in self.accounts):
            raise InvalidInputError("genesis account id is malformed", expected="32 B")
        if len({account_id for account_id, _ in self.accounts}) != len(self.accounts):
            raise InvalidInputError("genesis names an account twice")
        if any(balance < 0 for _, balance in self.accounts) or self.supply > codec.U64_MAX:
            # With the whole supply in u64, no sum of balances and pools can overflow later.
            raise InvalidInputError(
                "genesis supply is out of range", expected="< 2^64 uzynk", got=str(self.supply)
            )

    @property
    def supply(self) -> int:
        """All uzynk there is."""
        return sum(balance for _, balance in self.accounts) + self.pooled

    def state_rows(self) -> dict[bytes, bytes]:
        """State key -> value at height 0."""
        rows = {account_key(i): Account(balance, 0).encode() for i, balance in self.accounts}
        rows[FEES_KEY] = codec.encode(0)
        rows[PARAMS_KEY] = self.params.encode()
        rows[SUPPLY_KEY] = codec.encode(self.supply)
        rows[BEACON_KEY] = genesis_seed(self.genesis_hash)
        rows.update(genesis_validator_rows(self.validators))
        rows.update(self.module_rows)
        return rows


def genesis_seed(genesis_hash: bytes) -> bytes:
    """The seed (32 B) of the leaders of height 1."""
    return codec.hash_tagged("beacon-genesis", genesis_hash)
