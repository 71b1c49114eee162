"""DID operations on the real chain: paid for by anyone, in blocks, resolved from its view, verified
with its genesis validators. The ends of dispute windows and pre-rotation as blocks have them."""

from __future__ import annotations

from typing import Any

import pytest

from did import resolver
from did.build import (
    create_operation,
    deactivate_operation,
    recover_operation,
    update_operation,
)
from did.handler import DidHandler
from did.operation import decode_operation
from did.verify import Outcome, Verdict, verify_resolution
from ledger.chain import Chain
from ledger.errors import InvalidInputError
from ledger.execution import TxHandler
from ledger.fees import sign_tx
from ledger.store import MemoryStore
from ledger.tx import Message, Tx
from tests.unit.chain_fixture import (
    CHAIN_ID,
    FAUCET,
    GENESIS,
    PARAMS,
    LeafListLog,
    advance,
    build,
    certify,
    handlers,
)
from tests.vectors.did_world import control, document, key, key_list


def _open() -> Chain:
    did_handler: dict[str, TxHandler] = {DidHandler.type: DidHandler()}
    return Chain.open(MemoryStore(), GENESIS, {**handlers(), **did_handler}, LeafListLog())


def _create() -> bytes:
    return create_operation(
        net=CHAIN_ID,
        exp_height=1000,
        document=document(),
        control=control("a"),
        signers=[key("a")],
    )


def _update(create: bytes) -> bytes:
    operation = decode_operation(create)
    return update_operation(
        net=CHAIN_ID,
        exp_height=1000,
        did=operation.did_text,
        prev=operation.hash,
        seq=1,
        document=document("next"),
        control=control("b"),
        signers=[key("a")],
    )


def _tx(nonce: int, *bodies: bytes) -> Tx:
    return sign_tx(
        FAUCET,
        chain_id=CHAIN_ID,
        nonce=nonce,
        valid_until=1000,
        messages=[Message(DidHandler.type, body) for body in bodies],
        params=PARAMS,
    )


def test_did_lives_on_the_chain_and_its_answers_verify_from_genesis() -> None:
    chain, create = _open(), _create()
    did = decode_operation(create).did_text
    advance(chain, [_tx(0, create)])
    first = chain.view()
    advance(chain, [_tx(1, _update(create))])
    assert [r.code for h in (1, 2) for r in chain.results(h)] == ["", ""]
    for view, version in ((first, "0-"), (chain.view(), "1-")):
        answer = resolver.resolve(view, did)
        assert answer["didDocumentMetadata"]["versionId"].startswith(version)
        verdict = verify_resolution(
            answer,
            did=did,
            trusted=GENESIS.validators,
            chain_id=CHAIN_ID,
            max_age_ms=0,
            now_ms=view.time_ms,
        )
        assert (verdict.outcome, verdict.height) == (Outcome.FOUND, view.height)
        assert len(resolver.history(view, did)["operations"]) == int(version[0]) + 1


def test_failed_operation_costs_its_fee_and_changes_no_did() -> None:
    chain, create = _open(), _create()
    update = _update(create)
    before = chain.account(FAUCET.public_key).balance
    advance(chain, [_tx(0, create, update)])
    (result,) = chain.results(1)
    assert result.code == "did/rate-block"
    assert chain.account(FAUCET.public_key).balance == before - result.fee
    answer = resolver.resolve(chain.view(), decode_operation(create).did_text)
    assert answer["didResolutionMetadata"]["error"]["title"] == "Not found"


def test_operation_with_a_bad_signature_gets_into_no_block() -> None:
    chain, create = _open(), _create()
    forged = create.replace(b"doc.example", b"dok.example")
    with pytest.raises(InvalidInputError):
        DidHandler().check(forged)
    assert build(chain, [_tx(0, forged)]).txs == ()


