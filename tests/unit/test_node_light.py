"""`zynk light`: rounds over faked endpoints, kept trust, attacks."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from consensus.fork_proof import IncompleteForkProofError, verify_fork_proof
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import FinalityProof, verify_finality
from ledger.light import Judgement, Verdict
from ledger.validator_set import ValidatorSet
from node.cli_node import inspect
from node.light_follow import AttackFound, Follower, decode_attack, decode_fork_proof
from node.light_trust import TrustRoot, load_trust, load_trust_root, save_trust
from rpc.errors import RpcConnectionError, not_found
from tests.unit.chain_fixture import NETWORK
from tests.vectors.light_chain import (
    BLOCK_MS,
    CHAIN_ID,
    DAY_MS,
    GENESIS_TIME_MS,
    LightChain,
    key_of,
    set_of,
    sign,
)

PLAN = [(set_of(range(i * 2, i * 2 + 6)), 8) for i in range(4)]
FORK_FROM = 20
CHAIN = LightChain(PLAN, seed=1, key_count=20, fork_from=FORK_FROM)
FORK = LightChain([*PLAN[:3], (set_of(range(5, 11)), 8)], seed=2, key_count=20, fork_from=FORK_FROM)
"""From height 25 on it has another set: only where it began do the chains have one in common."""
TOP = CHAIN.height
NOW_MS = GENESIS_TIME_MS + TOP * BLOCK_MS
ROOT = TrustRoot(
    chain_id=CHAIN_ID,
    root=bytes(32),
    height=0,
    trusting_period_ms=14 * DAY_MS,
    point=CHAIN.trust(0),
)


class FakeSource:
    """Serves a chain up to `top`; `fault` is raised by every call, `byte` is changed in each."""

    def __init__(
        self,
        url: str,
        chain: LightChain = CHAIN,
        *,
        top: int = TOP,
        fault: Exception | None = None,
        is_lying: bool = False,
    ) -> None:
        self.url = url
        self.chain = chain
        self.top = top
        self.fault = fault
        self.is_lying = is_lying
        self.asked: list[int] = []
        self.hidden_below = 0
        self.kept: dict[int, list[bytes]] = {}

    async def call(self, method: str, **params: object) -> Mapping[str, Any]:
        raise NotImplementedError

    async def close(self) -> None:
        pass

    async def finality(self, height: int | None, trusted_height: int) -> bytes:
        if self.fault is not None:
            raise self.fault
        height = self.top if height is None else height
        if not self.hidden_below <= height <= self.top or trusted_height > height:
            raise not_found("block")
        proof = self.chain.finality(height, trusted_height)
        if self.is_lying:
            header = dataclasses.replace(proof.header, state_root=b"\1" * 32)
            proof = dataclasses.replace(proof, header=header)
        return proof.encode()

    async def light_block(self, height: int) -> bytes:
        self.asked.append(height)
        if self.fault is not None:
            raise self.fault
        if height > self.top:
            raise not_found("block")
        return self.chain.light_block(height).encode()

    async def certificates(self, height: int) -> list[bytes]:
        return self.kept.get(height, [])


def follower_of(folder: Path, *sources: FakeSource, now_ms: int = NOW_MS) -> Follower:
    return Follower(ROOT, sources, folder, witness_wait_s=0, now_ms=lambda: now_ms)


def rounds(follower: Follower, count: int = 1) -> list[Judgement]:
    async def go() -> list[Judgement]:
        await follower.start()
        return [await follower.advance() for _ in range(count)]

    return asyncio.run(go())


def test_a_round_reaches_the_head_and_a_restart_goes_on_from_there(tmp_path: Path) -> None:
    source = FakeSource("a")
    follower = follower_of(tmp_path, source, FakeSource("b"))
    assert [j.verdict for j in rounds(follower, 2)] == [Verdict.VALID] * 2
    assert follower.trust == CHAIN.trust(TOP)
    assert source.asked[0] == TOP
    again = follower_of(tmp_path, FakeSource("a"))
    assert rounds(again, 0) == []
    assert again.trust == CHAIN.trust(TOP)


@pytest.mark.parametrize(
    "fault",
    [
        FakeSource("bad", fault=RpcConnectionError("down")),
        FakeSource("bad", fault=InvalidInputError("garbage")),
        FakeSource("bad", is_lying=True),
        FakeSource("bad", top=3),
    ],
    ids=["down", "garbage", "lying", "behind"],
)
def test_a_bad_primary_is_replaced_by_a_witness(tmp_path: Path, fault: FakeSource) -> None:
    start = CHAIN.trust(5)
    save_trust(tmp_path / "trusted.bin", ROOT, start)
    follower = follower_of(tmp_path, fault, FakeSource("b"), FakeSource("c"))
    first, second = rounds(follower, 2)
    assert first.verdict is not Verdict.VALID
    assert second.verdict is Verdict.VALID
    assert follower.trust == CHAIN.trust(TOP)
    is_at_fault = fault.is_lying or isinstance(fault.fault, InvalidInputError)
    assert (follower.health["bad"].faults > 0) is is_at_fault


def test_a_stale_primary_is_too_old(tmp_path: Path) -> None:
    stale = FakeSource("stale", top=5)
    follower = follower_of(tmp_path, stale, now_ms=NOW_MS + 60_000)
    assert rounds(follower)[0].verdict is Verdict.TOO_OLD
    assert follower.trust == CHAIN.trust(0)


def test_the_head_stays_while_no_witness_confirms_it(tmp_path: Path) -> None:
    for witness in (FakeSource("b", top=3), FakeSource("b", is_lying=True)):
        follower = follower_of(tmp_path, FakeSource("a"), witness)
        (judgement,) = rounds(follower)
        assert judgement.verdict is Verdict.CANNOT_TELL
        assert follower.trust == CHAIN.trust(0)


def test_two_final_headers_end_everything_with_both_proofs_on_disk(tmp_path: Path) -> None:
    follower = follower_of(tmp_path, FakeSource("a"), FakeSource("b", FORK))
    with pytest.raises(AttackFound) as caught:
        rounds(follower)
    first, second = decode_attack(caught.value.path.read_bytes())
    for proof, chain in ((first, CHAIN), (second, FORK)):
        header = verify_finality(proof, CHAIN.sets[0], CHAIN_ID)
        assert header == chain.header(TOP)
    assert follower.trust == CHAIN.trust(0), "the head did not move"
    assert not (tmp_path / "trusted.bin").exists()


# --- who made the fork ---

VOTERS = CHAIN.sets[FORK_FROM - 1]


def attack_of(folder: Path, *sources: FakeSource, root: TrustRoot = ROOT) -> AttackFound:
    folder.mkdir(exist_ok=True)
    follower = Follower(root, sources, folder, witness_wait_s=0, now_ms=lambda: NOW_MS)
    with pytest.raises(AttackFound) as caught:
        rounds(follower)
    return caught.value


def culprits_of(attack: AttackFound, trusted: ValidatorSet = CHAIN.sets[0]) -> set[bytes]:
    proof = decode_fork_proof(attack.path.read_bytes())
    assert proof.height == FORK_FROM
    return set(verify_fork_proof(proof, trusted, CHAIN_ID))


def signers_of(certificate: Certificate, validators: ValidatorSet) -> set[bytes]:
    return {validators.validators[i].public_key for i in certificate.signer_indexes(validators)}


def test_the_attack_file_names_everybody_who_signed_both_chains(tmp_path: Path) -> None:
    attack = attack_of(tmp_path, FakeSource("a"), FakeSource("b", FORK))
    both = signers_of(CHAIN.certificate(FORK_FROM), VOTERS) & signers_of(
        FORK.certificate(FORK_FROM), VOTERS
    )
    assert culprits_of(attack) == both
    assert len(both) >= 4, "what two quorums of 5 of 6 share"
    assert "zynk inspect fork" in str(attack)


class LaterView(FakeSource):
    """The other side of the fork, on which its first block became final in view 3 only."""

    async def finality(self, height: int | None, trusted_height: int) -> bytes:
        proof = FinalityProof.decode(await super().finality(height, trusted_height))
        if height == FORK_FROM:
            keys = [key_of(n) for n in range(20) if key_of(n).public_key in VOTERS]
            later = sign(proof.header, VOTERS, keys[:5], view=3)
            proof = dataclasses.replace(proof, certificate=later)
        return proof.encode()


def nullification(height: int, chain_id: str = CHAIN_ID) -> bytes:
    message = vote_sign_bytes(chain_id, VoteKind.NULLIFY, height, 1, b"")
    keys = [key_of(n) for n in range(20) if key_of(n).public_key in VOTERS]
    votes = {key.public_key: key.sign(message) for key in keys[:5]}
    return Certificate.of(VoteKind.NULLIFY, height, 1, b"", votes, VOTERS).encode()


def test_a_fork_of_two_views_is_named_by_what_a_witness_keeps_between(tmp_path: Path) -> None:
    silent = attack_of(tmp_path / "a", FakeSource("a"), LaterView("b", FORK))
    with pytest.raises(IncompleteForkProofError):
        culprits_of(silent)
    witness = LaterView("b", FORK)
    good = nullification(FORK_FROM)
    forged = nullification(FORK_FROM, "another-chain")
    witness.kept = {FORK_FROM: [b"garbage", forged, nullification(FORK_FROM - 1), good]}
    named = culprits_of(attack_of(tmp_path / "b", FakeSource("a"), witness))
    nullified = signers_of(Certificate.decode(good), VOTERS)
    assert named >= nullified & signers_of(CHAIN.certificate(FORK_FROM), VOTERS)


def trust_point_file(folder: Path, height: int) -> Path:
    path = folder / "trust.json"
    value = {
        "type": "zynk-trust-point/1",
        "chain_id": CHAIN_ID,
        "height": height,
        "header_hash": CHAIN.header(height).hash.hex(),
    }
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("height", [4, FORK_FROM - 1])
def test_inspect_fork_reads_the_attack_file_from_the_light_clients_own_trust_point(
    tmp_path: Path, height: int
) -> None:
    trust = trust_point_file(tmp_path, height)
    root = load_trust_root(trust, None)
    attack = attack_of(tmp_path, FakeSource("a"), FakeSource("b", FORK), root=root)
    arguments = ["fork", str(attack.path), "--trust", str(trust), "--json"]
    result = CliRunner().invoke(inspect, arguments)
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout.splitlines()[-1])
    assert shown["height"] == FORK_FROM
    assert shown["named_power"] >= 4
    assert {bytes.fromhex(c["validator"]) for c in shown["culprits"]} <= {
        v.public_key for v in VOTERS.validators
    }
    other = CliRunner().invoke(
        inspect, ["fork", str(attack.path), "--trust", str(trust_point_file(tmp_path, 9))]
    )
    assert isinstance(other.exception, InvalidInputError)
    assert "does not begin at the trust point" in str(other.exception)


def test_a_side_that_hides_where_it_left_has_no_fork_proof_and_the_file_says_so(
    tmp_path: Path,
) -> None:
    hiding = FakeSource("b", FORK)
    hiding.hidden_below = TOP
    attack = attack_of(tmp_path, FakeSource("a"), hiding)
    assert attack.why_unnamed
    data = attack.path.read_bytes()
    assert [p.header.height for p in decode_attack(data)] == [TOP, TOP]
    with pytest.raises(InvalidInputError, match="nobody can be named"):
        decode_fork_proof(data)
    for damaged in (data[:-1], data + b"\0", data[:40]):
        with pytest.raises(InvalidInputError):
            decode_fork_proof(damaged)


def test_a_side_that_hides_it_under_one_set_is_named_at_the_lowest_height_shown(
    tmp_path: Path,
) -> None:
    hiding = FakeSource("b", LightChain(PLAN, seed=2, key_count=20, fork_from=FORK_FROM))
    hiding.hidden_below = TOP
    attack = attack_of(tmp_path, FakeSource("a"), hiding)
    proof = decode_fork_proof(attack.path.read_bytes())
    assert proof.height == TOP
    assert len(verify_fork_proof(proof, CHAIN.sets[0], CHAIN_ID)) >= 4


def test_expired_trust_stops_with_what_to_do(tmp_path: Path) -> None:
    follower = follower_of(tmp_path, FakeSource("a"), now_ms=NOW_MS + 15 * DAY_MS)
    with pytest.raises(UsageError, match="newer trust file"):
        rounds(follower)


# --- trust files ---


def test_a_genesis_file_gives_the_first_trust_and_two_thirds_of_the_unbonding_time(
    tmp_path: Path,
) -> None:
    path = tmp_path / "genesis.json"
    path.write_bytes(NETWORK.document.encode())
    root = load_trust_root(path, None)
    assert root.point is not None
    assert root.point.validators == NETWORK.document.to_state().validators
    assert root.trusting_period_ms == NETWORK.document.params.unbonding_ms * 2 // 3
    with pytest.raises(UsageError, match="unbonding"):
        load_trust_root(path, NETWORK.document.params.unbonding_ms)


def test_a_trust_point_file_is_a_height_and_a_hash_whose_block_is_fetched(tmp_path: Path) -> None:
    path = trust_point_file(tmp_path, 16)
    value = json.loads(path.read_text())
    root = load_trust_root(path, None)
    follower = Follower(root, [FakeSource("a")], tmp_path, now_ms=lambda: NOW_MS)
    assert rounds(follower)[0].verdict is Verdict.VALID
    assert follower.trust == CHAIN.trust(TOP)
    other = Follower(dataclasses.replace(root, root=bytes(32)), [FakeSource("a")], tmp_path / "x")
    with pytest.raises(InvalidInputError, match="not the trusted one"):
        asyncio.run(other.start())
    for name, bad in (("height", 0), ("header_hash", "00"), ("chain_id", 5), ("more", 1)):
        path.write_text(json.dumps({**value, name: bad}))
        with pytest.raises(UsageError, match="malformed"):
            load_trust_root(path, None)


def test_kept_trust_of_another_root_or_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trusted.bin"
    assert load_trust(path, ROOT) == ROOT.point
    save_trust(path, ROOT, CHAIN.trust(7))
    assert load_trust(path, ROOT) == CHAIN.trust(7)
    with pytest.raises(UsageError, match="another trust file"):
        load_trust(path, dataclasses.replace(ROOT, root=b"\1" * 32))
    data = path.read_bytes()
    for damaged in (data[:-1], data + b"\0", b""):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="begin anew"):
            load_trust(path, ROOT)
