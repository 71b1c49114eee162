"""What the RPC server asks of a node: one coroutine a method.

The node implements `NodeApi` (node/api.py); tests implement a fake of it. Rules of the seam:

- Arguments come checked and in domain form: 32-byte hashes and keys as bytes, blobs as bytes,
  numbers inside their bounds. Nothing else about them is known (a tx may be any bytes).
- An answer is a JSON-ready mapping (str, int, float, bool, None, list, dict) in the shape that
  `rpc.methods` documents: 32-byte hashes and keys in lower-case hex, other bytes in base64url
  without padding (`rpc.params.text_of_bytes`), amounts and powers as decimal strings.
- A failure is raised: an `RpcError` (see the makers in `rpc.errors`), or any ZynkError, which
  `rpc.errors.as_rpc_error` translates. Everything else counts as a bug: -32603 and a log entry.
- A call may be cancelled at any await (time limit, shutdown), and calls run concurrently.
- An answer about state carries its proof, built with `proof_json`. Its handoffs are the fewest
  from the set that header `trusted_height` names for the next height (0: genesis).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ledger.errors import ZynkError
from rpc.metrics import MetricValue
from rpc.params import text_of_bytes

JsonObject = Mapping[str, object]
Wait = Literal["none", "accepted", "finalized"]
BlockRef = int | bytes | None
"""A height, a 32 B block hash, or None for the head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether the node can serve and finalise; `reasons` say in words why it can not."""

    ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TxOutcome:
    """One tx of a final block: its id (32 B) and result code (`ok` or a failure's code)."""

    tx_id: bytes
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockEvent:
    """A block became final and is durable. `time_ms` is the header's time."""

    height: int
    hash: bytes
    time_ms: int
    txs: tuple[TxOutcome, ...]


def proof_json(
    *, height: int, key: bytes, value: bytes | None, state_proof: bytes, finality: bytes
) -> dict[str, object]:
    """The `proof` member: `finality` (FinalityProof wire bytes) shows a header final, and
    `state_proof` shows under its state root that `key` has `value` (None: is absent)."""
    return {
        "height": height,
        "key": text_of_bytes(key),
        "value": None if value is None else text_of_bytes(value),
        "state_proof": text_of_bytes(state_proof),
        "finality": text_of_bytes(finality),
    }


class NodeApi(Protocol):
    """See the module docstring. The names are those of the RPC methods, in snake case."""

    def readiness(self) -> Readiness:
        """Cheap: asked by every `/ready`."""

    def metrics(self) -> Mapping[str, MetricValue]:
        """Figures by name (`consensus_height`, ...); see rpc.metrics. Asked by each scrape."""

    async def node_status(self) -> JsonObject: ...
    async def node_peers(self) -> JsonObject: ...

    async def chain_head(self, trusted_height: int = 0) -> JsonObject: ...
    async def chain_header(self, block: BlockRef, trusted_height: int = 0) -> JsonObject: ...
    async def chain_block(self, block: BlockRef) -> JsonObject: ...
    async def chain_certificate(self, block: BlockRef) -> JsonObject: ...
    async def chain_validators(self, height: int | None, trusted_height: int = 0) -> JsonObject: ...
    async def chain_account(
        self, account: bytes, height: int | None, trusted_height: int = 0
    ) -> JsonObject: ...
    async def chain_params(self, trusted_height: int = 0) -> JsonObject: ...

    async def tx_submit(self, tx: bytes, wait: Wait, timeout_ms: int) -> JsonObject:
        """Idempotent by tx id. If the wait runs out, answer with the status reached so far; it
        ends early, with status `dropped` and the `reason`, if the tx is no longer pending."""

    async def tx_submit_batch(
        self, txs: Sequence[bytes], wait: Wait, timeout_ms: int
    ) -> Sequence[JsonObject | ZynkError]:
        """One outcome a tx, in order: as of `tx_submit`, or why it was refused."""

    async def tx_get(self, tx_id: bytes) -> JsonObject: ...
    async def tx_estimate_fee(self, tx: bytes) -> JsonObject: ...

    async def did_resolve(
        self,
        did: str,
        version_id: str | None,
        version_time: str | None,
        trusted_height: int = 0,
        as_of_height: int | None = None,
        proof: bool = True,
    ) -> JsonObject:
        """A DID resolution result. A DID or version that is unknown or malformed is not raised: it
        is `didResolutionMetadata.error` (`did.resolution_error`). Without `proof` the newest
        version comes without one."""

    async def did_resolve_batch(
        self, dids: Sequence[str], height: int | None, trusted_height: int = 0
    ) -> JsonObject:
        """Resolution results in the order of `dids`, and one proof (`did.batch`)."""

    async def did_submit(self, tx: bytes, wait: Wait, timeout_ms: int) -> JsonObject: ...
    async def did_history(
        self, did: str, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject: ...
    async def did_proof(
        self, did: str, height: int | None, trusted_height: int = 0
    ) -> JsonObject: ...

    async def did_export(self, after: str | None, limit: int) -> JsonObject:
        """A page of all DIDs' operations after a cursor (`did.export`)."""

    def did_operations(self, height: int) -> Sequence[JsonObject]:
        """The lines of `did_export` of one final height."""

    async def audit_stream(self, stream: str, trusted_height: int = 0) -> JsonObject: ...

    async def audit_submit(
        self, stream: str, leaves: Sequence[bytes], request_id: str | None
    ) -> JsonObject:
        """`leaves` are multihashes. Returns once they are durable here, not once anchored."""

    async def audit_status(self, leaves: Sequence[bytes]) -> JsonObject: ...
    async def audit_receipt(self, leaf: bytes, trusted_height: int | None = None) -> JsonObject:
        """The receipt as it was issued; with a trusted height one that begins there, under the
        newest header."""

    async def audit_inclusion(
        self, leaf_index: int, tree_size: int | None, trusted_height: int = 0
    ) -> JsonObject: ...
    async def audit_consistency(
        self, first_size: int, second_size: int | None, trusted_height: int = 0
    ) -> JsonObject: ...
    async def audit_checkpoint(self, trusted_height: int = 0) -> JsonObject: ...

    async def stake_validators(
        self, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject: ...
    async def stake_validator(self, operator: bytes, trusted_height: int = 0) -> JsonObject: ...
    async def stake_delegations(
        self,
        account: bytes | None,
        validator: bytes | None,
        cursor: int,
        limit: int,
        trusted_height: int = 0,
    ) -> JsonObject: ...
    async def evidence_submit(self, evidence: bytes) -> JsonObject:
        """Kept durably and spread to all peers, as a peer's. Raises RpcError EVIDENCE_REFUSED with
        the reason `evidence/false` or `evidence/not-needed`."""

    async def stake_unbonding(
        self, account: bytes | None, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject: ...
    async def gov_proposals(
        self, cursor: int, limit: int, trusted_height: int = 0
    ) -> JsonObject: ...
    async def gov_proposal(self, proposal: int, trusted_height: int = 0) -> JsonObject: ...
