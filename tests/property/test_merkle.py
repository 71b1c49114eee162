"""RFC 6962 trees against a twin that follows the RFC's recursive definition word by word."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import merkle
from ledger.errors import InvalidInputError, UsageError
from tests.property.campaign import examples, is_soak

LEAVES_MAX = 300 if is_soak() else 70


def split(count: int) -> int:
    """The largest power of two below `count` (RFC 6962 section 2.1)."""
    return 1 << (count - 1).bit_length() - 1


def naive_root(entries: list[bytes]) -> bytes:
    """MTH."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    k = split(len(entries))
    return hashlib.sha256(b"\1" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def naive_path(m: int, entries: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]) (RFC 6962 section 2.1.1)."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*naive_path(m, entries[:k]), naive_root(entries[k:])]
    return [*naive_path(m - k, entries[k:]), naive_root(entries[:k])]


def entries_of(count: int) -> list[bytes]:
    return [b"entry %d" % i for i in range(count)]


def hashes_of(count: int) -> list[bytes]:
    return [merkle.compute_leaf_hash(e) for e in entries_of(count)]


# Certificate Transparency's reference tests (google/certificate-transparency, merkletree tests):
# the eight leaves, and the root of each of their prefixes.
CT_LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_roots_are_those_of_the_certificate_transparency_tests() -> None:
    hashes = [merkle.compute_leaf_hash(bytes.fromhex(leaf)) for leaf in CT_LEAVES]
    roots = [merkle.compute_root(hashes[:n]).hex() for n in range(1, 9)]
    assert roots == CT_ROOTS
    assert merkle.compute_root([]) == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("count", [*range(1, LEAVES_MAX, 3), 64, 65, 127, 128, 129])
def test_roots_and_paths_are_those_of_the_recursive_definition(count: int) -> None:
    entries, hashes = entries_of(count), hashes_of(count)
    root = merkle.compute_root(hashes)
    assert root == naive_root(entries)
    for index in range(0, count, 1 + count // 20):
        path = merkle.compute_inclusion_proof(hashes, index)
        assert path == naive_path(index, entries)
        merkle.verify_inclusion_proof(root, count, index, hashes[index], path)


@settings(max_examples=examples(300), deadline=None)
@given(st.integers(1, 200), st.data())
def test_a_proof_changed_in_any_way_is_refused(count: int, data: st.DataObject) -> None:
    hashes = hashes_of(count)
    root = merkle.compute_root(hashes)
    index = data.draw(st.integers(0, count - 1))
    path = merkle.compute_inclusion_proof(hashes, index)
    leaf = hashes[index]
    bad = [
        (root, count, index, leaf, [*path, bytes(32)]),
        (root, count, index, leaf, [bytes(32), *path]),
        (root, count, index, bytes(32), path),
        (bytes(32), count, index, leaf, path),
        (root, count, count, leaf, path),
        (root, count, -1, leaf, path),
        (root, 0, 0, leaf, path),
        (root, count, index, leaf, [*path[:-1], b"short"]),
        (root, count, index, leaf, [bytes(32)] * 65),
    ]
    if path:
        bad += [(root, count, index, leaf, path[:-1]), (root, count, index, leaf, path[1:])]
        spot = data.draw(st.integers(0, 32 * len(path) - 1))
        joined = bytearray(b"".join(path))
        joined[spot] ^= data.draw(st.integers(1, 255))
        flipped = [bytes(joined[i : i + 32]) for i in range(0, len(joined), 32)]
        bad.append((root, count, index, leaf, flipped))
    other = data.draw(st.integers(0, count - 1))
    if other != index:
        bad.append((root, count, other, leaf, path))
    for case in bad:
        with pytest.raises(InvalidInputError):
            merkle.verify_inclusion_proof(*case)


def test_a_leaf_outside_the_tree_is_our_own_mistake() -> None:
    for count, index in ((0, 0), (3, 3), (3, -1)):
        with pytest.raises(UsageError):
            merkle.compute_inclusion_proof(hashes_of(count), index)


def test_a_leaf_is_never_taken_for_a_node() -> None:
    left, right = hashes_of(2)
    assert merkle.compute_leaf_hash(left + right) != merkle.compute_node_hash(left, right)
