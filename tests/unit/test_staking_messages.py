"""Bodies of staking messages: what `check` refuses without a state, and every failure code."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ledger import codec, staking_handlers
from ledger.errors import InvalidInputError
from ledger.params import DAY_MS
from ledger.staking_messages import (
    CONSENSUS,
    COSIGN,
    ROLES,
    VRF,
    EditBody,
    KeysBody,
    NewKey,
    prove_possession,
)
from tests.unit.staking_txs import (
    EMPTY,
    Tx,
    commission,
    create,
    delegate,
    double_sign,
    downtime,
    keys,
    new_key,
    redelegate,
    retire,
    settle,
    undelegate,
    unjail,
    withdraw,
)
from tests.unit.staking_world import (
    BALANCE,
    CHAIN_ID,
    HANDLERS,
    PARAMS,
    World,
    account,
    create_body,
    key_of,
)

# --- check ---

VALID: dict[str, bytes] = {
    "stake/create": create_body(account(5), 5).encode(),
    "stake/edit": EditBody(
        description=("name", "https://a.example", ""), commission_ppm=1
    ).encode(),
    "stake/keys": keys(5, consensus=new_key(5, CONSENSUS, 9), vrf=new_key(5, VRF, 9))[2],
    "stake/delegate": delegate(5, 0, 1)[2],
    "stake/undelegate": undelegate(5, 0, 1)[2],
    "stake/redelegate": redelegate(5, 0, 1, 1)[2],
    "stake/withdraw": withdraw(5, 0)[2],
    "stake/settle": settle(5, 0, 5)[2],
    "stake/unjail": EMPTY,
    "stake/retire": EMPTY,
}


@pytest.mark.parametrize("kind", VALID)
def test_check_takes_valid_bodies_and_no_part_of_one(kind: str) -> None:
    handler, body = HANDLERS[kind], VALID[kind]
    handler.check(body)
    assert handler.weight_of(body) >= 2
    for length in range(len(body)):
        with pytest.raises(InvalidInputError):
            handler.check(body[:length])
    for more in (b"\0", b"\xc0", body):
        with pytest.raises(InvalidInputError):
            handler.check(body + more)


MAY_BE_0 = {("stake/create", 4), ("stake/edit", 1)}  # commissions


@pytest.mark.parametrize("kind", VALID)
def test_check_refuses_another_value_in_any_place(kind: str) -> None:
    value = codec.decode(VALID[kind], bytes_max=4096)
    wrong: list[Any] = [True, 0, -1 + 2**64, b"", b"\7" * 31, b"\7" * 33, "", "x" * 281, [], [None]]
    for at in range(len(value)):
        for other in wrong:
            body = codec.encode([*value[:at], other, *value[at + 1 :]])
            if type(other) is int and type(value[at]) is int and (other or (kind, at) in MAY_BE_0):
                continue  # another amount is no defect; one over u64 does not encode
            with pytest.raises(InvalidInputError):
                HANDLERS[kind].check(body)
        with pytest.raises(InvalidInputError):
            HANDLERS[kind].check(codec.encode([*value[:at], *value[at + 1 :]]))
    with pytest.raises(InvalidInputError):
        HANDLERS[kind].check(codec.encode([*value, None]))


@pytest.mark.parametrize(
    "change",
    [
        {"operator": account(6)},  # the proofs are for account 5
        {"keys": tuple(key_of(role, 6).public_key for role in ROLES)},
        {"keys": (key_of(CONSENSUS, 5).public_key,) * 3},
        {"proofs": (bytes(64),) * 3},
        {"description": ("", "", "")},
        {"description": ("n" * 71, "", "")},
        {"description": ("n", "u" * 141, "")},
        {"description": ("n", "", "d" * 281)},
        {"description": ("\x1b[2J", "", "")},
        {"description": ("n", "", "two\nlines")},
        {"commission_ppm": 1_000_001},
        {"bond": 0},
    ],
)
def test_create_is_refused(change: dict[str, Any]) -> None:
    body = dataclasses.replace(create_body(account(5), 5), **change)
    with pytest.raises(InvalidInputError):
        HANDLERS["stake/create"].check(body.encode())


def test_each_proof_is_for_its_own_role() -> None:
    body = create_body(account(5), 5)
    for at, role in enumerate(ROLES):
        other = ROLES[at - 1]
        proof = prove_possession(key_of(role, 5), CHAIN_ID, account(5), other)
        first, second, third = (proof if i == at else p for i, p in enumerate(body.proofs))
        broken = dataclasses.replace(body, proofs=(first, second, third))
        with pytest.raises(InvalidInputError, match=f"possession of the {role} key"):
            HANDLERS["stake/create"].check(broken.encode())


def test_a_proof_is_for_one_chain_and_one_operator() -> None:
    key = key_of(COSIGN, 9)
    for chain_id, operator in (("other-1", account(5)), (CHAIN_ID, account(6))):
        proof = prove_possession(key, chain_id, operator, COSIGN)
        body = KeysBody(operator=account(5), cosign=NewKey(key=key.public_key, proof=proof))
        with pytest.raises(InvalidInputError, match="possession of the cosign key"):
            HANDLERS["stake/keys"].check(body.encode())


def test_changes_of_nothing_are_refused() -> None:
    nothing = KeysBody(operator=account(0)).encode()
    for kind, body in (("stake/edit", EditBody().encode()), ("stake/keys", nothing)):
        with pytest.raises(InvalidInputError, match="changes nothing"):
            HANDLERS[kind].check(body)
    twice = keys(0, vrf=new_key(0, VRF, 9), cosign=new_key(0, COSIGN, 9, of=VRF))
    with pytest.raises(InvalidInputError, match="must differ"):
        HANDLERS["stake/keys"].check(twice[2])
    with pytest.raises(InvalidInputError, match="one validator"):
        HANDLERS["stake/redelegate"].check(redelegate(5, 0, 0, 1)[2])


# --- apply: each code, with nothing changed but fee and nonce ---

NO_SUCH = 9


ALL = dataclasses.replace(PARAMS, slash_double_sign_ppm=1_000_000, slash_downtime_ppm=1_000_000)
HOPS = [redelegate(5, 0, 1, 10)] * 7

# (what happened before, who was punished after that, the message, its code)
FAILURES: list[tuple[list[Tx], Any, Tx, str]] = [
    ([], None, delegate(5, NO_SUCH, 1), "stake/no-validator"),
    ([], None, undelegate(5, NO_SUCH, 1), "stake/no-validator"),
    ([], None, redelegate(5, NO_SUCH, 0, 1), "stake/no-validator"),
    ([delegate(5, 0, 50)], None, redelegate(5, 0, NO_SUCH, 1), "stake/no-validator"),
    ([], None, withdraw(5, NO_SUCH), "stake/no-validator"),
    ([], None, settle(5, NO_SUCH, 5), "stake/no-validator"),
    ([], None, commission(5, 1), "stake/no-validator"),
    ([], None, keys(5, vrf=new_key(5, VRF, 9)), "stake/no-validator"),
    ([], None, unjail(5), "stake/no-validator"),
    ([], None, retire(5), "stake/no-validator"),
    ([], None, create(0, 9), "stake/exists"),
    ([], None, (6, "stake/create", create_body(account(5), 5).encode()), "stake/not-operator"),
    ([], None, (6, *keys(0, vrf=new_key(0, VRF, 9))[1:]), "stake/not-operator"),
    ([], None, create(5, 0), "stake/key-used"),
    ([], None, keys(0, consensus=new_key(0, CONSENSUS, 1)), "stake/key-used"),
    ([], None, keys(0, consensus=new_key(0, CONSENSUS, 0)), "stake/key-used"),
    (
        [keys(0, consensus=new_key(0, CONSENSUS, 9))],
        None,
        keys(0, consensus=new_key(0, CONSENSUS, 0)),
        "stake/key-used",
    ),
    ([], None, keys(0, vrf=new_key(0, VRF, 0)), "stake/keys-equal"),
    ([], None, keys(0, vrf=new_key(0, VRF, 0, of=COSIGN)), "stake/keys-equal"),
    (
        [keys(0, vrf=new_key(0, VRF, 9))],
        None,
        keys(0, cosign=new_key(0, COSIGN, 9, of=VRF)),
        "stake/keys-equal",
    ),
    ([], None, create(5, 9, bond=999_999), "stake/bond-too-small"),
    ([], None, create(5, 9, bond=BALANCE + 1), "bank/insufficient-balance"),
    ([], None, delegate(5, 0, BALANCE + 1), "bank/insufficient-balance"),
    ([], None, commission(0, 110_001), "stake/commission-change"),
    ([], None, commission(0, 89_999), "stake/commission-change"),
    ([commission(0, 110_000)], None, commission(0, 110_001), "stake/commission-change"),
    ([retire(0)], None, retire(0), "stake/retired"),
    ([retire(0)], None, delegate(5, 0, 1), "stake/retired"),
    ([retire(0), delegate(5, 1, 50)], None, redelegate(5, 1, 0, 50), "stake/retired"),
    ([retire(0)], None, keys(0, vrf=new_key(0, VRF, 9)), "stake/retired"),
    ([retire(0)], downtime(0), unjail(0), "stake/retired"),
    ([], double_sign(0), delegate(5, 0, 1), "stake/tombstoned"),
    ([delegate(5, 1, 50)], double_sign(0), redelegate(5, 1, 0, 50), "stake/tombstoned"),
    ([], double_sign(0), unjail(0), "stake/tombstoned"),
    ([], double_sign(0), keys(0, vrf=new_key(0, VRF, 9)), "stake/tombstoned"),
    ([], None, unjail(0), "stake/not-jailed"),
    ([], downtime(0), unjail(0), "stake/jailed"),
    ([], None, undelegate(5, 0, 1), "stake/no-delegation"),
    ([], None, redelegate(5, 0, 1, 1), "stake/no-delegation"),
    ([], None, withdraw(5, 0), "stake/no-delegation"),
    ([], None, settle(5, 0, 6), "stake/no-delegation"),
    ([delegate(5, 0, 50)], None, undelegate(5, 0, 51), "stake/too-few-shares"),
    ([delegate(5, 0, 50)], None, redelegate(5, 0, 1, 51), "stake/too-few-shares"),
    ([delegate(5, 0, 50), HOPS[0]], None, redelegate(5, 1, 2, 1), "stake/hop-open"),
    ([delegate(5, 0, 99), *HOPS], None, redelegate(5, 0, 1, 1), "stake/too-many-hops"),
    ([], downtime(0), delegate(5, 0, 1), "stake/worthless"),
    ([delegate(5, 0, 50)], downtime(0), redelegate(5, 0, 1, 50), "stake/worthless"),
    ([delegate(5, 1, 50)], downtime(0), redelegate(5, 1, 0, 50), "stake/worthless"),
]


@pytest.mark.parametrize(
    ("before", "punish", "tx", "code"),
    FAILURES,
    ids=[f"{tx[1].removeprefix('stake/')}-{code}" for _, _, tx, code in FAILURES],
)
def test_failure(before: list[Tx], punish: Any, tx: Tx, code: str) -> None:
    world = World(params=ALL)
    assert world.block(*before) == [""] * len(before)
    world.block(punish=punish)
    world.begin()
    rows, events = dict(world.state.rows), len(world.context.events)
    assert world.run(*tx) == code
    changed = {key for key, row in world.state.rows.items() if rows.get(key) != row}
    assert changed == {b"acct\0" + account(tx[0])}, "the nonce alone"
    assert len(world.state.rows) == len(rows)
    assert len(world.context.events) == events
    world.end()


def test_every_documented_code_has_a_failure() -> None:
    documented = {
        line.split("|")[1].strip()
        for line in (staking_handlers.__doc__ or "").splitlines()
        if line.startswith("| stake/")
    }
    assert documented == {code for *_, code in FAILURES if code.startswith("stake/")} | {
        "stake/overflow",
        "stake/queue-full",  # tests/unit/test_staking_rules.py has the queue's
        "stake/too-many-entries",
    }


def test_shares_do_not_pass_their_limit() -> None:
    """After a slash of all but a millionth, a stake buys a million shares a uzynk."""
    harsh = dataclasses.replace(PARAMS, slash_downtime_ppm=999_999)
    world = World((10**12,) * 4, params=harsh)
    world.block(punish=downtime(0))
    assert world.block(delegate(5, 0, 10**12), delegate(6, 0, 2**64 // 10**6)) == [
        "",
        "stake/overflow",
    ]


def test_a_day_of_commission_begins_with_a_change() -> None:
    world = World()
    assert world.block(commission(0, 105_000), step_ms=DAY_MS) == [""]
    assert world.block(commission(0, 110_000), step_ms=DAY_MS - 1) == [""]
    assert world.block(commission(0, 120_000), step_ms=1) == [""]
    assert world.block(commission(0, 120_001)) == ["stake/commission-change"]
