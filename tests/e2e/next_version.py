"""`python -m tests.e2e.next_version HOME`: a node whose software speaks one protocol version more.

That version has the rules of the first, so that a test can show an upgrade of this release."""

from __future__ import annotations

import sys
from pathlib import Path

from ledger.block import PROTOCOL_VERSION, PROTOCOL_VERSIONS
from node.config import load_config
from node.daemon import run_node
from node.event_loop import run
from node.log import configure_logging

NEXT_VERSION = PROTOCOL_VERSION + 1


def main() -> None:
    config = load_config(Path(sys.argv[1]))
    configure_logging(config.log)
    run(run_node(config, protocol_versions={*PROTOCOL_VERSIONS, NEXT_VERSION}))


if __name__ == "__main__":
    main()
