"""Upgrades: which protocol version the headers of a height carry.

    upgrade | empty     [[height, version, info], [height, version, info] or nil]

The first is in force since its height, the second is scheduled: from its height on headers carry
its version. Without the row the version is PROTOCOL_VERSION and nothing is scheduled. Governance
schedules; `UpgradeModule` turns the scheduled one into the one in force, in the first block that
carries its version. A node decides from the row at its tip, before it executes anything of the next
height: one whose software does not speak the version stops there (`UpgradeNeeded`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ledger import codec
from ledger.accounts import StateReader
from ledger.block import PROTOCOL_VERSION, PROTOCOL_VERSION_MAX
from ledger.errors import InvalidInputError, UsageError
from ledger.execution import BlockContext, Event, StateView
from ledger.state import state_key

NOTICE_HEIGHTS_MIN = 16
"""An upgrade that is passed at H begins at H + 16 or later."""
INFO_MAX = 500
UPGRADE_BYTES_MAX = 2 * (4 * INFO_MAX + 32)
UPGRADE_KEY = state_key("upgrade", b"")

_CONTROL = frozenset([*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """From `height` on headers carry `version`; `info` tells operators what to install."""

    height: int
    version: int
    info: str = ""

    def to_value(self) -> list[codec.Value]:
        return [self.height, self.version, self.info]

    @classmethod
    def from_value(cls, value: object) -> Upgrade:
        """Inverse of `to_value`. Raises InvalidInputError."""
        height, version, info = codec.read_array(value, 3, "upgrade")
        return cls(
            height=codec.read_int(height, "upgrade height"),
            version=codec.read_int(version, "upgrade version", PROTOCOL_VERSION_MAX),
            info=read_text(info, "upgrade info", INFO_MAX),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeState:
    """What is in force, and what is scheduled."""

    current: Upgrade = Upgrade(height=0, version=PROTOCOL_VERSION)
    scheduled: Upgrade | None = None

    def at(self, height: int) -> Upgrade:
        """What counts at `height`, which must not lie before the state's."""
        if self.scheduled is not None and height >= self.scheduled.height:
            return self.scheduled
        return self.current

    def encode(self) -> bytes:
        scheduled = None if self.scheduled is None else self.scheduled.to_value()
        return codec.encode([self.current.to_value(), scheduled])

    @classmethod
    def decode(cls, data: bytes) -> UpgradeState:
        """Inverse of `encode`. Raises InvalidInputError."""
        current, scheduled = codec.read_array(
            codec.decode(data, bytes_max=UPGRADE_BYTES_MAX), 2, "upgrade state"
        )
        return cls(
            current=Upgrade.from_value(current),
            scheduled=None if scheduled is None else Upgrade.from_value(scheduled),
        )


class UpgradeNeeded(UsageError):
    """The chain goes on in a protocol version that this software does not speak."""

    def __init__(self, height: int, upgrade: Upgrade, spoken: Collection[int]) -> None:
        known = ", ".join(map(str, sorted(spoken)))
        info = f" ({upgrade.info})" if upgrade.info else ""
        super().__init__(
            f"this node must be upgraded: height {height} needs protocol version "
            f"{upgrade.version}, and this software speaks {known}{info}"
        )
        self.height = height
        self.version = upgrade.version
        self.info = upgrade.info


def read_upgrade_state(state: StateReader) -> UpgradeState:
    """In force and scheduled."""
    row = state.get(UPGRADE_KEY)
    return UpgradeState() if row is None else UpgradeState.decode(row)


def write_upgrade_state(state: StateView, upgrades: UpgradeState) -> None:
    state.put(UPGRADE_KEY, upgrades.encode())


def read_text(value: object, what: str, maximum: int, *, lines: bool = False) -> str:
    """Text of at most `maximum` characters without control characters (`lines`: line feeds may be
    in it), so that no text of the chain can drive a terminal. Raises InvalidInputError."""
    text = codec.read_str(value, what, maximum)
    if not _CONTROL.isdisjoint(text.replace("\n", "") if lines else text):
        raise InvalidInputError(f"{what} holds a control character", got=repr(text)[:80])
    return text


class UpgradeModule:
    """The `BlockModule` that puts an upgrade in force. Goes before all others."""

    def begin(self, context: BlockContext) -> None:
        """At its height, or later if this module came late, the scheduled upgrade counts."""
        due = read_upgrade_state(context.state).scheduled
        if due is None or context.height < due.height:
            return
        write_upgrade_state(context.state, UpgradeState(current=due))
        attributes = (("height", str(due.height)), ("version", str(due.version)))
        context.emit(Event("gov.upgraded", attributes))

    def end(self, context: BlockContext) -> None:
        """Nothing."""
