"""Keeps a verified head: asks the first endpoint, compares with the others, goes on from there.

One round (`advance`): the newest header of the primary is verified from the trust point by
bisection, then each witness is asked for its header of that height. The head moves only if every
answer that can be told agrees, and, if there are witnesses, at least one does. What goes wrong:

- the primary is silent, stale or wrong: it becomes the last of the witnesses, the next one leads;
- a witness is wrong: noted against it; silent or behind: asked again within the round;
- a witness proves another header of the same height: an attack. Both proofs are written down, with
  the fork proof that names who signed both (node/light_fork.py), and `AttackFound` ends everything,
  since nobody can say any more which chain is the true one.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from consensus.fork_proof import FORK_PROOF_BYTES_MAX, ForkProof
from ledger import codec
from ledger.block import Header
from ledger.errors import InvalidInputError, UsageError, ZynkError
from ledger.finality import FINALITY_PROOF_BYTES_MAX, FinalityProof
from ledger.light import (
    Attack,
    Bisection,
    Judgement,
    Reached,
    TrustPoint,
    Verdict,
    compare,
    judge,
    trust_header,
)
from node.files import replace_file
from node.light_fork import find_fork
from node.light_source import Source
from node.light_trust import TrustRoot, load_trust, save_trust
from rpc.errors import RpcConnectionError, RpcError

STATE_FILE = "trusted.bin"
ATTACK_FILE = "attack-{height}.bin"
ATTACK_TAG = "zynk-light-attack/2"
ATTACK_BYTES_MAX = FORK_PROOF_BYTES_MAX + 2 * FINALITY_PROOF_BYTES_MAX + 1024 * 1024
WITNESS_TRIES = 6
WITNESS_WAIT_S = 0.5
CONFIRMED_MAX = 64
FORK_TIMEOUT_S = 120.0
MAX_AGE_DEFAULT_MS = 60_000

log = structlog.get_logger("light")


class AttackFound(ZynkError):
    """Two final headers of one height; `path` holds both proofs, and the fork proof unless
    `why_unnamed` says why there is none."""

    def __init__(self, height: int, path: Path, why_unnamed: str) -> None:
        whom = (
            f"nobody can be named: {why_unnamed}" if why_unnamed else "zynk inspect fork reads it"
        )
        super().__init__(
            "two different blocks of one height are final: the chain is under attack",
            expected="one header",
            got=f"two at height {height}; the proofs are in {path}; {whom}",
        )
        self.path = path
        self.why_unnamed = why_unnamed


@dataclass(slots=True)
class Health:
    """What an endpoint was caught at."""

    faults: int = 0
    last_fault: str = ""
    last_verdict: str = ""


class Follower:
    """See the module docstring. `trust` is the verified head."""

    def __init__(
        self,
        root: TrustRoot,
        sources: Sequence[Source],
        folder: Path,
        *,
        max_age_ms: int = MAX_AGE_DEFAULT_MS,
        witness_wait_s: float = WITNESS_WAIT_S,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.root = root
        self.sources = list(sources)
        self.folder = folder
        self.max_age_ms = max_age_ms
        self._witness_wait_s = witness_wait_s
        self.now_ms = now_ms
        self.health = {source.url: Health() for source in sources}
        self.last = Judgement(verdict=Verdict.CANNOT_TELL, reason="nothing was asked yet")
        self.attack: AttackFound | None = None
        self._confirmed: OrderedDict[bytes, None] = OrderedDict()
        self._trust: TrustPoint | None = None

    @property
    def trust(self) -> TrustPoint:
        if self._trust is None:
            raise UsageError("the light client was not started")
        return self._trust

    async def start(self) -> None:
        """Take up the kept trust, or begin at the root. Raises UsageError, also if an attack was
        found before, or if the trust point's header can't be fetched what the endpoint raised."""
        found = next(iter(sorted(self.folder.glob(ATTACK_FILE.format(height="*")))), None)
        if found is not None:
            raise UsageError(
                "an attack was found here before: which chain is the true one is for people to say",
                expected=f"a trust file that you checked, and {found} moved away",
                got=str(found),
            )
        trust = load_trust(self.folder / STATE_FILE, self.root)
        if trust is None:
            trust = trust_header(
                await self.sources[0].light_block(self.root.height),
                self.root.root,
                self.root.chain_id,
                trusting_period_ms=self.root.trusting_period_ms,
            )
        self._trust = trust

    async def run(self, interval_s: float) -> None:
        """Advance for ever. Raises AttackFound, UsageError (expired trust), DurabilityError."""
        while True:
            await self.advance()
            await asyncio.sleep(interval_s)

    async def advance(self) -> Judgement:
        """One round; what became of it. Raises as `run`."""
        if self.attack is not None:
            raise self.attack
        trust = self.trust
        if trust.is_expired(self.now_ms()):
            raise UsageError(
                "the trusted head is older than the trusting period; start from a newer trust file",
                expected=f"at most {trust.trusting_period_ms} ms",
                got=f"{self.now_ms() - trust.time_ms} ms",
            )
        primary = self.sources[0]
        reached = await self._reach(primary)
        if isinstance(reached, Reached):
            self.last = await self._ask_witnesses(primary, reached)
            if self.last.verdict is Verdict.VALID:
                self._trust = reached.trust
                save_trust(self.folder / STATE_FILE, self.root, reached.trust)
        else:
            self.last = reached
            self.note(primary, reached)
            if reached.verdict is not Verdict.VALID:
                self.sources.append(self.sources.pop(0))
        return self.last

    async def _reach(self, primary: Source) -> Reached | Judgement:
        """Verify the primary's newest header. VALID: it is the head already."""
        try:
            newest = await primary.finality(None, self.trust.height)
            judged = judge(newest, self.trust, now_ms=self.now_ms(), max_age_ms=self.max_age_ms)
            if judged.verdict is not Verdict.VALID or judged.header is None:
                return judged
            if judged.header.height == self.trust.height:
                return judged
            return await self._bisect(primary, judged.header.height)
        except (RpcConnectionError, RpcError, InvalidInputError) as error:
            return judgement_of(error)

    async def _bisect(self, source: Source, target: int) -> Reached | Judgement:
        step: Bisection | Reached | Judgement = Bisection.begin(self.trust, target)
        while isinstance(step, Bisection):
            try:
                data = await source.light_block(step.wanted)
            except RpcError as error:
                # the set after the newest header is served with the header after it
                if step.wanted == target and target - 1 > self.trust.height:
                    return await self._bisect(source, target - 1)
                return judgement_of(error)
            step = step.on_block(data, now_ms=self.now_ms())
        return step

    async def confirm(self, source: Source, proof: FinalityProof, trust: TrustPoint) -> Judgement:
        """VALID if a header that `source` proved from `trust`, lately the verified head, may be
        relied on: it is the head, or another endpoint has it too, or there is no other. Raises
        AttackFound."""
        others = [other for other in self.sources if other is not source]
        header = proof.header
        confirmed = Judgement(verdict=Verdict.VALID, reason="", header=header)
        if header.hash == trust.header_hash or header.hash in self._confirmed or not others:
            return confirmed
        for witness in others:
            judgement = await self._ask_witness(source, witness, proof, trust)
            self.note(witness, judgement)
            if judgement.verdict is Verdict.VALID:
                self._confirmed[header.hash] = None
                if len(self._confirmed) > CONFIRMED_MAX:
                    self._confirmed.popitem(last=False)
                return confirmed
        return _unconfirmed(header)

    async def _ask_witnesses(self, primary: Source, reached: Reached) -> Judgement:
        """VALID if the head may move: every witness is asked. Raises AttackFound."""
        verdicts = []
        for witness in [other for other in self.sources if other is not primary]:
            judgement = await self._ask_witness(primary, witness, reached.proof, self.trust)
            self.note(witness, judgement)
            verdicts.append(judgement.verdict)
        if verdicts and Verdict.VALID not in verdicts:
            return _unconfirmed(reached.proof.header)
        return Judgement(verdict=Verdict.VALID, reason="", header=reached.proof.header)

    async def _ask_witness(
        self, source: Source, witness: Source, proof: FinalityProof, trust: TrustPoint
    ) -> Judgement:
        height = proof.header.height
        for tries_left in range(WITNESS_TRIES, 0, -1):
            try:
                answer = await witness.finality(height, trust.height)
            except (RpcConnectionError, InvalidInputError) as error:
                return judgement_of(error)
            except RpcError as error:  # most often it is a block behind
                if tries_left == 1:
                    return judgement_of(error)
                await asyncio.sleep(self._witness_wait_s)
                continue
            found = compare(proof, answer, trust, now_ms=self.now_ms())
            if isinstance(found, Attack):
                self.attack = await self._write_attack(found, source, witness)
                raise self.attack
            return found
        raise AssertionError("the last try returns")

    async def _write_attack(self, attack: Attack, source: Source, witness: Source) -> AttackFound:
        """At once what is known, then with the fork proof, for which both are asked again."""
        height = attack.first.header.height
        path = self.folder / ATTACK_FILE.format(height=height)
        replace_file(path, encode_attack(attack, None))
        log.error("attack found", height=height, path=str(path))
        try:
            async with asyncio.timeout(FORK_TIMEOUT_S):
                fork_proof = await find_fork(attack, (source, witness), self.root, self.now_ms())
        except (RpcConnectionError, RpcError, InvalidInputError, TimeoutError) as error:
            why = str(error) or "the endpoints do not answer"
            log.error("no fork proof", reason=why)
            return AttackFound(height, path, why)
        replace_file(path, encode_attack(attack, fork_proof))
        return AttackFound(height, path, "")

    def note(self, source: Source, judgement: Judgement) -> None:
        """Keep what an endpoint's answer was worth."""
        health = self.health[source.url]
        health.last_verdict = judgement.verdict.value
        if judgement.verdict in (Verdict.WRONG, Verdict.TOO_OLD):
            health.faults += 1
            health.last_fault = judgement.reason
            log.warning("endpoint at fault", url=source.url, reason=judgement.reason)


