"""Generated proof bundles, good and bad, for every verifier to judge the same way.

A bundle is a trust point, a finality proof's bytes, the time and a maximum age. `make_bundles`
draws chains (stakes, sets that slide or are replaced, stages of one height and more), takes true
proofs from them, and changes one thing in most of them: any field, signature, bit of a bitmap, set
or step, with and without signing again, or the encoding. `expected` is what must come out where
the change says so; None leaves it to the comparison.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from ledger import codec
from ledger.block import PROTOCOL_VERSION
from ledger.certificate import VoteKind
from ledger.finality import FinalityProof, Handoff
from ledger.light import TrustPoint, Verdict
from ledger.validator_set import Validator, ValidatorSet
from tests.unit import edwards25519
from tests.vectors.light_chain import CHAIN_ID, LightChain, key_of, set_of, sign

KEY_COUNT = 24
CHAINS = 24
NUMBER_OF_KEY = {key_of(n).public_key: n for n in range(KEY_COUNT)}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """`name` says what was changed."""

    name: str
    trust: TrustPoint
    proof: bytes
    now_ms: int
    max_age_ms: int | None
    expected: Verdict | None

    def to_json(self) -> dict[str, Any]:
        """For other languages: bytes in hex, u64 as decimal text."""
        trust = self.trust
        return {
            "name": self.name,
            "chainId": trust.chain_id,
            "height": str(trust.height),
            "timeMs": str(trust.time_ms),
            "validators": trust.validators.encoded.hex(),
            "trustingPeriodMs": str(trust.trusting_period_ms),
            "headerHash": trust.header_hash.hex(),
            "clockDriftMaxMs": str(trust.clock_drift_max_ms),
            "proof": self.proof.hex(),
            "nowMs": str(self.now_ms),
            "maxAgeMs": None if self.max_age_ms is None else str(self.max_age_ms),
        }


def make_bundles(count: int, seed: int) -> list[Bundle]:
    """`count` bundles; the kinds of change take turns, everything else is drawn."""
    random = Random(seed)
    return [_make_bundle(_CHANGES[i % len(_CHANGES)], random) for i in range(count)]


@lru_cache(maxsize=CHAINS)
def _chain_of(number: int) -> LightChain:
    random = Random(f"chain {number}")
    plan: list[tuple[ValidatorSet, int]] = []
    size = random.choice((1, 2, 3, 4, 7, 9))
    numbers = random.sample(range(KEY_COUNT), size)
    power_max = random.choice((1, 3, 2**57))
    for _ in range(random.randint(1, 6)):
        powers = [random.randint(1, power_max) for _ in numbers]
        plan.append((set_of(numbers, powers), random.randint(1, 5)))
        for at in range(len(numbers)):  # some leave, others come
            if random.random() < 0.3:
                fresh = [n for n in range(KEY_COUNT) if n not in numbers]
                numbers[at] = random.choice(fresh)
    plan.append((plan[-1][0], 2))
    return LightChain(plan, seed=number, key_count=KEY_COUNT)


class _Draft:
    """A true proof, about to be changed."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.chain = _chain_of(random.randrange(CHAINS))
        start = random.choice((0, random.randrange(self.chain.height)))
        height = random.randint(start + 1, self.chain.height)
        self.trust = self.chain.trust(start)
        self.proof = self.chain.finality(height, start)
        self.value: Any = copy.deepcopy(self.proof.to_value())
        self.now_ms = self.proof.header.time_ms + random.choice((0, 1, 900, -900))
        self.max_age_ms: int | None = random.choice((None, 60_000))
        self.expected: Verdict | None = Verdict.WRONG

    def certificates(self) -> list[Any]:
        """The array forms of all certificates, that of the proven header last."""
        return [step[1] for step in self.value[2]] + [self.value[1]]

    def headers(self) -> list[Any]:
        return [step[0] for step in self.value[2]] + [self.value[0]]

    def resign(self, **changes: Any) -> None:
        """Change the proven header and have its whole set sign it."""
        header = dataclasses.replace(self.proof.header, **changes)
        validators = self.chain.sets[self.proof.header.height - 1]
        keys = [key_of(NUMBER_OF_KEY[v.public_key]) for v in validators.validators]
        self.value[0] = header.to_value()
        self.value[1] = sign(header, validators, keys).to_value()


