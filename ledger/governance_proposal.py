"""Proposals: what they change, how they travel and how the state keeps them (adr/0008).

    gov/propose    [title, summary, change]
    gov/vote       [proposal id, operator, choice]

    change    [0, [[parameter name, value], ...]]    parameters take these values, together
              [1, [height, version, info]]           an upgrade; it replaces a scheduled one
              [2, height]                            no upgrade at that height
    choice    1 yes, 2 no, 3 abstain

Row `gov-proposal | id u64 BE`: a `Proposal`. It stays when the proposal is closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, assert_never

from ledger import codec
from ledger.accounts import ACCOUNT_ID_BYTES
from ledger.errors import InvalidInputError
from ledger.params import PARAM_NAMES, PPM, ChainParams
from ledger.tx_result import CODE_MAX
from ledger.upgrade import INFO_MAX, Upgrade, read_text

TITLE_MAX, SUMMARY_MAX = 140, 2000
PARAM_NAME_MAX = 64
CHANGE_BYTES_MAX = max(len(PARAM_NAMES) * (PARAM_NAME_MAX + 16), 4 * INFO_MAX + 32)
PROPOSE_BYTES_MAX = 4 * (TITLE_MAX + SUMMARY_MAX) + CHANGE_BYTES_MAX + 32
VOTE_BODY_BYTES_MAX = 64
PROPOSAL_BYTES_MAX = PROPOSE_BYTES_MAX + CODE_MAX + 256


class Choice(IntEnum):
    """How stake votes."""

    YES = 1
    NO = 2
    ABSTAIN = 3


class Status(IntEnum):
    """`FAILED`: it was accepted, but what it changes did not fit any more."""

    OPEN = 1
    PASSED = 2
    REJECTED = 3
    NO_QUORUM = 4
    FAILED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamsChange:
    """New values of parameters, by name."""

    values: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeChange:
    """Schedule an upgrade, in the place of one that is scheduled."""

    upgrade: Upgrade


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelChange:
    """Forget the upgrade that is scheduled for `height`."""

    height: int


Change = ParamsChange | UpgradeChange | CancelChange


def change_to_value(change: Change) -> list[codec.Value]:
    """The array of the module docstring."""
    match change:
        case ParamsChange():
            return [0, [list(pair) for pair in change.values]]
        case UpgradeChange():
            return [1, change.upgrade.to_value()]
        case CancelChange():
            return [2, change.height]
        case _:
            assert_never(change)


def change_from_value(value: object) -> Change:
    """Inverse of `change_to_value`. Raises InvalidInputError."""
    kind, content = codec.read_array(value, 2, "change")
    kind = codec.read_int(kind, "kind of change", 2)
    if kind == 0:
        return ParamsChange(values=_read_values(content))
    if kind == 1:
        return UpgradeChange(upgrade=Upgrade.from_value(content))
    return CancelChange(height=codec.read_int(content, "height of the cancelled upgrade"))


def _read_values(value: object) -> tuple[tuple[str, int], ...]:
    found: dict[str, int] = {}
    for item in codec.read_list(value, len(PARAM_NAMES), "changed parameters"):
        name, number = codec.read_array(item, 2, "changed parameter")
        name = codec.read_str(name, "parameter name", PARAM_NAME_MAX)
        if name not in PARAM_NAMES or name in found:
            raise InvalidInputError(
                "changed parameter is unknown, or named twice", got=repr(name)[:80]
            )
        found[name] = codec.read_int(number, f"parameter {name}")
    if not found:
        raise InvalidInputError("change names no parameter", expected="at least one")
    return tuple(found.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeBody:
    """`gov/propose`: text for people, and what is to change."""

    title: str
    summary: str
    change: Change

    def to_value(self) -> list[codec.Value]:
        return [self.title, self.summary, change_to_value(self.change)]

    @classmethod
    def from_value(cls, value: object) -> ProposeBody:
        """Inverse of `to_value`. Raises InvalidInputError."""
        title, summary, change = codec.read_array(value, 3, "proposal")
        if not title:
            raise InvalidInputError("proposal has no title")
        return cls(
            title=read_text(title, "proposal title", TITLE_MAX),
            summary=read_text(summary, "proposal summary", SUMMARY_MAX, lines=True),
            change=change_from_value(change),
        )

    def encode(self) -> bytes:
        return codec.encode(self.to_value())

    @classmethod
    def decode(cls, data: bytes) -> ProposeBody:
        """Inverse of `encode`. Raises InvalidInputError."""
        return cls.from_value(codec.decode(data, bytes_max=PROPOSE_BYTES_MAX))


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteBody:
    """`gov/vote`: of the payer's stake with `operator`; by the operator itself, of all that is
    with it and does not vote for itself."""

    proposal_id: int
    operator: bytes
    choice: Choice

    def encode(self) -> bytes:
        return codec.encode([self.proposal_id, self.operator, int(self.choice)])

    @classmethod
    def decode(cls, data: bytes) -> VoteBody:
        """Inverse of `encode`. Raises InvalidInputError."""
        proposal_id, operator, choice = codec.read_array(
            codec.decode(data, bytes_max=VOTE_BODY_BYTES_MAX), 3, "vote on a proposal"
        )
        return cls(
            proposal_id=codec.read_int(proposal_id, "proposal id"),
            operator=codec.read_bytes(operator, "operator", length=ACCOUNT_ID_BYTES),
            choice=read_choice(choice),
        )


def read_choice(value: object) -> Choice:
    """Raises InvalidInputError."""
    number = codec.read_int(value, "choice", len(Choice))
    if not number:
        raise InvalidInputError("choice is malformed", expected="1..3", got="0")
    return Choice(number)


class Tally(NamedTuple):
    """The uzynk behind each choice, and all that is bonded."""

    yes: int
    no: int
    abstain: int
    bonded: int

    def has_quorum(self, params: ChainParams) -> bool:
        """Enough of the bonded tokens voted."""
        voted = self.yes + self.no + self.abstain
        return voted * PPM >= params.gov_quorum_ppm * self.bonded

    def is_accepted(self, params: ChainParams) -> bool:
        """Yes is strictly more than the threshold of yes and no."""
        return self.yes * PPM > params.gov_threshold_ppm * (self.yes + self.no)


NO_TALLY = Tally(0, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A proposal as the state holds it. `deposit` uzynk are in `pool/deposits` while it is open.
    Votes count until the first block at or after `end_ms`. When closed: `tally`, `closed_height`
    and, if it failed, the `code` of what did not fit."""

    id: int
    proposer: bytes
    deposit: int
    body: ProposeBody
    opened_height: int
    opened_ms: int
    end_ms: int
    status: Status = Status.OPEN
    closed_height: int = 0
    code: str = ""
    tally: Tally = NO_TALLY

    def encode(self) -> bytes:
        return codec.encode(
            [
                self.id,
                [self.proposer, self.deposit],
                self.body.to_value(),
                [self.opened_height, self.opened_ms, self.end_ms],
                [int(self.status), self.closed_height, self.code],
                list(self.tally),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> Proposal:
        """Inverse of `encode`. Raises InvalidInputError."""
        number, by, body, opened, closed, tally = codec.read_array(
            codec.decode(data, bytes_max=PROPOSAL_BYTES_MAX), 6, "proposal row"
        )
        proposer, deposit = codec.read_array(by, 2, "proposer")
        height, opened_ms, end_ms = codec.read_array(opened, 3, "proposal times")
        status, closed_height, code = codec.read_array(closed, 3, "proposal end")
        status = codec.read_int(status, "proposal status", len(Status))
        if not status:
            raise InvalidInputError("proposal status is malformed", expected="1..5", got="0")
        return cls(
            id=codec.read_int(number, "proposal id"),
            proposer=codec.read_bytes(proposer, "proposer", length=ACCOUNT_ID_BYTES),
            deposit=codec.read_int(deposit, "deposit"),
            body=ProposeBody.from_value(body),
            opened_height=codec.read_int(height, "proposal height"),
            opened_ms=codec.read_int(opened_ms, "proposal time"),
            end_ms=codec.read_int(end_ms, "end of voting"),
            status=Status(status),
            closed_height=codec.read_int(closed_height, "closing height"),
            code=codec.read_str(code, "proposal code", CODE_MAX),
            tally=Tally(*(codec.read_int(n, "tally") for n in codec.read_array(tally, 4, "tally"))),
        )
