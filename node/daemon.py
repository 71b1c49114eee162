"""The node: opens what is on disk, wires the parts, and stops them in the reverse order.

    rpc -> txpool -> p2p gossip ... p2p -> driver (consensus) -> chain (one synced batch) -> events

Start order: store and chain (a bad disk ends the start with a clear message), guard, p2p process,
consensus, RPC, ready file. Whatever a peer or client sends is caught at its edge, counted, and
never ends the process.

A chain that goes on in a protocol version that this software does not speak ends it: at the last
height before, with everything written, after some seconds in which slower peers get that height.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from audit.tree_store import LogTree, commit_rows
from consensus.core import Core
from consensus.fork_proof import ForkProof
from consensus.timing import Timing
from genesis.document import GenesisDocument
from ledger.block import PROTOCOL_VERSION, PROTOCOL_VERSIONS
from ledger.chain import Commit
from ledger.errors import DurabilityError, InvalidInputError, UsageError, ZynkError
from ledger.execution import BlockFacts
from ledger.mempool import Mempool, MempoolLimits
from ledger.store import LevelStore
from node import config as cfg
from node import wire
from node.anchoring import Anchoring
from node.api import Api
from node.block_facts import BlockFactsMaker
from node.driver import ConsensusDriver
from node.evidence_pool import EvidencePool
from node.files import replace_file
from node.handlers import open_chain
from node.keys import load_key
from node.log_service import LogService
from node.offences import Offences
from node.signature_pool import SignaturePool
from node.sync import BlockSync
from node.txpool import TxPool
from node.voting import VotingKey, VrfSeeds, is_next_key_due, open_voting_key
from p2p.config import P2PConfig
from p2p.link import P2PLink
from rpc.api import BlockEvent, TxOutcome
from rpc.config import RpcConfig
from rpc.server import RpcServer

STORE_FOLDER = "chain"
AUDIT_FOLDER = "audit"
SILENT_WITH_WORK_S = 5.0
SILENT_IDLE_S = 3.0
UPGRADE_LINGER_S = 5.0
"""How long a node that must be upgraded still brings slower peers to its last height."""

log = structlog.get_logger("node")


class Node:
    """One node; `start`, then `stop`. `config.home` holds everything it keeps."""

    def __init__(
        self,
        config: cfg.NodeConfig,
        *,
        passphrase: str | None = None,
        protocol_versions: Collection[int] = PROTOCOL_VERSIONS,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self._protocol_versions = protocol_versions
        self._on_end = on_end
        self.started_at = time.time()
        self.is_stopping = False
        self._passphrase = passphrase
        self._undo = contextlib.AsyncExitStack()
        self._committed_at = time.monotonic()
        self._records_lost = 0

    # --- life ---

    async def start(self) -> None:
        """Raises UsageError (UpgradeNeeded), InvalidInputError or DurabilityError with what to
        do; what was started by then is stopped."""
        async with contextlib.AsyncExitStack() as undo:
            await self._start(undo)
            self._undo = undo.pop_all()

    async def _start(self, undo: contextlib.AsyncExitStack) -> None:
        """`undo` gets the end of each part as soon as the part needs one."""
        home = self.config.home
        genesis = (home / cfg.GENESIS_FILE).read_bytes()
        document = GenesisDocument.parse(genesis)
        self.genesis = document.to_state()
        self.store = LevelStore.open(_folder(home / cfg.DATA_FOLDER / STORE_FOLDER))
        undo.callback(self.store.close)
        self.signatures = SignaturePool()
        undo.callback(self.signatures.close)
        self.chain = open_chain(
            self.store,
            self.genesis,
            commit_rows,
            protocol_versions=self._protocol_versions,
            signature_check=self.signatures.cache,
        )
        needed = self.chain.upgrade_needed()
        if needed is not None:
            raise needed
        self.log_tree = LogTree(self.store)
        gc.collect()
        gc.freeze()
        self.voting: VotingKey = open_voting_key(home, self.chain, self.store, self._passphrase)
        undo.callback(self.voting.close)
        self.link = P2PLink(self._p2p_config(), self)
        self.offences = Offences(clock=time.monotonic, on_drop=self._drop_peer)
        self.txpool = TxPool(
            chain=self.chain,
            mempool=Mempool(self._mempool_limits()),
            signatures=self.signatures,
            link=self.link,
            topic=f"tx/{self.chain.chain_id}",
            on_pending=lambda: self.driver.wake(),
            on_offence=self.offences.add,
        )
        self.evidence = EvidencePool(self.chain, self.store, self._spread_evidence)
        self.driver = self._new_driver()
        self.sync = BlockSync(
            chain=self.chain,
            txpool=self.txpool,
            link=self.link,
            on_commit=self.driver.committed,
            on_caught_up=self.driver.start_height,
            on_bad_peer=lambda peer, error: self._drop_peer(peer, str(error)),
            on_failure=self.driver.stop,
            reserved=frozenset(self.link.validators),
            on_other_final=self.driver.on_certificate,
        )
        anchor_store = LevelStore.open(_folder(home / cfg.DATA_FOLDER / AUDIT_FOLDER))
        undo.callback(anchor_store.close)
        self.anchoring = Anchoring(
            chain=self.chain,
            store=anchor_store,
            log_tree=self.log_tree,
            key=load_key(home / cfg.ANCHOR_KEY_FILE, self._passphrase),
            txpool=self.txpool,
            link=self.link,
            copies=self.config.audit.copies,
            on_failure=self.driver.stop,
        )
        self.log_service = LogService.open(
            self.config, self.chain, self.log_tree, self.link, self._passphrase
        )
        self.api = Api(self)
        self.rpc = RpcServer(
            self.api, self._rpc_config(), genesis=genesis, audit_log=self.log_service.files
        )
        undo.push_async_callback(self.link.stop)
        undo.push_async_callback(self.txpool.stop)
        undo.push_async_callback(self.log_service.stop)
        undo.push_async_callback(self.anchoring.stop)
        undo.push_async_callback(self.sync.stop)
        undo.callback(self.driver.stop, "node is stopping")
        self.txpool.start()
        self.log_service.start()
        await self.link.start()
        self.link.set_height(self.chain.height)
        self.driver.start_height()
        self.anchoring.start()
        self.rpc_port = await self._start_rpc()
        undo.push_async_callback(self.rpc.stop)
        undo.callback((home / cfg.READY_FILE).unlink, missing_ok=True)
        self._write_ready_file()
        log.info(
            "node is up",
            moniker=self.config.moniker,
            chain=self.chain.chain_id,
            height=self.chain.height,
            rpc=f"http://{self.config.rpc.host}:{self.rpc_port}",
            p2p=self.link.listen_addr,
            voting=self.voting.reason or "yes",
        )

    async def _start_rpc(self) -> int:
        settings = self.config.rpc
        try:
            return await self.rpc.start()
        except OSError as error:
            raise UsageError(
                f"the RPC address {settings.host}:{settings.port} can not be used",
                expected=f"a free address in rpc.host and rpc.port of "
                f"{self.config.home / cfg.CONFIG_FILE}",
                got=error.strerror or str(error),
            ) from error

    async def stop(self) -> None:
        """Stop in the reverse order; nothing announced is lost."""
        self.is_stopping = True
        await self._undo.aclose()
        log.info("node stopped", height=self.chain.height)

    # --- how it is ---

    def why_not_voting(self) -> str:
        """Empty if the node votes; else why not and, if something can be done, what."""
        if self.driver.stop_reason is not None:
            return f"consensus stopped: {self.driver.stop_reason}"
        if self.voting.reason:
            return self.voting.reason
        if self.sync.progress.is_syncing:
            return "catching up with the network"
        status = self.driver.core.status()
        return "starting" if status is None else status.not_voting_because or ""

    def quorum_silent_s(self) -> float:
        """Seconds for which the network should have made a block and has not; 0 while it goes."""
        silent_s = time.monotonic() - self._committed_at
        heartbeat_s = self.config.consensus.heartbeat_ms / 1000
        limit_s = SILENT_WITH_WORK_S if len(self.txpool.mempool) else heartbeat_s + SILENT_IDLE_S
        return silent_s if silent_s > limit_s else 0.0

    # --- P2PEvents ---

    def on_peer_up(self, peer: str, height: int) -> None:
        log.info("peer up", peer=peer, height=height)
        if self.driver.stop_reason is None:
            self.sync.on_peer_up(peer, height)
        self.driver.on_peer_up(peer)
        self.log_service.cosigning.on_peer_up(peer)

    def on_peer_down(self, peer: str) -> None:
        log.info("peer down", peer=peer)
        self.log_service.cosigning.on_peer_down(peer)
        self.sync.on_peer_down(peer)

    def on_frame(self, peer: str, channel: int, payload: bytes) -> None:
        if not payload:
            self.offences.add(peer, "empty frame")
            return
        try:
            if channel == wire.CHANNEL_CONSENSUS:
                self.driver.on_message(peer, payload)
            elif channel == wire.CHANNEL_TX:
                self.txpool.on_message(peer, payload)
            elif channel == wire.CHANNEL_SYNC_REQUEST:
                self.sync.on_request(peer, payload)
            elif channel == wire.CHANNEL_SYNC_RESPONSE:
                self.sync.on_range(peer, payload)
            elif channel == wire.CHANNEL_LOG:
                if payload[0] == wire.TAG_HEADS:
                    self.log_service.cosigning.on_message(peer, payload)
                else:
                    self.anchoring.on_message(peer, payload)
            else:
                raise InvalidInputError("channel is unknown", got=str(channel))
        except InvalidInputError as error:
            self.offences.add(peer, str(error))

    def on_gossip(self, peer: str, topic: str, payload: bytes) -> None:
        self.txpool.on_gossip(peer, payload)

    def on_restarted(self) -> None:
        log.warning("p2p process was restarted", pid=self.link.pid)
        self.link.set_height(self.chain.height)

    # --- wiring ---

    def _new_core(self) -> Core:
        settings = self.config.consensus
        return Core(
            chain_id=self.chain.chain_id,
            key=self.voting.public_key,
            sign=self.voting.sign,
            is_valid=self.chain.signature_check,
            floor=self.voting.floor,
            timing=Timing(
                view_timeout_base_ms=settings.view_timeout_base_ms,
                view_timeout_min_ms=settings.view_timeout_min_ms,
                view_timeout_max_ms=settings.view_timeout_max_ms,
                retry_ms=settings.retry_ms,
                # a validator alone would never yield to the loop at 0
                block_interval_min_ms=max(1, settings.block_interval_min_ms),
                heartbeat_ms=settings.heartbeat_ms,
            ),
        )

    def _new_driver(self) -> ConsensusDriver:
        core = self._new_core()
        return ConsensusDriver(
            chain=self.chain,
            core=core,
            make_facts=self._facts_maker(core),
            evidence=self.evidence,
            guard=self.voting.guard,
            link=self.link,
            txpool=self.txpool,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            on_commit=self._on_commit,
            on_need_sync=lambda peer, height: self.sync.on_peer_height(peer, height - 1),
            on_offence=self.offences.add,
            on_fork=self._save_fork_proof,
            on_other_chain=lambda peer, height: self.sync.on_other_chain(peer, height),
        )

    def _facts_maker(self, core: Core) -> Callable[[int], BlockFacts]:
        key = self.voting.public_key
        if key is None:
            return _no_facts
        maker = BlockFactsMaker(
            chain=self.chain,
            core=core,
            evidence=self.evidence,
            proposer=key,
            vrf_seeds=VrfSeeds(self.config.home, self._passphrase),
        )
        return maker.make

    def _follow_rotation(self, _: Commit) -> None:
        """Once the set of the next height names the next key instead, that one votes."""
        key = self.voting.public_key
        if key is None or key in self.chain.validators:
            return
        if not is_next_key_due(self.config.home, self.chain):
            return
        self.voting.close()
        self.voting = open_voting_key(self.config.home, self.chain, self.store, self._passphrase)
        core = self._new_core()
        self.driver.change_core(core, self._facts_maker(core), self.voting.guard)
        log.info("the next key votes from here on", voting=self.voting.reason or "yes")

    def _spread_evidence(self, peer: str | None, payload: bytes) -> None:
        if peer is None:
            self.link.broadcast(wire.CHANNEL_CONSENSUS, payload)
        else:
            self.link.send(peer, wire.CHANNEL_CONSENSUS, payload)

    def _p2p_config(self) -> P2PConfig:
        home = self.config.home
        return P2PConfig(
            identity_seed=load_key(home / cfg.P2P_KEY_FILE, self._passphrase).seed,
            listen_host=self.config.p2p.host,
            listen_port=self.config.p2p.port,
            chain_id=self.genesis.chain_id,
            genesis_hash=self.genesis.genesis_hash,
            protocol_version=PROTOCOL_VERSION,
            home=home,
            peers=self.config.p2p.peers,
            validators=tuple(addr.rsplit("/", 1)[-1] for addr in self.config.p2p.peers),
        )

    def _rpc_config(self) -> RpcConfig:
        settings = self.config.rpc
        return RpcConfig(
            host=settings.host,
            port=settings.port,
            origins_allowed=settings.origins_allowed,
            calls_per_s_per_ip_max=settings.calls_per_s_per_ip_max,
            connections_max=settings.connections_max,
            body_bytes_max=settings.body_bytes_max,
        )

    def _mempool_limits(self) -> MempoolLimits:
        settings = self.config.mempool
        return MempoolLimits(
            count_max=settings.count_max,
            bytes_max=settings.bytes_max,
            account_txs_max=settings.account_txs_max,
        )

    def _on_commit(self, commit: Commit) -> None:
        self._committed_at = time.monotonic()
        follow_all = (
            self._follow_rotation,
            self.txpool.on_commit,
            self.anchoring.on_commit,
            self.log_service.cosigning.on_commit,
            self._publish,
            self._warn_of_lost_records,
        )
        for follow in follow_all:
            try:
                follow(commit)
            except Exception:  # the height is final; whoever follows it must not hold it up
                log.exception("a follower of the chain failed", height=commit.height)
        if self.chain.upgrade_needed():
            asyncio.get_running_loop().call_later(UPGRADE_LINGER_S, self._on_end)

    def _warn_of_lost_records(self, commit: Commit) -> None:
        lost, self._records_lost = self._records_lost, self.chain.fork_records_lost_total
        if lost != self._records_lost:
            log.warning(
                "too many certificates of failed views: the oldest were dropped inside the "
                "evidence window, so that a fork there may not name its culprits",
                height=commit.height,
                dropped=self._records_lost,
            )

    def _publish(self, commit: Commit) -> None:
        self.rpc.publish_block(
            BlockEvent(
                height=commit.height,
                hash=commit.block_hash,
                time_ms=commit.time_ms,
                txs=tuple(
                    TxOutcome(tx_id=result.tx_id, code=result.code or "ok")
                    for result in commit.results
                ),
            )
        )

    def _drop_peer(self, peer: str, reason: str) -> None:
        log.warning("peer dropped", peer=peer, reason=reason)
        self.link.disconnect(peer, reason)

    def _save_fork_proof(self, proof: ForkProof) -> None:
        """Again for each proof that names more; raises DurabilityError. In the file it is complete:
        with the steps from the genesis set to the one that voted on the forked height."""
        asyncio.get_running_loop().create_task(self.sync.stop(), name="stop-sync")
        try:
            proof = replace(proof, handoffs=self.chain.handoffs_to(proof.height))
        except InvalidInputError as error:
            log.error("the fork proof lacks its handoffs", error=str(error))
        path = self.config.home / cfg.FORK_PROOF_FILE
        replace_file(path, proof.encode())
        log.critical("fork proof saved", path=str(path), height=proof.height)

    def ready_info(self) -> dict[str, object]:
        """Where a node that is up listens, and its processes."""
        return {
            "pid": os.getpid(),
            "p2p_pid": self.link.pid,
            "rpc": f"http://{self.config.rpc.host}:{self.rpc_port}",
            "p2p": self.link.listen_addr,
        }

    def _write_ready_file(self) -> None:
        path = self.config.home / cfg.READY_FILE
        scratch = path.with_suffix(".tmp")
        scratch.write_text(json.dumps(self.ready_info()))
        scratch.replace(path)


def _no_facts(_: int) -> BlockFacts:
    raise UsageError("a node without a validator key builds no blocks")


async def run_node(
    config: cfg.NodeConfig,
    *,
    passphrase: str | None = None,
    protocol_versions: Collection[int] = PROTOCOL_VERSIONS,
    on_ready: Callable[[Mapping[str, object]], None] | None = None,
) -> None:
    """Start a node and run it until SIGINT or SIGTERM. `on_ready` gets its `ready_info`. Raises
    UpgradeNeeded when the chain goes on in a protocol version that is not among
    `protocol_versions`; the node has stopped by then."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.set_exception_handler(_log_stray_exception)
    node = Node(config, passphrase=passphrase, protocol_versions=protocol_versions, on_end=stop.set)
    await node.start()
    try:
        if on_ready is not None:
            on_ready(node.ready_info())
        await stop.wait()
    finally:
        with contextlib.suppress(ZynkError):
            await node.stop()
    needed = node.chain.upgrade_needed()
    if needed is not None:
        raise needed


def _log_stray_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    error = context.get("exception")
    log.error(
        "unexpected error; the node goes on",
        message=context.get("message"),
        exc_info=error if isinstance(error, BaseException) else None,
    )


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DurabilityError("data folder can not be made", got=str(error)) from error
    return path


__all__ = ["Node", "UsageError", "run_node"]
