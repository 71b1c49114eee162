"""Outside witnesses (C2SP tlog-witness): what is asked of one, and what its answer means.

    POST <submission prefix>/add-checkpoint
        old <size that the witness cosigned last>\\n
        <base64 of a consistency proof's hash>\\n         (none if old is 0 or its size)
        \\n
        <checkpoint, a signed note>
    200: signature lines, the witness's own among them
    409: <size that the witness cosigned last>\\n         (text/x.tlog.size)

Everything else is a refusal. No clock and no network here: node/witness.py has those.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from audit.cosign import verify_cosignature
from audit.note import KeyType, NoteKey, NoteSignature, decode_signatures
from ledger.errors import InvalidInputError, UsageError

PROOF_HASHES_MAX = 63
ANSWER_BYTES_MAX = 64 * 1024
SIZE_TYPE = "text/x.tlog.size"
SIZE_DIGITS_MAX = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """`url` is the submission prefix, without a slash at its end."""

    url: str
    key: NoteKey

    @classmethod
    def parse(cls, text: str) -> Witness:
        """`<URL> <verifier key>`. Raises InvalidInputError."""
        url, _, vkey = text.strip().partition(" ")
        if not url.startswith(("https://", "http://")) or not vkey:
            raise InvalidInputError(
                "witness is malformed", expected="https://... name+id+key", got=text[:80]
            )
        key = NoteKey.decode(vkey.strip())
        if key.type is not KeyType.COSIGNATURE:
            raise InvalidInputError(
                "witness key is not one of cosignature/v1", expected="type 4", got=str(key.type)
            )
        return cls(url=url.rstrip("/"), key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessAnswer:
    """An HTTP answer; `content_type` without parameters."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class OtherSize:
    """The witness cosigned this size last: ask again from there, or wait for a larger log."""

    size: int


class WitnessRefusal(InvalidInputError):
    """The witness does not cosign. `is_inconsistent`: it says that the log is not the one that it
    cosigned before."""

    def __init__(self, message: str, *, got: str = "", is_inconsistent: bool = False) -> None:
        super().__init__(message, expected="200 with a cosignature", got=got, retry=True)
        self.is_inconsistent = is_inconsistent


def encode_request(old_size: int, proof: Sequence[bytes], note: str) -> bytes:
    """The body of add-checkpoint. Raises UsageError for a proof that no log has."""
    if len(proof) > PROOF_HASHES_MAX:
        raise UsageError("consistency proof is too long", got=str(len(proof)))
    hashes = "".join(base64.b64encode(item).decode() + "\n" for item in proof)
    return f"old {old_size}\n{hashes}\n{note}".encode()


def read_answer(answer: WitnessAnswer, body: str, key: NoteKey) -> NoteSignature | OtherSize:
    """The witness's line on the checkpoint `body`, verified, or the size to begin from. Raises
    WitnessRefusal."""
    if answer.status == 409:
        return OtherSize(_read_size(answer))
    if answer.status != 200:
        raise WitnessRefusal(
            "the witness refused the checkpoint",
            got=f"{answer.status} {_printable(answer.body)}",
            is_inconsistent=answer.status == 422,
        )
    try:
        lines = decode_signatures(answer.body.decode())
        found = [line for line in lines if line.is_of(key)]
        for line in found:
            verify_cosignature(body, key, line.signature)
    except (InvalidInputError, UnicodeDecodeError) as error:
        raise WitnessRefusal("the witness's cosignature does not hold", got=str(error)) from error
    if not found:
        raise WitnessRefusal("the witness did not sign with its key", got=_printable(answer.body))
    return found[0]


def _read_size(answer: WitnessAnswer) -> int:
    text = answer.body.removesuffix(b"\n")
    is_number = text.isdigit() and len(text) <= SIZE_DIGITS_MAX and str(int(text)).encode() == text
    if answer.content_type != SIZE_TYPE or not is_number:
        raise WitnessRefusal("the witness's size is malformed", got=_printable(answer.body))
    return int(text)


def _printable(body: bytes) -> str:
    return repr(body[:80])[2:-1]
