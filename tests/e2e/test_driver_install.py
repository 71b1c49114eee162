"""The Universal Resolver's driver as its image is made: the steps of the Dockerfile in folders of
their own, then what the Universal Resolver asks of it, against a network of four.

Not shown here: that the Debian packages which the Dockerfile names are enough; this machine has
others besides.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from did.syntax import encode_did
from did.verify import Outcome, verify_resolution
from node import config as cfg
from node.devnet import Devnet, pick_ports
from tests.e2e.network import genesis_of, until, zynk

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
FOLDER = Path("deploy") / "universal-resolver"
INSTALL_TIMEOUT_S = 600.0
# HttpDriver.java: the result's media type, then what uni-resolver-web was asked for.
ACCEPT = "application/did-resolution,application/ld+json"
ACCEPT_PART = "application/did-url-dereferencing,*/*"


def read_instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, rest) of a Dockerfile, lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    found = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(name, rest) for name, rest in found]


class Image:
    """What the Dockerfile makes, below `root` instead of `/`."""

    def __init__(self, root: Path, genesis: Path) -> None:
        self.root = root
        self.context = root / "context"
        self.entry: list[str] = []
        self.health: list[str] = []
        self._copy_context(genesis)

    def _copy_context(self, genesis: Path) -> None:
        """The tree as a clone has it, and the genesis file, as the Dockerfile's head says."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True,
        ).stdout.decode()  # fmt: skip
        ignored = set((ROOT / ".dockerignore").read_text().split())
        for name in filter(None, listed.split("\0")):
            if Path(name).parts[0] not in ignored:
                target = self.context / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)
        shutil.copy(genesis, self.context / FOLDER / "genesis.json")

    def build(self) -> None:
        """Every instruction, or an error for one that is not known here."""
        for name, rest in read_instructions(self.context / FOLDER / "Dockerfile"):
            match name:
                case "FROM" | "USER" | "EXPOSE" | "WORKDIR":
                    pass
                case "RUN" if rest.startswith("apt-get"):
                    assert "&& rm -rf /var/lib/apt/lists/*" in rest
                case "RUN":
                    self._install(rest)
                case "COPY":
                    self._copy(rest.split())
                case "HEALTHCHECK":
                    self.health = json.loads(rest.split("CMD", 1)[1])
                case "ENTRYPOINT":
                    self.entry = json.loads(rest)
                case _:
                    raise AssertionError(f"{name} {rest}")

    def _install(self, command: str) -> None:
        """With pip's cache, which the image's build does without; nothing else is other."""
        steps = self._inside(command).replace("--no-cache-dir ", "").split(" && ")
        for step in steps:
            words = shlex.split(step)
            words[0] = sys.executable if words[0] == "python" else words[0]
            subprocess.run(  # the project's own Dockerfile
                words, cwd=self.context, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S
            )

    def _copy(self, words: list[str]) -> None:
        options = [word for word in words if word.startswith("--")]
        source, target = (word for word in words if not word.startswith("--"))
        if target == "." or "--from=build" in options:
            assert source in (".", target)  # the context, and the same path in the second stage
            return
        place = Path(self._inside(target))
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.context / source, place)
        mode = next((o.removeprefix("--chmod=") for o in options if o.startswith("--chmod=")), None)
        if mode is not None:
            place.chmod(int(mode, 8))

    def _inside(self, text: str) -> str:
        """The text with its absolute paths below `root`."""
        return re.sub(r"(?<![\w/])/(opt|etc|usr)/", lambda m: f"{self.root}/{m[1]}/", text)

    def start(self, primary: str, port: int) -> subprocess.Popen[bytes]:
        """The entry, in an empty folder, with the variables that its head names and no others."""
        home = self.root / "home"
        home.mkdir()
        (entry,) = self.entry
        return subprocess.Popen(  # the project's own script
            [self._inside(entry)],
            cwd=home,
            env={
                "PATH": os.defpath, "HOME": str(home), "ZYNK_PRIMARY": primary,
                "ZYNK_LISTEN": f"127.0.0.1:{port}",
                "ZYNK_BIN": self._inside("/opt/zynk/bin/zynk"),
                "ZYNK_TRUST": self._inside("/etc/zynk/genesis.json"),
            },
            stdout=subprocess.DEVNULL,
            stderr=(home / "log").open("wb"),
        )  # fmt: skip

    def is_healthy(self, port: int) -> bool:
        words = [self._inside(word).replace(":8080/", f":{port}/") for word in self.health]
        return subprocess.run(words, capture_output=True, timeout=30, check=False).returncode == 0


