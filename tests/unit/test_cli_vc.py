"""`zynk vc verify` offline, what the issuing side works out before it signs, and taken entries."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from did import strict_json
from did.credential import read_types
from did.data_integrity import JCS, SUITES
from did.status_list import LIST_BITS_MIN, decode_bits, encode_bits, is_set, read_bits
from ledger.errors import InvalidInputError, UsageError
from ledger.params import DAY_MS
from node.cli_vc import vc
from node.files import locked
from node.vc_issue import (
    Issuer,
    list_id_of,
    make_list,
    revoke_in,
    take_entry,
    verify_list_size,
)
from tests.unit.test_credential import Issuing
from tests.unit.trust_fixture import at, write_genesis, write_state
from tests.vectors.did_world import key

URL = "https://i.example/1"


@pytest.fixture
def issuing() -> Issuing:
    return Issuing()


@pytest.fixture
def folder(tmp_path: Path, issuing: Issuing) -> Path:
    """genesis.json; a credential `c` that can not be revoked, with its answer beside it."""
    write_genesis(tmp_path)
    credential = issuing.sign("a", issuing.world.time_ms)
    (tmp_path / "c").write_bytes(strict_json.encode(credential))
    (tmp_path / "c.zanswer").write_text(json.dumps(issuing.answer()))
    return tmp_path


def issuer_of(issuing: Issuing) -> Issuer:
    return Issuer(
        did=issuing.did,
        method=f"{issuing.did}#key-1",
        key=key("a"),
        time_ms=issuing.world.time_ms,
        answer=issuing.answer(),
    )


def verify(folder: Path, *more: str, age_ms: int = 2_000, trust: str = "genesis.json") -> Result:
    arguments = ["verify", str(folder / "c"), "--trust", str(folder / trust)]
    return CliRunner().invoke(vc, [*arguments, *at(Issuing().world, age_ms), *more])


def test_a_verdict_says_each_step_in_words(folder: Path, issuing: Issuing) -> None:
    result = verify(folder)
    assert result.exit_code == 0, result.output
    for part in (
        "more than 2/3 of the power finalized block 2",
        "Verifiable Credential 2.0 with a proof of suite eddsa-jcs-2022",
        f"a key of the issuer, {issuing.did}#key-1",
        "was in force at",
        "The signature of",
        "can not revoke it",
        "VERIFIED",
    ):
        assert part in result.output


def test_a_bad_verdict_has_exit_code_1_and_a_reason(folder: Path) -> None:
    (folder / "c").write_text((folder / "c").read_text().replace("BSc", "PhD"))
    result = verify(folder, "--json")
    assert result.exit_code == 1
    found: dict[str, Any] = json.loads(result.output)
    assert (found["ok"], found["verdict"], found["revoked"]) == (False, "wrong", False)
    assert found["reason"].startswith("the signature does not match")
    assert [step["ok"] for step in found["steps"]][-2:] == [True, False]


def test_without_an_answer_nothing_is_believed(folder: Path, tmp_path: Path) -> None:
    answer = (folder / "c.zanswer").rename(tmp_path / "elsewhere")
    without = verify(folder)
    assert without.exit_code == 9
    assert "no answer about the issuer" in without.output
    assert "\nCANNOT TELL: " in without.output
    assert verify(folder, "--answer", str(answer)).exit_code == 0


def test_an_answer_is_not_good_for_ever(folder: Path, issuing: Issuing) -> None:
    month_ms = 30 * DAY_MS
    for age_ms, options, code, words in (
        (61_000, ("--max-age", "60"), 8, "TOO OLD: "),
        (10 * DAY_MS, (), 0, "VERIFIED: "),
        (15 * DAY_MS, (), 7, "VERIFIED, BUT BY AN EXPIRED TRUST POINT: "),
        (month_ms + 2000, (), 8, "TOO OLD: "),
        (month_ms + 2000, ("--max-age", "any"), 7, "VERIFIED, BUT"),
    ):
        result = verify(folder, *options, age_ms=age_ms)
        assert result.exit_code == code, result.output
        assert result.output.splitlines()[-1].startswith(words)
    late = write_state(folder / "trusted.bin", issuing.world)
    assert verify(folder, trust=late.name).exit_code == 0, "of the trusted block itself"
    issuing.world.block([])
    late = write_state(folder / "trusted.bin", issuing.world)
    assert verify(folder, trust=late.name).exit_code == 9, "of a block before it"


def test_another_networks_genesis_does_not_do(folder: Path) -> None:
    write_genesis(folder, "other")
    assert verify(folder).exit_code == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"a":1,"a":1}', b"{}" * 200_000])
def test_what_is_no_credential_is_an_error_of_its_own(folder: Path, data: bytes) -> None:
    (folder / "c").write_bytes(data)
    result = verify(folder)
    assert isinstance(result.exception, InvalidInputError | UsageError)


# --- status lists ---


@pytest.mark.parametrize("suite", SUITES)
def test_a_list_is_signed_and_revoked_in_by_its_suite(issuing: Issuing, suite: str) -> None:
    issuer = issuer_of(issuing)
    status_list = make_list(issuer, URL, LIST_BITS_MIN, suite)
    assert "BitstringStatusListCredential" in read_types(status_list)
    assert issuing.judge(status_list).is_ok
    changed, before = revoke_in(status_list, [0, 7, LIST_BITS_MIN - 1], issuer)
    again, before_again = revoke_in(changed, [7], issuer)
    assert (before, before_again) == (0, 1)
    assert again["proof"] == changed["proof"]
    assert issuing.judge(changed).is_ok
    bits = decode_bits(changed["credentialSubject"]["encodedList"])
    assert [i for i in range(LIST_BITS_MIN) if is_set(bits, i)] == [0, 7, LIST_BITS_MIN - 1]


def test_a_list_of_another_issuer_or_entry_is_refused(issuing: Issuing) -> None:
    issuer = issuer_of(issuing)
    status_list = make_list(issuer, URL, LIST_BITS_MIN, JCS)
    with pytest.raises(UsageError, match="another issuer"):
        revoke_in({**status_list, "issuer": "did:example:x"}, [1], issuer)
    with pytest.raises(UsageError, match="no such entry"):
        revoke_in(status_list, [LIST_BITS_MIN], issuer)
    with pytest.raises(InvalidInputError, match="no id"):
        list_id_of({})
    for bits in (LIST_BITS_MIN - 8, LIST_BITS_MIN + 1):
        with pytest.raises(UsageError):
            verify_list_size(bits)


def test_no_entry_is_given_twice_and_a_full_list_says_so(issuing: Issuing, tmp_path: Path) -> None:
    path = tmp_path / "list"
    status_list = make_list(issuer_of(issuing), URL, LIST_BITS_MIN, JCS)
    first, second = take_entry(path, status_list), take_entry(path, status_list)
    assert first.index != second.index
    taken = decode_bits((tmp_path / "list.taken").read_text())
    assert is_set(taken, first.index)
    assert is_set(taken, second.index)
    almost = bytes(read_bits(status_list, first)).replace(b"\0", b"\xff")[:-1] + b"\xfe"
    (tmp_path / "list.taken").write_text(encode_bits(almost))
    assert take_entry(path, status_list).index == LIST_BITS_MIN - 1
    with pytest.raises(UsageError, match="full"):
        take_entry(path, status_list)
    (tmp_path / "list.taken").write_text("damaged")
    with pytest.raises(InvalidInputError):
        take_entry(path, status_list)


@pytest.mark.slow
def test_a_lock_is_waited_for_across_processes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = "import sys; from pathlib import Path; from node.files import locked\n"
    holder += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    entered = threading.Event()

    def enter() -> None:
        with locked(path):
            entered.set()

    waiter = threading.Thread(target=enter)
    waiter.start()
    time.sleep(0.2)
    assert not entered.is_set()
    process.communicate("")
    assert entered.wait(30)
    waiter.join()
