"""`python -m node` is `zynk`."""

from node.cli import main

main()