Change = Callable[[_Draft], bytes | None]


def _make_bundle(change: Change, random: Random) -> Bundle:
    draft = _Draft(random)
    changed = change(draft)
    return Bundle(
        name=change.__name__,
        trust=draft.trust,
        proof=codec.encode(draft.value) if changed is None else changed,
        now_ms=draft.now_ms,
        max_age_ms=draft.max_age_ms,
        expected=draft.expected,
    )


def nothing(draft: _Draft) -> None:
    draft.expected = Verdict.VALID


def header_field(draft: _Draft) -> None:
    header = draft.random.choice(draft.headers())
    at = draft.random.randrange(1, 15)
    header[at] = header[at] + 1 if at == 2 else _another(header[at], draft.random)


def header_resigned(draft: _Draft) -> None:
    """What its validators sign is true, whatever it says of the state."""
    name = draft.random.choice(("state_root", "body_hash", "origin_view", "next_validators_hash"))
    draft.resign(**{name: _another(getattr(draft.proof.header, name), draft.random)})
    draft.expected = None  # valid, unless the header is a step as well


def other_version(draft: _Draft) -> None:
    draft.value[2] = []
    draft.trust = draft.chain.trust(draft.proof.header.height - 1)
    draft.resign(protocol_version=draft.random.choice((0, 1, PROTOCOL_VERSION + 1, 2**16)))
    draft.expected = Verdict.CANNOT_TELL


def wrong_set_named(draft: _Draft) -> None:
    draft.resign(validators_hash=draft.random.randbytes(32))


def signature(draft: _Draft) -> None:
    certificate = draft.random.choice(draft.certificates())
    at = draft.random.randrange(len(certificate[5]))
    raw = bytearray(certificate[5][at])
    kind = draft.random.randrange(5)
    if kind == 0:
        raw[draft.random.randrange(64)] ^= 1 << draft.random.randrange(8)
    elif kind == 1:  # S + L
        number = int.from_bytes(raw[32:], "little") + edwards25519.L
        raw[32:] = number.to_bytes(32, "little")
    elif kind == 2:  # R of small order
        raw[:32] = draft.random.choice(edwards25519.small_encodings())
    elif kind == 3:
        raw = bytearray(64)
    else:
        raw[:32], raw[32:] = raw[32:], raw[:32]
    certificate[5][at] = bytes(raw)


def signature_count(draft: _Draft) -> None:
    signatures = draft.random.choice(draft.certificates())[5]
    if draft.random.random() < 0.5:
        signatures.pop(draft.random.randrange(len(signatures)))
    else:
        signatures.append(draft.random.choice(signatures))


def bitmap(draft: _Draft) -> None:
    certificate = draft.random.choice(draft.certificates())
    raw = bytearray(certificate[4])
    if draft.random.random() < 0.7:
        raw[draft.random.randrange(len(raw))] ^= 1 << draft.random.randrange(8)
    else:
        raw.append(0)
    certificate[4] = bytes(raw)


def minority(draft: _Draft) -> None:
    """Exactly 2/3 of the power, or less."""
    proof, random = draft.proof, draft.random
    validators = draft.chain.sets[proof.header.height - 1]
    signers, power = [], 0
    for validator in random.sample(validators.validators, len(validators)):
        if not validators.has_quorum(power + validator.power):
            signers.append(key_of(NUMBER_OF_KEY[validator.public_key]))
            power += validator.power
    draft.value[1] = sign(proof.header, validators, signers).to_value()


