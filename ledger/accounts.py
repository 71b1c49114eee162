"""Accounts, and the transfer between them.

An account id IS an Ed25519 public key (32 B). Its row is `state_key("acct", id)` ->
canonical [balance, nonce]; `nonce` is the one its next tx must carry; an account without a row
has neither. As text an id is a Multikey: multibase `z` (base58btc) of 0xed 0x01 || key, 48
characters that begin with `z6Mk`.

Message `bank/transfer`, body [to bin32, amount u64, memo bin <= 1024].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import base58
import msgpack

from ledger import codec
from ledger.errors import InvalidInputError, UsageError
from ledger.execution import Event, ExecutionContext, StateView, TxFailure
from ledger.state import state_key

ACCOUNT_ID_BYTES = 32
MULTIKEY_PREFIX = b"\xed\x01"
MULTIKEY_TEXT_MAX = 64
MULTIKEY_DIGITS = 47
MEMO_BYTES_MAX = 1024
TRANSFER_BYTES_MAX = MEMO_BYTES_MAX + 64
ACCOUNT_ROW_BYTES_MAX = 32
ACCOUNT_PREFIX = state_key("acct", b"")
POOL_PREFIX = state_key("pool", b"")
FEES_KEY = state_key("pool", b"fees")

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_PAIRS = tuple(high + low for high in _BASE58 for low in _BASE58)
_BASE58_CHUNK = 58**10


@dataclass(frozen=True, slots=True)
class Account:
    """`balance` in uzynk (u64); `nonce` of the next tx (u64)."""

    balance: int
    nonce: int

    def encode(self) -> bytes:
        return codec.encode([self.balance, self.nonce])

    @classmethod
    def decode(cls, data: bytes) -> Account:
        """Inverse of `encode`. Raises InvalidInputError."""
        balance, nonce = codec.read_array(
            codec.decode(data, bytes_max=ACCOUNT_ROW_BYTES_MAX), 2, "account"
        )
        return cls(codec.read_int(balance, "balance"), codec.read_int(nonce, "nonce"))


EMPTY_ACCOUNT = Account(0, 0)


def account_key(account_id: bytes) -> bytes:
    """The state key of an account's row."""
    return ACCOUNT_PREFIX + account_id


def parse_account_row(row: bytes) -> tuple[int, int]:
    """(balance, nonce) of a row that this ledger wrote. No checks: execution's hot path, where the
    state root already vouches for the bytes."""
    balance, nonce = msgpack.unpackb(row)
    return balance, nonce


class StateReader(Protocol):
    """Anything that reads state rows: a tree, an overlay, a view, a journal."""

    def get(self, key: bytes) -> bytes | None: ...


def read_account(state: StateReader, account_id: bytes) -> Account:
    """The account, empty if it has no row."""
    row = state.get(account_key(account_id))
    return EMPTY_ACCOUNT if row is None else Account(*parse_account_row(row))


class StateHolder(Protocol):
    """Whatever has a state to change: a tx's context or a block's."""

    state: StateView


def debit(context: StateHolder, account_id: bytes, amount: int) -> None:
    """Take `amount` uzynk. Raises TxFailure `bank/insufficient-balance`."""
    key = account_key(account_id)
    row = context.state.get(key)
    balance, nonce = (0, 0) if row is None else parse_account_row(row)
    if balance < amount:
        raise TxFailure(
            "bank/insufficient-balance",
            "the account does not hold enough",
            expected=f"at least {amount} uzynk",
            got=f"{balance} uzynk",
        )
    if amount:
        context.state.put(key, codec.encode([balance - amount, nonce]))


def credit(context: StateHolder, account_id: bytes, amount: int) -> None:
    """Give `amount` uzynk. Raises TxFailure `bank/overflow` past u64."""
    if not amount:
        return
    key = account_key(account_id)
    row = context.state.get(key)
    balance, nonce = (0, 0) if row is None else parse_account_row(row)
    if balance + amount > codec.U64_MAX:
        raise TxFailure(
            "bank/overflow", "the balance would pass its limit", expected="less than 2^64 uzynk"
        )
    context.state.put(key, codec.encode([balance + amount, nonce]))


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferBody:
    """`amount` uzynk to account `to`; the memo is not interpreted."""

    to: bytes
    amount: int
    memo: bytes = b""

    def encode(self) -> bytes:
        return codec.encode([self.to, self.amount, self.memo])

    @classmethod
    def decode(cls, data: bytes) -> TransferBody:
        """Inverse of `encode`. Raises InvalidInputError."""
        to, amount, memo = codec.read_array(
            codec.decode(data, bytes_max=TRANSFER_BYTES_MAX), 3, "transfer"
        )
        return cls(
            to=codec.read_bytes(to, "transfer recipient", length=ACCOUNT_ID_BYTES),
            amount=codec.read_int(amount, "transfer amount"),
            memo=codec.read_bytes(memo, "transfer memo", maximum=MEMO_BYTES_MAX),
        )


class TransferHandler:
    """`bank/transfer`: the payer of the tx pays `amount` to `to`."""

    type = "bank/transfer"

    def weight_of(self, body: bytes) -> int:
        """A transfer is the unit."""
        return 1

    def check(self, body: bytes) -> None:
        """Raises InvalidInputError."""
        TransferBody.decode(body)

    def apply(self, context: ExecutionContext, body: bytes) -> None:
        """Raises TxFailure `bank/insufficient-balance` or `bank/overflow`."""
        to, amount, _memo = msgpack.unpackb(body)  # `check` has read it with care
        debit(context, context.payer, amount)
        credit(context, to, amount)
        context.emit(
            Event(
                "bank.transferred",
                (
                    ("amount", str(amount)),
                    ("from", encode_account_id(context.payer)),
                    ("to", encode_account_id(to)),
                ),
            )
        )


@lru_cache(maxsize=16384)
def encode_account_id(account_id: bytes) -> str:
    """The Multikey text of an id. Raises UsageError for another length."""
    if len(account_id) != ACCOUNT_ID_BYTES:
        raise UsageError("bad account id", expected="32 bytes", got=f"{len(account_id)} bytes")
    number = int.from_bytes(MULTIKEY_PREFIX + account_id, "big")
    pairs = []
    # Execution writes ids into events: digits go in pairs, from chunks that fit a machine word
    # (four times as fast as the library). The prefix is fixed, so that there are always 47 digits.
    for _ in range(5):
        number, chunk = divmod(number, _BASE58_CHUNK)
        for _ in range(5):
            chunk, pair = divmod(chunk, 58 * 58)
            pairs.append(_BASE58_PAIRS[pair])
    return "z" + "".join(reversed(pairs))[-MULTIKEY_DIGITS:]


def decode_account_id(text: str) -> bytes:
    """Inverse of `encode_account_id`. Raises InvalidInputError for every other text."""
    # Base58 decoding is quadratic: cap the text first.
    if not isinstance(text, str) or len(text) > MULTIKEY_TEXT_MAX or not text.startswith("z"):
        raise _bad_account_id(text)
    try:
        data = base58.b58decode(text[1:])
    except Exception as error:  # ValueError, UnicodeEncodeError: the library's business
        raise _bad_account_id(text) from error
    if len(data) != 34 or data[:2] != MULTIKEY_PREFIX or encode_account_id(data[2:]) != text:
        raise _bad_account_id(text)
    return data[2:]


def _bad_account_id(text: object) -> InvalidInputError:
    return InvalidInputError(
        "account id is malformed",
        expected="an Ed25519 Multikey such as z6Mk... (48 characters)",
        got=repr(text)[:80],
    )
