"""Outside witnesses: a little one by the specification, over HTTP, cosigns what is published;
however it refuses, lies or goes away, the node goes on, and nothing false gets onto a
checkpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from audit.checkpoint import Checkpoint, compute_origin
from audit.cosign import CosignerSet, find_witness_lines
from audit.cosignatures import Board
from audit.note import Note, NoteKey, sign_text
from audit.witness import Witness, WitnessAnswer, WitnessRefusal, encode_request, read_answer
from ledger.ed25519 import KeyPair
from ledger.errors import InvalidInputError, UsageError
from ledger.validator_set import Validator, ValidatorSet
from node.config import parse_config
from node.witness import WitnessPusher
from rpc.witness_client import WitnessClient
from tests.unit.little_witness import LittleWitness
from tests.unit.test_rpc_tiles import Log

CHAIN_ID = "zynk-test"
ORIGIN = compute_origin(CHAIN_ID)
LOG_KEY = KeyPair.from_seed(b"l" * 32)
NAME = "witness.example/w1"
VALIDATORS = ValidatorSet.of([Validator(public_key=b"v" * 32, power=1)])


@pytest.fixture(scope="module")
def log() -> Log:
    return Log(1000)


def board_of(log: Log, size: int, root: bytes | None = None, chain_id: str = CHAIN_ID) -> Board:
    origin = compute_origin(chain_id)
    checkpoint = Checkpoint(origin=origin, tree_size=size, root_hash=root or log.tree.root(size))
    return Board(
        height=1,
        checkpoint=checkpoint,
        log_line=sign_text(checkpoint.body(), origin, LOG_KEY),
        cosigners=CosignerSet(cosigners=(), validators=VALIDATORS),
        chain_id=chain_id,
    )


def new_witness() -> LittleWitness:
    return LittleWitness(NAME, ORIGIN, LOG_KEY.public_key)


def run(
    log: Log,
    witness: LittleWitness,
    test: Callable[[WitnessPusher], Awaitable[None]],
    timeout_s: float = 5.0,
) -> None:
    async def body() -> None:
        client = WitnessClient(timeout_s)
        async with witness.listening() as url:
            pusher = WitnessPusher(Witness.parse(f"{url}/ {witness.vkey}"), log.tree, client.post)
            pusher.start()
            try:
                await test(pusher)
            finally:
                await pusher.stop()
                await client.close()

    asyncio.run(body())


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def until_cosigned(pusher: WitnessPusher, count: int) -> None:
    await until(lambda: pusher.cosigned_total == count)


def times_on(board: Board, witness: LittleWitness) -> list[int]:
    """When the witness signed what is on the note, each line verified."""
    key = NoteKey.decode(witness.vkey)
    return [time_s for _, time_s in find_witness_lines(Note.decode(board.note), [key])]


def test_witness_follows_the_log_and_its_lines_are_on_the_note(log: Log) -> None:
    witness = new_witness()

    async def test(pusher: WitnessPusher) -> None:
        for count, size in enumerate((0, 1, 7, 7, 256, 700, 1000), 1):
            board = board_of(log, size)
            pusher.offer(board)
            await until_cosigned(pusher, count)
            assert len(times_on(board, witness)) == 1
        assert witness.sizes == [0, 1, 7, 7, 256, 700, 1000]
        assert witness.requests == 7  # each from the size that it knew
        assert pusher.failure == ""

    run(log, witness, test)


def test_a_size_that_the_node_does_not_know_is_taken_from_the_witness(log: Log) -> None:
    witness = new_witness()
    witness.size, witness.root = 300, log.tree.root(300)

    async def test(pusher: WitnessPusher) -> None:
        board = board_of(log, 500)
        pusher.offer(board)
        await until(lambda: pusher.cosigned_total)
        assert witness.requests == 2  # from nothing: 409; from 300
        witness.size, witness.root = 800, log.tree.root(800)  # another node of the chain was faster
        pusher.offer(board_of(log, 600))
        await until(lambda: witness.requests == 3)
        await asyncio.sleep(0.05)
        assert (pusher.cosigned_total, pusher.failure) == (1, "")
        pusher.offer(board_of(log, 900))
        await until(lambda: pusher.cosigned_total == 2)
        assert witness.sizes == [500, 900]

    run(log, witness, test)


def test_witness_that_knows_another_log_is_heard(log: Log) -> None:
    witness = new_witness()
    witness.size, witness.root = 300, bytes(32)

    async def test(pusher: WitnessPusher) -> None:
        board = board_of(log, 500)
        pusher.offer(board)
        await until(lambda: pusher.failures_total)
        assert "422 not the log that I know" in pusher.failure
        assert times_on(board, witness) == []
        assert witness.sizes == []

    run(log, witness, test)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("broken", "503 come back later"),
        ("redirect", "307"),
        ("flood", "too long"),
        ("other sizes", "another size each time"),
        ("no size", "size is malformed"),
        ("stranger", "did not sign with its key"),
        ("forged", "does not hold"),
        ("stall", "no answer"),
    ],
)
def test_misbehaviour_costs_a_wait_and_the_newest_checkpoint_is_tried_again(
    log: Log, how: str, reason: str
) -> None:
    witness = new_witness()
    witness.misbehave = how

    async def test(pusher: WitnessPusher) -> None:
        first, second = board_of(log, 500), board_of(log, 600)
        pusher.offer(first)
        await until(lambda: pusher.failures_total)
        assert reason in pusher.failure
        pusher.offer(second)
        witness.misbehave = ""
        await until(lambda: pusher.cosigned_total)
        assert pusher.failure == ""
        assert times_on(first, witness) == []
        assert len(times_on(second, witness)) == 1
        assert witness.sizes == [600]

    run(log, witness, test, timeout_s=0.3)


def test_witness_that_went_away_is_asked_again_when_it_is_back(log: Log) -> None:
    witness = new_witness()

    async def body() -> None:
        client = WitnessClient()
        async with witness.listening() as url:
            port = int(url.split(":")[2].split("/")[0])
        pusher = WitnessPusher(Witness.parse(f"{url} {witness.vkey}"), log.tree, client.post)
        pusher.start()
        board = board_of(log, 10)
        pusher.offer(board)
        await until(lambda: pusher.failures_total)
        assert "no answer" in pusher.failure
        async with witness.listening(port):
            await until(lambda: pusher.cosigned_total)
            assert len(times_on(board, witness)) == 1
            await pusher.stop()
            await client.close()

    asyncio.run(body())


def test_other_logs_and_unsigned_notes_are_refused_by_the_witness(log: Log) -> None:
    witness = new_witness()

    async def test(pusher: WitnessPusher) -> None:
        pusher.offer(board_of(log, 10, chain_id="another"))
        await until(lambda: "404" in pusher.failure)
        forged = board_of(log, 10)
        forged._log_line = sign_text("x\n", ORIGIN, LOG_KEY)
        pusher.offer(forged)
        await until(lambda: "403" in pusher.failure)
        assert witness.sizes == []

    run(log, witness, test)


def test_request_has_the_form_of_the_specification(log: Log) -> None:
    note = board_of(log, 5).log_note
    assert encode_request(0, [], note) == b"old 0\n\n" + note.encode()
    assert encode_request(3, [b"\0" * 32], note).startswith(b"old 3\n" + b"A" * 43 + b"=\n\n")
    with pytest.raises(UsageError):
        encode_request(3, [bytes(32)] * 64, note)


@pytest.mark.parametrize("body", [b"", b"x\n", b"01\n", b"-1\n", b"1" * 20 + b"\n", b"\xff\n"])
def test_malformed_size_is_refused(body: bytes) -> None:
    key = NoteKey.decode(new_witness().vkey)
    for content_type in ("text/x.tlog.size", "text/plain"):
        answer = WitnessAnswer(status=409, content_type=content_type, body=body)
        with pytest.raises(WitnessRefusal):
            read_answer(answer, "body\n", key)


def test_witness_is_named_by_url_and_key() -> None:
    vkey = new_witness().vkey
    found = Witness.parse(f"https://w.example/prefix/ {vkey}")
    assert (found.url, found.key.vkey) == ("https://w.example/prefix", vkey)
    log_key = NoteKey.decode(VKEY_OF_A_LOG).vkey
    for bad in (
        "",
        "https://w.example",
        vkey,
        f"ftp://w {vkey}",
        f"https://w {log_key}",
        "https://w x",
    ):
        with pytest.raises(InvalidInputError):
            Witness.parse(bad)


VKEY_OF_A_LOG = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"


def test_witnesses_are_read_from_the_configuration(tmp_path: Path) -> None:
    text = f"https://w.example {new_witness().vkey}"
    config = parse_config(tmp_path, {"audit": {"witnesses": [text]}})
    assert config.audit.witnesses == (text,)
    with pytest.raises(InvalidInputError):
        parse_config(tmp_path, {"audit": {"witnesses": "x"}})
