"""The p2p process: `python -m p2p.process <link fd> <blackbox fd>`, started by p2p/link.py.

It lives as long as the node: the end of the link, or the node's death, ends it.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import socket
import sys

from p2p.blackbox import BlackBox
from p2p.slim import leave_out

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Run until the node closes the link."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the node decides
    link_socket = socket.socket(fileno=int(arguments[0]))
    blackbox = BlackBox(int(arguments[1]))
    gc.disable()  # a thousand modules of live objects; service.run freezes them and goes on
    leave_out()
    import trio  # after `leave_out`, as is libp2p

    from p2p.service import run

    _quiet_libraries()
    trio.run(run, link_socket, blackbox)
    return 0


def _die_with_parent() -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before the call


def _quiet_libraries() -> None:
    """libp2p logs every stranger's fault with a traceback; ours are counted instead.

    After its import, which sets levels of its own.
    """
    logging.basicConfig(
        level=logging.WARNING,
        format="p2p %(levelname)s %(message)s",
        stream=sys.stderr,
        force=True,
    )
    for name in ("libp2p", "multiaddr", "trio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