def _unconfirmed(header: Header) -> Judgement:
    return Judgement(
        verdict=Verdict.CANNOT_TELL, reason=f"no witness confirmed height {header.height}"
    )


def judgement_of(error: ZynkError) -> Judgement:
    """WRONG for a malformed answer, CANNOT_TELL for none."""
    is_wrong = isinstance(error, InvalidInputError)
    return Judgement(verdict=Verdict.WRONG if is_wrong else Verdict.CANNOT_TELL, reason=str(error))


def encode_attack(attack: Attack, fork_proof: ForkProof | None) -> bytes:
    """[tag, chain_id, trusted height, trusted set bin, finality proof bin, finality proof bin,
    fork proof bin]; the last is empty if there is none."""
    return codec.encode(
        [
            ATTACK_TAG,
            attack.trust.chain_id,
            attack.trust.height,
            attack.trust.validators.encoded,
            attack.first.encode(),
            attack.second.encode(),
            b"" if fork_proof is None else fork_proof.encode(),
        ]
    )


def decode_attack(data: bytes) -> tuple[FinalityProof, FinalityProof]:
    """The two finality proofs of `encode_attack`. Raises InvalidInputError."""
    first, second, _ = _read_attack(data)
    return FinalityProof.decode(first), FinalityProof.decode(second)


def decode_fork_proof(data: bytes) -> ForkProof:
    """A fork proof, by itself or inside an attack file. Raises InvalidInputError."""
    if not is_attack(data):
        return ForkProof.decode(data)
    fork_proof = _read_attack(data)[2]
    if not fork_proof:
        raise InvalidInputError(
            "the attack file holds two finality proofs and no fork proof: nobody can be named"
        )
    return ForkProof.decode(fork_proof)


def is_attack(data: bytes) -> bool:
    """Whether these bytes begin as an attack file."""
    head = codec.encode([ATTACK_TAG])[1:]
    return data[1 : 1 + len(head)] == head


def _read_attack(data: bytes) -> tuple[bytes, bytes, bytes]:
    value = codec.decode(data, bytes_max=ATTACK_BYTES_MAX)
    tag, _, _, _, *proofs = codec.read_array(value, 7, "attack")
    if tag != ATTACK_TAG:
        raise InvalidInputError("not an attack file", expected=ATTACK_TAG, got=repr(tag)[:40])
    first, second, fork_proof = (
        codec.read_bytes(proof, "proof", maximum=FORK_PROOF_BYTES_MAX) for proof in proofs
    )
    return first, second, fork_proof
