"""A height recovers however many of its views failed: what a proposal carries does not grow.

Proposals carried the nullification of every view, receivers took 128: from view 130 on no
proposal could be accepted, for ever, and each honest leader was counted as an offender.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from consensus.core import Core
from consensus.effects import Effect, JudgeBlock, SendTo
from consensus.justify import CertificateBook, verify_justify
from consensus.messages import (
    JUSTIFY_NULLIFICATIONS_MAX,
    NEED_MAX,
    CertificateMessage,
    Propose,
    Status,
    decode_message,
)
from consensus.timing import Timing
from ledger.block import BLOCK_BYTES_MAX, BLOCK_TXS_MAX, Block, Header, compute_body_hash
from ledger.certificate import CERTIFICATE_BYTES_MAX, Certificate, VoteKind
from ledger.codec import hash_tagged
from ledger.errors import InvalidInputError
from ledger.store import CrashStore
from ledger.validator_set import VALIDATORS_MAX, Validator, ValidatorSet
from node import wire
from p2p.config import FRAME_BYTES_MAX
from tests.unit import test_node_network as four
from tests.unit.core_fixture import (
    CHAIN,
    SET,
    certificate,
    make_block,
    propose,
    receive,
    started,
)
from tests.unit.virtual_time import run_virtual


def book_to(view: int) -> CertificateBook:
    book = CertificateBook()
    for below in range(1, view):
        book.add(certificate(VoteKind.NULLIFY, below))
    return book


def fresh_in(view: int) -> Propose:
    justify = book_to(view).justify_for(view)
    assert justify is not None
    assert justify[0] is None
    return propose(make_block(view), view, justify[1])


@pytest.mark.parametrize("view", [2, 65, 66, 129, 130, 1001, 5000])
def test_a_proposal_after_any_number_of_failed_views_survives_the_wire(view: int) -> None:
    message = fresh_in(view)
    compact = wire.CompactProposal.of(message, lambda _: True).encode()
    assert wire.CompactProposal.decode(compact[1:]).complete(lambda _: None) == message
    assert decode_message(message.encode()) == message
    verify_justify(message, SET, CHAIN, lambda *_: True)
    assert len(message.justify) == min(view - 1, JUSTIFY_NULLIFICATIONS_MAX)


@pytest.mark.slow
def test_the_largest_proposal_fits_into_a_frame() -> None:
    keys = [i.to_bytes(32, "big") for i in range(1, VALIDATORS_MAX + 1)]
    validators = ValidatorSet.of(Validator(public_key=k, power=1) for k in keys)
    signatures = {key: bytes(64) for key in keys}

    def of_all(kind: VoteKind, view: int, block_hash: bytes) -> Certificate:
        far = 2**32 - view
        return Certificate.of(kind, 2**63 - 1, far, block_hash, signatures, validators)

    parent = of_all(VoteKind.FINALIZE, 9, bytes(32))
    assert len(parent.encode()) <= CERTIFICATE_BYTES_MAX
    txs = tuple(i.to_bytes(490, "big") for i in range(BLOCK_TXS_MAX))
    body_hash = compute_body_hash([hash_tagged("tx", tx) for tx in txs], parent)
    header = Header(
        *(1, "c" * 64, 2**63 - 1, 2**63, bytes(32), 2**32 - 1, keys[0], bytes(80), body_hash),
        *(bytes(32), 2**63, bytes(32), bytes(32), bytes(32), bytes(32)),
    )
    block = Block(header, txs, parent)
    assert BLOCK_BYTES_MAX - 64 * 1024 < len(block.encoded) <= BLOCK_BYTES_MAX
    message = Propose(
        height=2**63 - 1,
        view=2**32,
        block=block,
        justify=(
            of_all(VoteKind.NOTARIZE, 100, bytes(32)),
            *(of_all(VoteKind.NULLIFY, v, b"") for v in range(JUSTIFY_NULLIFICATIONS_MAX, 0, -1)),
        ),
        signer=keys[0],
        signature=bytes(64),
    )
    compact = wire.CompactProposal.of(message, lambda _: False).encode()
    assert len(compact) <= FRAME_BYTES_MAX
    assert len(message.encode()) + 1 <= FRAME_BYTES_MAX
    assert wire.CompactProposal.decode(compact[1:]).complete(lambda _: None) == message


def test_a_proposal_with_more_or_fewer_certificates_than_its_share_is_refused() -> None:
    message = fresh_in(130)
    more = (certificate(VoteKind.NULLIFY, 65), *message.justify)
    for justify in (message.justify[1:], message.justify[:-1], more, ()):
        with pytest.raises(InvalidInputError, match="exactly"):
            verify_justify(
                dataclasses.replace(message, justify=justify), SET, CHAIN, lambda *_: True
            )


def judged(effects: list[Effect]) -> list[Block]:
    return [e.block for e in effects if isinstance(e, JudgeBlock)]


def asked(effects: list[Effect]) -> list[tuple[int, ...]]:
    return [
        e.message.need for e in effects if isinstance(e, SendTo) and isinstance(e.message, Status)
    ]


def give(core: Core, views: tuple[int, ...], now_ms: int) -> list[Effect]:
    effects: list[Effect] = []
    for view in views:
        message = CertificateMessage(certificate=certificate(VoteKind.NULLIFY, view))
        effects += receive(core, message, now_ms)
    return effects


def test_a_proposal_is_held_until_its_sender_has_sent_the_older_nullifications() -> None:
    core, message = started(), fresh_in(200)
    effects = receive(core, message, 10)
    assert not judged(effects), "it may not be voted for: views 1..135 are not shown to be over"
    assert asked(effects) == [tuple(range(135, 135 - NEED_MAX, -1))]
    now_ms, missing = 10, 135
    for _ in range(3):
        assert not judged(effects)
        [need] = asked(effects)
        missing -= len(need)
        effects = give(core, need, now_ms + 20)
        assert not asked(effects), "at most twice a retry interval"
        now_ms += 1000
        effects += give(core, need[:1], now_ms)
    assert missing == 0
    assert judged(effects) == [message.block]


def test_a_held_proposal_makes_room_for_a_newer_one_only() -> None:
    core = started()
    receive(core, fresh_in(200), 10)
    receive(core, fresh_in(180), 20)
    effects = give(core, tuple(range(1, 136)), 30)
    assert [b.header.origin_view for b in judged(effects)] == [200]
    core = started()
    receive(core, fresh_in(180), 10)
    receive(core, fresh_in(200), 20)
    effects = give(core, tuple(range(1, 136)), 30)
    assert [b.header.origin_view for b in judged(effects)] == [200]


def test_a_leader_without_an_old_nullification_proposes_nothing() -> None:
    book = book_to(200)
    del book.nullified[7]
    assert book.justify_for(200) is None
    assert book.needed(200) == (7,)


class Gate(four.Network):
    """Until view 200 no proposal gets through, and, if it is `cut_off`, nothing at all to "d";
    "a" dies at that moment, so that the vote of "d" is needed."""

    is_open = False
    cut_off = ""

    def deliver(self, sender: str, receiver: str, payload: bytes) -> None:
        if not self.is_open and all(self.lives[n].driver.core.view >= 200 for n in "abc"):
            self.is_open = True
            if self.cut_off:
                self.lives["a"].end()
        if self.is_open or (payload[0] != wire.TAG_COMPACT and receiver != self.cut_off):
            super().deliver(sender, receiver, payload)


@pytest.mark.slow
@pytest.mark.parametrize("cut_off", ["", "d"])
def test_four_drivers_recover_at_view_200(tmp_path: Path, cut_off: str) -> None:
    """Also with one that lacks all certificates, and whose vote is needed."""

    async def body() -> None:
        network = Gate(tmp_path, timing=Timing(view_timeout_max_ms=1000, heartbeat_ms=2000))
        network.cut_off = cut_off
        for name in "abcd":
            network.launch(name, CrashStore())
        for life in network.alive():
            life.start()
        assert await network.until(1, "bcd", timeout_s=400)
        assert 200 <= network.lives["b"].chain.certificate(1).view < 216
        assert await network.until(3, "bcd")
        network.assert_sound()
        network.end()

    run_virtual(body())
