"""The genesis document: the JSON file that makes a chain this chain and no other.

{
  "version": 2,
  "chain_id": text, 1-64 of [a-z0-9.-],
  "genesis_time_ms": integer, Unix milliseconds,
  "params": {each field of ledger.params.ChainParams: integer},
  "validators": [{"name": text, "operator": Multikey, "consensus_key": Multikey,
                  "vrf_key": Multikey, "cosign_key": Multikey, "commission_ppm": integer,
                  "bond": "decimal uzynk",
                  "signatures": {"operator": hex, "consensus": hex, "vrf": hex, "cosign": hex}},
                 ...],
  "accounts": [{"id": Multikey, "balance": "decimal uzynk"}, ...]
}

The genesis hash is H("genesis", JCS bytes) (RFC 8785): spacing and the order of names don't count,
everything else does, the order of the lists included. Amounts are u64, which JSON numbers can't
carry exactly, so they are decimal strings.

A validator's entry is what its operator signed alone, on its own machine (`genesis.gentx`): nobody
who collects entries can change one. The bond is taken from the operator's account.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import rfc8785

from genesis.gentx import SIGNERS, GenesisValidator, verify_genesis_validator
from ledger.accounts import decode_account_id, encode_account_id
from ledger.codec import U64_MAX, hash_tagged
from ledger.errors import InvalidInputError
from ledger.genesis_state import GenesisState
from ledger.params import PARAM_NAMES, PPM, ChainParams
from ledger.staking_genesis import GenesisStake, genesis_staking
from ledger.validator_set import VALIDATORS_MAX

DOCUMENT_VERSION = 2
DOCUMENT_BYTES_MAX = 256 * 1024 * 1024
NESTING_MAX = 4
NAME_MAX = 64
TIME_MS_MAX = 2**53 - 1
ACCOUNTS_MAX = 1_000_000

_CHAIN_ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisAccount:
    """An account (Ed25519 key, 32 B) and what it holds at height 0, in uzynk."""

    id: bytes
    balance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisDocument:
    """See the module docstring. Build one by hand, or with `parse`."""

    chain_id: str
    genesis_time_ms: int
    params: ChainParams
    validators: tuple[GenesisValidator, ...]
    accounts: tuple[GenesisAccount, ...]

    @classmethod
    def parse(cls, data: bytes) -> GenesisDocument:
        """Read the file's bytes. Raises InvalidInputError that names the field."""
        document = cls.parse_draft(data)
        for what in ("validators", "accounts"):
            if not getattr(document, what):
                raise InvalidInputError(f"genesis field {what} is empty", expected="at least one")
        document.to_state()  # sums, duplicates, sizes
        return document

    @classmethod
    def parse_draft(cls, data: bytes) -> GenesisDocument:
        """Read a file that is still being made: each entry is right, the whole need not be. Raises
        InvalidInputError that names the field."""
        root = _fields(
            _load_json(data),
            ("version", "chain_id", "genesis_time_ms", "params", "validators", "accounts"),
            "genesis",
        )
        _integer(root["version"], "version", DOCUMENT_VERSION, DOCUMENT_VERSION)
        chain_id = _text(root["chain_id"], "chain_id")
        if not _CHAIN_ID.fullmatch(chain_id):
            raise _bad("chain_id", "1-64 of a-z 0-9 . -, not beginning with . or -", chain_id)
        params = _fields(root["params"], PARAM_NAMES, "params")
        document = cls(
            chain_id=chain_id,
            genesis_time_ms=_integer(root["genesis_time_ms"], "genesis_time_ms", 0, TIME_MS_MAX),
            params=_params(params),
            validators=tuple(
                _validator(item, f"validators[{i}]")
                for i, item in enumerate(_list(root["validators"], "validators", VALIDATORS_MAX))
            ),
            accounts=tuple(
                _account(item, f"accounts[{i}]")
                for i, item in enumerate(_list(root["accounts"], "accounts", ACCOUNTS_MAX))
            ),
        )
        for index, validator in enumerate(document.validators):
            verify_genesis_validator(validator, chain_id, f"validators[{index}]")
        return document

    def with_more(
        self,
        *,
        validators: Sequence[GenesisValidator] = (),
        accounts: Sequence[GenesisAccount] = (),
    ) -> GenesisDocument:
        """A draft with more entries, each list in the order of its accounts, so that the same
        entries give the same genesis hash whoever collects them. Raises InvalidInputError for an
        account that is there already."""
        document = replace(
            self,
            validators=tuple(
                sorted((*self.validators, *validators), key=lambda v: v.stake.operator)
            ),
            accounts=tuple(sorted((*self.accounts, *accounts), key=lambda a: a.id)),
        )
        for what, ids in (
            ("an account", [a.id for a in document.accounts]),
            ("a validator", [v.stake.operator for v in document.validators]),
        ):
            if len(set(ids)) != len(ids):
                twice = next(i for i in ids if ids.count(i) > 1)
                raise InvalidInputError(
                    f"genesis has {what} of that name already", got=encode_account_id(twice)
                )
        return document

    def to_value(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "version": DOCUMENT_VERSION,
            "chain_id": self.chain_id,
            "genesis_time_ms": self.genesis_time_ms,
            "params": {name: getattr(self.params, name) for name in PARAM_NAMES},
            "validators": [v.to_value() for v in self.validators],
            "accounts": [
                {"id": encode_account_id(a.id), "balance": str(a.balance)} for a in self.accounts
            ],
        }

    def encode(self) -> bytes:
        """Indented JSON for a file; `parse` is the inverse."""
        return (json.dumps(self.to_value(), indent=2) + "\n").encode()

    def compute_hash(self) -> bytes:
        """The genesis hash, 32 B."""
        return hash_tagged("genesis", rfc8785.dumps(self.to_value()))

    def to_state(self) -> GenesisState:
        """What the ledger starts from. Raises InvalidInputError for sets and sums out of range."""
        staking = genesis_staking([v.stake for v in self.validators], self.params)
        return GenesisState(
            chain_id=self.chain_id,
            genesis_hash=self.compute_hash(),
            params=self.params,
            validators=staking.validators,
            accounts=self._accounts_after_bonding(),
            time_ms=self.genesis_time_ms,
            module_rows=staking.rows,
            pooled=staking.pooled,
        )

    def _accounts_after_bonding(self) -> tuple[tuple[bytes, int], ...]:
        balances = {a.id: a.balance for a in self.accounts}
        if len(balances) != len(self.accounts):
            raise InvalidInputError("genesis names an account twice")
        for index, validator in enumerate(self.validators):
            stake = validator.stake
            left = balances.get(stake.operator, 0) - stake.bond
            if left < 0:
                raise _bad(
                    f"validators[{index}].bond",
                    "at most the balance of the operator's account",
                    str(stake.bond),
                )
            balances[stake.operator] = left
        return tuple(balances.items())


