"""Configuration: what is written is what is read, and a typing error never passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.errors import InvalidInputError, UsageError
from node.config import (
    CONFIG_FILE,
    NodeConfig,
    P2PSettings,
    RpcSettings,
    load_config,
    render_config,
)


def test_a_rendered_configuration_reads_back_the_same(tmp_path: Path) -> None:
    config = NodeConfig(
        home=tmp_path,
        moniker="alice",
        rpc=RpcSettings(port=1234),
        p2p=P2PSettings(peers=("/ip4/127.0.0.1/tcp/1/p2p/x", "/ip4/127.0.0.1/tcp/2/p2p/y")),
    )
    (tmp_path / CONFIG_FILE).write_text(render_config(config))
    assert load_config(tmp_path) == config


def test_a_missing_home_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="zynk init"):
        load_config(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("moniker = ", "TOML"),
        ("monicker = 'x'", "monicker"),
        ("[rpc]\nprot = 1", "prot"),
        ("[rpc]\nport = '1'", "rpc.port"),
        ("[rpc]\nport = true", "rpc.port"),
        ("[rpc]\nport = -1", "negative"),
        ("rpc = 3", "table"),
        ("[p2p]\npeers = [1]", "p2p.peers"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(InvalidInputError, match=word):
        load_config(tmp_path)
