"""The answers behind the RPC: when the node is ready, and what each wrong question is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from audit.leaf import decode_stream_text
from audit.stream import StreamRecord, stream_key
from consensus.core import Core
from consensus.timing import Timing
from ledger.errors import InvalidInputError, UsageError
from ledger.execution import BlockContext, BlockModule, Event
from ledger.fees import sign_tx
from ledger.finality import FinalityProof
from ledger.merkle import compute_leaf_hash, verify_inclusion_proof
from ledger.state import verify_state_proof
from ledger.store import LevelStore
from ledger.tx import Tx
from node import wire
from node.api import Api
from node.config import NodeConfig
from node.daemon import SILENT_WITH_WORK_S, Node
from node.driver import ConsensusDriver
from node.evidence_pool import EvidencePool
from node.log_service import LogService
from node.offences import Offences
from node.sync import BlockSync
from node.tx_waits import WAITERS_MAX, Dropped
from node.voting import VotingKey
from p2p.link import P2PLink
from rpc.errors import RpcCode, RpcError
from rpc.params import bytes_of_text
from rpc.results import TX_RESULT, mismatches
from tests.unit.anchoring_world import AnchoringWorld
from tests.unit.chain_fixture import (
    CHAIN_ID,
    FAUCET,
    NETWORK,
    PARAMS,
    PROPOSER,
    build,
    certify,
    key_of,
    transfer,
)
from tests.unit.node_fixture import FakeLink, peer_info
from tests.unit.test_accountability import evidence

TO = bytes(range(32))


class StatusLink(FakeLink):
    """What `node_status` and the metrics ask of the link, too."""

    listen_addr = "/ip4/127.0.0.1/tcp/1"
    pid = 1

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = ["a"]

    def peers(self) -> list:  # type: ignore[type-arg]  # as the base class
        return [peer_info(name) for name in self.names]

    def stats(self) -> dict[str, int]:
        return {"restarts": 0}


class ApiWorld:
    """A `Node` whose parts are real but not started; blocks are made by the test."""

    def __init__(self, folder: Path, modules: Sequence[BlockModule] = ()) -> None:
        self.parts = AnchoringWorld(LevelStore.open(folder / "chain"), modules=modules)
        self.link = StatusLink()
        node = self.node = Node(NodeConfig(home=folder, moniker="test"))
        node.genesis = self.parts.chain.genesis
        node.chain = self.parts.chain
        node.store = cast(LevelStore, self.parts.chain_store)
        node.log_tree = self.parts.log_tree
        node.voting = VotingKey(key=None, guard=None, reason="full node")
        node.link = cast(P2PLink, self.link)
        node.txpool = self.parts.pool
        node.anchoring = self.parts.anchoring
        node.log_service = LogService.open(node.config, node.chain, node.log_tree, node.link, None)
        node.offences = Offences(clock=time.monotonic, on_drop=lambda *_: None)
        node.evidence = EvidencePool(node.chain, node.store, lambda *_: None)
        node.driver = ConsensusDriver(
            chain=node.chain,
            core=Core(chain_id=CHAIN_ID, key=None, sign=None, timing=Timing()),
            make_facts=lambda _: node.chain.plain_facts(PROPOSER),
            evidence=node.evidence,
            guard=None,
            link=node.link,
            txpool=node.txpool,
            wall_ms=lambda: 0,
            on_commit=lambda _: None,
            on_need_sync=lambda *_: None,
            on_offence=lambda *_: None,
            on_fork=lambda _: None,
        )
        node.sync = BlockSync(
            chain=node.chain,
            txpool=node.txpool,
            link=node.link,
            on_commit=node.anchoring.on_commit,
            on_caught_up=lambda: None,
            on_bad_peer=lambda *_: None,
            on_failure=lambda _: None,
        )
        self.api = Api(node)

    async def pay(self, amount: int = 1) -> Tx:
        """A transfer that is pending."""
        nonce = self.parts.chain.account(FAUCET.public_key).nonce
        tx = transfer(FAUCET, nonce, TO, amount)
        await self.parts.pool.submit([tx.encoded])
        return tx


def run(
    folder: Path,
    test: Callable[[ApiWorld], Awaitable[None]],
    modules: Sequence[BlockModule] = (),
) -> None:
    async def body() -> None:
        world = ApiWorld(folder, modules)
        world.parts.anchoring.start()
        try:
            await test(world)
        finally:
            await world.node.sync.stop()
            world.node.driver.stop("node is stopping")
            await world.parts.stop()
            world.node.store.close()

    asyncio.run(body())


async def refusal(call: Awaitable[object]) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await call
    return caught.value


def test_a_node_is_ready_with_blocks_peers_and_finality_and_says_what_lacks(
    tmp_path: Path,
) -> None:
    async def test(world: ApiWorld) -> None:
        assert world.api.readiness().reasons == ("the chain has no block yet",)
        world.parts.commit()
        assert world.api.readiness().ready
        world.link.names = []
        assert world.api.readiness().reasons == ("no peers",)
        world.link.names = ["a"]
        world.node.sync.on_peer_up("a", 50)
        await asyncio.sleep(0)
        assert world.api.readiness().ready, "anybody can claim a height"
        block = build(world.node.chain)
        answer = wire.Range(tip_height=50, items=((block.encoded, certify(block).encode()),))
        world.node.sync.on_range("a", answer.encode())
        while world.node.chain.height == 1:
            await asyncio.sleep(0)
        assert world.api.readiness().reasons == ("syncing: height 2 of 50",)
        await world.node.sync.stop()
        world.node._committed_at -= SILENT_WITH_WORK_S + 1
        assert world.api.readiness().ready, "idle: nothing is due before the heartbeat"
        await world.pay()
        [silent] = world.api.readiness().reasons
        assert silent.startswith("no finality for 6 s")
        world.parts.commit()
        world.node._committed_at = time.monotonic()
        world.node.driver.stop("a write failed: no space")
        assert world.api.readiness().reasons == ("consensus stopped: a write failed: no space",)
        assert not world.api.readiness().ready

    run(tmp_path, test)


def test_a_chain_without_a_block_answers_not_ready_everywhere(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        api = world.api
        for call in (
            api.chain_head(),
            api.chain_header(1),
            api.chain_block(None),
            api.chain_certificate(bytes(32)),
            api.chain_validators(None),
            api.chain_account(TO, None),
            api.chain_params(),
            api.audit_checkpoint(),
            api.audit_inclusion(0, None),
            api.stake_delegations(None, None, 0, 10),
        ):
            assert (await refusal(call)).code == RpcCode.NOT_READY
        status = await api.node_status()
        assert (status["height"], status["ready"]) == (0, False)

    run(tmp_path, test)


def test_unknown_blocks_txs_and_streams_are_not_found(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        world.parts.commit()
        api = world.api
        for call in (
            api.chain_header(0),
            api.chain_block(2),
            api.chain_header(2**63),
            api.chain_certificate(bytes(32)),
            api.chain_validators(2),
            api.chain_account(TO, 2),
            api.tx_get(bytes(32)),
            api.did_proof("did:zynk:zUnknown", 9),
        ):
            assert (await refusal(call)).code == RpcCode.NOT_FOUND

    run(tmp_path, test)


def test_a_tx_is_accepted_then_final_and_its_proof_is_given(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        tx = await world.pay(5)
        assert (await world.api.tx_get(tx.id))["status"] == "accepted"
        wait = asyncio.create_task(world.api.tx_submit(tx.encoded, "finalized", 5000))
        await asyncio.sleep(0.01)
        world.parts.commit()
        final = await wait
        assert (final["status"], final["height"], final["code"]) == ("finalized", 1, "ok")
        got = await world.api.tx_get(tx.id)
        assert {key: got[key] for key in final} == final
        assert "proof" in got
        assert (await world.api.chain_account(TO, None))["balance"] == "5"
        late = transfer(FAUCET, 1, TO, 1)
        answer = await world.api.tx_submit(late.encoded, "finalized", 10)
        assert answer["status"] == "accepted", "not final in time"
        assert world.parts.pool.waiting == 0

    run(tmp_path, test)


def test_a_tx_that_was_taken_in_is_never_told_as_refused_for_want_of_room_to_wait(
    tmp_path: Path,
) -> None:
    async def test(world: ApiWorld) -> None:
        world.parts.commit()
        ids = [number.to_bytes(32, "big") for number in range(WAITERS_MAX)]
        others = asyncio.create_task(world.parts.pool.wait_final(ids, 60))
        await asyncio.sleep(0)
        assert world.parts.pool.waiting == WAITERS_MAX
        tx = transfer(FAUCET, 0, TO, 1)
        answer = await world.api.tx_submit(tx.encoded, "finalized", 5000)
        assert answer == {"tx_id": tx.id.hex(), "status": "accepted"}
        assert tx.id in world.parts.pool.mempool
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)

    run(tmp_path, test)


class Herald:
    """A `BlockModule` that has something to tell in each block."""

    def begin(self, context: BlockContext) -> None:
        context.emit(Event("test.told", (("height", str(context.height)),)))

    def end(self, context: BlockContext) -> None:
        pass


def test_a_result_is_proven_also_in_a_block_that_has_a_result_of_its_own(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        tx = await world.pay(5)
        world.parts.commit()
        answer: Any = await world.api.tx_get(tx.id)
        proof = answer["proof"]
        assert proof["size"] == 2
        finality = FinalityProof.decode(bytes_of_text(proof["finality"]))
        verify_inclusion_proof(
            finality.header.results_root,
            proof["size"],
            proof["index"],
            compute_leaf_hash(bytes_of_text(proof["result"])),
            [bytes.fromhex(h) for h in proof["path"]],
        )

    run(tmp_path, test, (Herald(),))


@pytest.mark.parametrize("between", [0, 255], ids=["in one slice", "a slice later"])
def test_a_tx_that_is_dropped_before_the_wait_for_its_batch_begins_is_told_as_dropped(
    tmp_path: Path, between: int
) -> None:
    async def test(world: ApiWorld) -> None:
        cheap = transfer(FAUCET, 0, TO, 1)
        dear = transfer(FAUCET, 0, TO, 2, fee=cheap.fee * 10)
        batch = [cheap.encoded, *[b"junk"] * between, dear.encoded]
        wait = asyncio.create_task(world.api.tx_submit_batch(batch, "finalized", 60_000))
        while not world.parts.pool.waiting:
            await asyncio.sleep(0.001)
        world.parts.commit()
        first, *_, last = await asyncio.wait_for(wait, 5)
        assert first == {
            "tx_id": cheap.id.hex(),
            "status": "dropped",
            "reason": "mempool/replaced",
        }
        assert isinstance(last, dict)
        assert (last["tx_id"], last["status"]) == (dear.id.hex(), "finalized")

    run(tmp_path, test)


def test_a_tx_that_was_dropped_and_is_taken_in_again_is_waited_for(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        tx = await world.pay()
        pool = world.parts.pool
        pool.bar(tx.id)
        assert await pool.wait_final([tx.id], 60) == {tx.id: Dropped(reason="tx/not-executable")}
        pool._barred.clear()
        wait = asyncio.create_task(world.api.tx_submit(tx.encoded, "finalized", 60_000))
        while not pool.waiting:
            await asyncio.sleep(0.001)
        world.parts.commit()
        assert (await asyncio.wait_for(wait, 5))["status"] == "finalized"

    run(tmp_path, test)


def test_a_tx_that_is_dropped_ends_the_wait_with_its_reason(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        cheap = transfer(FAUCET, 0, TO, 1)
        wait = asyncio.create_task(world.api.tx_submit(cheap.encoded, "finalized", 60_000))
        await asyncio.sleep(0.01)
        dear = transfer(FAUCET, 0, TO, 2, fee=10 * cheap.fee)
        await world.api.tx_submit(dear.encoded, "accepted", 0)
        async with asyncio.timeout(5):
            answer = await wait
        assert answer == {
            "tx_id": cheap.id.hex(),
            "status": "dropped",
            "reason": "mempool/replaced",
        }
        assert mismatches(answer, TX_RESULT) == []

    run(tmp_path, test)


def test_refused_txs_carry_their_reason(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        world.parts.commit()
        poor = transfer(key_of(1), 0, TO, 1)
        cheap = transfer(FAUCET, 0, TO, 1, fee=1)
        foreign = transfer(FAUCET, 0, TO, 1, chain_id="other-1")
        good = transfer(FAUCET, 0, TO, 1)
        forged = good.encoded[:-1] + bytes([good.encoded[-1] ^ 1])
        batch = [poor.encoded, cheap.encoded, foreign.encoded, forged, b"?", good.encoded]
        outcomes = await world.api.tx_submit_batch(batch, "accepted", 0)
        assert all(isinstance(outcome, InvalidInputError | RpcError) for outcome in outcomes[:5])
        assert outcomes[5] == {"tx_id": good.id.hex(), "status": "accepted"}
        for outcome in outcomes[:5]:
            assert not (isinstance(outcome, RpcError) and outcome.code == RpcCode.INTERNAL_ERROR)
        with pytest.raises(InvalidInputError, match="signature"):
            await world.api.tx_submit(forged, "accepted", 0)
        no_did = sign_tx(
            FAUCET,
            chain_id=CHAIN_ID,
            nonce=1,
            valid_until=100,
            messages=good.messages,
            params=PARAMS,
        )
        with pytest.raises(InvalidInputError, match="no DID operation"):
            await world.api.did_submit(no_did.encoded, "accepted", 0)

    run(tmp_path, test)


@pytest.mark.slow
def test_evidence_is_kept_once_and_refused_with_the_reason(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        good = evidence(height=1)
        answer = await world.api.evidence_submit(good.encode())
        operator = NETWORK.nodes[1].operator_key.public_key
        assert answer == {"operator": operator.hex(), "height": 1}
        assert len(world.node.evidence) == 1
        stranger = evidence(height=1, key=key_of(1))
        for data, reason, retry in (
            (good.encode(), "evidence/not-needed", False),
            (evidence(height=2**60).encode(), "evidence/not-needed", True),
            (stranger.encode(), "evidence/false", False),
            (b"?", "evidence/false", False),
        ):
            with pytest.raises(RpcError) as raised:
                await world.api.evidence_submit(data)
            assert raised.value.code == RpcCode.EVIDENCE_REFUSED
            assert (raised.value.reason, raised.value.retry) == (reason, retry)
        assert len(world.node.evidence) == 1

    run(tmp_path, test)


def test_sizes_and_indexes_that_the_log_never_had_are_refused(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        await world.parts.fund()
        stream = await world.parts.make_stream()
        await world.api.audit_submit(stream, [b"\x12\x20" + bytes(32)], None)
        await world.parts.until_pending()
        world.parts.commit()
        assert (await world.api.audit_checkpoint())["tree_size"] == 1
        assert (await world.api.audit_inclusion(0, None))["path"] == []
        assert (await world.api.audit_consistency(1, 1))["path"] == []
        for call in (
            world.api.audit_inclusion(1, None),
            world.api.audit_inclusion(0, 2),
            world.api.audit_inclusion(0, 0),
            world.api.audit_consistency(0, None),
            world.api.audit_consistency(2, 1),
            world.api.audit_consistency(1, 2),
        ):
            with pytest.raises((InvalidInputError, UsageError)):
                await call
        found = await world.api.audit_stream(stream)
        assert found["stream"] == stream
        proof = found["proof"]
        assert isinstance(proof, dict)
        header = FinalityProof.decode(bytes_of_text(str(proof["finality"]))).header
        key, row = stream_key(decode_stream_text(stream)), bytes_of_text(str(proof["value"]))
        verify_state_proof(header.state_root, key, row, bytes_of_text(str(proof["state_proof"])))
        assert StreamRecord.decode(row).owner == found["owner"]

    run(tmp_path, test)


def test_the_metrics_count_what_the_node_did(tmp_path: Path) -> None:
    async def test(world: ApiWorld) -> None:
        await world.pay()
        await world.parts.pool.submit([b"?"])
        world.node.offences.add("a", "a fault")
        metrics = world.api.metrics()
        assert metrics["mempool_txs"] == 1
        assert metrics["mempool_refused_total"] == 1
        assert metrics["p2p_offences_total"] == 1
        assert metrics["consensus_voting"] == 0
        assert metrics["p2p_restarts"] == 0
        world.parts.commit()
        assert world.api.metrics()["consensus_height"] == 1

    run(tmp_path, test)
