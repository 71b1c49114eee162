"""Collecting validators' cosignatures: the newest of each, and those of one checkpoint.

A `SignedHead` is a cosignature on its way between nodes. `HeadPool` takes them from anybody: it
keeps one a validator, the newest, whose signature is good and whose head this node's own log has.
A head that is ahead of the log waits (one a validator) until the log has come so far. A `Board` is
one checkpoint of this node and the lines that go on it.

A validator that signed another root for a size of this log has shown two logs, or has seen another
chain: `SplitViewError` says so with its signature, which is the proof.

Wire: [[operator bin32, size, root bin32, time (s), signature bin64], ...], at most 256, each of
another operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from audit.checkpoint import Checkpoint, compute_origin
from audit.cosign import (
    TIME_BYTES,
    TIME_MAX_S,
    Cosigner,
    CosignerSet,
    sign_cosignature,
    verify_cosignature,
)
from audit.note import Note, NoteSignature
from ledger import codec
from ledger.codec import HASH_BYTES
from ledger.ed25519 import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, KeyPair
from ledger.errors import InvalidInputError
from ledger.validator_set import VALIDATORS_MAX

HEADS_BYTES_MAX = 64 * 1024
TIME_AHEAD_MAX_S = 60
WITNESS_LINES_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedHead:
    """A validator's cosignature of the log at `tree_size`."""

    operator: bytes
    tree_size: int
    root_hash: bytes
    time_s: int
    signature: bytes

    @classmethod
    def from_value(cls, value: object) -> SignedHead:
        """Raises InvalidInputError."""
        operator, size, root, time_s, signature = codec.read_array(value, 5, "signed head")
        return cls(
            operator=codec.read_bytes(operator, "operator", length=PUBLIC_KEY_BYTES),
            tree_size=codec.read_int(size, "tree size", 2**63 - 1),
            root_hash=codec.read_bytes(root, "root", length=HASH_BYTES),
            time_s=codec.read_int(time_s, "time", TIME_MAX_S),
            signature=codec.read_bytes(signature, "cosignature", length=SIGNATURE_BYTES),
        )

    def to_value(self) -> list[codec.Value]:
        return [self.operator, self.tree_size, self.root_hash, self.time_s, self.signature]

    def checkpoint(self, chain_id: str) -> Checkpoint:
        """What it signs."""
        return Checkpoint(
            origin=compute_origin(chain_id), tree_size=self.tree_size, root_hash=self.root_hash
        )

    def to_line(self, cosigner: Cosigner) -> NoteSignature:
        """The note's line, under the key of that cosigner."""
        key = cosigner.key
        data = self.time_s.to_bytes(TIME_BYTES, "big") + self.signature
        return NoteSignature(name=key.name, key_id=key.key_id, signature=data)


def encode_heads(heads: Iterable[SignedHead]) -> bytes:
    return codec.encode([head.to_value() for head in heads])


def decode_heads(data: bytes) -> list[SignedHead]:
    """Inverse of `encode_heads`. Raises InvalidInputError."""
    value = codec.decode(data, bytes_max=HEADS_BYTES_MAX)
    heads = [SignedHead.from_value(i) for i in codec.read_list(value, VALIDATORS_MAX, "heads")]
    if len({head.operator for head in heads}) != len(heads):  # each costs a signature check
        raise InvalidInputError("signed heads name an operator twice")
    return heads


def sign_head(checkpoint: Checkpoint, cosigner: Cosigner, pair: KeyPair, time_s: int) -> SignedHead:
    """A validator's own."""
    line = sign_cosignature(checkpoint.body(), cosigner.key, pair, time_s)
    return SignedHead(
        operator=cosigner.operator,
        tree_size=checkpoint.tree_size,
        root_hash=checkpoint.root_hash,
        time_s=time_s,
        signature=line.signature[TIME_BYTES:],
    )


class SplitViewError(InvalidInputError):
    """A validator signed another root for a size of the log; `head` is the proof."""

    def __init__(self, head: SignedHead, expected: bytes) -> None:
        super().__init__(
            f"a validator cosigned another log at size {head.tree_size}",
            expected=expected.hex(),
            got=head.root_hash.hex(),
        )
        self.head = head