def _load_json(data: bytes) -> object:
    if len(data) > DOCUMENT_BYTES_MAX:
        raise InvalidInputError(
            "genesis is too long", expected=f"at most {DOCUMENT_BYTES_MAX} B", got=f"{len(data)} B"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInputError("genesis is not UTF-8 text", got=str(error)) from error
    _check_nesting(text)
    try:
        return json.loads(
            text, object_pairs_hook=_unique_object, parse_float=_no_float, parse_constant=_no_float
        )
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("genesis is not JSON", got=str(error)) from error


def _check_nesting(text: str) -> None:
    """Bound the depth before the parser recurses. Quoted text is skipped."""
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text):
        first = token.group()[0]
        if first in "[{":
            depth += 1
            if depth > NESTING_MAX:
                raise InvalidInputError("genesis is nested too deep", expected=f"<= {NESTING_MAX}")
        elif first in "]}":
            depth -= 1


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError("genesis names a field twice", got=twice)
    return found


def _no_float(text: str) -> int:
    raise InvalidInputError("genesis holds a number that is no integer", got=text)


def _bad(field: str, expected: str, got: object) -> InvalidInputError:
    return InvalidInputError(
        f"genesis field {field} is wrong", expected=expected, got=repr(got)[:80]
    )


def _fields(value: object, names: tuple[str, ...], what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad(what, "an object", value)
    for name in names:
        if name not in value:
            raise InvalidInputError(f"genesis field {what}.{name} is missing")
    for name in value:
        if name not in names:
            raise InvalidInputError(f"genesis field {what}.{name[:40]} is unknown")
    return value


def _list(value: object, what: str, count_max: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > count_max:
        raise _bad(what, f"a list of at most {count_max} items", value)
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_MAX or not value.isprintable():
        raise _bad(what, f"1..{NAME_MAX} printable characters", value)
    return value


def _integer(value: object, what: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _bad(what, f"an integer in {low}..{high}", value)
    return value


def _decimal(value: object, what: str, low: int, high: int) -> int:
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value) or not low <= int(value) <= high:
        raise _bad(what, f'a decimal string in "{low}".."{high}"', value)
    return int(value)


def _key(value: object, what: str) -> bytes:
    try:
        return decode_account_id(value)  # type: ignore[arg-type]  # it judges any value
    except InvalidInputError as error:
        raise _bad(what, error.expected, value) from error


def _params(values: Mapping[str, Any]) -> ChainParams:
    try:
        return ChainParams(**values)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"genesis field params is wrong: {error.message}",
            expected=error.expected,
            got=error.got,
        ) from error


def _validator(value: object, what: str) -> GenesisValidator:
    names = ("name", "operator", "consensus_key", "vrf_key", "cosign_key", "commission_ppm")
    fields = _fields(value, (*names, "bond", "signatures"), what)
    signatures = _fields(fields["signatures"], SIGNERS, f"{what}.signatures")
    return GenesisValidator(
        stake=GenesisStake(
            name=_text(fields["name"], f"{what}.name"),
            operator=_key(fields["operator"], f"{what}.operator"),
            consensus_key=_key(fields["consensus_key"], f"{what}.consensus_key"),
            vrf_key=_key(fields["vrf_key"], f"{what}.vrf_key"),
            cosign_key=_key(fields["cosign_key"], f"{what}.cosign_key"),
            commission_ppm=_integer(fields["commission_ppm"], f"{what}.commission_ppm", 0, PPM),
            bond=_decimal(fields["bond"], f"{what}.bond", 1, U64_MAX),
        ),
        signatures=tuple(
            _signature(signatures[name], f"{what}.signatures.{name}") for name in SIGNERS
        ),
    )


def parse_genesis_validator(data: bytes) -> GenesisValidator:
    """Read one entry by itself (a gentx file). Raises InvalidInputError that names the field."""
    return _validator(_load_json(data), "validator")


def encode_genesis_validator(validator: GenesisValidator) -> bytes:
    """Inverse of `parse_genesis_validator`: indented JSON for a file."""
    return (json.dumps(validator.to_value(), indent=2) + "\n").encode()


def _signature(value: object, what: str) -> bytes:
    if not isinstance(value, str) or not _SIGNATURE.fullmatch(value):
        raise _bad(what, "64 bytes in lower-case hex", value)
    return bytes.fromhex(value)


def _account(value: object, what: str) -> GenesisAccount:
    fields = _fields(value, ("id", "balance"), what)
    return GenesisAccount(
        id=_key(fields["id"], f"{what}.id"),
        balance=_decimal(fields["balance"], f"{what}.balance", 0, U64_MAX),
    )
