"""A chain of staking alone, in a dict: blocks step by step, so that a test can look between txs.

It does what `ledger.executor` does around handlers and modules (a journal for each tx, fees to the
pool, the sets moved up before the modules end), and checks every invariant after each block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ledger import codec
from ledger.accounts import FEES_KEY, Account, account_key, read_account
from ledger.ed25519 import KeyPair
from ledger.execution import BlockFacts, Event, StateView, TxFailure
from ledger.genesis_state import GenesisState
from ledger.params import PARAMS_KEY, ChainParams
from ledger.pools import add_to_pool
from ledger.staking_candidates import touch_candidates
from ledger.staking_genesis import GenesisStake, genesis_staking
from ledger.staking_handlers import stake_handlers
from ledger.staking_invariants import check_staking
from ledger.staking_messages import ROLES, CreateBody, prove_possession
from ledger.staking_module import StakingModule
from ledger.staking_rows import Delegation, ValidatorRecord, read_delegation, read_validator
from ledger.validator_rows import move_up_validator_sets

CHAIN_ID = "stake-1"
START_MS = 1_700_000_000_000
BALANCE = 10**15
HANDLERS = stake_handlers(CHAIN_ID)
PARAMS = ChainParams(
    unbonding_ms=1_000_000,
    evidence_window_ms=900_000,
    downtime_jail_ms=50_000,
    vrf_key_delay=5,
    validators_max=4,
    commission_change_ppm_max=10_000,
    inflation_ppm=0,
    inflation_ppm_min=0,
)


@lru_cache(maxsize=4096)
def key_of(role: str, number: int) -> KeyPair:
    """The numbered key of a role."""
    return KeyPair.from_seed(codec.hash_tagged("staking-test", codec.encode([role, number])))


@lru_cache(maxsize=4096)
def account(number: int) -> bytes:
    """The numbered account; the first ones are the genesis operators."""
    return key_of("account", number).public_key


def create_body(
    operator: bytes, number: int, *, bond: int = 10**9, commission: int = 100_000
) -> CreateBody:
    """A validator with the numbered keys."""
    keys = [key_of(role, number) for role in ROLES]
    proofs = [
        prove_possession(key, CHAIN_ID, operator, role)
        for role, key in zip(ROLES, keys, strict=True)
    ]
    return CreateBody(
        operator=operator,
        keys=(keys[0].public_key, keys[1].public_key, keys[2].public_key),
        proofs=(proofs[0], proofs[1], proofs[2]),
        description=(f"validator {number}", "", ""),
        commission_ppm=commission,
        bond=bond,
    )


class DictState:
    """A StateView over a dict, with a journal over it while a tx runs."""

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self.rows = rows
        self.journal: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.journal[key] if key in self.journal else self.rows.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.journal[key] = value

    def delete(self, key: bytes) -> None:
        self.journal[key] = None

    def keep(self) -> None:
        """What was written stays."""
        for key, value in self.journal.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.journal.clear()

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return ((k, v) for k, v in sorted(self.rows.items()) if k.startswith(prefix))


@dataclass
class Context:
    """A tx's context and a block's in one."""

    state: StateView
    params: ChainParams
    chain_id: str = CHAIN_ID
    height: int = 0
    time_ms: int = START_MS
    parent_time_ms: int = START_MS
    parent_hash: bytes = bytes(32)
    facts: BlockFacts = field(default_factory=lambda: BlockFacts(proposer=bytes(32)))
    payer: bytes = b""
    tx_id: bytes = bytes(32)
    events: list[Event] = field(default_factory=list)

    def side_put(self, key: bytes, value: bytes) -> None:
        raise AssertionError("staking has no side rows")

    def log_append(self, entry: bytes) -> int:
        raise AssertionError("staking logs nothing")

    def emit(self, event: Event) -> None:
        assert list(event.attributes) == sorted(event.attributes), "attributes are sorted"
        self.events.append(event)


class World:
    """`bonds`: of the genesis validators, whose operators are accounts 0, 1, ...; every one of
    `accounts` has BALANCE left."""

    def __init__(
        self,
        bonds: tuple[int, ...] = (10**9,) * 4,
        *,
        accounts: int = 12,
        params: ChainParams = PARAMS,
        commission: int = 100_000,
    ) -> None:
        stakes = [
            GenesisStake(
                operator=account(i),
                consensus_key=key_of("consensus", i).public_key,
                vrf_key=key_of("vrf", i).public_key,
                cosign_key=key_of("cosign", i).public_key,
                name=f"validator {i}",
                commission_ppm=commission,
                bond=bond,
            )
            for i, bond in enumerate(bonds)
        ]
        staking = genesis_staking(stakes, params)
        genesis = GenesisState(
            chain_id=CHAIN_ID,
            genesis_hash=bytes(32),
            params=params,
            validators=staking.validators,
            accounts=tuple((account(i), BALANCE) for i in range(accounts)),
            time_ms=START_MS,
            module_rows=staking.rows,
            pooled=staking.pooled,
        )
        self.state = DictState(genesis.state_rows())
        self.context = Context(self.state, params)
        self.params = params
        self.module = StakingModule()
        self.check()

    @property
    def height(self) -> int:
        return self.context.height

    @property
    def time_ms(self) -> int:
        return self.context.time_ms

    def begin(self, step_ms: int = 1000, punish: Callable[[Context], None] | None = None) -> None:
        """The next block begins; `punish` stands for the modules before staking."""
        context = self.context
        context.height += 1
        context.parent_time_ms, context.time_ms = context.time_ms, context.time_ms + step_ms
        context.events.clear()
        if punish is not None:
            punish(context)
        self.module.begin(context)
        self.state.keep()

    def run(self, number: int, kind: str, body: bytes, *, fee: int = 0) -> str:
        """One tx of one message by a numbered account; its code, "" if it succeeded."""
        context, payer = self.context, account(number)
        HANDLERS[kind].check(body)
        assert HANDLERS[kind].weight_of(body) > 0
        balance, nonce = self.account(number).balance, self.account(number).nonce
        self.state.put(account_key(payer), Account(balance - fee, nonce + 1).encode())
        add_to_pool(self.state, FEES_KEY, fee)
        self.state.keep()
        context.payer = payer
        events = len(context.events)
        try:
            HANDLERS[kind].apply(context, body)
        except TxFailure as failure:
            self.state.journal.clear()
            del context.events[events:]
            return failure.code
        self.state.keep()
        return ""

    def end(self) -> None:
        """The block ends, and all invariants hold."""
        move_up_validator_sets(self.context)
        self.module.end(self.context)
        self.state.keep()
        self.check()

    def block(
        self,
        *txs: tuple[int, str, bytes],
        step_ms: int = 1000,
        punish: Callable[[Context], None] | None = None,
    ) -> list[str]:
        """A whole block; the codes of its txs."""
        self.begin(step_ms, punish)
        codes = [self.run(*tx) for tx in txs]
        self.end()
        return codes

    def change_params(self, **changed: int) -> None:
        """As governance does at the end of a block: they count from the next one on."""
        self.params = self.context.params = replace(self.params, **changed)
        self.state.put(PARAMS_KEY, self.params.encode())
        touch_candidates(self.state)
        self.state.keep()
        self.check()

    def check(self) -> None:
        check_staking(self.state)

    def account(self, number: int) -> Account:
        return read_account(self.state, account(number))

    def validator(self, number: int) -> ValidatorRecord:
        record = read_validator(self.state, account(number))
        assert record is not None
        return record

    def delegation(self, operator: int, delegator: int) -> Delegation:
        """Without shares if there is none."""
        found = read_delegation(self.state, account(operator), account(delegator))
        return found or Delegation(shares=0, index=0)
