"""Every decoder of the ledger, on whatever bytes: an object whose bytes those are, or
InvalidInputError."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import codec
from ledger.accounts import Account, TransferBody
from ledger.block import BLOCK_BYTES_MAX, HEADER_BYTES_MAX, Block, Header
from ledger.certificate import CERTIFICATE_BYTES_MAX, Certificate, VoteKind
from ledger.errors import InvalidInputError
from ledger.finality import FINALITY_PROOF_BYTES_MAX, FinalityProof, Handoff
from ledger.governance_proposal import (
    PROPOSAL_BYTES_MAX,
    PROPOSE_BYTES_MAX,
    VOTE_BODY_BYTES_MAX,
    CancelChange,
    Change,
    Choice,
    ParamsChange,
    Proposal,
    ProposeBody,
    Status,
    Tally,
    UpgradeChange,
    VoteBody,
)
from ledger.governance_rows import (
    SLOTS_BYTES_MAX,
    VALIDATOR_VOTES_BYTES_MAX,
    VOTE_BYTES_MAX,
    OpenProposal,
    Slots,
    ValidatorVotes,
    Vote,
)
from ledger.light import LIGHT_BLOCK_BYTES_MAX, LightBlock
from ledger.params import PARAMS_BYTES_MAX, ChainParams
from ledger.staking_messages import (
    BODY_BYTES_MAX,
    CreateBody,
    EditBody,
    KeysBody,
    NewKey,
    RedelegateBody,
)
from ledger.staking_record import VALIDATOR_BYTES_MAX, SlashEvent, ValidatorRecord
from ledger.staking_rewards import DISTRIBUTION_BYTES_MAX, Distribution
from ledger.staking_rows import (
    CANDIDATES_BYTES_MAX,
    DELEGATION_BYTES_MAX,
    SMALL_ROW_BYTES_MAX,
    UNBONDING_BYTES_MAX,
    Candidate,
    Delegation,
    Hop,
    KeyOwner,
    UnbondingEntry,
    decode_candidates,
    decode_key_owner,
    decode_open_entries,
    encode_candidates,
    encode_key_owner,
)
from ledger.store import MemoryStore
from ledger.tx import TX_BYTES_MAX, Tx
from ledger.tx_result import TxResult
from ledger.upgrade import UPGRADE_BYTES_MAX, Upgrade, UpgradeState
from ledger.validator_set import VALIDATOR_SET_BYTES_MAX, ValidatorSet
from tests.property.campaign import examples
from tests.unit.chain_fixture import (
    FAUCET,
    GENESIS,
    advance,
    certify,
    key_of,
    open_chain,
    probe,
    transfer,
)
from tests.unit.staking_world import account, create_body


@dataclass(frozen=True)
class Decoder:
    """`encode` is the inverse of `decode`; `bytes_max` the longest input; `valid` an example."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    bytes_max: int
    valid: bytes


def _decoders() -> dict[str, Decoder]:
    chain = open_chain(MemoryStore())
    txs = [transfer(FAUCET, 0, key_of(1).public_key, 5), probe(FAUCET, 1, "fail", "x")]
    advance(chain, txs)
    block = chain.build(view=2, facts=chain.plain_facts(bytes(32)), time_ms=0, candidates=txs[:0])
    block = Block.decode(block.encoded)
    certificate = certify(block)
    handoff = Handoff(
        header=block.header, certificate=certificate, next_validators=GENESIS.validators
    )
    proof = FinalityProof(header=block.header, certificate=certificate, handoffs=(handoff,))
    light_block = LightBlock(
        header=block.header,
        certificate=certificate,
        validators=GENESIS.validators,
        next_validators=GENESIS.validators,
    )
    null = certify(block, kind=VoteKind.NOTARIZE)
    result = chain.results(1)[0]
    return {
        "tx": Decoder(Tx.decode, lambda tx: tx.encoded, TX_BYTES_MAX, txs[0].encoded),
        "header": Decoder(
            Header.decode, lambda h: h.encoded, HEADER_BYTES_MAX, block.header.encoded
        ),
        "block": Decoder(Block.decode, lambda b: b.encoded, BLOCK_BYTES_MAX, block.encoded),
        "certificate": Decoder(
            Certificate.decode, lambda c: c.encode(), CERTIFICATE_BYTES_MAX, null.encode()
        ),
        "validator set": Decoder(
            ValidatorSet.decode,
            lambda s: s.encoded,
            VALIDATOR_SET_BYTES_MAX,
            GENESIS.validators.encoded,
        ),
        "finality proof": Decoder(
            FinalityProof.decode, lambda p: p.encode(), FINALITY_PROOF_BYTES_MAX, proof.encode()
        ),
        "light block": Decoder(
            LightBlock.decode, lambda b: b.encode(), LIGHT_BLOCK_BYTES_MAX, light_block.encode()
        ),
        "params": Decoder(
            ChainParams.decode, lambda p: p.encode(), PARAMS_BYTES_MAX, GENESIS.params.encode()
        ),
        "account": Decoder(Account.decode, lambda a: a.encode(), 32, Account(5, 7).encode()),
        "transfer": Decoder(
            TransferBody.decode,
            lambda b: b.encode(),
            1088,
            TransferBody(to=bytes(32), amount=9, memo=b"m").encode(),
        ),
        "tx result": Decoder(
            lambda data: TxResult.from_value(codec.decode(data, bytes_max=4096)),
            lambda r: codec.encode(r.to_value()),
            4096,
            codec.encode(result.to_value()),
        ),
    }


