"""Making audit streams: what a client signs with its DID's control key."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from audit.leaf import encode_stream_text
from audit.stream import MESSAGE_TYPE, CreateStream, encode_stream_body, stream_sign_bytes
from did.multikey import encode_multikey
from ledger.ed25519 import KeyPair
from ledger.tx import Message

QUOTA_LEAVES_PER_DAY = 1_000_000


def create_stream_message(
    *,
    chain_id: str,
    owner: str,
    submitters: Sequence[bytes],
    description: str,
    keys: Sequence[KeyPair],
    quota: int = QUOTA_LEAVES_PER_DAY,
) -> tuple[str, Message]:
    """(stream id as text, the message that creates it), signed with the owner DID's control
    `keys`. `submitters` are the accounts (32 B) that may anchor; `quota` is leaves a day."""
    fields = {
        "owner": owner,
        "submitters": tuple(sorted(set(submitters))),
        "quota": quota,
        "description_hash": hashlib.sha256(description.encode()).digest(),
        "salt": os.urandom(16),
    }
    unsigned = CreateStream(**fields)  # type: ignore[arg-type]  # the fields of the dataclass
    message = stream_sign_bytes(chain_id, unsigned)
    body = CreateStream(
        **fields,  # type: ignore[arg-type]
        signatures=tuple(
            sorted((encode_multikey(key.public_key), key.sign(message)) for key in keys)
        ),
    )
    stream = encode_stream_text(unsigned.stream(chain_id))
    return stream, Message(MESSAGE_TYPE, encode_stream_body(body))
