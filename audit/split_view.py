"""Split view: a signed checkpoint that contradicts the chain, as a proof that anybody can check.

    split view = ["zynk-split-view/1", note str, key str, root bin32, [hash bin32, ...],
                  finality proof bin]

The note is a checkpoint signed by `key` (a C2SP verifier key). `root` is what the log had at the
note's size, by the consistency proof from it to the head of the log in the final header; the note
says another one. Both roots can not be of one append-only log, so the key's holder has shown
somebody a log that is not the chain's.
"""

from __future__ import annotations

from dataclasses import dataclass

from audit.checkpoint import Checkpoint, compute_origin
from audit.cosign import verify_cosignature
from audit.note import NOTE_BYTES_MAX, VKEY_BYTES_MAX, KeyType, Note, NoteKey, verify_signed
from ledger import codec
from ledger.block import Header
from ledger.errors import InvalidInputError
from ledger.finality import FINALITY_PROOF_BYTES_MAX, FinalityProof
from ledger.merkle import EMPTY_ROOT, verify_consistency_proof

TAG = "zynk-split-view/1"
BYTES_MAX = FINALITY_PROOF_BYTES_MAX + NOTE_BYTES_MAX + 64 * 1024
PATH_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitView:
    """See the module docstring."""

    note: str
    key: NoteKey
    root: bytes
    path: tuple[bytes, ...]
    finality: FinalityProof

    @classmethod
    def decode(cls, data: bytes) -> SplitView:
        """Inverse of `encode`. Raises InvalidInputError."""
        v = codec.read_array(codec.decode(data, bytes_max=BYTES_MAX), 6, "split view")
        if v[0] != TAG:
            raise InvalidInputError("not a split view", expected=TAG, got=repr(v[0])[:40])
        return cls(
            note=codec.read_str(v[1], "note", NOTE_BYTES_MAX),
            key=NoteKey.decode(codec.read_str(v[2], "verifier key", VKEY_BYTES_MAX)),
            root=codec.read_bytes(v[3], "root", length=32),
            path=tuple(
                codec.read_bytes(item, "hash", length=32)
                for item in codec.read_list(v[4], PATH_MAX, "consistency proof")
            ),
            finality=FinalityProof.decode(
                codec.read_bytes(v[5], "finality proof", maximum=FINALITY_PROOF_BYTES_MAX)
            ),
        )

    def encode(self) -> bytes:
        return codec.encode(
            [TAG, self.note, self.key.vkey, self.root, list(self.path), self.finality.encode()]
        )

    def verify(self, header: Header) -> Checkpoint:
        """The false checkpoint, if this proves that it is false; `header` is that of `finality`,
        verified by the caller. Raises InvalidInputError."""
        checkpoint = read_signed(self.note, self.key)
        if checkpoint.origin != compute_origin(header.chain_id):
            raise InvalidInputError(
                "the checkpoint is of another log",
                expected=compute_origin(header.chain_id),
                got=checkpoint.origin,
            )
        size = checkpoint.tree_size
        if size > header.audit_size:
            raise InvalidInputError(
                "the checkpoint is ahead of the header",
                expected=f"at most {header.audit_size}",
                got=str(size),
            )
        if size == 0:
            if self.root != EMPTY_ROOT or self.path:
                raise InvalidInputError("the empty log has one root and no proof")
        else:
            verify_consistency_proof(
                self.root, size, header.audit_root, header.audit_size, list(self.path)
            )
        if self.root == checkpoint.root_hash:
            raise InvalidInputError("the checkpoint agrees with the chain: it proves nothing")
        return checkpoint


def read_signed(note: str, key: NoteKey) -> Checkpoint:
    """The checkpoint of a note that `key` signed, as a log or as a cosigner. Raises
    InvalidInputError."""
    decoded = Note.decode(note)
    if key.type is KeyType.COSIGNATURE:
        line = decoded.find(key)
        if line is None:
            raise InvalidInputError("note is not signed by the expected key", expected=key.name)
        verify_cosignature(decoded.text, key, line.signature)
    else:
        verify_signed(decoded, key)
    return Checkpoint.decode(decoded.text)
