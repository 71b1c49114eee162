"""The message types that a node executes: one table, used by the daemon, tools and benchmarks."""

from __future__ import annotations

from audit.anchor import AnchorHandler
from audit.frontier import FrontierLog
from audit.stream import StreamHandler
from did.authority import DidControlAuthority
from did.handler import DidHandler
from ledger.accounts import TransferHandler
from ledger.execution import AuditLog, TxHandler

AUDIT_LOG: AuditLog = FrontierLog()


def build_handlers() -> dict[str, TxHandler]:
    """Handlers by message type."""
    handlers: list[TxHandler] = [
        TransferHandler(),
        DidHandler(),
        StreamHandler(DidControlAuthority()),
        AnchorHandler(),
    ]
    return {handler.type: handler for handler in handlers}
