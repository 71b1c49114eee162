"""Following the audit log without believing any node.

A round: the newest header is verified from the trust point, and compared between the endpoints
(node/light_follow.py); the log's new entries are fetched and must lead to the root in it; each
endpoint's signed checkpoint must be a root that this log had. So the log is append-only since it
was first looked at, every head that anybody showed us is one of its heads, and what it says in the
name of a stream or a DID is told entry by entry, none left out.

A checkpoint with another root is written down with its proof (audit/split_view.py). One that is
ahead of the chain waits for it; after `AHEAD_S` that is reported too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from audit.anchor import AnchorRecord
from audit.answers import anchor_json
from audit.checkpoint import Checkpoint, compute_origin
from audit.leaf import encode_stream_text
from audit.log_copy import LogCopy
from audit.note import KeyType, NoteKey
from audit.split_view import SplitView, read_signed
from audit.stream import StreamRecord, stream_key
from audit.tiles import TILE_HASHES, format_tile_path
from ledger.block import Header
from ledger.errors import InvalidInputError, ZynkError
from ledger.finality import FinalityProof
from ledger.light import Verdict
from ledger.store import decode_row
from node.files import replace_file
from node.light_ask import Asker
from node.light_follow import Follower
from rpc.client import RpcClient
from rpc.errors import RpcConnectionError, RpcError

SPLIT_VIEW_FILE = "split-view-{size}-{key_id}.bin"
AHEAD_S = 30.0
STREAMS_KEPT_MAX = 100_000

log = structlog.get_logger("monitor")

Report = Callable[[dict[str, object]], None]
"""Told what happens, one JSON object each: `event` is head, anchored, fault or split-view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Whose entries are told: streams (32 B) and the owners of streams (DIDs); all, if empty."""

    streams: frozenset[bytes] = frozenset()
    dids: frozenset[str] = frozenset()

    @property
    def is_all(self) -> bool:
        return not (self.streams or self.dids)


@dataclass(slots=True)
class _Seen:
    """What one endpoint has shown."""

    key: NoteKey | None = None
    size: int = 0
    ahead: str = ""
    ahead_since: float = 0.0


class Monitor:
    """`faults` counts what was reported as wrong, split views among it."""

    def __init__(
        self,
        follower: Follower,
        clients: Sequence[RpcClient],
        copy: LogCopy,
        folder: Path,
        report: Report,
        watch: Watch | None = None,
    ) -> None:
        self.faults = 0
        self.header: Header | None = None
        """The newest one whose log is here, whole."""
        self._follower = follower
        self._asker = Asker(follower)
        self._clients = clients
        self._copy = copy
        self._folder = folder
        self._report = report
        self._watch = watch or Watch()
        self._seen = {client.url: _Seen() for client in clients}
        self._said: set[tuple[str, str]] = set()
        self._owner_by_stream: dict[bytes, str] = {}

    async def round(self) -> None:
        """One round. Raises AttackFound, UsageError (expired trust), DurabilityError."""
        judgement = await self._follower.advance()
        if judgement.verdict is not Verdict.VALID or judgement.header is None:
            self._fault("", f"no verified head: {judgement.reason}", judgement.verdict.value)
            return
        before = self._copy.size
        if await self._fetch_log(judgement.header):
            self.header = judgement.header
            await self._tell(before)
        for client in self._clients:
            await self._look_at_checkpoint(client)

    # --- the log ---

    async def _fetch_log(self, header: Header) -> bool:
        """The new entries, from whoever gives the true ones; True if the log is whole here."""
        if header.audit_size == self._copy.size:
            return self._copy.root(header.audit_size) == header.audit_root or self._shrunk(header)
        if header.audit_size < self._copy.size:
            return self._shrunk(header)
        for client in self._clients:
            try:
                while self._copy.ahead < header.audit_size:
                    self._copy.append(await self._fetch_bundle(client, header.audit_size))
                self._copy.verify(header.audit_root)
            except (RpcConnectionError, RpcError, InvalidInputError) as error:
                self._copy.forget()
                self._fault(client.url, f"entries of the log: {error}", "entries")
                continue
            self._report(
                {
                    "event": "head",
                    "height": header.height,
                    "time_ms": header.time_ms,
                    "tree_size": header.audit_size,
                    "root_hash": header.audit_root.hex(),
                }
            )
            return True
        return False

    def _shrunk(self, header: Header) -> bool:
        """More than 2/3 of the stake have signed a log that is not the one they signed before."""
        self._fault("", f"the log of header {header.height} does not extend the one before", "log")
        return False

    async def _fetch_bundle(self, client: RpcClient, size: int) -> list[bytes]:
        """Entries from `ahead` to the end of their bundle or of the log."""
        number, place = divmod(self._copy.ahead, TILE_HASHES)
        width = min(size - number * TILE_HASHES, TILE_HASHES)
        status, body = await client.get("/" + format_tile_path("entries", number, width))
        if status != 200:
            raise InvalidInputError("a bundle of entries is refused", got=f"HTTP {status}")
        entries = list(split_bundle(body))
        if len(entries) != width:
            raise InvalidInputError(
                "a bundle has another length", expected=str(width), got=str(len(entries))
            )
        return entries[place:]

    async def _tell(self, before: int) -> None:
        for index in range(before, self._copy.size):
            record = decode_row("log entry", AnchorRecord.decode, self._copy.entry(index))
            owner = await self._owner_of(record.stream)
            watch = self._watch
            if watch.is_all or record.stream in watch.streams or owner in watch.dids:
                self._report(
                    {
                        "event": "anchored",
                        "index": index,
                        "owner": owner,
                        **anchor_json(record),
                    }
                )

    async def _owner_of(self, stream: bytes) -> str:
        """The DID that owns the stream, proven; "" while no endpoint proves it. An owner never
        changes."""
        owner = self._owner_by_stream.get(stream)
        if owner is None:
            text = encode_stream_text(stream)
            try:
                row, _ = await self._asker.row(
                    stream_key(stream), None, "audit_stream", stream=text
                )
                owner = "" if row is None else StreamRecord.decode(row).owner
            except (RpcError, InvalidInputError) as error:
                self._fault("", f"owner of {text}: {error}", text)
                return ""
            if len(self._owner_by_stream) >= STREAMS_KEPT_MAX:
                self._owner_by_stream.clear()
            self._owner_by_stream[stream] = owner
        return owner

    # --- checkpoints ---

    async def _look_at_checkpoint(self, client: RpcClient) -> None:
        seen = self._seen[client.url]
        try:
            if seen.key is None:
                seen.key = await self._ask_key(client)
            status, body = await client.get("/checkpoint")
            if status == 503 or seen.key is None:
                return  # none is signed yet
            if status != 200:
                raise InvalidInputError("the checkpoint is refused", got=f"HTTP {status}")
            note = body.decode()
            checkpoint = read_signed(note, seen.key)
        except (RpcConnectionError, RpcError) as error:
            self._fault(client.url, f"no checkpoint: {error}", "silent")
            return
        except (InvalidInputError, UnicodeDecodeError) as error:
            seen.key = None  # it may have a new one; that is for the next round
            self._fault(client.url, f"checkpoint: {error}", "malformed")
            return
        if checkpoint.tree_size < seen.size:
            self._fault(
                client.url,
                f"its checkpoint went back from {seen.size} to {checkpoint.tree_size}",
                f"back {checkpoint.tree_size}",
            )
        seen.size = max(seen.size, checkpoint.tree_size)
        if await self.judge(note, seen.key, client.url):
            self._said = {(url, kind) for url, kind in self._said if url != client.url}
        if seen.ahead:
            await self._judge_ahead(seen, client.url)

    async def judge(self, note: str, key: NoteKey, source: str) -> bool:
        """Whether a checkpoint signed by `key` is a head of the log; one that is ahead of it is
        judged later. Raises InvalidInputError for one that `key` did not sign."""
        checkpoint = read_signed(note, key)
        if self.header is None or checkpoint.tree_size > self._copy.size:
            seen = self._seen.get(source)
            if seen is not None and not seen.ahead:
                seen.ahead, seen.ahead_since = note, time.monotonic()
            return False
        if self._copy.root(checkpoint.tree_size) == checkpoint.root_hash:
            return True
        await self._write_split_view(note, key, checkpoint, source)
        return False

    async def _judge_ahead(self, seen: _Seen, url: str) -> None:
        assert seen.key is not None, "it was read with it"
        if read_signed(seen.ahead, seen.key).tree_size <= self._copy.size:
            note, seen.ahead = seen.ahead, ""
            await self.judge(note, seen.key, url)
        elif time.monotonic() > seen.ahead_since + AHEAD_S:
            self._fault(url, "its checkpoint is larger than the log that is final", "ahead")

    async def _ask_key(self, client: RpcClient) -> NoteKey | None:
        """The node's log key, which it names itself: it is held to whatever it signs with it."""
        answer = await client.call("audit_checkpoint")
        published = answer.get("published") if isinstance(answer, dict) else None
        if not isinstance(published, dict):
            return None
        key = NoteKey.decode(str(published.get("log_key")))
        expected = compute_origin(self._follower.root.chain_id)
        if key.type is not KeyType.ED25519 or key.name != expected:
            raise InvalidInputError("the log key is of another log", expected=expected)
        return key

    async def _write_split_view(
        self, note: str, key: NoteKey, checkpoint: Checkpoint, source: str
    ) -> None:
        """The proof, from the trust point that the user named, so that others can check it."""
        assert self.header is not None, "callers have checked"
        name = SPLIT_VIEW_FILE.format(size=checkpoint.tree_size, key_id=key.key_id.hex())
        path = self._folder / name
        root = self._copy.root(checkpoint.tree_size)
        proof = SplitView(
            note=note,
            key=key,
            root=root,
            path=tuple(self._copy.consistency_proof(checkpoint.tree_size)),
            finality=await self._finality(self.header.height),
        )
        proof.verify(proof.finality.header)
        replace_file(path, proof.encode())
        self.faults += 1
        self._report(
            {
                "event": "split-view",
                "source": source,
                "key": key.vkey,
                "tree_size": checkpoint.tree_size,
                "root_hash": checkpoint.root_hash.hex(),
                "true_root_hash": root.hex(),
                "proof": str(path),
            }
        )

    async def _finality(self, height: int) -> FinalityProof:
        root = self._follower.root.height
        for source in self._follower.sources:
            try:
                return FinalityProof.decode(await source.finality(height, root))
            except (RpcConnectionError, RpcError, InvalidInputError) as error:
                log.warning("no finality proof", url=source.url, error=str(error))
        raise ZynkError("no endpoint proves the verified header again", retry=True)

    def _fault(self, url: str, text: str, kind: str) -> None:
        """Counted each time, reported once until `url` ("": nobody alone) is well again."""
        self.faults += 1
        if (url, kind) not in self._said:
            self._said.add((url, kind))
            self._report({"event": "fault", "source": url, "text": text})


def split_bundle(data: bytes) -> Iterator[bytes]:
    """The entries of a bundle: each u16 length, then its bytes. Raises InvalidInputError."""
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or at + 2 > len(data):
            raise InvalidInputError("a bundle of entries ends too early", got=f"{len(data)} B")
        yield data[at + 2 : end]
        at = end
