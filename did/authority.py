"""Who may act for a DID elsewhere (audit streams): the current control keys, by threshold."""

from __future__ import annotations

from collections.abc import Sequence

from did.multikey import decode_multikey
from did.operation import is_satisfied
from did.record import ControlState, Record, Status, control_key, record_key
from did.syntax import decode_did
from ledger.ed25519 import is_valid_signature
from ledger.errors import InvalidInputError
from ledger.execution import StateView, TxFailure


class DidControlAuthority:
    """Implements `ledger.views.DidAuthority` on the state rows of `did.record`."""

    def verify_authority(
        self,
        state: StateView,
        did: str,
        message: bytes,
        signatures: Sequence[tuple[str, bytes]],
    ) -> None:
        """Raise TxFailure (`did/not-found`, `did/deactivated`, `did/not-authorised`) unless the
        signatures over `message` reach the control threshold. No key may sign twice, and a bad or
        foreign signature spoils the lot. The caller puts its own domain tag into `message`."""
        try:
            identifier = decode_did(did)
        except InvalidInputError as error:
            raise TxFailure("did/not-found", str(error)) from error
        record_bytes = state.get(record_key(identifier))
        control_bytes = state.get(control_key(identifier))
        if record_bytes is None or control_bytes is None:
            raise TxFailure("did/not-found", "no such DID", got=did)
        if Record.decode(record_bytes).status is Status.DEACTIVATED:
            raise TxFailure("did/deactivated", "DID is deactivated", got=did)
        required = ControlState.decode(control_bytes).control.current
        try:
            pairs = [(decode_multikey(key), signature) for key, signature in signatures]
        except InvalidInputError as error:
            raise TxFailure("did/not-authorised", str(error)) from error
        if not is_satisfied(required, (key for key, _ in pairs)) or not all(
            is_valid_signature(key, message, signature) for key, signature in pairs
        ):
            raise TxFailure(
                "did/not-authorised",
                "not signed by the DID's control keys",
                expected=f"{required.threshold} of {len(required.keys)} keys",
                got=f"{len(pairs)} signatures",
            )
