"""Chain parameters: bounds, bytes, and what a tx has to pay."""

from __future__ import annotations

import dataclasses

import pytest

from consensus.evidence import EVIDENCE_WIRE_BYTES_MAX
from ledger import codec
from ledger.block import BLOCK_BYTES_MAX, HEADER_BYTES_MAX
from ledger.certificate import CERTIFICATE_BYTES_MAX
from ledger.errors import InvalidInputError
from ledger.params import BLOCK_TX_BYTES_CEILING, PARAM_NAMES, ChainParams
from node.block_facts import LATE_VOTES_MAX
from node.evidence_pool import BLOCK_EVIDENCE_MAX

DEFAULT = ChainParams()


def test_parameters_round_trip() -> None:
    params = ChainParams(fee_base=0, fee_per_byte=7, time_ahead_max_ms=1)
    assert ChainParams.decode(params.encode()) == params


def test_the_bytes_of_the_defaults_are_frozen() -> None:
    assert DEFAULT.encode().hex() == (
        "dc001d6401ce00100000cd2000cd0800cd4e20cd01f4ce0f7314000120cd040064ce000f4240cd2710ce6c258c"
        "00ce66ff3000cdc35064cd2710cd1388ce000927c0cd03e8ce00011170ce000186a0cd2710ce3b9aca00ce240c"
        "8400ce00061a80ce0007a120"
    )


def test_a_full_block_with_the_largest_certificate_fits_the_wire() -> None:
    votes, evidence = LATE_VOTES_MAX * 128, BLOCK_EVIDENCE_MAX * EVIDENCE_WIRE_BYTES_MAX
    frame = HEADER_BYTES_MAX + CERTIFICATE_BYTES_MAX + 5 * 4096 + votes + evidence
    assert BLOCK_TX_BYTES_CEILING + frame < BLOCK_BYTES_MAX


@pytest.mark.parametrize("name", PARAM_NAMES)
@pytest.mark.parametrize("value", [-1, 2**64, True, "1", None, 1.0])
def test_a_parameter_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=name):
        dataclasses.replace(DEFAULT, **{name: value})  # type: ignore[arg-type]  # wrong on purpose


def test_less_than_half_a_window_of_missed_heights_jails_nobody() -> None:
    dataclasses.replace(DEFAULT, downtime_window=41, downtime_missed_max=21)
    for missed_max in (1, 20):
        with pytest.raises(InvalidInputError, match="downtime_missed_max"):
            dataclasses.replace(DEFAULT, downtime_window=41, downtime_missed_max=missed_max)


def test_a_row_with_a_field_too_few_or_too_many_is_refused() -> None:
    values = codec.decode(DEFAULT.encode(), bytes_max=512)
    for other in (values[:-1], [*values, 1], [], 5):
        with pytest.raises(InvalidInputError):
            ChainParams.decode(codec.encode(other))


def test_the_least_fee_grows_with_the_bytes() -> None:
    assert ChainParams(fee_base=10, fee_per_byte=3).compute_fee_min(100) == 310
