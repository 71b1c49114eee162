"""A chain in one object for the audit tests: real handlers, log, headers, votes; no consensus.

What it leaves out (nonces, fees, blocks' bodies) the audit part never looks at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from audit.anchor import AnchorHandler
from audit.frontier import FrontierLog
from audit.leaf import encode_leaves
from audit.stream import (
    CreateStream,
    StreamHandler,
    encode_stream_body,
    stream_sign_bytes,
)
from audit.tree_store import LogTree, commit_rows
from ledger.block import PROTOCOL_VERSION, Header
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.ed25519 import KeyPair, is_valid_signature
from ledger.execution import Event, ExecutionContext, StateView, TxFailure, TxHandler
from ledger.finality import FinalityProof, Handoff
from ledger.store import Batch, MemoryStore
from ledger.tx import Message, Tx
from ledger.validator_set import Validator, ValidatorSet

CHAIN_ID = "zynk-audit-test"
OWNER = "did:zynk:zOwner"
OWNER_KEY = KeyPair.from_seed(b"o" * 32)
ANCHOR_KEY = KeyPair.from_seed(b"a" * 32)
BLOCK_MS = 1_000
START_MS = 1_700_000_000_000


class OneOwner:
    """`DidAuthority` with one DID, whose one control key is OWNER_KEY."""

    def verify_authority(
        self,
        state: StateView,
        did: str,
        message: bytes,
        signatures: Sequence[tuple[str, bytes]],
    ) -> None:
        if did != OWNER:
            raise TxFailure("did/not-found", "no such DID", got=did)
        if not any(
            key == "owner" and is_valid_signature(OWNER_KEY.public_key, message, signature)
            for key, signature in signatures
        ):
            raise TxFailure("did/not-authorised", "no control key signed")


class State:
    """State rows with the writes of one tx on top."""

    def __init__(self, rows: dict[bytes, bytes]) -> None:
        self.rows = rows
        self.written: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.written[key] if key in self.written else self.rows.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.written[key] = value

    def delete(self, key: bytes) -> None:
        self.written[key] = None

    def commit(self) -> None:
        for key, value in self.written.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.written = {}


@dataclass
class Context:
    """`ExecutionContext` of one tx."""

    chain_id: str
    height: int
    time_ms: int
    payer: bytes
    tx_id: bytes
    state: StateView
    log_size: int
    side: list[tuple[bytes, bytes]] = field(default_factory=list)
    entries: list[bytes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def side_put(self, key: bytes, value: bytes) -> None:
        self.side.append((key, value))

    def log_append(self, entry: bytes) -> int:
        self.entries.append(entry)
        return self.log_size + len(self.entries) - 1

    def emit(self, event: Event) -> None:
        self.events.append(event)


@dataclass
class TipView:
    """`ProvenView` of the tip; proofs of state rows are not needed here."""

    height: int
    time_ms: int
    finality: FinalityProof
    rows: dict[bytes, bytes]
    store: MemoryStore

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def prove(self, key: bytes) -> tuple[bytes | None, bytes]:
        raise NotImplementedError("the audit part proves through the log")

    def prove_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        raise NotImplementedError("the audit part proves through the log")

    def side_get(self, key: bytes) -> bytes | None:
        return self.store.get(key)


class Chain:
    """Executes txs, one block a call of `add_block`."""

    def __init__(self, handoffs: int = 0) -> None:
        self.keys = [KeyPair.from_seed(bytes([i]) * 32) for i in range(1, 5)]
        self.validators = ValidatorSet.of(
            Validator(public_key=k.public_key, power=10) for k in self.keys
        )
        self.handlers: dict[str, TxHandler] = {
            handler.type: handler for handler in (StreamHandler(OneOwner()), AnchorHandler())
        }
        self.rows: dict[bytes, bytes] = {}
        self.store = MemoryStore()
        self.tree = LogTree(self.store)
        self.log = FrontierLog()
        self.frontier = b""
        self.height = 0
        self.codes: dict[bytes, tuple[int, str]] = {}
        self.events: list[Event] = []
        self.handoffs = handoffs
        self._view: TipView | None = None

    @property
    def time_ms(self) -> int:
        return START_MS + self.height * BLOCK_MS

    def add_block(self, txs: Sequence[Tx] = ()) -> dict[bytes, str]:
        """Execute; result codes by tx id."""
        self.height += 1
        found = {}
        for tx in txs:
            assert tx.valid_until >= self.height, "the mempool drops what has expired"
            assert tx.id not in self.codes, "nonces let a tx in once"
            found[tx.id] = self._execute(tx)
            self.codes[tx.id] = (self.height, found[tx.id])
        return found

    def _execute(self, tx: Tx) -> str:
        size, _ = self.log.size_and_root(self.frontier)
        state = State(self.rows)
        context = Context(CHAIN_ID, self.height, self.time_ms, tx.payer, tx.id, state, size)
        as_protocol: ExecutionContext = context
        try:
            for message in tx.messages:
                self.handlers[message.type].check(message.body)
                self.handlers[message.type].apply(as_protocol, message.body)
        except TxFailure as failure:
            return failure.code
        state.commit()
        batch = Batch()
        for key, value in [*commit_rows(self.store, size, context.entries), *context.side]:
            batch.put(key, value)
        self.store.write(batch, sync=True)
        self.frontier = self.log.append(self.frontier, context.entries)
        self.events += context.events
        return ""

    def lookup(self, tx_id: bytes) -> tuple[int, str] | None:
        return self.codes.get(tx_id)

    @property
    def view(self) -> TipView:
        """The state after the newest block; the same object until there is another."""
        if self._view is None or self._view.height != self.height:
            self._view = self._make_view()
        return self._view

    def _make_view(self) -> TipView:
        header = self.header(self.height)
        handoffs = tuple(
            Handoff(
                header=self.header(h + 1),
                certificate=self.certify(self.header(h + 1)),
                next_validators=self.validators,
            )
            for h in range(self.handoffs)
        )
        finality = FinalityProof(header=header, certificate=self.certify(header), handoffs=handoffs)
        return TipView(self.height, self.time_ms, finality, dict(self.rows), self.store)

    def header(self, height: int) -> Header:
        """A header at `height` with the log as it is now. Those of handoffs, and the one after
        them, follow one another; others have some parent."""
        size, root = self.log.size_and_root(self.frontier)
        parent_hash = hashlib.sha256(b"parent %d" % height).digest()
        if 1 < height <= self.handoffs + 1:
            parent_hash = self.header(height - 1).hash
        return Header(
            protocol_version=PROTOCOL_VERSION,
            chain_id=CHAIN_ID,
            height=height,
            time_ms=START_MS + height * BLOCK_MS,
            parent_hash=parent_hash,
            origin_view=1,
            proposer=self.keys[0].public_key,
            vrf_proof=b"",
            body_hash=hashlib.sha256(b"body").digest(),
            state_root=hashlib.sha256(b"state").digest(),
            audit_size=size,
            audit_root=root,
            results_root=hashlib.sha256(b"results").digest(),
            validators_hash=self.validators.hash,
            next_validators_hash=self.validators.hash,
        )

    def certify(self, header: Header, signers: int = 3) -> Certificate:
        message = vote_sign_bytes(CHAIN_ID, VoteKind.FINALIZE, header.height, 1, header.hash)
        votes = {key.public_key: key.sign(message) for key in self.keys[:signers]}
        return Certificate.of(
            VoteKind.FINALIZE, header.height, 1, header.hash, votes, self.validators
        )


def signed_create(salt: bytes = b"s" * 16, **changes: object) -> CreateStream:
    """A create body for OWNER with ANCHOR_KEY as submitter, signed."""
    fields: dict[str, object] = {
        "owner": OWNER,
        "submitters": (ANCHOR_KEY.public_key,),
        "quota": 10**9,
        "description_hash": hashlib.sha256(b"a stream").digest(),
        "salt": salt,
    }
    body = CreateStream(**(fields | changes))  # type: ignore[arg-type]  # test table
    signature = OWNER_KEY.sign(stream_sign_bytes(CHAIN_ID, body))
    return CreateStream(
        owner=body.owner,
        submitters=body.submitters,
        quota=body.quota,
        description_hash=body.description_hash,
        salt=body.salt,
        signatures=(("owner", signature),),
    )


def create_stream(chain: Chain, salt: bytes = b"s" * 16, **changes: object) -> bytes:
    """Make a stream in a block of its own; its id."""
    body = signed_create(salt, **changes)
    tx = make_tx("audit/stream", encode_stream_body(body), nonce=chain.height)
    assert chain.add_block([tx]) == {tx.id: ""}
    return body.stream(CHAIN_ID)


def make_tx(
    kind: str, body: bytes, *, nonce: int = 0, valid_until: int = 2**40, key: KeyPair = ANCHOR_KEY
) -> Tx:
    """A signed tx of one message."""
    return Tx.sign(
        key,
        chain_id=CHAIN_ID,
        nonce=nonce,
        fee=1,
        valid_until=valid_until,
        messages=[Message(kind, body)],
    )


def multihash_of(number: int) -> bytes:
    """A distinct sha2-256 multihash."""
    return b"\x12\x20" + hashlib.sha256(b"content %d" % number).digest()


def leaves_of(stream: bytes, start: int, count: int) -> list[bytes]:
    """`count` leaves with the multihashes from `start` on."""
    return encode_leaves(stream, [multihash_of(i) for i in range(start, start + count)])