def _staking_decoders() -> dict[str, Decoder]:
    slash = SlashEvent(offence_height=7, slashed_height=9, ppm=50_000, slashed_ms=1000)
    validator = ValidatorRecord(
        consensus_key=b"\1" * 32,
        vrf_key=b"\2" * 32,
        next_vrf_key=b"\3" * 32,
        next_vrf_height=1007,
        cosign_key=b"\4" * 32,
        name="a name",
        url="https://name.example",
        details="\U0001f331" * 280,
        commission_ppm=100_000,
        commission_day_ppm=90_000,
        commission_day_ms=5,
        tokens=10**12,
        shares=2 * 10**12,
        power=10**6,
        settled_index=2**70,
        index=2**71,
        dust=2**63,
        commission_owed=77,
        jailed_until_ms=600_000,
        slash=slash,
    )
    hop = Hop(source=b"\5" * 32, height=8, until_ms=10**12, shares=3)
    delegation = Delegation(shares=21, index=2**66, hops=(hop,) * 7)
    entry = UnbondingEntry(
        delegator=b"\6" * 32,
        operator=b"\7" * 32,
        amount=5,
        height=9,
        due_ms=10**12,
        via=b"\5" * 32,
        via_height=8,
        via_until_ms=10**12,
    )
    candidates = [Candidate(b"\7" * 32, b"\1" * 32, 10**6), Candidate(b"\5" * 32, b"\2" * 32, 1)]
    owner = KeyOwner(b"\7" * 32, 3, 2**40)
    spread = Distribution(index=2**70, power=9, dust=2**60, mint_rest=5, start_ms=10**12)
    create = create_body(account(5), 5)
    new = NewKey(key=b"\1" * 32, proof=b"\2" * 64)
    return {
        "distribution": Decoder(
            Distribution.decode, lambda d: d.encode(), DISTRIBUTION_BYTES_MAX, spread.encode()
        ),
        "stake/create": Decoder(
            CreateBody.decode, lambda b: b.encode(), BODY_BYTES_MAX, create.encode()
        ),
        "stake/edit": Decoder(
            EditBody.decode,
            lambda b: b.encode(),
            BODY_BYTES_MAX,
            EditBody(description=("name", "url", "")).encode(),
        ),
        "stake/keys": Decoder(
            KeysBody.decode,
            lambda b: b.encode(),
            BODY_BYTES_MAX,
            KeysBody(operator=bytes(32), vrf=new).encode(),
        ),
        "stake/redelegate": Decoder(
            RedelegateBody.decode,
            lambda b: b.encode(),
            BODY_BYTES_MAX,
            RedelegateBody(source=bytes(32), destination=b"\1" * 32, shares=7).encode(),
        ),
        "validator record": Decoder(
            ValidatorRecord.decode, lambda v: v.encode(), VALIDATOR_BYTES_MAX, validator.encode()
        ),
        "delegation": Decoder(
            Delegation.decode, lambda d: d.encode(), DELEGATION_BYTES_MAX, delegation.encode()
        ),
        "unbonding entry": Decoder(
            UnbondingEntry.decode, lambda e: e.encode(), UNBONDING_BYTES_MAX, entry.encode()
        ),
        "open entries": Decoder(
            decode_open_entries, codec.encode, SMALL_ROW_BYTES_MAX, codec.encode(8)
        ),
        "candidates": Decoder(
            decode_candidates,
            encode_candidates,
            CANDIDATES_BYTES_MAX,
            encode_candidates(candidates),
        ),
        "validator key": Decoder(
            decode_key_owner, encode_key_owner, SMALL_ROW_BYTES_MAX, encode_key_owner(owner)
        ),
    }


