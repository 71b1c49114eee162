"""Txs with made-up signatures, for parts that never look at a signature."""

from __future__ import annotations

from ledger import codec
from ledger.accounts import TransferBody
from ledger.tx import Tx


def payer_of(number: int) -> bytes:
    """The numbered account id."""
    return codec.hash_tagged("test-payer", codec.encode(number))


def unsigned_tx(
    payer: int, nonce: int, *, fee: int = 1000, memo_bytes: int = 0, valid_until: int = 1000
) -> Tx:
    """A transfer of 1 uzynk to account 0."""
    body = TransferBody(to=payer_of(0), amount=1, memo=bytes(memo_bytes)).encode()
    fields: list[codec.Value] = [
        "test-1",
        payer_of(payer),
        nonce,
        fee,
        valid_until,
        [["bank/transfer", body]],
        bytes(64),
    ]
    return Tx.decode(codec.encode(fields))
