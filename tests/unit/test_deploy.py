"""The Universal Resolver's driver files fit the method and the command line."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from did.syntax import encode_did
from node.cli_light import light

FOLDER = Path(__file__).parents[2] / "deploy" / "universal-resolver"


def test_driver_pattern_takes_every_did_of_the_method_and_nothing_else() -> None:
    text = (FOLDER / "application.yml").read_text()
    found = re.search(r'pattern: "(.+)"', text)
    assert found is not None
    pattern = re.compile(found[1])
    for byte in (0, 1, 127, 255):
        assert pattern.match(encode_did(bytes([byte]) * 32))
    for other in ("did:zynk:z", "did:web:a", encode_did(bytes(32)) + "#k"):
        assert not pattern.match(other)


def test_start_script_gives_the_light_client_options_that_it_has(tmp_path: Path) -> None:
    echo = tmp_path / "zynk"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"], "ZYNK_BIN": str(echo), "ZYNK_PRIMARY": "https://a.example",
        "ZYNK_WITNESSES": "https://b.example https://c.example",
    }  # fmt: skip
    script = ["sh", str(FOLDER / "start.sh")]
    output = subprocess.run(  # our own script
        script, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert output[0] == "light"
    options = {name for parameter in light.params for name in parameter.opts}
    assert {word for word in output if word.startswith("--")} <= options
    assert output.count("--witness") == 2
    assert "0.0.0.0:8080" in output
    environment.pop("ZYNK_PRIMARY")
    refused = subprocess.run(
        script, env=environment, capture_output=True, text=True, check=False
    )  # our own script
    assert refused.returncode != 0
    assert "ZYNK_PRIMARY" in refused.stderr
