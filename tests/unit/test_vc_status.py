"""The status of a credential: how old its list may be, and in whose stream it is anchored."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from audit.anchor import AnchorRecord
from audit.leaf import Leaf, encode_stream_text, hash_chunks
from audit.receipt import Receipt
from audit.stream import StreamRecord, stream_key
from did import strict_json
from did.credential import list_credential
from did.status_list import LIST_BITS_MIN, REVOCATION, StatusEntry, set_bit
from ledger.errors import UsageError
from ledger.light import Verdict as Worth
from ledger.merkle import compute_leaf_hash
from ledger.params import DAY_MS
from node.checkpoint import Trust
from node.vc_check import CredentialVerdict, StatusEvidence, check_credential
from node.vc_issue import fetch_stream
from rpc.api import proof_json
from tests.unit.test_credential import HOUR_MS, Issuing
from tests.unit.trust_fixture import trust_of
from tests.vectors.did_world import finalize

ENTRY = StatusEntry(list_id="https://i.example/1", index=5, purpose=REVOCATION)
STREAM = b"s" * 32


class Listing(Issuing):
    """An issuer with a revocable credential, a stream, and lists that are anchored in it."""

    def __init__(self, owner: str | None = None) -> None:
        super().__init__()
        self.credential = self.sign("a", self.world.time_ms, credentialStatus=ENTRY.to_json())
        record = StreamRecord(
            owner=owner or self.did, sequence=0, submitters=(), quota=1, description_hash=bytes(32),
            created_ms=1, updated_ms=1,
        )  # fmt: skip
        self.world._commit({stream_key(STREAM): record.encode()}, 1000)

    def make_list(self, *revoked: int, created_ms: int | None = None) -> dict[str, Any]:
        bits = bytes(LIST_BITS_MIN // 8)
        for index in revoked:
            bits = set_bit(bits, index)
        at_ms = self.world.time_ms if created_ms is None else created_ms
        return self.sign("a", at_ms, **list_credential(ENTRY.list_id, bits))

    def anchor(self, status_list: dict[str, Any], stream: bytes = STREAM) -> bytes:
        """The receipt of an anchor in the newest block."""
        world = self.world
        leaf = Leaf(
            stream=stream, multihash=hash_chunks([strict_json.encode(status_list)])
        ).encode()
        record = AnchorRecord(
            stream=stream, submitter=bytes(32), seq=0, count=1, batch_root=compute_leaf_hash(leaf),
            height=world.height, time_ms=world.time_ms,
        )  # fmt: skip
        header = dataclasses.replace(
            world.header(), audit_size=1, audit_root=compute_leaf_hash(record.encode())
        )
        return Receipt(
            leaf_bytes=leaf,
            leaf=Leaf.decode(leaf),
            batch_index=0,
            batch_path=(),
            anchor_bytes=record.encode(),
            anchor=record,
            log_index=0,
            log_path=(),
            finality=finalize(header),
        ).encode()

    def stream_answer(self, stream: bytes = STREAM) -> dict[str, Any]:
        view = self.world.view()
        value, state_proof = view.prove(stream_key(stream))
        proof = proof_json(
            height=view.height, key=stream_key(stream), value=value, state_proof=state_proof,
            finality=view.finality.encode(),
        )  # fmt: skip
        return {"owner": "whatever the node says", "proof": proof}

    def check(
        self, status_list: dict[str, Any], *, age_ms: int = 1000, **changes: Any
    ) -> CredentialVerdict:
        evidence = StatusEvidence(
            status_list=status_list,
            receipt=changes.pop("receipt", None) or self.anchor(status_list),
            stream=changes.pop("stream", self.stream_answer()),
            age_max_ms=changes.pop("age_max_ms", DAY_MS),
        )
        return check_credential(
            self.credential,
            answers=[self.answer()],
            trust=trust_of(self.world, age_ms),
            status=evidence,
            **changes,
        )


@pytest.fixture
def listing() -> Listing:
    return Listing()


def worth_of(found: CredentialVerdict) -> tuple[Worth, str]:
    return found.verdict.worth, found.verdict.steps[-1].name


def test_a_fresh_list_in_the_issuers_stream_holds(listing: Listing) -> None:
    found = listing.check(listing.make_list())
    assert found.verdict.is_ok, found.verdict.reason
    names = [step.name for step in found.verdict.steps]
    assert names[-5:] == ["revocation", "list-stream", "answer-age", "list-age", "trust"]
    assert names.count("trust") == 1


def test_an_old_list_does_not_get_young_by_a_fresh_anchor(listing: Listing) -> None:
    old = listing.make_list()
    listing.world.block([], step_ms=DAY_MS)
    found = listing.check(old)
    assert worth_of(found) == (Worth.TOO_OLD, "list-age")
    assert "the status list is too old" in found.verdict.reason
    assert listing.check(old, age_max_ms=None).verdict.is_ok
    assert listing.check(old, age_max_ms=DAY_MS + 1000).verdict.is_ok
    assert listing.check(listing.make_list()).verdict.is_ok


def test_a_list_that_is_dated_ahead_has_the_age_of_its_anchor(listing: Listing) -> None:
    ahead = listing.make_list(created_ms=listing.world.time_ms + DAY_MS // 2)
    receipt = listing.anchor(ahead)
    listing.world.block([], step_ms=DAY_MS)
    found = listing.check(ahead, receipt=receipt)
    assert worth_of(found) == (Worth.TOO_OLD, "list-age")


def test_a_revocation_stands_however_old_its_list_is(listing: Listing) -> None:
    revoked = listing.make_list(5)
    receipt = listing.anchor(revoked)
    for step_ms in (0, 2 * DAY_MS, 60 * DAY_MS):
        listing.world.block([], step_ms=step_ms)
        for stream in (listing.stream_answer(), None):
            found = listing.check(revoked, receipt=receipt, stream=stream)
            assert (found.is_revoked, worth_of(found)) == (True, (Worth.WRONG, "revocation"))
    assert not listing.check(listing.make_list(4, 6)).is_revoked


def test_a_list_in_somebody_elses_stream_is_refused_and_the_verdict_says_so() -> None:
    stranger = Listing(owner="did:zynk:zQmSomebodyElse")
    found = stranger.check(stranger.make_list())
    assert worth_of(found) == (Worth.WRONG, "list-stream")
    assert "somebody else's stream" in found.verdict.reason
    assert "zQmSomebodyElse" in found.verdict.reason


def test_whose_stream_it_is_has_to_be_shown_and_proven(listing: Listing) -> None:
    fresh = listing.make_list()
    found = listing.check(fresh, stream=None)
    assert worth_of(found) == (Worth.CANNOT_TELL, "list-stream")
    foreign = listing.anchor(fresh, b"t" * 32)
    found = listing.check(fresh, receipt=foreign)
    assert worth_of(found) == (Worth.WRONG, "list-stream"), "the proof is of another stream"
    found = listing.check(fresh, receipt=foreign, stream=listing.stream_answer(b"t" * 32))
    assert "got nobody" in found.verdict.reason
    shapes: list[dict[str, Any]] = [{}, {"proof": None}, {"proof": {}}, {"proof": []}]
    for broken in shapes:
        assert worth_of(listing.check(fresh, stream=broken)) == (Worth.WRONG, "list-stream")


def test_an_issuer_does_not_anchor_in_somebody_elses_stream(listing: Listing) -> None:
    class Node:
        async def call(self, method: str, **params: object) -> Any:
            assert (method, params) == ("audit_stream", {"stream": encode_stream_text(STREAM)})
            return {**listing.stream_answer(), "owner": named}

    def fetch(trust: Trust | None, issuer: str) -> dict[str, Any]:
        return asyncio.run(fetch_stream(Node(), encode_stream_text(STREAM), issuer, trust))

    trust, other = trust_of(listing.world), "did:zynk:zQmOther"
    named = listing.did
    assert fetch(None, listing.did)["owner"] == fetch(trust, listing.did)["owner"]
    with pytest.raises(UsageError, match="not the issuer's"):
        fetch(None, other)
    named = other  # a node that lies is believed without a trust point alone
    assert fetch(None, other)["owner"] == other
    for issuer in (other, "did:zynk:zQmThird"):
        with pytest.raises(UsageError, match="not the issuer's"):
            fetch(trust, issuer)
    assert fetch(trust, listing.did)


def test_the_issuers_answer_has_an_age_and_the_trust_point_too(listing: Listing) -> None:
    fresh = listing.make_list()
    found = listing.check(fresh, age_ms=HOUR_MS + 1, max_age_ms=HOUR_MS)
    assert worth_of(found) == (Worth.TOO_OLD, "answer-age")
    assert listing.check(fresh, age_ms=HOUR_MS, max_age_ms=HOUR_MS).verdict.is_ok
    found = listing.check(fresh, age_ms=15 * DAY_MS, age_max_ms=None)
    assert worth_of(found) == (Worth.VALID_BUT_EXPIRED_TRUST, "trust")
