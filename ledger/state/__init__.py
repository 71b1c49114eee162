"""The authenticated state tree over the store."""

from ledger.state.multiproof import verify_state_multiproof
from ledger.state.overlay import Overlay
from ledger.state.proof import state_key, verify_state_proof
from ledger.state.tree import StateTree

__all__ = ["Overlay", "StateTree", "state_key", "verify_state_multiproof", "verify_state_proof"]