class HeadPool:
    """See the module docstring. `root_of` gives the log's root at any size up to `size`."""

    def __init__(self, chain_id: str, root_of: Callable[[int], bytes]) -> None:
        self._chain_id = chain_id
        self._root_of = root_of
        self._cosigners: dict[bytes, Cosigner] = {}
        self._ahead: dict[bytes, SignedHead] = {}
        self.size = 0
        self.latest: dict[bytes, SignedHead] = {}
        """By operator, verified; at most one a validator."""

    def set_cosigners(self, cosigners: CosignerSet) -> None:
        """Whose heads count from now on; those of others are dropped."""
        self._cosigners = {found.operator: found for found in cosigners.cosigners}
        for heads in (self.latest, self._ahead):
            for operator in [operator for operator in heads if operator not in self._cosigners]:
                del heads[operator]

    def grow(self, size: int) -> list[SplitViewError]:
        """The log has come to `size`: what waited for that is taken in. What contradicts the log
        is returned."""
        self.size = size
        contradictions = []
        for head in [head for head in self._ahead.values() if head.tree_size <= size]:
            del self._ahead[head.operator]
            try:
                self._take(head)
            except SplitViewError as error:
                contradictions.append(error)
        return contradictions

    def add(self, head: SignedHead, now_s: int) -> bool:
        """True if it is news that others should hear. Raises InvalidInputError for a signature that
        is not the validator's, SplitViewError."""
        cosigner = self._cosigners.get(head.operator)
        if cosigner is None or head.time_s > now_s + TIME_AHEAD_MAX_S:
            return False
        held = self.latest.get(head.operator)
        if held is not None and (
            head.tree_size < held.tree_size
            or (head.tree_size, head.root_hash) == (held.tree_size, held.root_hash)
        ):
            return False
        if head == self._ahead.get(head.operator):
            return False
        body = head.checkpoint(self._chain_id).body()
        verify_cosignature(body, cosigner.key, head.to_line(cosigner).signature)
        if head.tree_size > self.size:
            self._ahead[head.operator] = head
            return False
        return self._take(head)

    def _take(self, head: SignedHead) -> bool:
        expected = self._root_of(head.tree_size)
        if head.root_hash != expected:
            raise SplitViewError(head, expected)
        held = self.latest.get(head.operator)
        if held is not None and held.tree_size >= head.tree_size:
            return False
        self.latest[head.operator] = head
        return True


class Board:
    """One checkpoint, signed by this node's log key, and who cosigned it."""

    def __init__(
        self,
        *,
        height: int,
        checkpoint: Checkpoint,
        log_line: NoteSignature,
        cosigners: CosignerSet,
        chain_id: str,
    ) -> None:
        self.height = height
        self.checkpoint = checkpoint
        self.cosigners = cosigners
        self._chain_id = chain_id
        self._log_line = log_line
        self._lines: dict[bytes, NoteSignature] = {}
        self._witness_lines: dict[tuple[str, bytes], NoteSignature] = {}
        self._note: str | None = None

    def add(self, head: SignedHead) -> bool:
        """True if it is a new line of this checkpoint. It is verified under the keys of this
        checkpoint's height: a line that does not hold would make the whole note invalid."""
        cosigner = self.cosigners.find(head.operator)
        if cosigner is None or head.operator in self._lines:
            return False
        if head.checkpoint(self._chain_id) != self.checkpoint:
            return False
        line = head.to_line(cosigner)
        try:
            verify_cosignature(self.checkpoint.body(), cosigner.key, line.signature)
        except InvalidInputError:  # the validator has changed its key since
            return False
        self._lines[head.operator] = line
        self._note = None
        return True

    def add_witness(self, line: NoteSignature) -> None:
        """A verified cosignature of an outside witness; a newer one takes the older's place."""
        key = (line.name, line.key_id)
        if key in self._witness_lines or len(self._witness_lines) < WITNESS_LINES_MAX:
            self._witness_lines[key] = line
            self._note = None

    @property
    def log_note(self) -> str:
        """The checkpoint with the log's own line alone."""
        return Note(text=self.checkpoint.body(), signatures=(self._log_line,)).encode()

    @property
    def note(self) -> str:
        """With all lines at hand: the log's, validators' by power, witnesses'."""
        if self._note is None:
            self._note = Note(text=self.checkpoint.body(), signatures=self._all_lines()).encode()
        return self._note

    @property
    def power(self) -> int:
        """Of those who cosigned."""
        return self.cosigners.power_of(self._lines)

    @property
    def has_quorum(self) -> bool:
        return self.cosigners.validators.has_quorum(self.power)

    @property
    def witness_names(self) -> list[str]:
        return sorted(name for name, _ in self._witness_lines)

    def _all_lines(self) -> tuple[NoteSignature, ...]:
        ordered = [c.operator for c in self.cosigners.cosigners if c.operator in self._lines]
        witnesses = [self._witness_lines[key] for key in sorted(self._witness_lines)]
        return (self._log_line, *(self._lines[operator] for operator in ordered), *witnesses)