def another_vote(draft: _Draft) -> None:
    header = draft.proof.header
    validators = draft.chain.sets[header.height - 1]
    keys = [key_of(NUMBER_OF_KEY[v.public_key]) for v in validators.validators]
    certificate = sign(header, validators, keys, kind=VoteKind.NOTARIZE)
    if draft.random.random() < 0.5:
        certificate = dataclasses.replace(
            sign(header, validators, keys), view=draft.random.choice((0, 2, 2**32))
        )
    draft.value[1] = certificate.to_value()


def carried_set(draft: _Draft) -> None:
    """Another power, key or order in a set that a step carries."""
    if not draft.value[2]:
        draft.expected = Verdict.VALID
        return
    step, random = draft.random.choice(draft.value[2]), draft.random
    items = codec.decode(step[2], bytes_max=2**16)
    kind = random.randrange(4)
    if kind == 0:
        item = random.choice(items)
        item[1] = _another(item[1], random)
    elif kind == 1:
        random.choice(items)[0] = random.randbytes(32)
    elif kind == 2:
        items.append(random.choice(items))
    else:
        items = items[:-1]
    step[2] = codec.encode(items)


def trusted_set(draft: _Draft) -> None:
    """Trust in strangers alone reaches nothing."""
    strangers = [v.public_key for s in draft.chain.sets for v in s.validators]
    numbers = [n for n in range(KEY_COUNT) if key_of(n).public_key not in strangers]
    if not numbers:
        draft.expected = Verdict.VALID
        return
    draft.trust = dataclasses.replace(draft.trust, validators=set_of(numbers))


def trusted_power(draft: _Draft) -> None:
    """A heavy stranger beside the trusted validators: adjacent steps fail, and skips as well."""
    heavy = Validator(public_key=key_of(KEY_COUNT).public_key, power=2**60)
    validators = ValidatorSet.of((*draft.trust.validators.validators, heavy))
    draft.trust = dataclasses.replace(draft.trust, validators=validators)
    draft.expected = None


def steps_moved(draft: _Draft) -> None:
    steps, random = draft.value[2], draft.random
    draft.expected = None
    if len(steps) > 1 and random.random() < 0.5:
        i, j = random.sample(range(len(steps)), 2)
        steps[i], steps[j] = steps[j], steps[i]
    elif steps and random.random() < 0.7:
        steps.pop(random.randrange(len(steps)))
    elif steps:
        at = random.randrange(len(steps))
        steps.insert(at, copy.deepcopy(steps[at]))


def direct_skip(draft: _Draft) -> None:
    """To the last set in one step, with the overlap that there is."""
    header, certificate = draft.proof.header, draft.proof.certificate
    validators = draft.chain.sets[header.height - 1]
    draft.value[2] = [[header.to_value(), certificate.to_value(), validators.encoded]]
    draft.expected = None


def exactly_a_third(draft: _Draft) -> None:
    """A skip from a set that shares one signer with 1/3 of its power."""
    _share_one_signer(draft, 0)


def just_over_a_third(draft: _Draft) -> None:
    _share_one_signer(draft, 1)
    if draft.proof.header.height > draft.trust.height + 1:
        draft.expected = Verdict.VALID


def _share_one_signer(draft: _Draft, less: int) -> None:
    direct_skip(draft)
    proof = draft.proof
    validators = draft.chain.sets[proof.header.height - 1]
    signer = validators.validators[proof.certificate.signer_indexes(validators)[0]]
    power = 2 * signer.power - less
    stranger = Validator(public_key=key_of(KEY_COUNT).public_key, power=power)
    trusted = ValidatorSet.of((signer, stranger))
    draft.trust = dataclasses.replace(draft.trust, validators=trusted)
    draft.expected = Verdict.WRONG


def exactly_two_thirds(draft: _Draft) -> None:
    """Three of power 1; two of them sign."""
    validators = set_of([0, 1, 2])
    draft.trust = dataclasses.replace(draft.trust, validators=validators)
    draft.value[2] = []
    header = dataclasses.replace(draft.proof.header, validators_hash=validators.hash)
    draft.value[0] = header.to_value()
    draft.value[1] = sign(header, validators, [key_of(0), key_of(1)]).to_value()


