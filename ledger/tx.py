"""The transaction envelope.

Wire: [chain_id str, payer bin32, nonce, fee, valid_until, [[type str, body bin], ...], sig bin64].
The signature covers the same array without its last field. The tx id hashes the whole, signature
included. `fee` is in uzynk (u64); `valid_until` is the last height that may include the tx.

A body is its handler's business (`ledger.execution.TxHandler`); the envelope is checked here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ledger import codec
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError

TX_BYTES_MAX = 64 * 1024
MESSAGES_MAX = 16
MESSAGE_TYPE_MAX = 32
CHAIN_ID_MAX = 64


@dataclass(frozen=True, slots=True)
class Message:
    """A typed message: `type` names the handler, `body` is its bytes."""

    type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Tx:
    """A signed transaction with its wire bytes and id. Build with `sign` or `decode`."""

    chain_id: str
    payer: bytes
    nonce: int
    fee: int
    valid_until: int
    messages: tuple[Message, ...]
    signature: bytes
    encoded: bytes
    id: bytes

    @classmethod
    def sign(
        cls,
        key: KeyPair,
        *,
        chain_id: str,
        nonce: int,
        fee: int,
        valid_until: int,
        messages: Sequence[Message],
    ) -> Tx:
        """Sign with the payer's key."""
        fields = _fields(chain_id, key.public_key, nonce, fee, valid_until, messages)
        signature = key.sign(_sign_bytes(chain_id, fields))
        return cls.decode(codec.encode([*fields, signature]))

    @classmethod
    def decode(cls, data: bytes) -> Tx:
        """Parse wire bytes; the signature is NOT checked. Raises InvalidInputError."""
        chain_id, payer, nonce, fee, valid_until, messages, signature = codec.read_array(
            codec.decode(data, bytes_max=TX_BYTES_MAX), 7, "tx"
        )
        found = []
        for item in codec.read_list(messages, MESSAGES_MAX, "tx messages"):
            kind, body = codec.read_array(item, 2, "tx message")
            found.append(
                Message(
                    codec.read_str(kind, "message type", MESSAGE_TYPE_MAX),
                    codec.read_bytes(body, "message body", maximum=TX_BYTES_MAX),
                )
            )
        if not found:
            raise InvalidInputError("tx has no message", expected="1..16 messages")
        return cls(
            codec.read_str(chain_id, "tx chain id", CHAIN_ID_MAX),
            codec.read_bytes(payer, "tx payer", length=32),
            codec.read_int(nonce, "tx nonce"),
            codec.read_int(fee, "tx fee"),
            codec.read_int(valid_until, "tx valid_until"),
            tuple(found),
            codec.read_bytes(signature, "tx signature", length=64),
            data,
            codec.hash_tagged("tx", data),
        )

    def sign_bytes(self) -> bytes:
        """What the payer's signature covers."""
        fields = _fields(
            self.chain_id, self.payer, self.nonce, self.fee, self.valid_until, self.messages
        )
        return _sign_bytes(self.chain_id, fields)


def _fields(
    chain_id: str,
    payer: bytes,
    nonce: int,
    fee: int,
    valid_until: int,
    messages: Sequence[Message],
) -> list[codec.Value]:
    return [chain_id, payer, nonce, fee, valid_until, [[m.type, m.body] for m in messages]]


def _sign_bytes(chain_id: str, fields: list[codec.Value]) -> bytes:
    return codec.sign_bytes("tx", chain_id, fields[1:])
