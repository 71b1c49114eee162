"""A small deterministic chain for DID tests: the real state tree, headers and certificates, with
four validators, executing only DID operations. One call is one block."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from did import dereference, resolver
from did.control import Control, KeyList
from did.did_url import parse_did_url
from did.handler import DidHandler
from did.multikey import encode_multikey
from did.resolution_options import read_options
from ledger.block import PROTOCOL_VERSION, Header
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.ed25519 import KeyPair
from ledger.execution import Event, StateView, TxFailure
from ledger.finality import FinalityProof
from ledger.params import PARAMS_KEY, ChainParams
from ledger.state import StateTree
from ledger.store import Batch, MemoryStore
from ledger.validator_set import Validator, ValidatorSet
from ledger.views import ProvenView

NET = "zynk-test"
WORLD_PARAMS = ChainParams(did_ops_per_day_max=100)  # frozen in the vectors, whatever the default
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
EXP = 10**6


def key(name: str) -> KeyPair:
    """A key pair by name, the same on every run."""
    return KeyPair.from_seed(hashlib.sha256(name.encode()).digest())


def key_list(*names: str, threshold: int = 1) -> KeyList:
    return KeyList(keys=tuple(key(n).public_key for n in names), threshold=threshold)


def control(*names: str, threshold: int = 1, next_keys: KeyList | None = None) -> Control:
    return Control.of([key(n).public_key for n in names], threshold, next_keys)


def document(name: str = "doc") -> dict[str, Any]:
    """A stored-form document with one method and one service."""
    return {
        "verificationMethod": [
            {
                "id": "#k1",
                "type": "Multikey",
                "publicKeyMultibase": encode_multikey(key(name).public_key),
            }
        ],
        "authentication": ["#k1"],
        "service": [
            {"id": "#s", "type": "Files", "serviceEndpoint": f"https://{name}.example/files"}
        ],
    }


VALIDATOR_KEYS = tuple(key(f"validator {i}") for i in range(4))
VALIDATORS = ValidatorSet.of(
    Validator(public_key=pair.public_key, power=power)
    for pair, power in zip(VALIDATOR_KEYS, (4, 3, 2, 1), strict=True)
)


class DictState:
    """A `StateView` over a parent reader: what a tx writes, before it is committed."""

    def __init__(self, tree: StateTree, block: dict[bytes, bytes | None]) -> None:
        self._tree = tree
        self._block = block
        self.writes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        for layer in (self.writes, self._block):
            if key in layer:
                return layer[key]
        return self._tree.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.writes[key] = value

    def delete(self, key: bytes) -> None:
        self.writes[key] = None


@dataclass
class Context:
    """An `ExecutionContext` of one tx."""

    chain_id: str
    height: int
    time_ms: int
    state: StateView
    payer: bytes = bytes(32)
    tx_id: bytes = bytes(32)
    side: dict[bytes, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def side_put(self, key: bytes, value: bytes) -> None:
        assert key.startswith(b"d/")
        self.side[key] = value

    def log_append(self, entry: bytes) -> int:
        raise AssertionError("DID operations do not append to the audit log")

    def emit(self, event: Event) -> None:
        self.events.append(event)


@dataclass
class WorldView:
    """The `ProvenView` of a `World`'s tip."""

    height: int
    time_ms: int
    finality: FinalityProof
    tree: StateTree
    side: dict[bytes, bytes]

    def get(self, key: bytes) -> bytes | None:
        return self.tree.get(key)

    def prove(self, key: bytes) -> tuple[bytes | None, bytes]:
        return self.tree.prove(key)

    def prove_many(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], bytes]:
        return self.tree.prove_many(self.height, keys)

    def side_get(self, key: bytes) -> bytes | None:
        return self.side.get(key)


class World:
    """The chain. `block` executes bodies; `view` proves its tip."""

    def __init__(self, params: ChainParams | None = None) -> None:
        self.store = MemoryStore()
        self.tree = StateTree.open(self.store)
        self.handler = DidHandler()
        self.side: dict[bytes, bytes] = {}
        self.events: list[Event] = []
        self.height = 0
        self.time_ms = START_MS
        self._commit({PARAMS_KEY: (params or WORLD_PARAMS).encode()}, 1000)

    def block(self, bodies: Sequence[bytes], *, step_ms: int = 1000) -> list[str]:
        """Execute a block; returns "ok" or the failure code of each body."""
        self.time_ms += step_ms
        writes: dict[bytes, bytes | None] = {}
        codes: list[str] = []
        for body in bodies:
            state = DictState(self.tree, writes)
            context = Context(NET, self.height + 1, self.time_ms, state)
            try:
                self.handler.apply(context, body)
            except TxFailure as failure:
                codes.append(failure.code)
                continue
            writes.update(state.writes)
            self.side.update(context.side)
            self.events += context.events
            codes.append("ok")
        self._commit(writes, 0)
        return codes

    def run(self, body: bytes, *, step_ms: int = 1000) -> str:
        """Execute one body in a block of its own."""
        return self.block([body], step_ms=step_ms)[0]

    def set_params(self, params: ChainParams) -> None:
        """Change the chain's parameters in a block of their own, as governance does."""
        self._commit({PARAMS_KEY: params.encode()}, 1000)

    def view(self) -> WorldView:
        header = self.header()
        return WorldView(self.height, self.time_ms, finalize(header), self.tree, self.side)

    def header(self) -> Header:
        zero = bytes(32)
        return Header(
            PROTOCOL_VERSION,
            NET,
            self.height,
            self.time_ms,
            zero,
            1,
            VALIDATOR_KEYS[0].public_key,
            b"",
            zero,
            self.tree.root,
            0,
            zero,
            zero,
            VALIDATORS.hash,
            VALIDATORS.hash,
        )

    def _commit(self, writes: dict[bytes, bytes | None], step_ms: int) -> None:
        self.time_ms += step_ms
        self.height += 1
        overlay = self.tree.compute(writes)
        batch = Batch()
        self.tree.add_rows(overlay, batch, height=self.height, time_ms=self.time_ms)
        self.store.write(batch, sync=True)
        self.tree.adopt(overlay)


def finalize(header: Header) -> FinalityProof:
    """A finality proof with the signatures of the three strongest validators (9 of 10)."""
    message = vote_sign_bytes(
        header.chain_id, VoteKind.FINALIZE, header.height, header.origin_view, header.hash
    )
    signatures = {pair.public_key: pair.sign(message) for pair in VALIDATOR_KEYS[:3]}
    certificate = Certificate.of(
        VoteKind.FINALIZE, header.height, header.origin_view, header.hash, signatures, VALIDATORS
    )
    return FinalityProof(header=header, certificate=certificate)


def dereference_answer(view: ProvenView, text: str, **options: object) -> dict[str, Any]:
    """What the HTTP binding answers to a DID URL."""
    url = parse_did_url(text)
    read = read_options({**url.parameters, **options})
    return dereference.dereference_answer(resolver.resolve(view, url.did, read.version), url, read)
