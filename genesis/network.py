"""A new network of validators from one seed: the genesis document and everybody's keys.

Pure: whoever calls gives the entropy (32 bytes or more, from the operating system for a real
network), and the same entropy gives the same keys. Each key is
Ed25519 seed = H("genesis-key", encode([entropy, role, index])).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from genesis.document import GenesisAccount, GenesisDocument
from genesis.gentx import sign_genesis_validator
from ledger import codec
from ledger.ed25519 import KeyPair
from ledger.errors import UsageError
from ledger.params import ChainParams
from ledger.staking_genesis import GenesisStake
from ledger.staking_record import POWER_UNIT
from ledger.validator_set import VALIDATORS_MAX

ENTROPY_BYTES_MIN = 32
POWER_DEFAULT = 1_000_000
COMMISSION_PPM_DEFAULT = 50_000
OPERATOR_BALANCE_UZYNK = 10**13
ANCHOR_BALANCE_UZYNK = 10**15
FAUCET_BALANCE_UZYNK = 10**18


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKeys:
    """One validator's keys. `operator_key` is the account that owns it and its bond;
    `validator_key` votes, `vrf_key` proves the beacon, `cosign_key` signs checkpoints; `p2p_seed`
    (32 B) is its libp2p identity; `anchor_key` is the account that pays for its audit anchors."""

    name: str
    operator_key: KeyPair
    validator_key: KeyPair
    vrf_key: KeyPair
    cosign_key: KeyPair
    p2p_seed: bytes = field(repr=False)
    anchor_key: KeyPair


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedNetwork:
    """A document with all keys behind it. `faucet_key` holds the rest of the supply."""

    document: GenesisDocument
    nodes: tuple[NodeKeys, ...]
    faucet_key: KeyPair


def generate_network(
    count: int,
    chain_id: str,
    *,
    genesis_time_ms: int,
    entropy: bytes,
    params: ChainParams | None = None,
    powers: tuple[int, ...] | None = None,
    faucet_balance: int = FAUCET_BALANCE_UZYNK,
    anchor_balance: int = ANCHOR_BALANCE_UZYNK,
    extra_accounts: tuple[GenesisAccount, ...] = (),
) -> GeneratedNetwork:
    """A network of `count` validators (`powers`: theirs, equal by default; each bonds that many
    times 1,000,000 uzynk of its own).

    Raises UsageError for a wrong count or too little entropy, InvalidInputError for a genesis
    that its own parser would refuse.
    """
    if not 1 <= count <= VALIDATORS_MAX:
        raise UsageError(
            "wrong number of validators", expected=f"1..{VALIDATORS_MAX}", got=str(count)
        )
    if len(entropy) < ENTROPY_BYTES_MIN:
        raise UsageError(
            "too little entropy", expected=f"at least {ENTROPY_BYTES_MIN} B", got=f"{len(entropy)}"
        )
    if powers is None:
        powers = (POWER_DEFAULT,) * count
    if len(powers) != count:
        raise UsageError("one power a validator", expected=str(count), got=str(len(powers)))
    nodes = tuple(_node_keys(entropy, index) for index in range(count))
    faucet = KeyPair.from_seed(_derive_seed(entropy, "faucet", 0))
    document = GenesisDocument(
        chain_id=chain_id,
        genesis_time_ms=genesis_time_ms,
        params=params or ChainParams(),
        validators=tuple(
            sign_genesis_validator(
                GenesisStake(
                    operator=n.operator_key.public_key,
                    consensus_key=n.validator_key.public_key,
                    vrf_key=n.vrf_key.public_key,
                    cosign_key=n.cosign_key.public_key,
                    name=n.name,
                    commission_ppm=COMMISSION_PPM_DEFAULT,
                    bond=power * POWER_UNIT,
                ),
                chain_id,
                operator=n.operator_key,
                consensus=n.validator_key,
                vrf=n.vrf_key,
                cosign=n.cosign_key,
            )
            for n, power in zip(nodes, powers, strict=True)
        ),
        accounts=(
            GenesisAccount(id=faucet.public_key, balance=faucet_balance),
            *(GenesisAccount(id=n.anchor_key.public_key, balance=anchor_balance) for n in nodes),
            *(
                GenesisAccount(
                    id=n.operator_key.public_key,
                    balance=power * POWER_UNIT + OPERATOR_BALANCE_UZYNK,
                )
                for n, power in zip(nodes, powers, strict=True)
            ),
            *extra_accounts,
        ),
    )
    return GeneratedNetwork(
        document=GenesisDocument.parse(document.encode()), nodes=nodes, faucet_key=faucet
    )


def _node_keys(entropy: bytes, index: int) -> NodeKeys:
    return NodeKeys(
        name=f"node{index}",
        operator_key=KeyPair.from_seed(_derive_seed(entropy, "operator", index)),
        validator_key=KeyPair.from_seed(_derive_seed(entropy, "validator", index)),
        vrf_key=KeyPair.from_seed(_derive_seed(entropy, "vrf", index)),
        cosign_key=KeyPair.from_seed(_derive_seed(entropy, "cosign", index)),
        p2p_seed=_derive_seed(entropy, "p2p", index),
        anchor_key=KeyPair.from_seed(_derive_seed(entropy, "anchor", index)),
    )


def _derive_seed(entropy: bytes, role: str, index: int) -> bytes:
    return codec.hash_tagged("genesis-key", codec.encode([entropy, role, index]))