class Life:
    """One DID on a chain of its own; each operation in a block of its own, at the time given."""

    def __init__(self, **changes: Any) -> None:
        self.chain = _open()
        self.nonce = 0
        create = create_operation(
            **{**_STATE, "control": control("a"), **changes}, signers=[key("a")]
        )
        self.did = decode_operation(create).did_text
        self.heads: list[bytes] = []
        assert self.run(create) == ""

    def run(self, body: bytes, time_ms: int = 0) -> str:
        """The code of the operation's tx, "" if it went through."""
        block = build(self.chain, [_tx(self.nonce, body)], time_ms=time_ms)
        assert len(block.txs) == 1
        self.chain.commit(block, certify(block))
        self.nonce += 1
        (result,) = self.chain.results(self.chain.height)
        if not result.code:
            self.heads.append(decode_operation(body).hash)
        return result.code

    def update(self, signer: str, **changes: Any) -> bytes:
        return update_operation(**{**_STATE, **self._place(), **changes}, signers=[key(signer)])

    def deactivate(self, signer: str, **changes: Any) -> bytes:
        place = {**self._place(), "net": CHAIN_ID, "exp_height": 1000}
        return deactivate_operation(**place, **changes, signers=[key(signer)])

    def recover(self, *, back: int) -> bytes:
        """By the tier, from before the last `back` operations."""
        state = {**_STATE, **self._place(), "prev": self.heads[-1 - back]}
        return recover_operation(**state, tier=0, signers=[key("t")])

    def verdict(self) -> Verdict:
        return verify_resolution(
            resolver.resolve(self.chain.view(), self.did),
            did=self.did,
            trusted=GENESIS.validators,
            chain_id=CHAIN_ID,
            max_age_ms=0,
            now_ms=self.chain.view().time_ms,
        )

    def _place(self) -> dict[str, Any]:
        return {"did": self.did, "prev": self.heads[-1], "seq": len(self.heads)}


_STATE: dict[str, Any] = {
    "net": CHAIN_ID,
    "exp_height": 1000,
    "document": document(),
    "control": control("b"),
    "recovery": [key_list("t")],
}


@pytest.mark.parametrize("thief_ends_it", [False, True])
@pytest.mark.parametrize(
    ("late_ms", "code"),
    [(-1, ""), (0, "did/window-closed"), (1, "did/window-closed")],
)
def test_recovery_works_up_to_the_last_millisecond_of_the_window(
    late_ms: int, code: str, thief_ends_it: bool
) -> None:
    life = Life()
    theft = life.deactivate("a") if thief_ends_it else life.update("a", control=control("thief"))
    assert life.run(theft) == ""
    stolen = life.verdict()
    assert stolen.record is not None
    until_ms = life.chain.view().time_ms + PARAMS.dispute_window_ms
    assert stolen.record.dispute_until_ms == until_ms
    assert life.run(life.recover(back=1), time_ms=until_ms + late_ms) == code
    assert life.chain.view().time_ms == until_ms + late_ms
    after = life.verdict()
    if code:
        assert after.record == stolen.record
        assert after.outcome is (Outcome.DEACTIVATED if thief_ends_it else Outcome.FOUND)
        assert life.run(life.update("b")) != ""
    else:
        assert (after.outcome, after.version_id) == (Outcome.FOUND, _version_id(life))
        assert life.run(life.update("b")) == ""
    items = resolver.history(life.chain.view(), life.did)["operations"]
    assert [item["nullifiedBy"] for item in items][:2] == [None, None if code else 2]


def _version_id(life: Life) -> str:
    return str(resolver.history(life.chain.view(), life.did)["operations"][-1]["versionId"])


def test_pre_rotated_did_can_be_ended_by_its_committed_keys_alone() -> None:
    """What bricks a DID, or lets a thief end it, in methods whose deactivation does not reveal."""
    first, second = key_list("n1"), key_list("n2")
    life = Life(control=control("a", next_keys=first), recovery=[])
    for thief in (life.deactivate("a"), life.deactivate("a", reveal=key_list("a"))):
        assert life.run(thief) == "did/not-revealed"
    assert life.run(life.deactivate("a", reveal=first)) == "did/not-authorised"
    rotated = {"control": control("n1", next_keys=second), "recovery": []}
    assert life.run(life.update("a", **rotated)) == "did/not-authorised"
    assert life.run(life.update("n1", **rotated)) == ""
    assert life.run(life.deactivate("n1", reveal=first)) == "did/not-revealed"
    assert life.verdict().outcome is Outcome.FOUND
    assert life.run(life.deactivate("n2", reveal=second)) == ""
    assert life.verdict().outcome is Outcome.DEACTIVATED
    assert life.run(life.update("n2", control=control("n2"))) == "did/deactivated"


def test_pre_rotated_did_that_was_ended_comes_back_within_the_window() -> None:
    committed = key_list("n1")
    life = Life(control=control("a", next_keys=committed))
    assert life.run(life.deactivate("n1", reveal=committed)) == ""
    until_ms = life.chain.view().time_ms + PARAMS.dispute_window_ms
    assert life.run(life.recover(back=1), time_ms=until_ms - 1) == ""
    assert life.verdict().outcome is Outcome.FOUND
    assert life.run(life.update("b")) == ""
