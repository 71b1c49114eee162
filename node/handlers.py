"""What a node executes, message types and block modules: one table, used by the daemon, tools and
benchmarks."""

from __future__ import annotations

from collections.abc import Collection

from audit.anchor import AnchorHandler
from audit.frontier import FrontierLog
from audit.stream import StreamHandler
from consensus.accountability import AccountabilityModule
from consensus.beacon import BeaconModule
from consensus.liveness import LivenessModule
from did.authority import DidControlAuthority
from did.handler import DidHandler
from ledger.accounts import TransferHandler
from ledger.block import PROTOCOL_VERSIONS
from ledger.certificate import SignatureCheck
from ledger.chain import Chain, CommitRows
from ledger.ed25519 import is_valid_signature
from ledger.execution import AuditLog, BlockModule, TxHandler
from ledger.genesis_state import GenesisState
from ledger.governance import GovernanceModule, governance_handlers
from ledger.staking_candidates import touch_candidates
from ledger.staking_handlers import stake_handlers
from ledger.staking_module import StakingModule
from ledger.store import Store
from ledger.upgrade import UpgradeModule

AUDIT_LOG: AuditLog = FrontierLog()


def build_handlers(chain_id: str) -> dict[str, TxHandler]:
    """Handlers of a chain by message type."""
    handlers: list[TxHandler] = [
        TransferHandler(),
        DidHandler(),
        StreamHandler(DidControlAuthority()),
        AnchorHandler(),
    ]
    return {
        **{handler.type: handler for handler in handlers},
        **stake_handlers(chain_id),
        **governance_handlers(),
    }


def build_modules(signature_check: SignatureCheck = is_valid_signature) -> tuple[BlockModule, ...]:
    """Block modules, in their order (docs/adr/0008-proof-of-stake.md)."""
    return (
        UpgradeModule(),
        BeaconModule(),
        AccountabilityModule(),
        LivenessModule(signature_check),
        StakingModule(),
        GovernanceModule(on_params_changed=touch_candidates),
    )


def open_chain(
    store: Store,
    genesis: GenesisState,
    commit_rows: CommitRows | None = None,
    *,
    protocol_versions: Collection[int] = PROTOCOL_VERSIONS,
    signature_check: SignatureCheck = is_valid_signature,
) -> Chain:
    """A chain that executes all of it. `signature_check` is asked about votes: those of parent
    certificates and late ones. Raises as `Chain.open`."""
    handlers = build_handlers(genesis.chain_id)
    chain = Chain.open(
        store,
        genesis,
        handlers,
        AUDIT_LOG,
        commit_rows,
        build_modules(signature_check),
        protocol_versions=protocol_versions,
    )
    chain.signature_check = signature_check
    return chain
