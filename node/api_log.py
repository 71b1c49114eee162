"""`audit_checkpoint`: the newest final head of the log, and the published checkpoint with all that
an offline verifier needs to weigh its cosignatures.

A cosigner's key is in its validator's record, and its power in the validator set, so the answer
carries the rows and the set; `read_published` runs the node's own function over them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from audit.checkpoint import log_note_key
from audit.cosign import Cosigned, CosignerSet, read_cosigners, verify_cosigned
from audit.cosignatures import Board
from audit.note import Note, NoteKey
from ledger.block import Header
from ledger.chain import Chain
from ledger.errors import InvalidInputError
from ledger.finality import FinalityProof
from ledger.light import Trusted, verify_trusted
from ledger.validator_set import ValidatorSet
from node.answer_view import AnswerView, ShownView
from node.cosigning import Cosigning
from rpc.params import bytes_of_text, text_of_bytes


def checkpoint_json(
    chain: Chain, cosigning: Cosigning, proof: FinalityProof, trusted_height: int
) -> dict[str, object]:
    """The whole answer; `proof` is of the newest header, from `trusted_height`."""
    return {
        "height": proof.header.height,
        "tree_size": proof.header.audit_size,
        "root_hash": proof.header.audit_root.hex(),
        "finality": text_of_bytes(proof.encode()),
        "published": _published_json(chain, cosigning, trusted_height),
        "reason": cosigning.reason,
    }


def _published_json(
    chain: Chain, cosigning: Cosigning, trusted_height: int
) -> dict[str, object] | None:
    """None while nothing is published, or if its height is below the trusted one or its state is
    not kept any more."""
    board, head = cosigning.published, chain.head
    if board is None or head is None:
        return None
    is_newest = head.audit_size == board.checkpoint.tree_size
    height = chain.height if is_newest else board.height
    if trusted_height > height:
        return None
    view = AnswerView(chain.view_at(height, trusted_height))
    validators = chain.validators_by_hash(chain.header(height).next_validators_hash)
    try:
        cosigners = read_cosigners(view, validators, chain.chain_id)
    except InvalidInputError:
        return None
    key = log_note_key(chain.chain_id, cosigning.log_public_key)
    return view.answer(
        tree_size=board.checkpoint.tree_size,
        root_hash=board.checkpoint.root_hash.hex(),
        note=board.note,
        log_key=key.vkey,
        validators=text_of_bytes(validators.encoded),
        **_weigh_json(board, cosigners, chain.chain_id),
    )


def _weigh_json(board: Board, cosigners: CosignerSet, chain_id: str) -> dict[str, object]:
    cosigned = verify_cosigned(Note.decode(board.note), cosigners, chain_id)
    return {
        "cosigners": [
            {
                "operator": item.operator.hex(),
                "key": item.key.vkey,
                "power": str(item.power),
                "time_s": cosigned.time_s_by_operator.get(item.operator),
            }
            for item in cosigners.cosigners
        ],
        "power": str(cosigned.power),
        "total_power": str(cosigned.total_power),
        "quorum": cosigned.has_quorum,
        "witnesses": board.witness_names,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCheckpoint:
    """A published checkpoint, all of it verified but the log key, which is the node's word."""

    header: Header
    handoffs: int
    note: Note
    log_key: NoteKey
    cosigners: CosignerSet
    cosigned: Cosigned


def read_published(
    published: Mapping[str, Any], trusted: Trusted, chain_id: str, *, now_ms: int | None = None
) -> PublishedCheckpoint:
    """The `published` member of an answer, verified from what is trusted (`now_ms`, Unix ms, is
    needed with a trust point): header,
    validator set, cosigners' records, cosignatures, and that the header has the note's head.
    Whether there is a quorum is the caller's question. Raises InvalidInputError."""
    finality = FinalityProof.decode(_blob(published, "finality"))
    header = verify_trusted(finality, trusted, chain_id, now_ms=now_ms)
    validators = ValidatorSet.decode(_blob(published, "validators"))
    if validators.hash != header.next_validators_hash:
        raise InvalidInputError(
            "validator set is not the one that the header names",
            expected=header.next_validators_hash.hex(),
            got=validators.hash.hex(),
        )
    rows = AnswerView(ShownView.of_answer(finality, published))
    cosigners = read_cosigners(rows, validators, chain_id)
    note = Note.decode(_text(published, "note"))
    cosigned = verify_cosigned(note, cosigners, chain_id)
    head = cosigned.checkpoint
    if (head.tree_size, head.root_hash) != (header.audit_size, header.audit_root):
        raise InvalidInputError(
            "checkpoint is not the log of the final block",
            expected=f"size {header.audit_size}, root {header.audit_root.hex()}",
            got=f"size {head.tree_size}, root {head.root_hash.hex()}",
        )
    log_key = NoteKey.decode(_text(published, "log_key"))
    if log_key != log_note_key(chain_id, log_key.public_key):
        raise InvalidInputError("log key is not one of this chain's log", got=log_key.name)
    return PublishedCheckpoint(
        header=header,
        handoffs=len(finality.handoffs),
        note=note,
        log_key=log_key,
        cosigners=cosigners,
        cosigned=cosigned,
    )


def _blob(answer: Mapping[str, Any], name: str) -> bytes:
    try:
        return bytes_of_text(_text(answer, name))
    except ValueError as error:
        raise InvalidInputError(f"answer's {name} is malformed", expected="base64url") from error


def _text(answer: Mapping[str, Any], name: str) -> str:
    text = answer.get(name)
    if not isinstance(text, str):
        raise InvalidInputError(f"answer has no {name}", expected="text")
    return text