def forged_handoff(draft: _Draft) -> None:
    """A true header is said to hand over to a stranger, who then signs alone."""
    start, forger = draft.trust.height, set_of([KEY_COUNT])
    step = draft.chain.header(start + 1)
    certificate = draft.chain.certificate(start + 1)
    header = dataclasses.replace(
        draft.chain.header(start + 1), height=start + 2, validators_hash=forger.hash
    )
    header = dataclasses.replace(header, time_ms=header.time_ms + 1)
    draft.value = FinalityProof(
        header=header,
        certificate=sign(header, forger, [key_of(KEY_COUNT)]),
        handoffs=(Handoff(header=step, certificate=certificate, next_validators=forger),),
    ).to_value()


def order(draft: _Draft) -> None:
    """The proven header, signed as it should be, is not later than the last step."""
    if not draft.proof.handoffs:
        draft.expected = Verdict.VALID
        return
    last = draft.proof.handoffs[-1].header
    if draft.random.random() < 0.5:
        draft.resign(height=last.height, time_ms=2 * last.time_ms - draft.trust.time_ms)
        draft.now_ms += 10**7
    else:
        draft.resign(height=last.height + 1, time_ms=last.time_ms)
    draft.max_age_ms = None


def set_turned(draft: _Draft) -> None:
    """A carried set in another order, named and signed as if that were right."""
    validators = ValidatorSet(tuple(reversed(set_of([1, 2, 3, 4]).validators)))
    header = dataclasses.replace(draft.proof.header, validators_hash=validators.hash)
    certificate = sign(header, validators, [key_of(n) for n in (1, 2, 3, 4)])
    draft.trust = dataclasses.replace(draft.trust, validators=set_of([1, 2, 3]))
    draft.value = [header.to_value(), certificate.to_value(), []]
    draft.value[2] = [[header.to_value(), certificate.to_value(), validators.encoded]]


def chain_id_in_the_header(draft: _Draft) -> None:
    """The votes are of this chain, the header is of another."""
    draft.resign(chain_id=CHAIN_ID + "x")


def other_chain(draft: _Draft) -> None:
    draft.trust = dataclasses.replace(draft.trust, chain_id=CHAIN_ID + "x")


def times(draft: _Draft) -> None:
    """The clock, the header's time, the trusting period and the age, at and past each limit."""
    random, trust = draft.random, draft.trust
    draft.expected = None
    if random.random() < 0.5:
        draft.resign(time_ms=random.choice((0, trust.time_ms, trust.time_ms + 1, 2**64 - 1)))
    draft.now_ms += random.choice((-10_901, -10_000, 60_000, 60_001, 61_000, 10**9, 2 * 10**9))
    draft.now_ms = random.choice(
        (draft.now_ms, trust.time_ms + trust.trusting_period_ms + random.randrange(2))
    )


def expired_trust(draft: _Draft) -> None:
    draft.now_ms = draft.trust.time_ms + draft.trust.trusting_period_ms + 1
    draft.max_age_ms = None
    draft.expected = Verdict.VALID_BUT_EXPIRED_TRUST


def too_old(draft: _Draft) -> None:
    draft.max_age_ms = draft.random.choice((0, 60_000))
    draft.now_ms = draft.proof.header.time_ms + draft.max_age_ms + 1
    draft.expected = Verdict.TOO_OLD


def trusted_height(draft: _Draft) -> None:
    height = draft.proof.header.height
    above = draft.random.randint(height, draft.chain.height)
    draft.trust = draft.chain.trust(above)
    draft.expected = None


def other_parent(draft: _Draft) -> None:
    """The header after the trusted one, signed as it should be, follows another."""
    height = draft.proof.header.height
    draft.trust, draft.value[2] = draft.chain.trust(height - 1), []
    draft.resign(parent_hash=draft.random.randbytes(32))
    draft.expected = Verdict.WRONG if height > 1 else Verdict.VALID  # genesis: hash not given


