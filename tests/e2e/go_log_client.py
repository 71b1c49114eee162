"""Builds and runs the log client in Go (tests/e2e/go), or skips where that can not be."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parent / "go"
BUILD_TIMEOUT_S = 240
RUN_TIMEOUT_S = 120
ENVIRONMENT = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}


def build_client(folder: Path) -> Path:
    """The client's path. Skips the test if there is no Go, or its module is out of reach."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: no independent log client")
    fetched = subprocess.run(
        [go, "mod", "download"],
        cwd=SOURCE,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if fetched.returncode != 0:
        pytest.skip(f"Go's module for logs can not be fetched: {fetched.stderr.strip()[-200:]}")
    client = folder / "logclient"
    subprocess.run(
        [go, "build", "-o", str(client), "."],
        cwd=SOURCE,
        env=ENVIRONMENT,
        timeout=BUILD_TIMEOUT_S,
        check=True,
    )
    return client


async def read_log(client: Path, url: str, log_key: str, cosigners: Sequence[str]) -> Any:
    """What the client found; raises AssertionError with what it objects to."""
    process = await asyncio.create_subprocess_exec(
        str(client),
        url,
        log_key,
        *cosigners,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), RUN_TIMEOUT_S)
    assert process.returncode == 0, err.decode()
    return json.loads(out)
