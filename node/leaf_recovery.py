"""Getting leaves back: an anchor of this node is in the log, its leaves are not here (a new disk).

WANT goes to the configured peers one after the other; a LIST is checked against the batch root, and
the pipeline makes the receipts anew. Own anchors are looked for in the log from the last place
where none was missing, a slice at a time. On the same rounds go the lists of others that have
waited for their anchor in vain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from audit.anchor import AnchorRecord
from audit.copies import KeptLists, LeafList
from audit.pipeline import Pipeline
from audit.rows import FOUND_TO, u64
from audit.tree_store import LogTree
from ledger.chain import Chain
from ledger.errors import DurabilityError, InvalidInputError
from ledger.store import Batch as WriteBatch
from ledger.store import Store
from node import wire
from node.copies import ANSWER_S, connected_peers
from p2p.link import P2PLink
from p2p.rate import TokenBucket

ENTRIES_PER_SLICE = 100
ROUND_S = 30.0
LISTS_PER_S = 50.0
LATE_HEIGHTS = 100
"""So much later than its anchor may a list come."""

log = structlog.get_logger("audit")


class LeafRecovery:
    """All calls are on the event loop. `on_change` is told when receipts are due again."""

    def __init__(
        self,
        *,
        chain: Chain,
        store: Store,
        log_tree: LogTree,
        link: P2PLink,
        account: bytes,
        pipeline: Pipeline,
        kept: KeptLists,
        on_change: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._chain = chain
        self._store = store
        self._log = log_tree
        self._link = link
        self._account = account
        self._pipeline = pipeline
        self._kept = kept
        self._on_change = on_change
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._wanted: dict[bytes, asyncio.Future[LeafList]] = {}
        self._budget = TokenBucket(LISTS_PER_S, self._loop.time())
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._loop.create_task(self._run(), name="leaf-recovery")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def on_list(self, body: bytes) -> None:
        """A LIST without its tag; one that nobody waits for is left out. Raises InvalidInputError
        for a malformed one."""
        if not self._wanted or not self._budget.take(1, self._loop.time()):
            return
        leaf_list = LeafList.decode(body)
        future = self._wanted.get(leaf_list.compute_root())
        if future is not None and not future.done():
            future.set_result(leaf_list)

    async def _run(self) -> None:
        while True:
            try:
                for record in await self._find_missing():
                    await self._recover(record)
                await self._drop_expired()
            except DurabilityError as error:
                self._on_failure(f"audit store: {error}")
                return
            except Exception:  # a bug of ours: say so, and try again
                log.exception("looking for lost leaves failed; it goes on")
            await asyncio.sleep(ROUND_S)

    async def _find_missing(self) -> list[AnchorRecord]:
        """Own anchors without their leaves; remembers up to where there is none."""
        row = self._store.get(FOUND_TO)
        start = index = 0 if row is None else int.from_bytes(row, "big")
        first: int | None = None
        missing: list[AnchorRecord] = []
        while (entry := self._log.entry(index)) is not None:
            record = AnchorRecord.decode(entry)
            is_own = record.submitter == self._account
            if is_own and not self._pipeline.has_batch(record.batch_root):
                first = index if first is None else first
                missing.append(record)
            index += 1
            if index % ENTRIES_PER_SLICE == 0:
                await asyncio.sleep(0)
        found_to = index if first is None else first
        if found_to != start:
            rows = WriteBatch()
            rows.put(FOUND_TO, u64(found_to))
            self._store.write(rows, sync=False)
        return missing

    async def _recover(self, record: AnchorRecord) -> None:
        for peer in connected_peers(self._link):
            leaf_list = await self._fetch(peer, record.batch_root)
            if leaf_list is None:
                continue
            try:
                self._pipeline.recover(record, leaf_list.leaves)
            except InvalidInputError as error:
                log.error("an anchored batch has malformed leaves", error=str(error))
                return
            log.info("lost leaves are back", peer=peer, leaves=record.count, height=record.height)
            self._on_change()
            return
        log.warning("lost leaves: no peer has them now", batch_root=record.batch_root.hex())

    async def _fetch(self, peer: str, root: bytes) -> LeafList | None:
        future = self._wanted[root] = self._loop.create_future()
        try:
            payload = wire.encode_ids(wire.TAG_WANT_LISTS, [root])
            if not self._link.send(peer, wire.CHANNEL_LOG, payload):
                return None
            return await asyncio.wait_for(future, ANSWER_S)
        except TimeoutError:
            return None
        finally:
            del self._wanted[root]

    async def _drop_expired(self) -> None:
        expired = dict(self._kept.expired(self._chain.height))
        if not expired:
            return
        anchored = await self._roots_since(min(expired.values()) - LATE_HEIGHTS)
        self._kept.on_anchored(expired.keys() & anchored)
        still = dict(self._kept.expired(self._chain.height))  # anchors may have come meanwhile
        self._kept.drop(expired.keys() & still.keys())

    async def _roots_since(self, height: int) -> set[bytes]:
        """Batch roots of all anchors from `height` on, newest first in the log."""
        roots: set[bytes] = set()
        index = self._chain.header(self._chain.height).audit_size if self._chain.height else 0
        while index > 0:
            index -= 1
            entry = self._log.entry(index)
            if entry is None:
                break
            record = AnchorRecord.decode(entry)
            if record.height < height:
                break
            roots.add(record.batch_root)
            if index % ENTRIES_PER_SLICE == 0:
                await asyncio.sleep(0)
        return roots