def skip_to_the_next_height(draft: _Draft) -> None:
    """A set that shares more than 1/3 with the trusted one, where the trusted one itself votes."""
    height = draft.proof.header.height
    chain = draft.chain
    validators = chain.sets[height - 1]
    signer = validators.validators[chain.certificate(height).signer_indexes(validators)[0]]
    stranger = Validator(public_key=key_of(KEY_COUNT).public_key, power=1)
    draft.trust = dataclasses.replace(
        chain.trust(height - 1), validators=ValidatorSet.of((signer, stranger))
    )
    direct_skip(draft)
    draft.expected = Verdict.WRONG


def encoding(draft: _Draft) -> bytes:
    """The same content in other bytes, or bytes that are none."""
    raw, random = codec.encode(draft.value), draft.random
    kind = random.randrange(6)
    if kind == 0:
        return raw + b"\0"
    if kind == 1:
        return raw[: random.randrange(1, len(raw))]
    if kind == 2:  # array of 3 in the form for 16 and more
        return b"\xdc\0\x03" + raw[1:]
    if kind == 3:  # the header's version, an integer below 128, in two bytes
        return raw[:2] + b"\xcc" + raw[2:]
    if kind == 4:  # the chain id as bin
        return raw[:3] + b"\xc4" + bytes([raw[3] & 31]) + raw[4:]
    return random.choice((b"\xc1", b"\x81\x01\x02", b"\x91" * 40, b"\xca\0\0\0\0", b"\xff"))


def no_answer(draft: _Draft) -> bytes:
    draft.expected = Verdict.CANNOT_TELL
    return b""


def any_byte(draft: _Draft) -> bytes:
    raw = bytearray(codec.encode(draft.value))
    raw[draft.random.randrange(len(raw))] ^= 1 << draft.random.randrange(8)
    draft.expected = None  # a set carried for nothing, or the version, may be what changed
    return bytes(raw)


def any_value(draft: _Draft) -> None:
    """Some value anywhere becomes another of its type, or is dropped or repeated."""
    node, random = draft.value, draft.random
    draft.expected = None
    while True:
        at = random.randrange(len(node))
        if isinstance(node[at], list) and node[at] and random.random() < 0.9:
            node = node[at]
            continue
        kind = random.randrange(4)
        if kind == 0:
            node.pop(at)
        elif kind == 1:
            node.insert(at, node[at])
        elif kind == 2:
            node[at] = random.choice((None, True, 0, b"", "", [], 2**64 - 1))
        else:
            node[at] = _another(node[at], random)
        return


def _another(value: Any, random: Random) -> Any:
    if isinstance(value, int):
        return random.choice([n for n in (0, 1, value + 1, 2**63) if n != value])
    if isinstance(value, str):
        return value + random.choice(("x", "é", "\0"))
    if isinstance(value, bytes):
        if not value:
            return random.randbytes(random.choice((1, 80, 81)))
        raw = bytearray(value)
        raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
        return bytes(raw)
    return [] if value else [0]


_CHANGES: tuple[Change, ...] = (
    nothing,
    header_field,
    header_resigned,
    other_version,
    wrong_set_named,
    signature,
    signature_count,
    bitmap,
    minority,
    another_vote,
    carried_set,
    nothing,
    trusted_set,
    trusted_power,
    steps_moved,
    direct_skip,
    exactly_a_third,
    just_over_a_third,
    exactly_two_thirds,
    forged_handoff,
    order,
    set_turned,
    chain_id_in_the_header,
    other_chain,
    times,
    expired_trust,
    too_old,
    trusted_height,
    other_parent,
    skip_to_the_next_height,
    nothing,
    encoding,
    no_answer,
    any_byte,
    any_value,
    times,
    order,
    any_value,
)
