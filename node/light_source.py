"""An RPC endpoint as a light client sees it: bytes that prove themselves, or none.

Nothing that comes from here is believed. A malformed answer raises InvalidInputError; an endpoint
that is silent or refuses raises RpcConnectionError or RpcError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ledger.block import Header
from ledger.errors import InvalidInputError
from ledger.finality import FinalityProof
from ledger.light import LightBlock
from ledger.validator_set import ValidatorSet
from rpc.client import RpcClient
from rpc.params import bytes_of_text

SETS_KEPT_MAX = 64
TIMEOUT_S = 20.0


class Source(Protocol):
    """Where light blocks and proofs come from. `url` names it for people."""

    url: str

    async def call(self, method: str, **params: object) -> Mapping[str, Any]: ...
    async def finality(self, height: int | None, trusted_height: int) -> bytes: ...
    async def light_block(self, height: int) -> bytes: ...
    async def certificates(self, height: int) -> list[bytes]: ...
    async def close(self) -> None: ...


class Endpoint:
    """A `Source` over JSON-RPC."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        self._client = RpcClient(url, timeout_s=timeout_s)
        self._sets: dict[bytes, ValidatorSet] = {}

    async def close(self) -> None:
        await self._client.close()

    async def call(self, method: str, **params: object) -> Mapping[str, Any]:
        """The answer, which is at least an object."""
        answer = await self._client.call(method, **params)
        if not isinstance(answer, dict):
            raise InvalidInputError("the answer is not an object", got=type(answer).__name__)
        return answer

    async def finality(self, height: int | None, trusted_height: int) -> bytes:
        """Why the header of `height` (None: the newest) is final, wire bytes."""
        answer = await self.call("chain_header", block=height, trusted_height=trusted_height)
        return read_blob(answer, "finality")

    async def light_block(self, height: int) -> bytes:
        """The light block of `height`, wire bytes."""
        proof = FinalityProof.decode(await self.finality(height, height))
        header = proof.header
        if header.height != height:
            raise InvalidInputError(
                "the answer is about another height", expected=str(height), got=str(header.height)
            )
        validators = await self._validators(height, header.validators_hash)
        following = (
            validators
            if header.next_validators_hash == header.validators_hash
            else await self._validators(height + 1, header.next_validators_hash)
        )
        return LightBlock(
            header=header,
            certificate=proof.certificate,
            validators=validators,
            next_validators=following,
        ).encode()

    async def certificates(self, height: int) -> list[bytes]:
        """What is kept of `height` beside its finalization, wire bytes: it may name who made a
        fork there."""
        answer = await self.call("chain_certificate", block=height)
        return read_blobs(answer, "others")

    async def _validators(self, height: int, set_hash: bytes) -> ValidatorSet:
        if set_hash not in self._sets:
            answer = await self.call("chain_validators", height=height, trusted_height=height)
            found = ValidatorSet.decode(read_blob(answer, "encoded"))
            if found.hash != set_hash:
                raise InvalidInputError("the validator set is not the one the header names")
            if len(self._sets) >= SETS_KEPT_MAX:
                self._sets.pop(next(iter(self._sets)))
            self._sets[set_hash] = found
        return self._sets[set_hash]


def read_blob(answer: Mapping[str, Any], name: str) -> bytes:
    """A base64url member. Raises InvalidInputError."""
    return _blob_of(answer.get(name), name)


def read_blobs(answer: Mapping[str, Any], name: str) -> list[bytes]:
    """A list of base64url members. Raises InvalidInputError."""
    texts = answer.get(name)
    if not isinstance(texts, list):
        raise InvalidInputError(f"the answer has no {name}", expected="a list of base64url")
    return [_blob_of(text, name) for text in texts]


def _blob_of(text: object, name: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidInputError(f"the answer has no {name}", expected="base64url")
    try:
        return bytes_of_text(text)
    except ValueError as error:
        raise InvalidInputError(f"{name} is not base64url", got=text[:40]) from error


def header_json(header: Header) -> dict[str, Any]:
    """A header's members as the RPC writes them."""
    return {
        name: value.hex() if isinstance(value, bytes) else value
        for name in header.__dataclass_fields__
        for value in [getattr(header, name)]
    }
