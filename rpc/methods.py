"""The table of methods. Names and parameters are interfaces: they only ever grow (docs/rpc.md)."""

from __future__ import annotations

from rpc.methods_audit import AUDIT_METHODS
from rpc.methods_chain import CHAIN_METHODS, NODE_METHODS
from rpc.methods_did import DID_METHODS
from rpc.methods_gov import GOV_METHODS
from rpc.methods_stake import EVIDENCE_METHODS, STAKE_METHODS
from rpc.methods_tx import TX_METHODS
from rpc.registry import Method

METHODS: tuple[Method, ...] = (
    *NODE_METHODS,
    *CHAIN_METHODS,
    *TX_METHODS,
    *DID_METHODS,
    *AUDIT_METHODS,
    *STAKE_METHODS,
    *EVIDENCE_METHODS,
    *GOV_METHODS,
)
