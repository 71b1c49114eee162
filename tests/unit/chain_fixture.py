"""A small chain for tests: keys, a genesis, blocks that are built, judged, signed and committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from genesis.network import GeneratedNetwork, generate_network
from ledger import codec
from ledger.accounts import TransferBody, TransferHandler
from ledger.block import Block
from ledger.certificate import Certificate, VoteKind, vote_sign_bytes
from ledger.chain import Chain, Commit, CommitRows
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError
from ledger.execution import BlockContext, Event, ExecutionContext, TxFailure, TxHandler
from ledger.fees import sign_tx
from ledger.genesis_state import BEACON_KEY
from ledger.merkle import compute_leaf_hash, compute_root
from ledger.params import ChainParams
from ledger.store import Store
from ledger.tx import Message, Tx
from ledger.validator_set import ValidatorSet

CHAIN_ID = "test-1"
GENESIS_TIME_MS = 1_700_000_000_000
PARAMS = ChainParams()
NETWORK: GeneratedNetwork = generate_network(
    4, CHAIN_ID, genesis_time_ms=GENESIS_TIME_MS, entropy=b"entropy of the test network " * 2
)
GENESIS = NETWORK.document.to_state()
FAUCET = NETWORK.faucet_key
VALIDATOR_KEYS = {n.validator_key.public_key: n.validator_key for n in NETWORK.nodes}
PROPOSER = GENESIS.validators.validators[0].public_key


def key_of(number: int) -> KeyPair:
    """The numbered test account."""
    return KeyPair.from_seed(codec.hash_tagged("test-account", codec.encode(number)))


class LeafListLog:
    """An AuditLog whose frontier is all leaf hashes: right, and good for small logs only."""

    def append(self, frontier: bytes, entries: list[bytes]) -> bytes:
        return frontier + b"".join(compute_leaf_hash(entry) for entry in entries)

    def size_and_root(self, frontier: bytes) -> tuple[int, bytes]:
        leaves = [frontier[at : at + 32] for at in range(0, len(frontier), 32)]
        return len(leaves), compute_root(leaves)


class ProbeHandler:
    """`test/probe`: body [verb, text]. Does one of everything a handler may do, then the verb."""

    type = "test/probe"

    def weight_of(self, body: bytes) -> int:
        return 10

    def check(self, body: bytes) -> None:
        verb, text = codec.read_array(codec.decode(body, bytes_max=1024), 2, "probe")
        codec.read_str(verb, "probe verb", 16)
        codec.read_str(text, "probe text", 512)
        if verb == "malformed":
            raise InvalidInputError("probe verb is malformed")

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        verb, text = codec.decode(body, bytes_max=1024)
        key = b"probe\0" + text.encode()
        context.state.put(key, context.tx_id)
        context.side_put(b"d/" + key, text.encode())
        index = context.log_append(text.encode())
        context.emit(Event("probe.ran", (("index", str(index)), ("text", text))))
        if verb == "fail":
            raise TxFailure("probe/asked", "asked to fail", got=text)
        if verb == "delete":
            context.state.delete(key)
        if verb == "bug":
            raise KeyError(text)


class ChangingSeed:
    """A `BlockModule` in the beacon's place: each height has other leaders. Blocks say nothing that
    it would have to judge."""

    def begin(self, context: BlockContext) -> None:
        facts = context.facts
        if facts.vrf_proof or facts.late_votes or facts.evidence:
            raise InvalidInputError("block carries what no module of this chain judges")
        context.state.put(BEACON_KEY, codec.hash_tagged("test-seed", context.parent_hash))

    def end(self, context: BlockContext) -> None:
        pass


def handlers() -> dict[str, TxHandler]:
    return {"bank/transfer": TransferHandler(), "test/probe": ProbeHandler()}


def open_chain(store: Store, commit_rows: CommitRows | None = None) -> Chain:
    return Chain.open(
        store, GENESIS, handlers(), LeafListLog(), commit_rows, modules=(ChangingSeed(),)
    )


def transfer(
    payer: KeyPair,
    nonce: int,
    to: bytes,
    amount: int,
    *,
    memo: bytes = b"",
    valid_until: int = 1000,
    fee: int | None = None,
    chain_id: str = CHAIN_ID,
) -> Tx:
    messages = [Message("bank/transfer", TransferBody(to=to, amount=amount, memo=memo).encode())]
    return _sign(payer, nonce, messages, valid_until, fee, chain_id)


def probe(payer: KeyPair, nonce: int, verb: str, text: str, *, valid_until: int = 1000) -> Tx:
    messages = [Message("test/probe", codec.encode([verb, text]))]
    return _sign(payer, nonce, messages, valid_until, None, CHAIN_ID)


def _sign(
    payer: KeyPair,
    nonce: int,
    messages: Sequence[Message],
    valid_until: int,
    fee: int | None,
    chain_id: str,
) -> Tx:
    if fee is None:
        return sign_tx(
            payer,
            chain_id=chain_id,
            nonce=nonce,
            valid_until=valid_until,
            messages=messages,
            params=PARAMS,
        )
    return Tx.sign(
        payer,
        chain_id=chain_id,
        nonce=nonce,
        fee=fee,
        valid_until=valid_until,
        messages=messages,
    )


def certify(
    block: Block,
    *,
    view: int = 1,
    kind: VoteKind = VoteKind.FINALIZE,
    keys: Mapping[bytes, KeyPair] = VALIDATOR_KEYS,
    voters: ValidatorSet = GENESIS.validators,
) -> Certificate:
    """A certificate for `block` signed by those `keys` that are of `voters`."""
    message = vote_sign_bytes(CHAIN_ID, kind, block.height, view, block.hash)
    signatures = {public: key.sign(message) for public, key in keys.items()}
    return Certificate.of(kind, block.height, view, block.hash, signatures, voters)


def build(chain: Chain, txs: Sequence[Tx] = (), *, time_ms: int = 0) -> Block:
    return chain.build(view=1, facts=chain.plain_facts(PROPOSER), time_ms=time_ms, candidates=txs)


def advance(
    chain: Chain, txs: Sequence[Tx] = (), *, before: Callable[[Block], None] | None = None
) -> Commit:
    """Build a block of `txs`, call `before`, commit."""
    block = build(chain, txs)
    if before is not None:
        before(block)
    return chain.commit(block, certify(block))