def driver_url(did: str, port: int) -> str:
    """What uni-resolver-web makes of its entry: the pattern's groups behind the driver's path."""
    entry = (ROOT / FOLDER / "application.yml").read_text()
    pattern, url = re.search(r'pattern: "(.+)"', entry), re.search(r"url: \$\{\w+:(.+)\}", entry)
    assert pattern is not None
    assert url is not None
    match = re.fullmatch(pattern[1], did)
    assert match is not None
    base = url[1].replace("driver-did-zynk:8080", f"127.0.0.1:{port}")
    return f"{base}1.0/identifiers/{''.join(match.groups())}"


def _did(devnet: Devnet, *arguments: str) -> dict[str, Any]:
    """A `zynk did` command at the first validator, paid for by the faucet."""
    key = str(devnet.nodes[0].home / cfg.FAUCET_KEY_FILE)
    done = zynk(
        "did", arguments[0], *arguments[1:], "--key", key, "--rpc", devnet.nodes[0].url, "--json",
        *(() if arguments[0] == "create" else ("--control", key)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def ask(url: str, accept: str) -> tuple[int, str, Any]:
    async with (
        aiohttp.ClientSession(headers={"Accept": accept}) as http,
        http.get(url, allow_redirects=False) as answer,
    ):
        return answer.status, answer.content_type, json.loads(await answer.read())


async def answers_as_a_driver(devnet: Devnet, did: str, port: int) -> None:
    genesis = genesis_of(devnet)
    for accept, kind in (
        (ACCEPT, "application/did-resolution"), ("application/ld+json", "application/ld+json"),
    ):  # fmt: skip
        status, shown, result = await ask(driver_url(did, port), accept)
        assert (status, shown) == (200, kind), result
        assert result["didDocument"]["id"] == did
        verdict = verify_resolution(
            result, did=did, trusted=genesis.validators, chain_id=genesis.chain_id,
            max_age_ms=None, now_ms=None,
        )  # fmt: skip
        assert verdict.outcome is Outcome.FOUND
    status, shown, result = await ask(driver_url(encode_did(bytes(32)), port), ACCEPT)
    assert (status, shown) == (404, "application/did-resolution")
    assert result["didResolutionMetadata"]["error"]["type"].endswith("#NOT_FOUND")
    status, shown, result = await ask(driver_url(did, port) + "?service=files", ACCEPT_PART)
    assert (status, shown) == (200, "application/did-url-dereferencing")
    assert result["content"]["service"][0]["serviceEndpoint"] == "https://files.example/"


@pytest.mark.skipif(os.environ.get("ZYNK_SOAK") != "1", reason="./dev soak runs it: it installs")
def test_driver_is_installed_started_and_asked_as_the_universal_resolver_does(
    tmp_path: Path,
) -> None:
    devnet = Devnet.create(tmp_path / "net", validators=4, chain_id="zynk-driver")
    image = Image(tmp_path / "image", devnet.nodes[0].home / cfg.GENESIS_FILE)
    image.build()
    (port,) = pick_ports(1, prefer_default=False)

    async def run() -> None:
        await devnet.start()
        await devnet.wait_height(1)
        service = ("--service", "files", "Files", "https://files.example/")
        made = await asyncio.to_thread(_did, devnet, "create", *service)
        driver = image.start(devnet.nodes[0].url, port)
        try:
            await until("the driver is healthy", lambda: image.is_healthy(port))
            await answers_as_a_driver(devnet, made["did"], port)
            driver.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(driver.wait, 30) == 0
        finally:
            driver.kill()
            driver.wait()
            await devnet.stop()

    asyncio.run(run())
