"""Leaves out what libp2p imports and this node never uses: 29 MB of memory and 0.5 s of start.

`import libp2p` loads QUIC, WebSocket, WebRTC, mDNS, UPnP, ACME, DHT and metrics with all their
libraries (1,350 modules, 88 MB) for a host that speaks TCP, Noise and Yamux. `leave_out` must
run before the first import of libp2p; from then on the listed libraries import as empty shells:
their names exist, so that class bodies and annotations load, and whoever makes use of an
object of them gets a RuntimeError that says so. Measured figures in docs/adr/0003.

DNS is among them: the dialler resolves names itself, through the operating system.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any

LEFT_OUT = frozenset(
    {
        "aioquic",  # QUIC, WebTransport
        "coincurve",  # secp256k1 identities; ours are Ed25519
        "dns",
        "fastecdsa",  # ECDSA identities
        "httpx",  # AutoTLS
        "ifaddr",
        "miniupnpc",
        "OpenSSL",
        "prometheus_client",  # the node has its own
        "requests",
        "rich",
        "service_identity",
        "trio_websocket",
        "wsproto",
        "zeroconf",  # mDNS
    }
)


class _ShellType(type):
    """Class attributes of a shell are shells again: enum members, nested types, constants."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        shell = _ShellType(name, (_Shell,), {})
        setattr(cls, name, shell)
        return shell


class _Shell(metaclass=_ShellType):
    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(f"{type(self).__name__} is left out of the p2p process (p2p/slim.py)")


class _ShellModule(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        shell = _ShellType(name, (_Shell,), {})
        setattr(self, name, shell)
        return shell


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in LEFT_OUT:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _ShellModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        return


def leave_out() -> None:
    """From now on import shells instead of the libraries in `LEFT_OUT`."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
