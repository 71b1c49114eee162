"""Asking endpoints for answers that prove themselves, one after the other until one does.

An answer is judged by the finality proof that it brings, from the verified head on; a header above
the head counts once a witness has it too. What does not verify is noted against the endpoint and
asked of the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from did.verify import decode_proof_finality
from ledger.errors import InvalidInputError, UsageError
from ledger.finality import FinalityProof
from ledger.light import Judgement, Verdict, judge_decoded
from ledger.params import PARAMS_KEY, ChainParams
from ledger.state import verify_state_proof
from node.answer_view import AnswerView, ShownLister, ShownView
from node.light_follow import AttackFound, Follower, judgement_of
from node.light_source import Source, read_blob
from rpc.api import proof_json
from rpc.errors import RpcCode, RpcConnectionError, RpcError

T = TypeVar("T")


class _NotVerified(Exception):
    """An answer's proof was judged, and is not to be relied on."""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__(judgement.reason)
        self.judgement = judgement


class Asker:
    """See the module docstring. The judging methods end the work on an endpoint that is wrong."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    async def ask(self, work: Callable[[Source], Awaitable[T]]) -> T:
        """The first verified answer. Raises RpcError: the endpoint's own refusal if it is all that
        came, else UNVERIFIED with the verdict as reason; after an attack always the latter."""
        failure: RpcError | None = None
        for source in list(self._follower.sources):
            try:
                if self._follower.attack is None:
                    return await work(source)
                raise self._follower.attack
            except AttackFound as error:
                raise RpcError(
                    RpcCode.UNVERIFIED, error.message, got=error.got, reason="light/attack"
                ) from error
            except _NotVerified as error:
                judgement = error.judgement
            except RpcError as error:
                failure = failure or error
                continue
            except (RpcConnectionError, InvalidInputError) as error:
                judgement = judgement_of(error)
            self._follower.note(source, judgement)
            failure = RpcError(
                RpcCode.UNVERIFIED,
                f"no endpoint gave an answer that verifies: {judgement.reason}",
                reason=f"light/{judgement.verdict}",
                got=source.url,
            )
        assert failure is not None, "there is at least one endpoint"
        raise failure

    async def judge(self, source: Source, proof: bytes, *, is_newest: bool) -> FinalityProof:
        """A finality proof of `source`, from wire bytes, that may be relied on."""
        try:
            decoded = FinalityProof.decode(proof)
        except InvalidInputError as error:
            judgement = Judgement(verdict=Verdict.WRONG, reason=str(error))
            raise _NotVerified(judgement) from error
        await self.judge_decoded(source, decoded, is_newest=is_newest)
        return decoded

    async def judge_decoded(self, source: Source, proof: FinalityProof, *, is_newest: bool) -> None:
        """As `judge`, for one that is decoded."""
        follower, trust = self._follower, self._follower.trust
        max_age_ms = follower.max_age_ms if is_newest else None
        _accept(judge_decoded(proof, trust, now_ms=follower.now_ms(), max_age_ms=max_age_ms))
        _accept(await follower.confirm(source, proof, trust))

    async def judge_did(self, source: Source, proof: object, *, is_newest: bool) -> None:
        """As `judge`, for the finality in a DID's proof object."""
        await self.judge_decoded(source, decode_proof_finality(proof), is_newest=is_newest)

    async def row(
        self, key: bytes, at_height: int | None, method: str, **params: object
    ) -> tuple[bytes | None, dict[str, object]]:
        """A verified state row (None: absent) and its proof member."""

        async def work(source: Source) -> tuple[bytes | None, dict[str, object]]:
            answer = await source.call(method, **params, trusted_height=self._follower.trust.height)
            shown = answer.get("proof")
            if not isinstance(shown, dict):
                raise InvalidInputError("the answer has no proof")
            finality = await self.judge(
                source, read_blob(shown, "finality"), is_newest=at_height is None
            )
            if at_height not in (None, finality.header.height):
                raise InvalidInputError("the answer is about another height")
            value = None if shown.get("value") is None else read_blob(shown, "value")
            state_proof = read_blob(shown, "state_proof")
            verify_state_proof(finality.header.state_root, key, value, state_proof)
            return value, proof_json(
                height=finality.header.height,
                key=key,
                value=value,
                state_proof=state_proof,
                finality=finality.encode(),
            )

        return await self.ask(work)

    async def check_trusting_period(self) -> None:
        """Raise UsageError unless the trusting period is shorter than the chain's unbonding time,
        which a vote can shorten: keys whose stake has left are for sale. Nothing if no endpoint can
        say."""
        with contextlib.suppress(RpcError):
            value, _ = await self.row(PARAMS_KEY, None, "chain_params")
            unbonding_ms = 0 if value is None else ChainParams.decode(value).unbonding_ms
            period_ms = self._follower.trust.trusting_period_ms
            if period_ms >= unbonding_ms:
                raise UsageError(
                    "the trusting period is not shorter than the chain's unbonding time",
                    expected=f"--trusting-period below {unbonding_ms // 1000} s",
                    got=f"{period_ms // 1000} s",
                )

    async def made_again(
        self,
        make: Callable[[AnswerView, ShownLister], dict[str, object]],
        method: str,
        **params: object,
    ) -> dict[str, object]:
        """What `make` makes of the state rows in an answer, proven under one header: the answer's
        other members are not looked at, but for what it lists (node/answer_view.py)."""

        async def work(source: Source) -> dict[str, object]:
            answer: Any = await source.call(
                method, **params, trusted_height=self._follower.trust.height
            )
            finality = await self.judge(source, read_blob(answer, "finality"), is_newest=True)
            view = AnswerView(ShownView.of_answer(finality, answer))
            try:
                return make(view, ShownLister(answer))
            except RpcError as error:  # of a row that is absent: the node would have refused
                raise InvalidInputError(f"the answer's rows say: {error.message}") from error

        return await self.ask(work)


def _accept(judgement: Judgement) -> None:
    if judgement.verdict is not Verdict.VALID:
        raise _NotVerified(judgement)
