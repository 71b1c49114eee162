"""docs/validator-guide.md, command by command, on a real network under load.

The guide's `sh` blocks are run as they stand, each line by a shell. Two words are the test's own:
`zynk start` goes to the background, and `zynk-stop` ends that process, as Ctrl-C would.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ledger.accounts import encode_account_id
from ledger.params import ChainParams
from node import config as cfg
from node.devnet import Devnet, DevnetNode, pick_ports
from node.home import write_synced
from node.keys import load_key
from rpc.client import RpcClient
from tests.e2e.network import Load

pytestmark = pytest.mark.e2e

GUIDE = Path(__file__).parents[2] / "docs" / "validator-guide.md"
PARAMS = ChainParams(
    downtime_window=40,
    downtime_missed_max=20,
    downtime_jail_ms=2_000,
    vrf_key_delay=30,
    unbonding_ms=12_000,
    evidence_window_ms=10_000,
    gov_voting_ms=30_000,
    gov_deposit=1_000_000,
)
COMMAND_TIMEOUT_S = 120


def guide_commands() -> list[str]:
    """The lines of the guide's `sh` blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


class Operator:
    """Somebody with a shell, a folder, and the guide."""

    def __init__(self, devnet: Devnet, folder: Path) -> None:
        self.devnet = devnet
        self.folder = folder
        self.p2p_port, self.rpc_port = pick_ports(2, prefer_default=False)
        self.home = folder / "mine"
        faucet = devnet.nodes[0].home / cfg.FAUCET_KEY_FILE
        other = load_key(devnet.nodes[1].home / cfg.OPERATOR_KEY_FILE).public_key
        peers = [info["p2p"] for node in devnet.nodes if (info := node.ready_info())]
        self.variables = {
            "RPC": devnet.nodes[0].url,
            "MINE": f"http://127.0.0.1:{self.rpc_port}",
            "GENESIS": str(devnet.nodes[0].home / cfg.GENESIS_FILE),
            "PEERS": " ".join(f"--peer {peer}" for peer in peers),
            "NODE": str(self.home),
            "FRIEND": str(faucet),
            "OTHER": encode_account_id(other),
        }
        self.index: int | None = None

    async def follow(self, line: str) -> str:
        """Do what the guide says; returns what was printed."""
        words = shlex.split(line)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.variables[name] = self.variables[value.removeprefix("$")]
            return ""
        if words[:2] == ["zynk", "start"]:
            await self._start()
            return ""
        if words[0] == "zynk-stop":
            assert self.index is not None
            assert await self.devnet.stop_node(self.index) == 0
            return ""
        print(line, flush=True)
        done = await asyncio.to_thread(self._run, line)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if words[:2] == ["zynk", "init"]:
            self._use_free_ports()
        return done.stdout

    def _run(self, line: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.variables}
        shell = f'zynk() {{ "{sys.executable}" -m node "$@"; }}\n{line}'
        return subprocess.run(
            ["bash", "-c", shell],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def _use_free_ports(self) -> None:
        path = self.home / cfg.CONFIG_FILE
        text = path.read_text().replace("port = 26657", f"port = {self.rpc_port}")
        write_synced(path, text.replace("port = 26656", f"port = {self.p2p_port}").encode())

    async def _start(self) -> None:
        if self.index is None:
            self.index = len(self.devnet.nodes)
            node = DevnetNode(index=self.index, home=self.home, rpc_port=self.rpc_port)
            self.devnet.nodes.append(node)
        height = int((await self.devnet.status(0))["height"])
        await self.devnet.start([self.index])
        await self.devnet.wait_height(height, [self.index], timeout_s=60)


async def is_voting(devnet: Devnet, index: int) -> bool:
    for _ in range(200):
        if (await devnet.status(index))["validator"]["voting"]:
            return True
        await asyncio.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_validator_guide_holds_command_by_command(tmp_path: Path) -> None:
    async def run() -> None:
        devnet = Devnet.create(
            Path(tempfile.mkdtemp(prefix="zynk-e2e-")), chain_id="zynk-guide", params=PARAMS
        )
        load = Load(devnet, nodes=[0, 1, 2, 3], rate_tx_s=15)
        try:
            await devnet.start()
            await devnet.wait_height(1)
            operator = Operator(devnet, tmp_path)
            await load.start()
            seen: dict[str, str] = {}
            for line in guide_commands():
                seen[line] = await operator.follow(line)
                if "--until active" in line:
                    assert operator.index is not None
                    assert await is_voting(devnet, operator.index), line
            await check_outcome(devnet, operator, seen)
            assert load.failures == []
        finally:
            await load.stop()
            await devnet.stop()
            devnet.remove()

    asyncio.run(run())


async def check_outcome(devnet: Devnet, operator: Operator, seen: dict[str, str]) -> None:
    """What must be true after the guide's last line."""
    rotated = load_key(operator.home / cfg.VALIDATOR_KEY_FILE).public_key.hex()
    account = load_key(operator.folder / "operator.json").public_key.hex()
    async with RpcClient(devnet.nodes[0].url) as client:
        validator = await client.call("stake_validator", operator=account)
        assert validator["status"] == "retired"
        assert validator["public_key"] == rotated, "the chain knows the new vote key"
        assert validator["slash"] is None, "rotating and restarting signed nothing twice"
        for _ in range(300):  # what was undelegated becomes free by itself
            waiting = await client.call("stake_unbonding", account=account)
            if not waiting["entries"]:
                break
            await asyncio.sleep(0.1)
        assert waiting["entries"] == []
        balance = int((await client.call("chain_account", account=account))["balance"])
        assert balance > 2_900_000_000_000, "the bond came back"
    assert "jailed" in seen["zynk stake validator operator.json --until jailed"]
    shown = seen["zynk gov show 1"]  # while the validator was a candidate, so that its stake counts
    for choice in ("yes", "no"):
        found = re.search(rf"^{choice} +([0-9,.]+) zynk", shown, re.MULTILINE)
        assert found is not None, shown
        assert found[1] != "0", shown
