"""`zynk light` ends when it is told to: by SIGTERM, as a container engine does, and by Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from node import config as cfg
from node.devnet import Devnet

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_light_client_stops_its_server_and_exits(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """No node answers; the client serves and goes on asking all the same."""
    devnet = Devnet.create(tmp_path / "net", validators=1, chain_id="zynk-stops")

    async def run() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "node", "light", "--primary", devnet.nodes[0].url),
            *("--trust", str(devnet.nodes[0].home / cfg.GENESIS_FILE)),
            *("--home", str(tmp_path / "home"), "--listen", "127.0.0.1:0"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            while b"listening on" not in (line := await process.stderr.readline()):
                assert line, "it ended by itself"
            process.send_signal(number)
            assert await asyncio.wait_for(process.wait(), 20) == code
            assert b"Traceback" not in await process.stderr.read()
        finally:
            if process.returncode is None:
                process.kill()

    asyncio.run(run())
