"""Staking messages by numbered accounts, as (payer, type, body), and punishments of validators."""

from __future__ import annotations

from typing import Any

from ledger import codec
from ledger.staking_messages import (
    AmountBody,
    EditBody,
    KeysBody,
    NewKey,
    RedelegateBody,
    SettleBody,
    WithdrawBody,
    prove_possession,
)
from ledger.staking_slashing import slash_double_sign, slash_downtime
from tests.unit.staking_world import (
    CHAIN_ID,
    Context,
    account,
    create_body,
    key_of,
)

EMPTY = codec.encode([])
Tx = tuple[int, str, bytes]


def delegate(number: int, operator: int, amount: int) -> Tx:
    return number, "stake/delegate", AmountBody(operator=account(operator), amount=amount).encode()


def undelegate(number: int, operator: int, shares: int) -> Tx:
    body = AmountBody(operator=account(operator), amount=shares)
    return number, "stake/undelegate", body.encode()


def redelegate(number: int, source: int, destination: int, shares: int) -> Tx:
    body = RedelegateBody(source=account(source), destination=account(destination), shares=shares)
    return number, "stake/redelegate", body.encode()


def withdraw(number: int, operator: int) -> Tx:
    return number, "stake/withdraw", WithdrawBody(operator=account(operator)).encode()


def settle(number: int, operator: int, delegator: int) -> Tx:
    body = SettleBody(operator=account(operator), delegator=account(delegator))
    return number, "stake/settle", body.encode()


def create(number: int, keys: int, **options: Any) -> Tx:
    return number, "stake/create", create_body(account(number), keys, **options).encode()


def commission(number: int, ppm: int) -> Tx:
    return number, "stake/edit", EditBody(commission_ppm=ppm).encode()


def new_key(operator: int, role: str, number: int, *, of: str = "") -> NewKey:
    key = key_of(of or role, number)
    proof = prove_possession(key, CHAIN_ID, account(operator), role)
    return NewKey(key=key.public_key, proof=proof)


def keys(number: int, **new: NewKey) -> Tx:
    return number, "stake/keys", KeysBody(operator=account(number), **new).encode()


def unjail(number: int) -> Tx:
    return number, "stake/unjail", EMPTY


def retire(number: int) -> Tx:
    return number, "stake/retire", EMPTY


def double_sign(operator: int) -> Any:
    def punish(context: Context) -> None:
        slash_double_sign(context, account(operator), context.height)

    return punish


def downtime(operator: int) -> Any:
    def punish(context: Context) -> None:
        slash_downtime(context, account(operator))

    return punish
