"""The p2p process's flight recorder: whose bytes it took last, readable after it has died.

A shared memory file of two slots (newest, the one before), 64 bytes each, that the process
writes whenever the peer it reads from changes. After a crash the node reads who came last and
puts them in quarantine; nothing else survives a `kill -9` or a segmentation fault.
"""

from __future__ import annotations

import mmap
import os

from p2p.config import PeerId

SLOT_BYTES = 64
SLOT_COUNT = 2
BLACKBOX_BYTES = SLOT_BYTES * SLOT_COUNT


class BlackBox:
    """Either end of the recorder; `fd` is inherited by the p2p process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, BLACKBOX_BYTES)
        self._last = ""

    @classmethod
    def create(cls) -> BlackBox:
        """A fresh recorder in anonymous memory."""
        fd = os.memfd_create("zynk-p2p", 0)
        os.ftruncate(fd, BLACKBOX_BYTES)
        return cls(fd)

    def note(self, peer: PeerId) -> None:
        """Bytes of `peer` are about to be decoded."""
        if peer != self._last:
            self._last = peer
            memory = self._memory
            memory[SLOT_BYTES:] = memory[:SLOT_BYTES]
            memory[:SLOT_BYTES] = peer.encode()[:SLOT_BYTES].ljust(SLOT_BYTES, b"\0")

    def read(self) -> list[PeerId]:
        """The peers noted last, newest first."""
        memory = self._memory
        slots = [
            bytes(memory[start : start + SLOT_BYTES]).rstrip(b"\0")
            for start in range(0, BLACKBOX_BYTES, SLOT_BYTES)
        ]
        return [slot.decode("ascii", "replace") for slot in slots if slot]

    def close(self) -> None:
        self._memory.close()
        os.close(self.fd)
