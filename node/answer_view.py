"""The state rows that an answer follows from, each with its proof: written down, and read again.

An answer about stake or governance is a function of state rows alone. A node runs that function
over an `AnswerView`, which notes each row (or its absence) that was read, and gives the rows with
the answer. Whoever has the answer runs the same function over a `ShownView` of those rows, which
holds each against the state root of one final header, and so comes to the answer by itself:
nothing in it is believed, and a row that was left out is noticed. `zynk light` does that.

What no row of the state lists (validators that are no candidates, delegators) is the answer's
`listed`: a `Lister` gives it, a node by walking its tree, a light client from the answer. Each
listed key is proven like the rest; that none is left out is not.

    answer = {"height", ..., "listed"?: [hex], "rows": [row], "finality": base64url}
    row    = {"key": base64url, "value": base64url or null, "state_proof": base64url}

An item's own row is its member `row`, not in `rows`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, Protocol

from ledger.chain import Chain
from ledger.errors import InvalidInputError
from ledger.finality import FinalityProof
from ledger.staking_rows import DELEGATION_PREFIX, VALIDATOR_PREFIX
from ledger.state import verify_state_proof
from rpc.params import bytes_of_text, text_of_bytes


class Page(NamedTuple):
    """Keys in ascending order, and whether there are more."""

    keys: list[bytes]
    has_more: bool


class Lister(Protocol):
    """What no row of the state lists. `skip` and `count` cut the page."""

    def validators_beside(self, candidates: Collection[bytes], skip: int, count: int) -> Page:
        """The operators of all validators but `candidates`."""

    def delegators_of(self, operator: bytes, skip: int, count: int) -> Page:
        """Who has a delegation with a validator."""


class RowSource(Protocol):
    """State rows after one final height, each with its proof (as `ledger.views.ProvenView`)."""

    height: int
    time_ms: int
    finality: FinalityProof

    def prove(self, key: bytes) -> tuple[bytes | None, bytes]: ...


class AnswerView:
    """Reads rows from a source and notes each."""

    def __init__(self, source: RowSource) -> None:
        self.height = source.height
        self.time_ms = source.time_ms
        self.finality = source.finality
        self._source = source
        self._rows: dict[bytes, tuple[bytes | None, bytes]] = {}
        self._shown: set[bytes] = set()

    @property
    def rows_count(self) -> int:
        """How many rows the answer follows from so far."""
        return len(self._rows)

    def get(self, key: bytes) -> bytes | None:
        if key not in self._rows:
            self._rows[key] = self._source.prove(key)
        return self._rows[key][0]

    def item_row(self, key: bytes) -> dict[str, object]:
        """The member `row` of an item."""
        self.get(key)
        self._shown.add(key)
        return {"row": _row_json(key, *self._rows[key])}

    def answer(self, **members: object) -> dict[str, object]:
        """The whole answer."""
        rows = [_row_json(k, *row) for k, row in self._rows.items() if k not in self._shown]
        return {
            "height": self.height,
            **members,
            "rows": rows,
            "finality": text_of_bytes(self.finality.encode()),
        }


def _row_json(key: bytes, value: bytes | None, state_proof: bytes) -> dict[str, object]:
    return {
        "key": text_of_bytes(key),
        "value": None if value is None else text_of_bytes(value),
        "state_proof": text_of_bytes(state_proof),
    }


class ShownView:
    """A `RowSource` of the rows in an answer, under a header that the caller relies on. A row that
    is not there or not proven raises InvalidInputError when it is read."""

    def __init__(self, finality: FinalityProof, rows: Mapping[bytes, Mapping[str, Any]]) -> None:
        self.height = finality.header.height
        self.time_ms = finality.header.time_ms
        self.finality = finality
        self._rows = rows

    @classmethod
    def of_answer(cls, finality: FinalityProof, answer: Mapping[str, Any]) -> ShownView:
        """All rows of an answer: its own, its items' and `rows`. Raises InvalidInputError."""
        rows: dict[bytes, Mapping[str, Any]] = {}
        for row in _find_rows(answer):
            if not isinstance(row, dict):
                raise InvalidInputError("a state row is malformed", expected="an object")
            rows[_bytes_of(row.get("key"))] = row
        return cls(finality, rows)

    def prove(self, key: bytes) -> tuple[bytes | None, bytes]:
        row = self._rows.get(key)
        if row is None:
            raise InvalidInputError("the answer lacks a state row that it needs", got=key.hex())
        value = None if row.get("value") is None else _bytes_of(row.get("value"))
        state_proof = _bytes_of(row.get("state_proof"))
        verify_state_proof(self.finality.header.state_root, key, value, state_proof)
        return value, state_proof


def _find_rows(answer: Mapping[str, Any]) -> Iterator[object]:
    if "row" in answer:
        yield answer["row"]
    for name, member in answer.items():
        if isinstance(member, list):
            if name == "rows":
                yield from member
            else:
                yield from (
                    item["row"] for item in member if isinstance(item, dict) and "row" in item
                )


def _bytes_of(text: object) -> bytes:
    if not isinstance(text, str):
        raise InvalidInputError("a state row is malformed", expected="base64url")
    try:
        return bytes_of_text(text)
    except ValueError as error:
        raise InvalidInputError("a state row is malformed", expected="base64url") from error


class ChainLister:
    """A node's own: it walks the tree of the tip."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def validators_beside(self, candidates: Collection[bytes], skip: int, count: int) -> Page:
        found = (o for o in self._keys(VALIDATOR_PREFIX) if o not in candidates)
        return _cut(found, skip, count)

    def delegators_of(self, operator: bytes, skip: int, count: int) -> Page:
        return _cut(self._keys(DELEGATION_PREFIX + operator), skip, count)

    def delegations(self, skip: int, count: int) -> Page:
        """Of everybody: operator and delegator, one after the other."""
        return _cut(self._keys(DELEGATION_PREFIX), skip, count)

    def _keys(self, prefix: bytes) -> Iterator[bytes]:
        return (key[len(prefix) :] for key, _ in self._chain.tree.iterate(prefix))


def _cut(keys: Iterator[bytes], skip: int, count: int) -> Page:
    found = list(islice(keys, skip, skip + count + 1))
    return Page(found[:count], len(found) > count)


class ShownLister:
    """A light client's: what an answer lists."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        """Raises InvalidInputError for a list that is malformed or out of order."""
        listed = answer.get("listed", [])
        if not isinstance(listed, list):
            raise InvalidInputError("what the answer lists is malformed", expected="a list")
        self._keys = [_key_of_hex(text) for text in listed]
        self._has_more = answer.get("next_cursor") is not None
        if any(a >= b for a, b in zip(self._keys, self._keys[1:], strict=False)):
            raise InvalidInputError("what the answer lists is not in order")

    def validators_beside(self, candidates: Collection[bytes], skip: int, count: int) -> Page:
        if any(key in candidates for key in self._keys):
            raise InvalidInputError("the answer lists a candidate twice")
        return self._page(count)

    def delegators_of(self, operator: bytes, skip: int, count: int) -> Page:
        return self._page(count)

    def _page(self, count: int) -> Page:
        if len(self._keys) > count or (self._has_more and len(self._keys) < count):
            raise InvalidInputError(
                "the answer's page is not full", expected=str(count), got=str(len(self._keys))
            )
        return Page(self._keys, self._has_more)


def _key_of_hex(text: object) -> bytes:
    if not isinstance(text, str) or len(text) != 64:
        raise InvalidInputError("what the answer lists is malformed", expected="64 hex digits")
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise InvalidInputError(
            "what the answer lists is malformed", expected="64 hex digits"
        ) from error
