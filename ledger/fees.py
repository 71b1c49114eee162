"""Signing a tx with the least fee that a chain takes for it."""

from __future__ import annotations

from collections.abc import Sequence

from ledger import codec
from ledger.ed25519 import KeyPair
from ledger.params import ChainParams
from ledger.tx import Message, Tx


def compute_fee_min(
    params: ChainParams,
    *,
    chain_id: str,
    nonce: int,
    valid_until: int,
    messages: Sequence[Message],
) -> int:
    """A fee, in uzynk, that is enough for this tx whatever length the fee itself takes (at most 8
    bytes' worth above the least)."""
    widest: list[codec.Value] = [
        chain_id,
        bytes(32),
        nonce,
        codec.U64_MAX,
        valid_until,
        [[m.type, m.body] for m in messages],
        bytes(64),
    ]
    return params.compute_fee_min(len(codec.encode(widest)))


def sign_tx(
    key: KeyPair,
    *,
    chain_id: str,
    nonce: int,
    valid_until: int,
    messages: Sequence[Message],
    params: ChainParams,
) -> Tx:
    """Sign with the least sufficient fee."""
    fee = compute_fee_min(
        params, chain_id=chain_id, nonce=nonce, valid_until=valid_until, messages=messages
    )
    return Tx.sign(
        key, chain_id=chain_id, nonce=nonce, fee=fee, valid_until=valid_until, messages=messages
    )
