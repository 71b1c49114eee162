"""Files that say whom to trust (`--trust` of all commands), and the one that `zynk light` keeps.

Trust comes from a genesis file, or from a trust point, which names a header by its hash:

    {"type": "zynk-trust-point/1", "chain_id": text, "height": integer, "header_hash": hex of 32 B}

The kept file is replaced whole and synced after each verified head, so that a restart goes on from
there: ["zynk-light/2", chain_id, root, height, time_ms, header_hash, validator_set bin,
trusting_period_ms], where `root` is the genesis hash or the trust point's header hash: whoever
changes the trust file begins anew. It can be trusted itself, and needs no node then: it has the
validators that a trust point file leaves out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from genesis.document import GenesisDocument
from ledger import codec
from ledger.errors import InvalidInputError, UsageError
from ledger.light import TrustPoint
from ledger.tx import CHAIN_ID_MAX
from ledger.validator_set import VALIDATOR_SET_BYTES_MAX, ValidatorSet
from node.checkpoint import GENESIS_BYTES_MAX
from node.files import read_small, replace_file

TRUST_POINT_TYPE = "zynk-trust-point/1"
STATE_TAG = "zynk-light/2"
STATE_BYTES_MAX = VALIDATOR_SET_BYTES_MAX + 1024
TRUSTING_PERIOD_DEFAULT_MS = 14 * 24 * 3600 * 1000
_STATE_START = codec.encode([STATE_TAG] + [0] * 7)[: 2 + len(STATE_TAG)]
_TRUST_POINT_MEMBERS = {"type", "chain_id", "height", "header_hash"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRoot:
    """The first trust. `point` is None for a trust point file: its header has to be fetched."""

    chain_id: str
    root: bytes
    height: int
    trusting_period_ms: int
    point: TrustPoint | None


def load_trust_root(path: Path, trusting_period_ms: int | None) -> TrustRoot:
    """Read a genesis file, a trust point or a kept file. Without `trusting_period_ms` it is 2/3 of
    the genesis file's unbonding time, 14 days, or what is kept. Raises UsageError."""
    data = read_small(path, "trust file", GENESIS_BYTES_MAX)
    if data.startswith(_STATE_START):
        return _root_at(_read_state(data, path)[1], trusting_period_ms)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError("the trust file is not JSON", got=str(path)) from error
    if isinstance(value, dict) and value.get("type") == TRUST_POINT_TYPE:
        return _read_trust_point(value, trusting_period_ms or TRUSTING_PERIOD_DEFAULT_MS)
    try:
        state = GenesisDocument.parse(data).to_state()
    except InvalidInputError as error:
        raise UsageError(
            f"{path} is no genesis file, trust point or state of zynk light: {error.message}",
            expected=error.expected,
            got=error.got,
        ) from error
    unbonding_ms = state.params.unbonding_ms
    period_ms = trusting_period_ms or unbonding_ms * 2 // 3
    if period_ms >= unbonding_ms:
        raise UsageError(
            "the trusting period must be shorter than the chain's unbonding time",
            expected=f"less than {unbonding_ms} ms",
            got=f"{period_ms} ms",
        )
    point = TrustPoint(
        chain_id=state.chain_id,
        height=0,
        time_ms=state.time_ms,
        validators=state.validators,
        trusting_period_ms=period_ms,
        header_hash=state.genesis_hash,
    )
    return TrustRoot(
        chain_id=state.chain_id,
        root=state.genesis_hash,
        height=0,
        trusting_period_ms=period_ms,
        point=point,
    )


def _read_trust_point(value: dict[str, object], trusting_period_ms: int) -> TrustRoot:
    chain_id, height, header_hash = (value.get(k) for k in ("chain_id", "height", "header_hash"))
    if (
        value.keys() != _TRUST_POINT_MEMBERS
        or not isinstance(chain_id, str)
        or type(height) is not int
        or height < 1
        or not isinstance(header_hash, str)
        or re.fullmatch(r"[0-9a-f]{64}", header_hash) is None
    ):
        raise UsageError(
            "the trust point is malformed",
            expected=", ".join(sorted(_TRUST_POINT_MEMBERS)),
            got=", ".join(sorted(value))[:200],
        )
    return TrustRoot(
        chain_id=chain_id,
        root=bytes.fromhex(header_hash),
        height=height,
        trusting_period_ms=trusting_period_ms,
        point=None,
    )


def _root_at(point: TrustPoint, trusting_period_ms: int | None) -> TrustRoot:
    period_ms = trusting_period_ms or point.trusting_period_ms
    return TrustRoot(
        chain_id=point.chain_id,
        root=point.header_hash,
        height=point.height,
        trusting_period_ms=period_ms,
        point=replace(point, trusting_period_ms=period_ms),
    )


def save_trust(path: Path, root: TrustRoot, point: TrustPoint) -> None:
    """Replace the kept file, synced. Raises DurabilityError."""
    data = codec.encode(
        [
            STATE_TAG,
            point.chain_id,
            root.root,
            point.height,
            point.time_ms,
            point.header_hash,
            point.validators.encoded,
            point.trusting_period_ms,
        ]
    )
    replace_file(path, data)


def load_trust(path: Path, root: TrustRoot) -> TrustPoint | None:
    """What `save_trust` kept for this root, or the root's own point; None if that is to be fetched.
    Raises UsageError for a file that is damaged or of another root."""
    if not path.exists():
        return root.point
    kept_root, point = _read_state(read_small(path, "light state", STATE_BYTES_MAX), path)
    if (point.chain_id, kept_root) != (root.chain_id, root.root):
        raise _unusable(path, InvalidInputError("it belongs to another trust file"))
    return replace(point, trusting_period_ms=root.trusting_period_ms)


def _read_state(data: bytes, path: Path) -> tuple[bytes, TrustPoint]:
    """(its root, the point that is kept). Raises UsageError."""
    try:
        value = codec.decode(data, bytes_max=STATE_BYTES_MAX)
        tag, chain_id, root, height, time_ms, header_hash, validators, period_ms = codec.read_array(
            value, 8, "light state"
        )
        if tag != STATE_TAG:
            raise InvalidInputError("it is of another version", expected=STATE_TAG)
        return codec.read_bytes(root, "root", length=32), TrustPoint(
            chain_id=codec.read_str(chain_id, "chain id", CHAIN_ID_MAX),
            height=codec.read_int(height, "height"),
            time_ms=codec.read_int(time_ms, "time"),
            validators=ValidatorSet.decode(
                codec.read_bytes(validators, "validator set", maximum=VALIDATOR_SET_BYTES_MAX)
            ),
            trusting_period_ms=codec.read_int(period_ms, "trusting period"),
            header_hash=codec.read_bytes(header_hash, "header hash", length=32),
        )
    except InvalidInputError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: InvalidInputError) -> UsageError:
    return UsageError(
        f"the kept light state can not be used: {error.message}; remove {path} to begin anew",
        expected=error.expected,
        got=error.got,
    )
