"""Whether and with what this node votes: the validator key, its sign guard, the floor.

- No guard, no vote: a missing or torn guard file makes the node a follower that says so, because
  nobody can know any more what the key has signed.
- After a rotation on chain (`zynk keys rotate`, `zynk stake rotate`) the next key votes, with a
  guard of its own, from the height on at which the validator set names it.
- A store that is new, or older than the guard, has lost the certificates and blocks that the
  guard's statements rest on: then the guard's floor becomes its highest (height, view), and nothing
  is signed at or below it, ever.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from consensus.guard import GuardUnusableError
from ledger.accounts import encode_account_id
from ledger.chain import Chain
from ledger.ed25519 import KeyPair
from ledger.errors import UsageError, ZynkError
from ledger.staking_rows import read_consensus_key
from ledger.store import Batch, Store
from node import config as cfg
from node.guard import GuardFile
from node.keys import load_key, read_public_key

SEEN_PREFIX = b"m/guard/"

log = structlog.get_logger("voting")


@dataclass(frozen=True, slots=True, kw_only=True)
class VotingKey:
    """`reason` is empty if the node may vote; else it says why not and what to do."""

    key: KeyPair | None
    guard: GuardFile | None
    reason: str = ""
    floor: tuple[int, int] = (0, 0)

    @property
    def public_key(self) -> bytes | None:
        """The key that consensus votes with; None if it must not."""
        return self.key.public_key if self.key is not None and not self.reason else None

    @property
    def sign(self) -> Callable[[bytes], bytes] | None:
        return self.key.sign if self.key is not None and not self.reason else None

    def close(self) -> None:
        if self.guard is not None:
            self.guard.close()


def open_voting_key(home: Path, chain: Chain, store: Store, passphrase: str | None) -> VotingKey:
    """Read key and guard. Raises UsageError for a key file that can not be read, DurabilityError
    if the floor can not be written; a bad guard is a reason not to vote, not an error."""
    is_next = is_next_key_due(home, chain)
    path = home / (cfg.VALIDATOR_NEXT_KEY_FILE if is_next else cfg.VALIDATOR_KEY_FILE)
    guard_path = home / (cfg.GUARD_NEXT_FILE if is_next else cfg.GUARD_FILE)
    if not path.exists():
        return VotingKey(
            key=None, guard=None, reason="this is a full node: it has no validator key"
        )
    key = load_key(path, passphrase)
    fork_proof = home / cfg.FORK_PROOF_FILE
    if fork_proof.exists():
        return VotingKey(
            key=key,
            guard=None,
            reason=f"the chain has forked: settle it with the other operators, then remove "
            f"{fork_proof}",
        )
    try:
        guard = GuardFile.open(guard_path, chain.chain_id, key.public_key)
    except ZynkError as error:
        reason = str(error)
        if isinstance(error, GuardUnusableError) and error.is_lost:
            reason += _advice(home, chain)
        log.error("the sign guard can not be used", error=reason)
        return VotingKey(key=key, guard=None, reason=reason)
    try:
        _keep_floor(chain, store, key.public_key, guard)
    except BaseException:
        guard.close()
        raise
    return VotingKey(key=key, guard=guard, floor=guard.floor)


def is_next_key_due(home: Path, chain: Chain) -> bool:
    """True if there is a next voting key, and the set of the next height names it."""
    path = home / cfg.VALIDATOR_NEXT_KEY_FILE
    return path.exists() and read_public_key(path) in chain.validators


def require_key_in_force(chain: Chain, public_key: bytes) -> None:
    """Raise UsageError unless the chain lets this consensus key vote on the next height."""
    owner = read_consensus_key(chain.tree, public_key)
    if owner is None:
        got = f"a chain that does not know {encode_account_id(public_key)} at height {chain.height}"
    elif not owner.may_vote_at(chain.height + 1):
        got = f"height {chain.height}; it votes from {owner.first} to {owner.last or 'any'}"
    else:
        return
    raise UsageError(
        "the next voting key is not in force yet; the node votes with the old one",
        expected="`zynk stake rotate`, and a node that ran until the new key counts",
        got=got,
    )


class VrfSeeds:
    """The secrets of the VRF keys in a home, by public key: the present one and the next."""

    def __init__(self, home: Path, passphrase: str | None) -> None:
        names = (cfg.VRF_KEY_FILE, cfg.VRF_NEXT_KEY_FILE, f"{cfg.VRF_KEY_FILE}.old")
        self._paths = [home / name for name in names]
        self._passphrase = passphrase
        self._seeds: dict[bytes, bytes] = {}

    def seed_of(self, public_key: bytes) -> bytes:
        """The seed (32 B) of the key that the chain asks for. Raises UsageError if no file has
        it."""
        if public_key not in self._seeds:
            for path in self._paths:
                if path.exists():
                    key = load_key(path, self._passphrase)
                    self._seeds[key.public_key] = key.seed
        if public_key not in self._seeds:
            raise UsageError(
                "no file has the VRF key that the chain knows for this validator",
                expected=encode_account_id(public_key),
                got=", ".join(str(path) for path in self._paths),
            )
        return self._seeds[public_key]


def _advice(home: Path, chain: Chain) -> str:
    """How to vote again without the old guard. With its own store the key has signed nothing
    above the height after the last final one."""
    return (
        f". If it is lost, stop the node and run `zynk guard create --home {shlex.quote(str(home))}"
        f" --floor {chain.height + 1}`: nothing is signed up to that height. If this store is a "
        "copy or was made anew, take a height that the key can not have reached instead"
    )


def _keep_floor(chain: Chain, store: Store, public_key: bytes, guard: GuardFile) -> None:
    """Raise the guard's floor if the store has lost what the guard's statements rest on. The
    store's row says that this store has been with this guard from its first vote on."""
    row_key = SEEN_PREFIX + public_key
    is_new = store.get(row_key) is None
    highest = guard.highest()
    if (is_new and highest > (0, 0)) or highest[0] > chain.height + 1:
        guard.set_floor(highest)
        log.warning(
            "the chain store is older than the sign guard; nothing is signed up to the guard's "
            "highest vote",
            height=highest[0],
            view=highest[1],
        )
    if is_new:
        batch = Batch()
        batch.put(row_key, b"")
        store.write(batch, sync=True)
