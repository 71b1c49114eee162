"""Governance over a dict of rows: a few validators with delegators, whose stake tests change by
hand, in the way in which staking does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ledger import codec
from ledger.accounts import ACCOUNT_PREFIX, Account, account_key, parse_account_row
from ledger.execution import BlockFacts, Event, StateView, TxFailure
from ledger.genesis_state import SUPPLY_KEY
from ledger.governance import GovernanceModule, governance_handlers
from ledger.governance_proposal import (
    Change,
    Choice,
    ParamsChange,
    Proposal,
    ProposeBody,
    VoteBody,
)
from ledger.governance_rows import (
    VALIDATOR_VOTES_PREFIX,
    VOTE_PREFIX,
    ValidatorVotes,
    Vote,
    read_proposal,
    read_slots,
    read_validator_votes,
    take_leaving_shares,
)
from ledger.params import PARAMS_KEY, ChainParams
from ledger.pools import BONDED_KEY, POOL_KEYS, add_to_pool, burn, read_amount
from ledger.staking_record import POWER_UNIT, SlashEvent, ValidatorRecord
from ledger.staking_rows import (
    CANDIDATES_KEY,
    Candidate,
    Delegation,
    delegation_key,
    encode_candidates,
    read_delegation,
    read_validator,
    validator_key,
)
from ledger.upgrade import UpgradeModule

BALANCE = 10**12
START_MS = 1_700_000_000_000
HANDLERS = governance_handlers()
PARAMS = ChainParams(gov_deposit=1000, gov_voting_ms=100_000)
CHEAPER = ParamsChange(values=(("fee_base", 50),))


def account(number: int) -> bytes:
    """The numbered account; the first ones are the operators."""
    return codec.hash_tagged("governance-test", codec.encode(number))


class DictState:
    """A StateView over a dict, with a journal over it while a tx runs."""

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self.rows = rows
        self._journal: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        return self._journal[key] if key in self._journal else self.rows.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._journal[key] = value

    def delete(self, key: bytes) -> None:
        self._journal[key] = None

    def keep(self) -> None:
        for key, value in self._journal.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self._journal.clear()

    def drop(self) -> None:
        self._journal.clear()

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return ((k, v) for k, v in sorted(self.rows.items()) if k.startswith(prefix))


@dataclass
class Context:
    """A tx's context and a block's in one."""

    state: StateView
    params: ChainParams
    chain_id: str = "gov-1"
    height: int = 1
    time_ms: int = START_MS
    parent_time_ms: int = START_MS
    parent_hash: bytes = bytes(32)
    facts: BlockFacts = field(default_factory=lambda: BlockFacts(proposer=bytes(32)))
    payer: bytes = b""
    tx_id: bytes = bytes(32)
    events: list[Event] = field(default_factory=list)

    def side_put(self, key: bytes, value: bytes) -> None:
        raise AssertionError("governance has no side rows")

    def log_append(self, entry: bytes) -> int:
        raise AssertionError("governance logs nothing")

    def emit(self, event: Event) -> None:
        assert list(event.attributes) == sorted(event.attributes), "attributes are sorted"
        self.events.append(event)


def stake_rows(
    bonds: tuple[int, ...], operators: list[bytes], keys: list[bytes] | None = None
) -> dict[bytes, bytes]:
    """Rows of validators with a self-bond each, and the candidates."""
    rows: dict[bytes, bytes] = {}
    candidates = []
    for i, (bond, operator) in enumerate(zip(bonds, operators, strict=True)):
        record = ValidatorRecord(
            consensus_key=bytes([i]) * 32 if keys is None else keys[i],
            vrf_key=bytes([i + 64]) * 32,
            cosign_key=bytes([i + 128]) * 32,
            name=f"validator {i}",
            commission_ppm=0,
            commission_day_ppm=0,
            commission_day_ms=0,
            tokens=bond,
            shares=bond,
        )
        rows[validator_key(operator)] = record.encode()
        rows[delegation_key(operator, operator)] = Delegation(shares=bond, index=0).encode()
        candidates.append(Candidate(operator, record.consensus_key, record.bonded_power))
    rows[CANDIDATES_KEY] = encode_candidates(candidates)
    rows[BONDED_KEY] = codec.encode(sum(bonds))
    return rows


class World:
    """Accounts 0 .. validators - 1 are operators, each with its bond; all accounts hold BALANCE."""

    def __init__(
        self,
        bonds: tuple[int, ...] = (40 * POWER_UNIT, 30 * POWER_UNIT, 20 * POWER_UNIT, POWER_UNIT),
        *,
        accounts: int = 12,
        params: ChainParams = PARAMS,
    ) -> None:
        self.accounts = [account(i) for i in range(accounts)]
        self.operators = self.accounts[: len(bonds)]
        rows = stake_rows(bonds, self.operators)
        rows |= {account_key(a): Account(BALANCE, 0).encode() for a in self.accounts}
        rows[PARAMS_KEY] = params.encode()
        rows[SUPPLY_KEY] = codec.encode(sum(bonds) + accounts * BALANCE)
        self.state = DictState(rows)
        self.told = 0
        self.modules = (UpgradeModule(), GovernanceModule(self._on_params_changed))
        self.context = Context(state=self.state, params=params)

    def _on_params_changed(self, _: StateView) -> None:
        self.told += 1

    # --- txs and blocks ---

    def send(self, payer: bytes, kind: str, body: bytes) -> str:
        """The tx's code, "" if it did its work."""
        HANDLERS[kind].check(body)
        self.context.payer = payer
        try:
            HANDLERS[kind].apply(self.context, body)
        except TxFailure as failure:
            self.state.drop()
            return failure.code
        self.state.keep()
        return ""

    def propose(self, change: Change = CHEAPER, payer: int = 9) -> str:
        body = ProposeBody(title="A title", summary="Why\nand how", change=change)
        return self.send(self.accounts[payer], "gov/propose", body.encode())

    def vote(self, payer: int, operator: int, choice: Choice, proposal: int = 1) -> str:
        body = VoteBody(proposal_id=proposal, operator=self.accounts[operator], choice=choice)
        return self.send(self.accounts[payer], "gov/vote", body.encode())

    def end_block(self, *, after_ms: int = 1000) -> list[Event]:
        """End the block at the height in work and begin the next; its events."""
        for module in self.modules:
            module.end(self.context)
        self.state.keep()
        self.check()
        events = self.context.events
        row = self.state.get(PARAMS_KEY)
        assert row is not None
        self.context = Context(
            state=self.state,
            params=ChainParams.decode(row),
            height=self.context.height + 1,
            time_ms=self.context.time_ms + after_ms,
        )
        for module in self.modules:
            module.begin(self.context)
        self.state.keep()
        return events

    def finish(self, proposal: int = 1) -> Proposal:
        """Let the voting time pass."""
        self.end_block(after_ms=PARAMS.gov_voting_ms)
        self.end_block()
        return self.proposal(proposal)

    def proposal(self, proposal: int = 1) -> Proposal:
        found = read_proposal(self.state, proposal)
        assert found is not None
        return found

    # --- what staking does ---

    def record(self, operator: int) -> ValidatorRecord:
        found = read_validator(self.state, self.accounts[operator])
        assert found is not None
        return found

    def shares(self, operator: int, delegator: int) -> int:
        held = read_delegation(self.state, self.accounts[operator], self.accounts[delegator])
        return 0 if held is None else held.shares

    def delegate(self, delegator: int, operator: int, amount: int) -> None:
        """New uzynk are bonded (minted, for brevity)."""
        record = self.record(operator)
        if record.shares and not record.tokens:
            return
        shares = amount * record.shares // record.tokens if record.shares else amount
        self._change(operator, delegator, amount, shares)
        add_to_pool(self.state, SUPPLY_KEY, amount)
        self._refresh()

    def undelegate(self, delegator: int, operator: int, shares: int) -> None:
        """Shares leave and their tokens are burned, for brevity."""
        record = self.record(operator)
        tokens = shares * record.tokens // record.shares
        self._change(operator, delegator, -tokens, -shares)
        left = self.shares(operator, delegator)
        take_leaving_shares(self.state, self.accounts[operator], self.accounts[delegator], left)
        add_to_pool(self.state, SUPPLY_KEY, -tokens)
        self._refresh()

    def slash(self, operator: int, ppm: int, *, tombstone: bool = False) -> None:
        record = self.record(operator)
        burned = record.tokens * ppm // 1_000_000
        burn(self.state, BONDED_KEY, burned)
        event = SlashEvent(offence_height=1, slashed_height=1, ppm=ppm, slashed_ms=START_MS)
        changed = replace(record, tokens=record.tokens - burned)
        self._put(operator, replace(changed, slash=event) if tombstone else changed)
        self._refresh()

    def jail(self, operator: int, until_ms: int) -> None:
        """`until_ms` 0 frees it."""
        self._put(operator, replace(self.record(operator), jailed_until_ms=until_ms))
        self._refresh()

    def _change(self, operator: int, delegator: int, tokens: int, shares: int) -> None:
        record = self.record(operator)
        self._put(
            operator,
            replace(record, tokens=record.tokens + tokens, shares=record.shares + shares),
        )
        left = self.shares(operator, delegator) + shares
        key = delegation_key(self.accounts[operator], self.accounts[delegator])
        if left:
            self.state.put(key, Delegation(shares=left, index=0).encode())
        else:
            self.state.delete(key)
        add_to_pool(self.state, BONDED_KEY, tokens)

    def _put(self, operator: int, record: ValidatorRecord) -> None:
        self.state.put(validator_key(self.accounts[operator]), record.encode())

    def _refresh(self) -> None:
        records = [(o, self.record(i)) for i, o in enumerate(self.operators)]
        candidates = [
            Candidate(operator, record.consensus_key, record.bonded_power)
            for operator, record in records
            if record.bonded_power and not record.is_jailed
        ]
        candidates.sort(key=lambda c: (-c.power, c.operator))
        self.state.put(CANDIDATES_KEY, encode_candidates(candidates))
        self.state.keep()

    # --- invariants ---

    def check(self) -> None:
        """The supply is conserved, deposits are those of open proposals, and the sums of votes are
        the votes."""
        state = self.state
        balances = sum(parse_account_row(row)[0] for _, row in state.iterate(ACCOUNT_PREFIX))
        pools = sum(read_amount(state, key) for key in POOL_KEYS)
        assert balances + pools == read_amount(state, SUPPLY_KEY)
        slots = read_slots(state).slots
        deposits = sum(self.proposal(p.id).deposit for p in slots if p is not None)
        assert deposits == read_amount(state, POOL_KEYS[-1])
        sums: dict[bytes, list[int]] = {}
        for key, row in state.iterate(VOTE_PREFIX):
            vote, place = Vote.decode(row), key[len(VOTE_PREFIX) :]
            proposal = slots[place[0]]
            if proposal is not None and proposal.id == vote.proposal_id:
                held = read_delegation(state, place[1:33], place[33:])
                assert held is not None
                assert 0 < vote.shares <= held.shares
                sums.setdefault(place[:33], [0, 0, 0])[vote.choice - 1] += vote.shares
        for key, row in state.iterate(VALIDATOR_VOTES_PREFIX):
            votes, place = ValidatorVotes.decode(row), key[len(VALIDATOR_VOTES_PREFIX) :]
            proposal = slots[place[0]]
            if proposal is not None and proposal.id == votes.proposal_id:
                assert list(votes.shares) == sums.pop(place, [0, 0, 0])
                assert votes == read_validator_votes(state, place[0], proposal.id, place[1:])
        assert not sums
