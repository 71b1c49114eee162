"""Build, judge, commit, read back, prove."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ledger import codec
from ledger.accounts import account_key
from ledger.block import PROTOCOL_VERSION, Block, Header
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.chain import CANDIDATES_MAX, BlockTooEarly, Chain
from ledger.consensus_rows import ConsensusRows
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import verify_finality
from ledger.params import PARAMS_KEY
from ledger.state import verify_state_proof
from ledger.store import Batch, MemoryStore, Store
from ledger.tx import Tx
from tests.unit.chain_fixture import (
    CHAIN_ID,
    FAUCET,
    GENESIS,
    GENESIS_TIME_MS,
    VALIDATOR_KEYS,
    LeafListLog,
    advance,
    build,
    certify,
    handlers,
    key_of,
    open_chain,
    probe,
    transfer,
)

A = key_of(1)


def decoded(block: Block) -> list[Tx]:
    return [Tx.decode(tx) for tx in block.txs]


def grown(heights: int) -> Chain:
    """A chain of that many blocks with one transfer each."""
    chain = open_chain(MemoryStore())
    for nonce in range(heights):
        advance(chain, [transfer(FAUCET, nonce, A.public_key, 100)])
    return chain


def test_a_new_chain_stands_at_the_genesis() -> None:
    chain = open_chain(MemoryStore())
    assert (chain.height, chain.head, chain.head_certificate) == (0, None, None)
    assert chain.head_hash == GENESIS.genesis_hash
    assert chain.seed == codec.hash_tagged("beacon-genesis", GENESIS.genesis_hash)
    assert chain.validators == GENESIS.validators
    assert chain.params == GENESIS.params
    assert chain.account(FAUCET.public_key).balance == dict(GENESIS.accounts)[FAUCET.public_key]
    chain.check_invariants()
    with pytest.raises(InvalidInputError) as caught:
        chain.view()
    assert caught.value.retry


def test_nodes_that_build_judge_and_sync_come_to_the_same_chain() -> None:
    builder, voter, late = (open_chain(MemoryStore()) for _ in range(3))
    for n in range(5):
        txs = [transfer(FAUCET, 2 * n, A.public_key, 100), probe(FAUCET, 2 * n + 1, "run", "x")]
        block = build(builder, txs)
        voter.judge(Block.decode(block.encoded), decoded(block), now_ms=block.header.time_ms)
        certificate = certify(block)
        for chain in (builder, voter, late):
            commit = chain.commit(block, certificate)
            assert commit.tx_ids == block.tx_ids
            assert commit.log_entries == [b"x"]
            assert commit.audit_size_before == n
            assert commit.next_nonces == {FAUCET.public_key: 2 * n + 2}
    assert builder.head_hash == voter.head_hash == late.head_hash
    assert builder.tree.root == voter.tree.root == late.tree.root
    late.check_invariants()


def test_everything_of_a_height_can_be_read_back() -> None:
    chain = open_chain(MemoryStore())
    txs = [transfer(FAUCET, n, A.public_key, n) for n in range(3)]
    block = build(chain, txs)
    certificate = certify(block)
    commit = chain.commit(block, certificate)
    assert chain.block(1) == block
    assert chain.header(1) == block.header
    assert chain.certificate(1) == certificate
    assert chain.results(1) == list(commit.results)
    assert [chain.tx_location(tx.id) for tx in txs] == [(1, 0), (1, 1), (1, 2)]
    assert chain.tx_location(bytes(32)) is None
    for read in (chain.header, chain.block, chain.certificate, chain.results):
        for height in (0, 2, -1, 2**70):
            with pytest.raises(InvalidInputError):
                read(height)


def test_a_reopened_chain_goes_on_where_it_was() -> None:
    store = MemoryStore()
    chain = open_chain(store)
    for nonce in range(3):
        advance(chain, [transfer(FAUCET, nonce, A.public_key, 1)])
    again = open_chain(store)
    assert (again.height, again.head, again.head_certificate) == (
        chain.height,
        chain.head,
        chain.head_certificate,
    )
    advance(again, [transfer(FAUCET, 3, A.public_key, 1)])
    assert again.account(A.public_key).balance == 4


def test_a_store_of_another_genesis_is_refused() -> None:
    store = MemoryStore()
    open_chain(store)
    other = dataclasses.replace(GENESIS, genesis_hash=b"\7" * 32)
    with pytest.raises(InvalidInputError, match="another chain"):
        Chain.open(store, other, handlers(), LeafListLog())


# --- judging ---

HEADER_CHANGES: dict[str, Any] = {
    "protocol_version": PROTOCOL_VERSION + 1,
    "chain_id": "other",
    "height": 3,
    "time_ms": GENESIS_TIME_MS,
    "parent_hash": b"\7" * 32,
    "origin_view": 0,
    "proposer": A.public_key,
    "vrf_proof": b"x",
    "body_hash": b"\7" * 32,
    "state_root": b"\7" * 32,
    "audit_size": 9,
    "audit_root": b"\7" * 32,
    "results_root": b"\7" * 32,
    "validators_hash": b"\7" * 32,
    "next_validators_hash": b"\7" * 32,
}


def test_every_header_field_is_covered_by_a_change() -> None:
    assert set(HEADER_CHANGES) == {field.name for field in dataclasses.fields(Header)}


@pytest.mark.parametrize("name", HEADER_CHANGES)
def test_a_block_with_any_header_field_changed_is_refused_and_changes_nothing(name: str) -> None:
    chain = grown(1)
    block = build(chain, [transfer(FAUCET, 1, A.public_key, 1), probe(FAUCET, 2, "run", "x")])
    header = dataclasses.replace(block.header, **{name: HEADER_CHANGES[name]})
    bad = dataclasses.replace(block, header=header)
    root, head = chain.tree.root, chain.head_hash
    with pytest.raises(InvalidInputError):
        chain.judge(bad, decoded(bad), now_ms=None)
    with pytest.raises(InvalidInputError):
        chain.commit(bad, certify(bad), decoded(bad))
    with pytest.raises(InvalidInputError):
        chain.commit(bad, certify(bad))
    assert (chain.height, chain.head_hash, chain.tree.root) == (1, head, root)
    chain.commit(block, certify(block))


def rebodied(block: Block, **changes: Any) -> Block:
    """The block with another body, its header naming it."""
    other = dataclasses.replace(block, **changes)
    header = dataclasses.replace(block.header, body_hash=other.computed_body_hash)
    return dataclasses.replace(other, header=header)


def test_a_body_under_anothers_header_is_refused_though_that_header_is_known() -> None:
    chain = grown(1)
    block = build(chain, [transfer(FAUCET, 1, A.public_key, 1)])
    other = dataclasses.replace(block, txs=())
    with pytest.raises(InvalidInputError, match="body"):
        chain.judge(other, [], now_ms=None)
    with pytest.raises(InvalidInputError, match="body"):
        chain.commit(other, certify(block))


def test_the_txs_given_must_be_those_of_the_block() -> None:
    chain = grown(1)
    block = build(chain, [transfer(FAUCET, 1, A.public_key, 1)])
    with pytest.raises(UsageError):
        chain.judge(block, [transfer(FAUCET, 1, A.public_key, 2)], now_ms=None)


def test_dropped_or_reordered_txs_do_not_give_the_headers_roots() -> None:
    chain = grown(1)
    block = build(chain, [transfer(FAUCET, n, A.public_key, 1) for n in (1, 2)])
    for txs in (block.txs[:1], (), block.txs[::-1], block.txs * 2):
        bad = rebodied(block, txs=txs)
        with pytest.raises(InvalidInputError):
            chain.judge(bad, decoded(bad), now_ms=None)


@pytest.mark.parametrize("field", ["late_votes", "evidence"])
def test_late_votes_and_evidence_have_no_place_where_no_module_judges_them(field: str) -> None:
    chain = grown(1)
    bad = rebodied(build(chain), **{field: (b"x",)})
    with pytest.raises(InvalidInputError, match="no module"):
        chain.judge(bad, [], now_ms=None)


def test_the_parents_certificate_may_have_other_signers_but_must_be_one() -> None:
    chain = grown(2)
    block, parent = build(chain), chain.block(2)
    keys = {n: k for n, k in VALIDATOR_KEYS.items() if n != block.header.proposer}
    chain.judge(
        rebodied(block, parent_certificate=certify(parent, view=7, keys=keys)), [], now_ms=None
    )
    minority = dict(list(VALIDATOR_KEYS.items())[:2])
    forged = certify(parent, view=9)
    forged = dataclasses.replace(forged, signatures=(bytes(64), *forged.signatures[1:]))
    bad = [
        None,
        certify(parent, keys=minority),
        certify(parent, view=3, kind=VoteKind.NOTARIZE),
        certify(chain.block(1)),
        forged,
    ]
    for certificate in bad:
        with pytest.raises(InvalidInputError):
            chain.judge(rebodied(block, parent_certificate=certificate), [], now_ms=None)


def test_block_one_has_no_parent_certificate() -> None:
    chain = open_chain(MemoryStore())
    block = build(chain)
    assert block.parent_certificate is None
    with pytest.raises(InvalidInputError, match="parent certificate"):
        chain.judge(rebodied(block, parent_certificate=certify(block)), [], now_ms=None)


def test_a_fresh_block_may_be_ahead_of_the_clock_by_the_limit_and_no_more() -> None:
    chain, voter = grown(1), grown(1)
    block = build(chain, time_ms=GENESIS_TIME_MS + 10_000)
    limit = block.header.time_ms - chain.params.time_ahead_max_ms
    with pytest.raises(BlockTooEarly) as caught:
        voter.judge(block, [], now_ms=limit - 1)
    assert caught.value.retry
    assert caught.value.wait_ms == 1
    voter.judge(block, [], now_ms=limit)
    with pytest.raises(BlockTooEarly):
        voter.judge(block, [], now_ms=limit - 1)
    voter.judge(block, [], now_ms=None)


def test_a_block_is_later_than_its_parent_even_when_the_clock_went_back() -> None:
    chain = grown(2)
    parent = chain.head_time_ms
    assert build(chain, time_ms=0).header.time_ms == parent + 1


# --- candidates and commits ---


def test_candidates_lie_side_by_side_and_the_committed_one_wins() -> None:
    chain = grown(1)
    blocks = [build(chain, [transfer(FAUCET, 1, A.public_key, n)]) for n in range(3)]
    assert len({b.header.state_root for b in blocks}) == 3
    chain.commit(blocks[1], certify(blocks[1]))
    assert chain.account(A.public_key).balance == 101
    for block in (blocks[0], blocks[2]):
        with pytest.raises(InvalidInputError, match="height"):
            chain.commit(block, certify(block))


def test_a_candidate_that_fell_out_of_the_cache_is_executed_again() -> None:
    chain = grown(1)
    blocks = [
        build(chain, [transfer(FAUCET, 1, A.public_key, n)]) for n in range(CANDIDATES_MAX + 2)
    ]
    chain.commit(blocks[0], certify(blocks[0]))
    assert chain.height == 2


def test_a_certificate_that_does_not_finalize_the_block_is_refused() -> None:
    chain = grown(1)
    block, other = build(chain), build(chain, [transfer(FAUCET, 1, A.public_key, 1)])
    for certificate in (
        certify(other),
        certify(block, kind=VoteKind.NOTARIZE),
        chain.certificate(1),
    ):
        with pytest.raises(InvalidInputError, match="does not finalize"):
            chain.commit(block, certificate)
    assert chain.height == 1


def test_side_rows_and_the_rows_of_the_hook_are_written_with_the_height() -> None:
    calls: list[tuple[int, list[bytes]]] = []

    def tiles(_store: Store, old_size: int, entries: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
        calls.append((old_size, list(entries)))
        return [(b"a/tile", b"".join(entries))]

    store = MemoryStore()
    chain = open_chain(store, tiles)
    advance(chain, [probe(FAUCET, 0, "run", "one"), probe(FAUCET, 1, "run", "two")])
    advance(chain)
    advance(chain, [probe(FAUCET, 2, "run", "three")])
    assert calls == [(0, [b"one", b"two"]), (2, [b"three"])]
    assert store.get(b"a/tile") == b"three"
    assert chain.view().side_get(b"d/probe\0one") == b"one"


def test_candidates_and_certificates_are_kept_until_their_height_is_final() -> None:
    store = MemoryStore()
    chain = open_chain(store)
    blocks = [build(chain, [transfer(FAUCET, 0, A.public_key, n)]) for n in range(2)]
    certificates = [certify(b, kind=VoteKind.NOTARIZE) for b in blocks]
    chain.store_consensus(blocks, certificates[:1])
    chain.store_consensus(blocks[:1], certificates)
    kept_blocks, kept_certificates = open_chain(store).load_consensus(1)
    assert sorted(b.hash for b in kept_blocks) == sorted(b.hash for b in blocks)
    assert sorted(c.block_hash for c in kept_certificates) == sorted(b.hash for b in blocks)
    assert chain.load_consensus(2) == ([], [])
    again = open_chain(store)
    again.commit(blocks[0], certify(blocks[0]))
    # a second block's certificate would prove who made a fork, so it stays
    assert again.load_consensus(1) == ([], certificates[1:])
    assert open_chain(store).load_consensus(1) == ([], certificates[1:])
    again.store_consensus([], [nullification(1, view=3), nullification(1, view=2)])
    views = [c.view for c in again.other_certificates(1, 2)]
    assert views == [certificates[1].view, 2], "the lowest, as a fork proof wants them"
    assert again.other_certificates(2, 9) == []


def nullification(height: int, view: int) -> Certificate:
    message = vote_sign_bytes(CHAIN_ID, VoteKind.NULLIFY, height, view, b"")
    votes = {public: key.sign(message) for public, key in VALIDATOR_KEYS.items()}
    return Certificate.of(VoteKind.NULLIFY, height, view, b"", votes, GENESIS.validators)


def add_and_finalise(
    rows: ConsensusRows, store: MemoryStore, height: int, is_expired: Callable[[int], bool]
) -> None:
    """A nullification and a notarization below the final view, and one of it."""
    sample = certify(build(open_chain(MemoryStore())))
    final = dataclasses.replace(sample, height=height, view=2)
    kept = dataclasses.replace(final, kind=VoteKind.NULLIFY, view=1, block_hash=b"")
    earlier = dataclasses.replace(final, kind=VoteKind.NOTARIZE, view=1)
    useless = dataclasses.replace(final, kind=VoteKind.NOTARIZE)
    rows.add((), [kept, useless, *([earlier] if height == 5 else [])])
    drop = rows.keys_to_drop(final, is_expired)
    assert drop == rows.keys_to_drop(final, is_expired)
    batch = Batch()
    for key in drop:
        batch.delete(key)
    store.write(batch, sync=True)
    rows.forget(drop)


def held_by(rows: ConsensusRows) -> list[int]:
    held = [rows.load(height)[1] for height in range(1, 6)]
    assert all(c.view == 1 for certificates in held for c in certificates)
    return [len(certificates) for certificates in held]


def test_certificates_that_could_prove_a_fork_are_kept_for_the_evidence_window() -> None:
    store = MemoryStore()
    rows = ConsensusRows(store)
    for height in range(1, 6):
        add_and_finalise(rows, store, height, lambda other, now=height: other < now - 2)  # type: ignore[misc]  # a default binds the loop's value
    assert held_by(rows) == held_by(ConsensusRows(store)) == [0, 0, 1, 1, 2]
    assert rows.lost_total == 0


def test_too_many_such_certificates_go_before_their_time_and_are_counted() -> None:
    store = MemoryStore()
    rows = ConsensusRows(store, rows_max=3)
    for height in range(1, 6):
        add_and_finalise(rows, store, height, lambda _: False)
    assert held_by(rows) == held_by(ConsensusRows(store)) == [0, 0, 0, 1, 2]
    assert rows.lost_total == 3


def test_the_chain_drops_them_by_the_time_of_their_height() -> None:
    store = MemoryStore()
    chain = open_chain(store)
    other = certify(build(chain, [transfer(FAUCET, 0, A.public_key, 1)]), kind=VoteKind.NOTARIZE)
    chain.store_consensus((), [other])
    advance(chain)
    window_ms = chain.params.evidence_window_ms
    for late_ms, kept in ((window_ms, [other]), (window_ms + 1, [])):
        time_ms = chain.header(1).time_ms + late_ms
        block = chain.build(
            view=1,
            facts=chain.plain_facts(chain.validators.validators[0].public_key),
            time_ms=time_ms,
            candidates=(),
        )
        chain.commit(block, certify(block))
        assert chain.load_consensus(1)[1] == kept


# --- views ---


def test_a_view_proves_its_reads_to_whoever_trusts_the_validators() -> None:
    chain = grown(3)
    for height in (1, 2, 3):
        view = chain.view_at(height)
        header = verify_finality(view.finality, GENESIS.validators, CHAIN_ID)
        assert (header.height, view.time_ms) == (height, header.time_ms)
        for key in (account_key(A.public_key), account_key(bytes(32)), PARAMS_KEY):
            value, proof = view.prove(key)
            verify_state_proof(header.state_root, key, value, proof)
            assert view.get(key) == value
        row = view.get(account_key(A.public_key))
        assert row == codec.encode([100 * height, 0])


def test_a_view_stays_at_its_height_while_the_chain_goes_on() -> None:
    chain = grown(1)
    view = chain.view()
    key = account_key(A.public_key)
    before = (view.get(key), view.prove(key)[0])
    advance(chain, [transfer(FAUCET, 1, A.public_key, 5)])
    assert (view.get(key), view.prove(key)[0]) == before
    value, proof = view.prove(key)
    verify_state_proof(view.finality.header.state_root, key, value, proof)
    assert chain.view().get(key) != value


@pytest.mark.parametrize("height", [0, 4, -1])
def test_there_is_no_view_of_a_height_that_is_not_final(height: int) -> None:
    with pytest.raises(InvalidInputError):
        grown(3).view_at(height)
