"""Anchoring from the client's side: hash files in constant memory, hand the hashes in, wait until
the log has them, fetch the receipts.

A group that got no answer is sent again under the same request id, which the node carries out
once. A refused or unknown leaf is reported, never dropped in silence.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from audit.leaf import decode_stream_text, encode_leaves, hash_chunks
from audit.receipt import Receipt
from ledger.errors import InvalidInputError, UsageError, ZynkError
from ledger.merkle import compute_leaf_hash
from node.files import read_chunks
from rpc.client import Call
from rpc.errors import RpcCode, RpcError
from rpc.params import bytes_of_text, text_of_bytes

GROUP_LEAVES = 1000
RECEIPTS_A_BATCH = 100
POLL_S = 0.1
POLL_MAX_S = 1.0
RETRY_S = 0.25

Progress = Callable[[int], None]


class BatchCaller(Protocol):
    """What is needed of an RPC client."""

    async def call(self, method: str, **params: object) -> Any: ...

    async def batch(self, calls: Sequence[Call]) -> list[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedFile:
    """A file, its multihash, and the hash of the leaf it makes in the stream (32 B)."""

    path: Path
    size_bytes: int
    multihash: bytes
    leaf: bytes


def hash_file(path: Path, function: str, progress: Progress | None = None) -> bytes:
    """The file's multihash, read 1 MiB at a time. Raises UsageError if it can't be read."""

    def chunks() -> Iterator[bytes]:
        for chunk in read_chunks(path):
            yield chunk
            if progress is not None:
                progress(len(chunk))

    try:
        return hash_chunks(chunks(), function)
    except FileNotFoundError as error:
        raise UsageError("no such file", got=str(path)) from error
    except OSError as error:
        raise UsageError("file can not be read", got=f"{path}: {error.strerror}") from error


def hash_files(
    paths: Sequence[Path], stream: str, function: str, progress: Progress
) -> list[HashedFile]:
    """Hash each file, in order. Raises UsageError, InvalidInputError (stream is malformed)."""
    stream_id = decode_stream_text(stream)
    found = []
    for path in paths:
        multihash = hash_file(path, function, progress)
        leaf = compute_leaf_hash(encode_leaves(stream_id, [multihash])[0])
        found.append(
            HashedFile(path=path, size_bytes=path.stat().st_size, multihash=multihash, leaf=leaf)
        )
    return found


async def submit_files(
    client: BatchCaller,
    stream: str,
    files: Sequence[HashedFile],
    *,
    timeout_s: float,
    progress: Progress,
) -> None:
    """Hand the hashes in, up to 1,000 a request. On return the node has them durably. Raises
    RpcError, RpcConnectionError, InvalidInputError (the node names other leaves)."""
    deadline = time.monotonic() + timeout_s
    for start in range(0, len(files), GROUP_LEAVES):
        group = files[start : start + GROUP_LEAVES]
        answer = await _retry(
            client,
            deadline,
            "audit_submit",
            stream=stream,
            leaves=[text_of_bytes(item.multihash) for item in group],
            request_id=os.urandom(16).hex(),
        )
        if [leaf["leaf"] for leaf in answer["leaves"]] != [item.leaf.hex() for item in group]:
            raise InvalidInputError("the node took other leaves than were handed in")
        progress(len(group))


async def wait_receipted(
    client: BatchCaller, leaves: Sequence[bytes], *, timeout_s: float, progress: Progress
) -> dict[bytes, dict[str, Any]]:
    """Until each leaf is receipted or rejected; its last status by leaf. Raises ZynkError when
    the time is up: the leaves stay accepted, and waiting can go on later."""
    deadline = time.monotonic() + timeout_s
    status_by_leaf: dict[bytes, dict[str, Any]] = {}
    waiting = list(dict.fromkeys(leaves))
    pause_s = POLL_S
    while waiting:
        left = []
        for start in range(0, len(waiting), GROUP_LEAVES):
            group = waiting[start : start + GROUP_LEAVES]
            answer = await _retry(
                client, deadline, "audit_status", leaves=[leaf.hex() for leaf in group]
            )
            for leaf, status in zip(group, answer["leaves"], strict=True):
                if status["leaf"] != leaf.hex():
                    raise InvalidInputError("the node answered about another leaf")
                status_by_leaf[leaf] = status
                if status["status"] in ("receipted", "rejected"):
                    progress(1)
                else:
                    left.append(leaf)
        waiting = left
        if waiting and time.monotonic() > deadline:
            raise ZynkError(
                f"{len(waiting)} of {len(set(leaves))} leaves have no receipt yet",
                expected=f"within {timeout_s:.0f} s (--timeout)",
                got=f"{status_by_leaf[waiting[0]]['status']}; they stay handed in: run the same "
                "command again for the receipts",
                retry=True,
            )
        if waiting:
            await asyncio.sleep(pause_s)
            pause_s = min(POLL_MAX_S, pause_s * 1.3)
    return status_by_leaf


async def fetch_receipts(
    client: BatchCaller, leaves: Sequence[bytes], *, progress: Progress
) -> dict[bytes, bytes]:
    """Receipt wire bytes by leaf. Each is well-formed and of its leaf; whether it holds is for
    `audit.verify`. Raises RpcError, InvalidInputError."""
    found: dict[bytes, bytes] = {}
    distinct = list(dict.fromkeys(leaves))
    for start in range(0, len(distinct), RECEIPTS_A_BATCH):
        group = distinct[start : start + RECEIPTS_A_BATCH]
        answers = await _batch(client, [("audit_receipt", {"leaf": leaf.hex()}) for leaf in group])
        for leaf, answer in zip(group, answers, strict=True):
            if isinstance(answer, RpcError):
                raise answer
            found[leaf] = read_receipt_answer(answer, leaf)
            progress(1)
    return found


def read_receipt_answer(answer: dict[str, Any], leaf: bytes) -> bytes:
    """The wire bytes in an `audit_receipt` answer, which must be for `leaf` (its hash). Raises
    InvalidInputError."""
    try:
        receipt = bytes_of_text(answer["receipt"])
    except ValueError as error:
        raise InvalidInputError("receipt is not base64url") from error
    if compute_leaf_hash(Receipt.decode(receipt).leaf_bytes) != leaf:
        raise InvalidInputError("the node gave the receipt of another leaf", expected=leaf.hex())
    return receipt


async def _batch(client: BatchCaller, calls: Sequence[Call]) -> list[Any]:
    """Call, and again when the node says that it was asked too much at once."""
    while True:
        try:
            return await client.batch(calls)
        except RpcError as error:
            if error.code != RpcCode.RATE_LIMITED:
                raise
        await asyncio.sleep(RETRY_S)


async def _retry(client: BatchCaller, deadline: float, method: str, **params: object) -> Any:
    """Call until it answers, as long as the error says that trying again can help."""
    while True:
        try:
            return await client.call(method, **params)
        except ZynkError as error:
            is_refused = isinstance(error, RpcError) and not error.retry
            if is_refused or not error.retry or time.monotonic() + RETRY_S > deadline:
                raise
        await asyncio.sleep(RETRY_S)
