"""The p2p process as a child: starting and ending it, and what a death teaches.

Restart: at once after a first death, then doubling up to 5 s while it keeps dying young; for
ever. Quarantine: whoever's bytes came last before a crash is kept out for a minute, doubling;
validators only after a third crash in a row and briefly, because without them there is no chain.
A `kill -9` or `-15` is most likely the operator, but it may be the out-of-memory killer: it
blames nobody the first time and never a validator.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

from p2p import link_codec
from p2p.blackbox import BlackBox
from p2p.config import P2PConfig, PeerId, fields_of_config
from p2p.link_codec import Kind

RESTART_FIRST_S = 0.05
RESTART_MAX_S = 5.0
YOUNG_S = 5.0  # a process that lived less counts towards the backoff
SUSPICION_S = 600.0  # crashes this far apart are not one attack
VALIDATOR_CRASHES = 3
VALIDATOR_QUARANTINE_S = 10.0
QUARANTINE_MAX_S = 3600.0
SUSPECTS_MAX = 256
LINK_BUFFER_BYTES = 1 << 20


class Child:
    """A running p2p process and its flight recorder."""

    def __init__(self, process: asyncio.subprocess.Process, blackbox: BlackBox) -> None:
        self._process = process
        self._blackbox = blackbox
        self._last_peers: list[PeerId] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def last_peers(self) -> list[PeerId]:
        """Whose bytes came last; known once it has ended."""
        return self._last_peers

    async def end(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` for it to end by itself (its link is closed), then kill it."""
        process = self._process
        try:
            await asyncio.wait_for(process.wait(), max(timeout_s, 0.2))
        except TimeoutError:
            if process.returncode is None:
                process.kill()
            await process.wait()
        self._last_peers = self._blackbox.read()
        self._blackbox.close()
        assert process.returncode is not None
        return process.returncode


async def spawn(program: tuple[str, ...]) -> tuple[Child, socket.socket]:
    """Start `python <program> <link fd> <blackbox fd>`; returns it and the node's link end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    blackbox = BlackBox.create()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LINK_BUFFER_BYTES)
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *program,
            str(theirs.fileno()),
            str(blackbox.fd),
            pass_fds=(theirs.fileno(), blackbox.fd),
            stdin=asyncio.subprocess.DEVNULL,
            env=environment,
        )
    except BaseException:
        ours.close()
        blackbox.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    return Child(process, blackbox), ours


class RestartPolicy:
    """When to start again, with which config, and whom to keep out."""

    def __init__(self, config: P2PConfig) -> None:
        self._config = config
        self._young_deaths = 0
        self._signals = 0
        self._listening_since_s = 0.0
        self._crashes: dict[PeerId, tuple[int, float]] = {}
        self._quarantined_until_s: dict[PeerId, float] = {}

    def config_message(self) -> bytes:
        """The first message for a process about to start."""
        now_s = time.monotonic()
        quarantine_s = {
            peer: until_s - now_s
            for peer, until_s in self._quarantined_until_s.items()
            if until_s > now_s
        }
        values = {"config": fields_of_config(self._config), "quarantine_s": quarantine_s}
        return link_codec.encode(Kind.CONFIG, values)

    def on_listening(self, port: int) -> None:
        """Keep the port: peers know it."""
        self._config = replace(self._config, listen_port=port)
        self._listening_since_s = time.monotonic()

    def on_start_failed(self) -> None:
        self._young_deaths += 1

    def on_death(self, exit_code: int, last_peers: list[PeerId]) -> None:
        """Draw the consequences of a process's end."""
        now_s = time.monotonic()
        is_old = now_s - self._listening_since_s >= YOUNG_S
        self._young_deaths = 0 if is_old else self._young_deaths + 1
        is_signal = exit_code in (-signal.SIGKILL, -signal.SIGTERM)
        if is_signal:
            self._signals = 1 if is_old else self._signals + 1
            if self._signals < 2:
                return
        for peer in last_peers:
            if not (is_signal and peer in self._config.validators):
                self._suspect(peer, now_s)

    def _suspect(self, peer: PeerId, now_s: float) -> None:
        count, last_s = self._crashes.get(peer, (0, now_s))
        count = count + 1 if now_s - last_s < SUSPICION_S else 1
        self._crashes[peer] = (count, now_s)
        if peer in self._config.validators:
            seconds = VALIDATOR_QUARANTINE_S if count >= VALIDATOR_CRASHES else 0.0
        else:
            seconds = min(self._config.quarantine_s * 2.0 ** min(count - 1, 10), QUARANTINE_MAX_S)
        if seconds:
            self._quarantined_until_s[peer] = now_s + seconds
        while len(self._crashes) > SUSPECTS_MAX:
            oldest = next(iter(self._crashes))
            del self._crashes[oldest]
            self._quarantined_until_s.pop(oldest, None)

    def delay_s(self) -> float:
        """Seconds to wait before the next start."""
        if self._young_deaths == 0:
            return RESTART_FIRST_S
        return min(RESTART_FIRST_S * 2.0 ** min(self._young_deaths, 10), RESTART_MAX_S)