def _governance_decoders() -> dict[str, Decoder]:
    upgrade = Upgrade(height=10**6, version=3, info="install 2.0")
    bodies: dict[str, Change] = {
        "params": ParamsChange(values=(("fee_base", 5), ("gov_deposit", 10**9))),
        "upgrade": UpgradeChange(upgrade=upgrade),
        "cancel": CancelChange(height=10**6),
    }
    found = {}
    for name, change in bodies.items():
        body = ProposeBody(title="A title", summary="Why\nand how", change=change)
        proposal = Proposal(
            id=7,
            proposer=b"\1" * 32,
            deposit=10**9,
            body=body,
            opened_height=5,
            opened_ms=10**12,
            end_ms=10**12 + 5,
            status=Status.FAILED,
            closed_height=9,
            code="gov/bad-params",
            tally=Tally(1, 2**40, 0, 2**63),
        )
        found[f"{name} body"] = Decoder(
            ProposeBody.decode, lambda b: b.encode(), PROPOSE_BYTES_MAX, body.encode()
        )
        found[f"{name} proposal"] = Decoder(
            Proposal.decode, lambda p: p.encode(), PROPOSAL_BYTES_MAX, proposal.encode()
        )
    slots = Slots(last_id=9, slots=(OpenProposal(8, 10**12), None, OpenProposal(9, 2**63)))
    votes = ValidatorVotes(proposal_id=9, choice=Choice.NO, shares=(1, 2**40, 2**63))
    vote = Vote(proposal_id=9, choice=Choice.YES, shares=2**63)
    ballot = VoteBody(proposal_id=9, operator=b"\1" * 32, choice=Choice.ABSTAIN)
    upgrades = UpgradeState(current=upgrade, scheduled=upgrade)
    return found | {
        "slots": Decoder(Slots.decode, lambda s: s.encode(), SLOTS_BYTES_MAX, slots.encode()),
        "validator votes": Decoder(
            ValidatorVotes.decode, lambda v: v.encode(), VALIDATOR_VOTES_BYTES_MAX, votes.encode()
        ),
        "vote": Decoder(Vote.decode, lambda v: v.encode(), VOTE_BYTES_MAX, vote.encode()),
        "vote body": Decoder(
            VoteBody.decode, lambda b: b.encode(), VOTE_BODY_BYTES_MAX, ballot.encode()
        ),
        "upgrades": Decoder(
            UpgradeState.decode, lambda u: u.encode(), UPGRADE_BYTES_MAX, upgrades.encode()
        ),
    }


DECODERS = _decoders() | _staking_decoders() | _governance_decoders()
NAMES = pytest.mark.parametrize("name", DECODERS)


def judge(decoder: Decoder, data: bytes) -> bool:
    """Whether `data` decodes; if it does, to an object with exactly these bytes."""
    try:
        found = decoder.decode(data)
    except InvalidInputError:
        return False
    assert decoder.encode(found) == data
    return True


@NAMES
def test_valid_bytes_come_back(name: str) -> None:
    assert judge(DECODERS[name], DECODERS[name].valid)


@NAMES
def test_every_truncation_and_trailing_byte_is_refused(name: str) -> None:
    decoder = DECODERS[name]
    for length in range(len(decoder.valid)):
        assert not judge(decoder, decoder.valid[:length])
    for byte in range(256):
        assert not judge(decoder, decoder.valid + bytes([byte]))


@NAMES
def test_oversize_input_is_refused(name: str) -> None:
    decoder = DECODERS[name]
    size = decoder.bytes_max + 1
    for data in (bytes(size), b"\x91" * size, codec.encode([bytes(size)])):
        assert not judge(decoder, data)


WRONG: list[Any] = [
    None,
    True,
    0,
    codec.U64_MAX,
    b"",
    b"\7" * 31,
    b"\7" * 32,
    b"\7" * 33,
    "",
    "text",
    [],
    [[]],
    [None] * 7,
]


def replaced(value: Any, wrong: Any) -> Iterator[Any]:
    """`value` with each of its parts, one at a time, replaced by `wrong`."""
    yield wrong
    if isinstance(value, list):
        for index, item in enumerate(value):
            for other in replaced(item, wrong):
                yield [*value[:index], other, *value[index + 1 :]]
            yield [*value[:index], *value[index + 1 :]]
            yield [*value[:index], item, *value[index:]]


@NAMES
@pytest.mark.slow
def test_a_wrong_value_in_any_place_is_refused_or_another_object(name: str) -> None:
    decoder = DECODERS[name]
    value = codec.decode(decoder.valid, bytes_max=decoder.bytes_max)
    for wrong in WRONG:
        for other in replaced(value, wrong):
            judge(decoder, codec.encode(other))


@NAMES
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=400))
def test_random_bytes_raise_nothing_else(name: str, data: bytes) -> None:
    judge(DECODERS[name], data)


@NAMES
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_changed_bytes_raise_nothing_else(name: str, data: st.DataObject) -> None:
    decoder = DECODERS[name]
    changed = bytearray(decoder.valid)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        kind = data.draw(st.integers(0, 2))
        if kind == 0:
            changed[at] ^= data.draw(st.integers(1, 255))
        elif kind == 1:
            changed[at:at] = data.draw(st.binary(min_size=1, max_size=3))
        elif len(changed) > 1:
            del changed[at]
    judge(decoder, bytes(changed))
