"""A validator as the state holds it (adr/0008).

Row `validator | operator`: a canonical array; `encode` and `decode` are inverses, `decode` raises
InvalidInputError and nothing else. Amounts are uzynk (u64), times block times in ms, fractions ppm.
Reward accumulators are 32 B big endian, in 2^-64 uzynk ("scaled").
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger import codec
from ledger.errors import InvalidInputError
from ledger.params import PPM
from ledger.validator_set import TOTAL_POWER_MAX

POWER_UNIT = 1_000_000
"""uzynk of bonded stake for one unit of voting power."""
SCALE_BITS = 64
KEY_BYTES = 32
WIDE_BYTES = 32
NAME_MAX, URL_MAX, DETAILS_MAX = 70, 140, 280
VALIDATOR_BYTES_MAX = 4 * (NAME_MAX + URL_MAX + DETAILS_MAX) + 512


@dataclass(frozen=True, slots=True, kw_only=True)
class SlashEvent:
    """The one time that a validator was slashed for a double sign. `ppm` was burned then, and is
    what stake that had left pays. `offence_height` is the lowest that has come to light, by this
    evidence or later one; the rest is of the slash itself and stays."""

    offence_height: int
    slashed_height: int
    ppm: int
    slashed_ms: int

    def reaches(self, left_height: int, until_ms: int) -> bool:
        """True if stake that left the validator at `left_height`, liable until `until_ms`, pays:
        it still voted when the offence was made, it had left when the slash came (else it paid
        then), and was liable at that time."""
        return (
            self.offence_height <= left_height + 1
            and self.slashed_height > left_height
            and self.slashed_ms < until_ms
        )

    def to_value(self) -> list[codec.Value]:
        return [self.offence_height, self.slashed_height, self.ppm, self.slashed_ms]

    @classmethod
    def from_value(cls, value: object) -> SlashEvent:
        offence, slashed, ppm, time_ms = codec.read_array(value, 4, "slash")
        return cls(
            offence_height=codec.read_int(offence, "offence height"),
            slashed_height=codec.read_int(slashed, "slashed height"),
            ppm=codec.read_int(ppm, "slash fraction", PPM),
            slashed_ms=codec.read_int(time_ms, "slash time"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorRecord:
    """A validator; its operator account is its identity.

    `next_vrf_key` counts from `next_vrf_height` on (empty and 0: none is coming).
    `commission_day_ppm`: the commission when the window began in which it changed last.
    `tokens`, `shares`: bonded to it. `tokens <= shares`, and either both or neither is 0 unless
    a slash took everything.
    `power`: in the set that votes on the next height. `settled_index`: the distribution's index
    when it was last settled; `index`: rewards a share, ever; `dust`: what has not been shared out
    (all scaled). `commission_owed`: uzynk.
    `jailed_until_ms`: 0 if it is free. `slash` means tombstoned: jailed for ever.
    """

    consensus_key: bytes
    vrf_key: bytes
    next_vrf_key: bytes = b""
    next_vrf_height: int = 0
    cosign_key: bytes
    name: str
    url: str = ""
    details: str = ""
    commission_ppm: int
    commission_day_ppm: int
    commission_day_ms: int
    tokens: int = 0
    shares: int = 0
    power: int = 0
    settled_index: int = 0
    index: int = 0
    dust: int = 0
    commission_owed: int = 0
    jailed_until_ms: int = 0
    retired: bool = False
    slash: SlashEvent | None = None

    @property
    def is_tombstoned(self) -> bool:
        return self.slash is not None

    def answers_more_for(self, offence_height: int) -> bool:
        """True if a double sign at `offence_height` has anything to burn: there was none before, or
        all that came to light were made later."""
        return self.slash is None or offence_height < self.slash.offence_height

    @property
    def is_jailed(self) -> bool:
        return self.slash is not None or self.jailed_until_ms > 0

    @property
    def bonded_power(self) -> int:
        """The power that its tokens give, in a set where it may be."""
        return self.tokens // POWER_UNIT

    def encode(self) -> bytes:
        coming: codec.Value = (
            [self.next_vrf_key, self.next_vrf_height] if self.next_vrf_key else None
        )
        rewards = [encode_wide(n) for n in (self.settled_index, self.index, self.dust)]
        return codec.encode(
            [
                [self.consensus_key, self.vrf_key, coming, self.cosign_key],
                [self.name, self.url, self.details],
                [self.commission_ppm, self.commission_day_ppm, self.commission_day_ms],
                [self.tokens, self.shares],
                [self.power, *rewards, self.commission_owed],
                [self.jailed_until_ms, self.retired],
                None if self.slash is None else self.slash.to_value(),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> ValidatorRecord:
        """Inverse of `encode`. Raises InvalidInputError."""
        keys, texts, commission, stake, rewards, jail, slash = codec.read_array(
            codec.decode(data, bytes_max=VALIDATOR_BYTES_MAX), 7, "validator"
        )
        consensus, vrf, coming, cosign = codec.read_array(keys, 4, "validator keys")
        name, url, details = read_description(texts)
        ppm, day_ppm, day_ms = codec.read_array(commission, 3, "validator commission")
        tokens, shares = codec.read_array(stake, 2, "validator stake")
        power, settled, index, dust, owed = codec.read_array(rewards, 5, "validator rewards")
        jailed_until, retired = codec.read_array(jail, 2, "validator jail")
        if type(retired) is not bool:
            raise InvalidInputError("validator is malformed", expected="a flag", got=repr(retired))
        next_key, next_height = b"", 0
        if coming is not None:
            next_key, next_height = codec.read_array(coming, 2, "next VRF key")
            codec.read_bytes(next_key, "next VRF key", length=KEY_BYTES)
        return cls(
            consensus_key=codec.read_bytes(consensus, "consensus key", length=KEY_BYTES),
            vrf_key=codec.read_bytes(vrf, "VRF key", length=KEY_BYTES),
            next_vrf_key=next_key,
            next_vrf_height=codec.read_int(next_height, "next VRF height"),
            cosign_key=codec.read_bytes(cosign, "cosign key", length=KEY_BYTES),
            name=name,
            url=url,
            details=details,
            commission_ppm=codec.read_int(ppm, "commission", PPM),
            commission_day_ppm=codec.read_int(day_ppm, "commission of the day", PPM),
            commission_day_ms=codec.read_int(day_ms, "commission time"),
            tokens=codec.read_int(tokens, "validator tokens"),
            shares=codec.read_int(shares, "validator shares"),
            power=codec.read_int(power, "validator power", TOTAL_POWER_MAX),
            settled_index=read_wide(settled, "settled index"),
            index=read_wide(index, "reward index"),
            dust=read_wide(dust, "validator dust"),
            commission_owed=codec.read_int(owed, "commission owed"),
            jailed_until_ms=codec.read_int(jailed_until, "jail time"),
            retired=retired,
            slash=None if slash is None else SlashEvent.from_value(slash),
        )


def vrf_key_at(record: ValidatorRecord, height: int) -> bytes:
    """The VRF key that counts at `height`, which must not lie before the state's."""
    if record.next_vrf_key and height >= record.next_vrf_height:
        return record.next_vrf_key
    return record.vrf_key


def tokens_of_shares(record: ValidatorRecord, shares: int) -> int:
    """The uzynk that `shares` of a validator would undelegate to, rounded down."""
    return shares * record.tokens // record.shares if record.shares else 0


def read_description(value: object) -> tuple[str, str, str]:
    """(name, url, details) of a decoded array: a name, and no control characters, which would
    reach terminals. Raises InvalidInputError."""
    name, url, details = codec.read_array(value, 3, "description")
    codec.read_str(name, "validator name", NAME_MAX)
    codec.read_str(url, "validator url", URL_MAX)
    codec.read_str(details, "validator details", DETAILS_MAX)
    if not name or any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name + url + details):
        raise InvalidInputError(
            "description is malformed", expected="a name; no control characters", got=repr(name)
        )
    return name, url, details


def encode_wide(number: int) -> bytes:
    """A reward accumulator: 32 B, big endian."""
    return number.to_bytes(WIDE_BYTES, "big")


def read_wide(value: object, what: str) -> int:
    """Inverse of `encode_wide`. Raises InvalidInputError."""
    return int.from_bytes(codec.read_bytes(value, what, length=WIDE_BYTES), "big")
