"""The genesis document and the network generator."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from genesis.document import GenesisDocument
from genesis.network import generate_network
from ledger.accounts import decode_account_id
from ledger.chain import Chain
from ledger.errors import InvalidInputError, UsageError
from ledger.store import MemoryStore
from tests.unit.chain_fixture import CHAIN_ID, GENESIS, NETWORK, LeafListLog, handlers

DOCUMENT = NETWORK.document
VALUE = DOCUMENT.to_value()

# Frozen: other bytes mean another chain for everyone who holds this file.
GENESIS_HASH_HEX = "060a3c46f551010ff9368357054691fc68666e367862f54cc6fd739ffb14dc1e"


def test_a_document_round_trips() -> None:
    assert GenesisDocument.parse(DOCUMENT.encode()) == DOCUMENT


def test_the_genesis_hash_is_frozen() -> None:
    assert DOCUMENT.compute_hash().hex() == GENESIS_HASH_HEX
    assert GENESIS.genesis_hash.hex() == GENESIS_HASH_HEX


def test_spacing_and_the_order_of_names_do_not_change_the_hash() -> None:
    turned = dict(reversed(VALUE.items()))
    data = json.dumps(turned, separators=(",", ":")).encode()
    assert GenesisDocument.parse(data).compute_hash().hex() == GENESIS_HASH_HEX


def changed(path: tuple[Any, ...], value: object) -> bytes:
    """The document with the field at `path` set (`KeyError`: removed)."""
    root = copy.deepcopy(VALUE)
    at: Any = root
    for step in path[:-1]:
        at = at[step]
    if value is KeyError:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return json.dumps(root).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("genesis_time_ms",), 1),
        (("params", "fee_base"), 7),
        (("validators",), VALUE["validators"][::-1]),
        (("accounts", 0, "balance"), "7"),
    ],
)
def test_any_other_value_gives_another_hash(path: tuple[Any, ...], value: object) -> None:
    assert GenesisDocument.parse(changed(path, value)).compute_hash() != DOCUMENT.compute_hash()


KEY = VALUE["validators"][0]["consensus_key"]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("version",), 1, "version"),
        (("version",), True, "version"),
        (("chain_id",), KeyError, "chain_id"),
        (("chain_id",), "", "chain_id"),
        (("chain_id",), "Upper", "chain_id"),
        (("chain_id",), "a" * 65, "chain_id"),
        (("chain_id",), 5, "chain_id"),
        (("extra",), 1, "extra"),
        (("genesis_time_ms",), -1, "genesis_time_ms"),
        (("genesis_time_ms",), "1", "genesis_time_ms"),
        (("genesis_time_ms",), 2**53, "genesis_time_ms"),
        (("params",), [], "params"),
        (("params", "fee_base"), KeyError, "fee_base"),
        (("params", "fee_base"), -1, "fee_base"),
        (("params", "fee_base"), "1", "fee_base"),
        (("params", "block_bytes_max"), 2**40, "block_bytes_max"),
        (("params", "no_such"), 1, "no_such"),
        (("validators",), [], "validators"),
        (("validators",), {}, "validators"),
        (("validators", 0), [], r"validators\[0\]"),
        (("validators", 0, "name"), "", r"validators\[0\].name"),
        (("validators", 0, "name"), "a\nb", r"validators\[0\].name"),
        (("validators", 1, "bond"), "0", r"validators\[1\].bond"),
        (("validators", 1, "bond"), "01", r"validators\[1\].bond"),
        (("validators", 1, "bond"), "-1", r"validators\[1\].bond"),
        (("validators", 1, "bond"), "１", r"validators\[1\].bond"),
        (("validators", 1, "bond"), 5, r"validators\[1\].bond"),
        (("validators", 1, "bond"), str(2**64), r"validators\[1\].bond"),
        (("validators", 2, "consensus_key"), "z6Mk", r"validators\[2\].consensus_key"),
        (("validators", 2, "consensus_key"), None, r"validators\[2\].consensus_key"),
        (("chain_id",), "other", r"validators\[0\].signatures.operator"),
        (("validators", 0, "name"), "somebody", r"validators\[0\].signatures.operator"),
        (("validators", 1, "bond"), "7000000", r"validators\[1\].signatures.operator"),
        (("validators", 1, "commission_ppm"), 1, r"validators\[1\].signatures.operator"),
        (("validators", 1, "commission_ppm"), 10**6 + 1, r"validators\[1\].commission_ppm"),
        (("validators", 1, "signatures", "vrf"), "0" * 128, r"validators\[1\].signatures.vrf"),
        (("validators", 1, "signatures", "vrf"), "0" * 126, r"validators\[1\].signatures.vrf"),
        (("validators", 1, "signatures", "cosign"), KeyError, "signatures.cosign"),
        (("validators", 1), VALUE["validators"][0], "twice"),
        (("accounts",), VALUE["accounts"][:5], r"validators\[0\].bond"),
        (("accounts",), [], "accounts"),
        (("accounts", 0, "balance"), str(2**64), r"accounts\[0\].balance"),
        (("accounts", 0, "balance"), str(2**64 - 1), "supply"),
        (("accounts", 0, "id"), 0, r"accounts\[0\].id"),
        (("accounts", 1, "id"), VALUE["accounts"][0]["id"], "names an account twice"),
    ],
)
def test_a_wrong_field_is_refused_by_name(path: tuple[Any, ...], value: object, field: str) -> None:
    with pytest.raises(InvalidInputError, match=field):
        GenesisDocument.parse(changed(path, value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"version": 1, "version": 1}',
        b'{"version": 1.0}',
        b'{"version": NaN}',
        b'{"version": ' + b"1" * 10_000 + b"}",
        b'{"a": "\\ud800"}',
    ],
)
def test_what_is_no_genesis_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        GenesisDocument.parse(data)


def test_each_truncation_is_refused() -> None:
    data = DOCUMENT.encode().rstrip()
    for length in range(0, len(data), 7):
        with pytest.raises(InvalidInputError):
            GenesisDocument.parse(data[:length])


# --- the generator ---

ENTROPY = bytes(range(32))


def test_the_same_entropy_gives_the_same_network() -> None:
    one, two = (generate_network(3, "net-1", genesis_time_ms=5, entropy=ENTROPY) for _ in range(2))
    other = generate_network(3, "net-1", genesis_time_ms=5, entropy=ENTROPY[::-1])
    assert one == two
    assert one.document.compute_hash() != other.document.compute_hash()


def test_every_key_of_a_network_is_another_one() -> None:
    network = generate_network(7, "net-1", genesis_time_ms=5, entropy=ENTROPY)
    seeds = [network.faucet_key.seed]
    for node in network.nodes:
        seeds += [node.validator_key.seed, node.p2p_seed, node.anchor_key.seed]
        seeds += [node.operator_key.seed, node.vrf_key.seed, node.cosign_key.seed]
    assert len(set(seeds)) == 43


def test_a_generated_document_names_the_generated_keys() -> None:
    network = generate_network(
        2, "net-1", genesis_time_ms=5, entropy=ENTROPY, powers=(3, 5), faucet_balance=9
    )
    value = network.document.to_value()
    keys = [decode_account_id(v["consensus_key"]) for v in value["validators"]]
    assert keys == [n.validator_key.public_key for n in network.nodes]
    assert [v["bond"] for v in value["validators"]] == ["3000000", "5000000"]
    assert [v.power for v in network.document.to_state().validators.validators] == [5, 3]
    balances = dict(network.document.to_state().accounts)
    assert balances[network.faucet_key.public_key] == 9
    assert all(balances[n.anchor_key.public_key] > 0 for n in network.nodes)


def test_secrets_of_a_network_are_not_printed() -> None:
    text = repr(NETWORK)
    for node in NETWORK.nodes:
        assert repr(node.p2p_seed) not in text
        assert node.p2p_seed.hex() not in text
        assert node.validator_key.seed.hex() not in text


@pytest.mark.parametrize("count", [0, 257])
def test_a_network_has_a_sensible_number_of_validators(count: int) -> None:
    with pytest.raises(UsageError):
        generate_network(count, "net-1", genesis_time_ms=5, entropy=ENTROPY)


def test_too_little_entropy_is_refused() -> None:
    with pytest.raises(UsageError):
        generate_network(1, "net-1", genesis_time_ms=5, entropy=bytes(31))


def test_one_power_for_each_validator_is_needed() -> None:
    with pytest.raises(UsageError):
        generate_network(2, "net-1", genesis_time_ms=5, entropy=ENTROPY, powers=(1,))


def test_a_chain_starts_from_a_parsed_document() -> None:
    state = GenesisDocument.parse(DOCUMENT.encode()).to_state()
    chain = Chain.open(MemoryStore(), state, handlers(), LeafListLog())
    assert (chain.chain_id, chain.head_hash) == (CHAIN_ID, state.genesis_hash)
    assert chain.account(NETWORK.faucet_key.public_key).balance == 10**18
