"""DID operations on the real chain: paid for by anyone, in blocks, resolved from its view, verified
with its genesis validators."""

from __future__ import annotations

import pytest

from did import resolver
from did.build import create_operation, update_operation
from did.handler import DidHandler
from did.operation import decode_operation
from did.verify import Outcome, verify_resolution
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
    handlers,
)
from tests.vectors.did_world import control, document, key


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
