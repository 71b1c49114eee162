"""What people see on a terminal and programs on a pipe: progress bars, and the benchmark's JSON."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from audit.leaf import encode_stream_text

pytestmark = pytest.mark.e2e
NO_ANSWER = 3


def anchor_command(tmp_path: Path) -> list[str]:
    """Hashes a file, with a bar, and then finds no node."""
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(20_000_000))
    stream = encode_stream_text(bytes(32))
    node = ["--rpc", "http://127.0.0.1:1", "--stream", stream, "--timeout", "0"]
    return [sys.executable, "-m", "node", "audit", "anchor", str(path), *node]


def run_on_terminal(command: list[str]) -> tuple[int, str]:
    """Exit code, and what a terminal on standard error was sent."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other end is closed
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    process.communicate(timeout=60)
    return process.returncode, shown.decode(errors="replace")


def test_a_progress_bar_is_shown_on_a_terminal(tmp_path: Path) -> None:
    code, shown = run_on_terminal(anchor_command(tmp_path))
    assert code == NO_ANSWER
    assert "hashing" in shown
    assert "20.0" in shown, "of 20.0 MB"


def test_no_progress_bar_is_written_to_a_pipe(tmp_path: Path) -> None:
    done = subprocess.run(
        anchor_command(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == NO_ANSWER
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, "the error alone"
    assert "hashing" not in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(180)
def run_bench(module: str, *options: str) -> dict[str, Any]:
    """What the benchmark prints on its one line with --json."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--json", *options],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    figures: dict[str, Any] = json.loads(line)
    return figures


def test_the_benchmark_ends_with_one_line_of_json_in_its_documented_shape() -> None:
    figures = run_bench("bench.network", "--seconds", "3", "--idle-seconds", "1")
    assert list(figures) == ["finality", "throughput", "idle", "start_s", "machine"]
    assert {"p50_ms", "p90_ms", "p99_ms", "rate_tx_s"} <= set(figures["finality"])
    assert {"tx_s", "payload_bytes", "missed_heights"} <= set(figures["throughput"])
    assert set(figures["idle"]) == {"cpu_percent", "rss_mib"}
    finality = figures["finality"]
    assert 0 < finality["p50_ms"] <= finality["p90_ms"] <= finality["p99_ms"]
    assert finality["rate_tx_s"] == 20.0
    assert figures["throughput"]["tx_s"] > 0
    assert figures["throughput"]["payload_bytes"] == 300
    assert figures["idle"]["rss_mib"] > 10
    assert figures["start_s"] > 0
    assert "cores" in figures["machine"]


def test_the_resolver_benchmark_grows_a_kept_chain_and_measures_each_size(tmp_path: Path) -> None:
    options = ("--home", str(tmp_path / "network"), "--seconds", "1")
    first = run_bench("bench.resolve", *options, "--dids", "16")
    assert "larger" not in first
    figures = run_bench("bench.resolve", *options, "--dids", "1250", "--dids", "16")
    (larger,) = figures["larger"]
    assert (figures["dids"], larger["dids"]) == (16, 1250), "more than a block of them"
    for result in (first, figures, larger):
        assert result["plain_per_s"] > 0
        assert result["with_proof_per_s"] > 0
        assert 0 < result["p50_ms"] <= result["p99_ms"]
        asked = result["seconds"] * (result["with_proof_per_s"] + result["half_load_per_s"])
        assert result["verified"] >= asked // 100 - 1, "one in a hundred"
    assert larger["plain_slowdown"] == round(figures["plain_per_s"] / larger["plain_per_s"], 2)
    listed = (tmp_path / "network/node0/bench-dids.txt").read_text().split()
    assert len(set(listed)) == 1250
