"""A person's DID from the command line, on a real network: stolen, taken back by two who hold a
recovery tier in two places, pre-rotated, deactivated under pre-rotation, and brought back."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ledger.accounts import encode_account_id
from node import config as cfg
from node.keys import generate_key, read_public_key, save_key
from tests.e2e.network import running_devnet

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(240)]

COMMAND_TIMEOUT_S = 60


@dataclass
class Person:
    """Runs `zynk did`, paid for by the faucet; keys are files by name, made when first named."""

    folder: Path
    url: str
    faucet: Path
    trust: Path

    def key(self, name: str) -> str:
        path = self.folder / f"{name}.json"
        if not path.exists():
            save_key(path, generate_key(), None)
        return str(path)

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "node", "did", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT_S)
        return process.returncode or 0, out.decode(), err.decode()

    async def change(self, *arguments: str) -> dict[str, Any]:
        code, out, err = await self._paid(*arguments)
        assert code == 0, err
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        return answer

    async def refused(self, *arguments: str) -> str:
        code, _, err = await self._paid(*arguments)
        assert code != 0
        return err

    async def _paid(self, *arguments: str) -> tuple[int, str, str]:
        paid = ("--key", str(self.faucet), "--rpc", self.url, "--json")
        return await self.run(*arguments, *paid)

    async def history(self, did: str) -> tuple[dict[str, Any], str]:
        """As JSON, and as a person reads it; both proven."""
        where = ("history", did, "--rpc", self.url, "--trust", str(self.trust))
        code, out, err = await self.run(*where, "--json")
        assert code == 0, err
        code, shown, err = await self.run(*where)
        assert code == 0, err
        return json.loads(out.splitlines()[-1]), shown


def test_a_did_is_stolen_taken_back_pre_rotated_ended_and_brought_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_devnet() as devnet:
            home = devnet.nodes[0].home
            person = Person(
                tmp_path, devnet.nodes[0].url, home / cfg.FAUCET_KEY_FILE, home / cfg.GENESIS_FILE
            )
            await _live(person)

    asyncio.run(scenario())


async def _live(person: Person) -> None:
    key = person.key
    created = await person.change(
        "create",
        *("--control", key("a"), "--control", key("b"), "--threshold", "2"),
        *("--recovery", f"2:{key('s1')},{key('s2')}"),
    )
    did = created["did"]

    theft = ("rotate", did, "--control", key("a"), "--control", key("b"), "--new", key("thief"))
    await person.change(*theft, "--no-recovery")
    seen, shown = await person.history(did)
    assert seen["recovery"] == []
    assert "the newest change can be set aside until" in shown

    saved = str(person.folder / "operation.json")
    recovery = ("recover", did, "--by", key("s1"), "--from", "0", "--new", key("mine"))
    assert "reach no recovery tier" in await person.refused(*recovery)
    drafted = await person.change(*recovery, "--next", key("later"), "--save", saved)
    assert drafted["saved"] == saved
    assert "did/not-authorised" in await person.refused("submit", saved)
    code, shown, err = await person.run("sign", saved, "--by", key("s2"), "--yes")
    assert code == 0, err
    assert did in shown
    assert "recovery tier 1" in shown
    taken = await person.change("submit", saved)
    assert taken["version"] == drafted["version"]
    assert len(taken["signed_by"]) == 2

    seen, shown = await person.history(did)
    assert [item["nullifiedBy"] for item in seen["operations"]] == [None, 2, None]
    assert seen["control"]["keys"] == [encode_account_id(read_public_key(Path(key("mine"))))]
    assert seen["disputeUntilMs"] == 0, "nothing overrules the first tier"
    assert "set aside by a recovery" in shown
    assert "the next change must reveal the keys behind" in shown

    # Pre-rotated: today's key can neither change nor end it, the committed one can.
    for stale in (
        ("update", did, "--control", key("mine"), "--no-next"),
        ("deactivate", did, "--control", key("mine"), "--yes"),
    ):
        assert "not the keys it is committed to" in await person.refused(*stale)
    await person.change("deactivate", did, "--control", key("later"), "--yes")
    assert (await person.history(did))[0]["deactivated"] is True
    both = ("--by", key("s1"), "--by", key("s2"))
    await person.change("recover", did, *both, "--new", key("again"))
    seen, _ = await person.history(did)
    assert seen["deactivated"] is False
    assert [item["nullifiedBy"] for item in seen["operations"]] == [None, 2, None, 4, None]
