"""A naive twin of the did:zynk rules for a whole chain, written from DESIGN section 7 alone.

It reads operations with `json`, knows nothing of the modules in `did/`, keeps every version of
every DID in plain lists, and works everything out anew from those: who may act, what a recovery
sets aside, until when, the rows of state byte for byte, and what a resolver must say, of the newest
version and of older ones. What was known at a height is what it noted down at that height.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import base58

from ledger import codec

DAY_MS = 86_400_000
RELATIONSHIPS = (
    "authentication",
    "assertionMethod",
    "keyAgreement",
    "capabilityInvocation",
    "capabilityDelegation",
)
Json = dict[str, Any]


def jcs(value: object) -> bytes:
    """RFC 8785, for values whose names are ASCII and whose numbers are integers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def tagged(tag: str, data: bytes) -> bytes:
    return sha256(f"zynk/{tag}/1\0".encode() + data).digest()


def hash_text(digest: bytes) -> str:
    return "z" + base58.b58encode(b"\x12\x20" + digest).decode()


def raw_of(multibase: str) -> bytes:
    """The 32 bytes behind a Multikey or a hash."""
    return bytes(base58.b58decode(multibase[1:])[2:])


def unsigned(form: Json) -> bytes:
    return jcs({name: value for name, value in form.items() if name != "sigs"})


def op_hash(form: Json) -> bytes:
    return tagged("did-op", unsigned(form))


def commitment(key_list: Json) -> str:
    return hash_text(tagged("did-next", jcs(key_list)))


def keys_of(control: Json) -> Json:
    """A control's key list, without its `next`."""
    return {"keys": control["keys"], "threshold": control["threshold"]}


def is_signed(form: Json, key_list: Json) -> bool:
    signers = [item["key"] for item in form["sigs"]]
    return set(signers) <= set(key_list["keys"]) and len(signers) >= key_list["threshold"]


@dataclass(kw_only=True, eq=False)
class Version:
    """An operation that was executed, and what it left in force."""

    form: Json
    encoded: bytes
    hash: bytes
    seq: int
    height: int
    time_ms: int
    until_ms: int
    authority: int
    control: Json
    tiers: list[Json]
    document: Json | None
    nullified_by: int | None = None

    @property
    def version_id(self) -> str:
        return f"{self.seq}-{hash_text(self.hash)}"

    @property
    def entry(self) -> bytes:
        return codec.encode([self.seq, self.height, self.time_ms, self.encoded])


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which version is asked for, by options of resolution."""

    version_id: str | None = None
    time_s: int | None = None
    as_of_height: int | None = None

    @property
    def options(self) -> Json:
        given = {
            "versionId": self.version_id,
            "versionTime": None if self.time_s is None else time_text(self.time_s * 1000),
            "asOfHeight": self.as_of_height,
        }
        return {name: value for name, value in given.items() if value is not None}


class Refused(Exception):
    """An operation fails; the first argument is its code."""


@dataclass
class Twin:
    """All DIDs of a chain. The test moves `height` and `time_ms` and changes the parameters."""

    net: str
    window_ms: int
    day_limit: int
    block_limit: int = 1
    height: int = 0
    time_ms: int = 0
    dids: dict[str, list[Version]] = field(default_factory=dict)
    known: dict[str, list[tuple[int, list[Version]]]] = field(default_factory=dict)
    """By DID: (height, the versions that lived after it), for each height that changed them."""

    def run(self, encoded: bytes, form: Json | None) -> str:
        """Execute; returns "ok" or the code of the failure. `form` None: broken on purpose."""
        try:
            self._run(encoded, form)
        except Refused as refusal:
            return str(refusal)
        return "ok"

    def _run(self, encoded: bytes, form: Json | None) -> None:
        creates = form is not None and form["type"] == "create"
        if form is None or (creates and not is_signed(form, keys_of(form["body"]["control"]))):
            raise Refused("did/malformed")
        if form["net"] != self.net:
            raise Refused("did/wrong-net")
        if self.height > form["expHeight"]:
            raise Refused("did/expired")
        did = "did:zynk:" + hash_text(op_hash(form)) if creates else form["did"]
        versions = self.dids.get(did, [])
        if creates:
            if versions:
                raise Refused("did/exists")
            authority, dropped = 0, list[Version]()
            self.dids[did] = versions
        else:
            if not versions:
                raise Refused("did/not-found")
            if sum(v.height == self.height for v in versions) >= self.block_limit:
                raise Refused("did/rate-block")
            if form["seq"] != len(versions):
                raise Refused("did/bad-seq")
            recovers = form["type"] == "recover"
            authority, dropped = (self._recover if recovers else self._change)(form, versions)
            today = [v for v in versions if v.time_ms // DAY_MS == self.time_ms // DAY_MS]
            if sum(v.authority == authority for v in today) >= self.day_limit:
                raise Refused("did/rate-day")
        body, seq = form["body"], len(versions)
        before = None if creates else living(versions)[-1]
        for version in dropped:
            version.nullified_by = seq
        ends = form["type"] == "deactivate"
        versions.append(
            Version(
                form=form,
                encoded=encoded,
                hash=op_hash(form),
                seq=seq,
                height=self.height,
                time_ms=self.time_ms,
                until_ms=self.time_ms + self.window_ms,
                authority=authority,
                control=before.control if ends and before else body["control"],
                tiers=before.tiers if ends and before else body.get("recovery", []),
                document=None if ends else body["document"],
            )
        )
        self.known.setdefault(did, []).append((self.height, living(versions)))

    def _change(self, form: Json, versions: list[Version]) -> tuple[int, list[Version]]:
        head, body = living(versions)[-1], form["body"]
        if head.document is None:
            raise Refused("did/deactivated")
        if form["prev"] != hash_text(head.hash):
            raise Refused("did/bad-prev")
        required, shown = keys_of(head.control), body.get("reveal")
        if "next" in head.control:
            required = shown if form["type"] == "deactivate" else keys_of(body["control"])
            if required is None or commitment(required) != head.control["next"]:
                raise Refused("did/not-revealed")
        elif shown is not None:
            raise Refused("did/not-revealed")
        if not is_signed(form, required):
            raise Refused("did/not-authorised")
        return 0, []

    def _recover(self, form: Json, versions: list[Version]) -> tuple[int, list[Version]]:
        line = living(versions)
        at = next((i for i, v in enumerate(line) if hash_text(v.hash) == form["prev"]), None)
        if at is None:
            raise Refused("did/bad-prev")
        dropped, tiers = line[at + 1 :], line[at].tiers
        if not dropped and line[at].document is None:
            raise Refused("did/deactivated")
        if dropped and not (
            dropped[0] in disputed(line, self.time_ms) and dropped[0].until_ms > self.time_ms
        ):
            was_open = dropped[0] in disputed(line, line[-1].time_ms)
            raise Refused("did/window-closed" if was_open else "did/bad-prev")
        tier = form["body"]["tier"]
        if tier >= len(tiers):
            raise Refused("did/no-tier")
        if any(v.authority >= 3 - tier for v in dropped):
            raise Refused("did/weaker-tier")
        if not is_signed(form, tiers[tier]):
            raise Refused("did/not-authorised")
        return 3 - tier, dropped

    def answer(self, did: str) -> tuple[Json | None, Json]:
        """(didDocument, didDocumentMetadata but for its proof) of a DID that exists."""
        versions = self.dids[did]
        head = living(versions)[-1]
        metadata = {
            "created": time_text(versions[0].time_ms),
            "versionId": head.version_id,
            "canonicalId": did,
            "updated": time_text(head.time_ms) if len(versions) > 1 else None,
            "deactivated": True if head.document is None else None,
            "disputeUntil": time_text(until) if (until := final_at_ms(versions)) else None,
        }
        return None if head.document is None else resolved(did, head.document), metadata

    def older(self, did: str, question: Question) -> tuple[Json | None, Json] | str:
        """The same of the version that is asked for, or the code of the error."""
        versions, as_of = self.dids[did], question.as_of_height
        if as_of is not None and as_of > self.height:
            return "INVALID_OPTIONS"
        if question.time_s is not None and question.time_s >= self.time_ms // 1000:
            return "INVALID_OPTIONS"
        height = self.height if as_of is None else as_of
        line = next((line for at, line in reversed(self.known[did]) if at <= height), [])
        wanted = [
            at
            for at, version in enumerate(line)
            if question.version_id in (None, version.version_id)
            and (question.time_s is None or version.time_ms // 1000 <= question.time_s)
        ]
        if not wanted:
            return "NOT_FOUND"
        version, later = line[wanted[-1]], line[wanted[-1] + 1 :][:1]
        if version is versions[-1]:
            return self.answer(did)
        is_open = version.seq > 0 and as_of is None
        until_ms = final_at_ms(versions) if is_open else 0
        metadata = {
            "created": time_text(versions[0].time_ms),
            "versionId": version.version_id,
            "canonicalId": did,
            "updated": time_text(version.time_ms) if version.seq else None,
            "deactivated": True if version.document is None else None,
            "disputeUntil": time_text(until_ms) if until_ms else None,
            "nextVersionId": later[0].version_id if later else None,
            "nextUpdate": time_text(later[0].time_ms) if later else None,
        }
        return None if version.document is None else resolved(did, version.document), metadata

    def rows(self) -> dict[tuple[str, bytes], bytes]:
        """All rows of state that DIDs have: (domain, identifier) -> bytes."""
        found: dict[tuple[str, bytes], bytes] = {}
        for did, versions in self.dids.items():
            identifier = raw_of(did.removeprefix("did:zynk:"))
            found["did", identifier] = record_row(identifier, versions)
            found["did-control", identifier] = control_row(versions)
            head = living(versions)[-1]
            if head.document is not None:
                found["did-doc", identifier] = jcs(head.document)
        return found


def living(versions: list[Version]) -> list[Version]:
    return [v for v in versions if v.nullified_by is None]


def disputed(line: list[Version], time_ms: int) -> list[Version]:
    """What a tier could set aside at a time: from the first living version that has tiers at the
    one before it, and whose window is open."""
    for at in range(1, len(line)):
        if line[at - 1].tiers and line[at].until_ms > time_ms:
            return line[at:]
    return []


def final_at_ms(versions: list[Version]) -> int:
    """When the head can no longer be set aside; 0 if it never could."""
    return final_time_of(versions, versions[-1])


def final_time_of(versions: list[Version], version: Version) -> int:
    """When a living version can no longer be set aside, by trying every fork before it; 0 if it
    could not be when the head came."""
    line = living(versions)
    forks = [
        line[at].until_ms
        for at in range(1, line.index(version) + 1)
        if line[at - 1].tiers and all(v.authority < 3 for v in line[at:])
    ]
    return max((until for until in forks if until > line[-1].time_ms), default=0)


def record_row(identifier: bytes, versions: list[Version]) -> bytes:
    head, first = versions[-1], versions[0]
    control: Json = {"control": head.control}
    if head.tiers:
        control["recovery"] = head.tiers
    document = head.document
    return codec.encode(
        [
            1,
            identifier,
            head.seq,
            head.hash,
            sha256(head.encoded).digest(),
            bytes(32) if document is None else tagged("did-document", jcs(document)),
            tagged("did-control", jcs(control)),
            int(document is None),
            first.height,
            first.time_ms,
            head.height,
            head.time_ms,
            log_root([v.entry for v in versions]),
            final_at_ms(versions),
        ]
    )


def control_row(versions: list[Version]) -> bytes:
    head, line = versions[-1], living(versions)
    open_ = disputed(line, head.time_ms)
    before = {v.seq: line[at - 1] for at, v in enumerate(line) if at}
    sets: list[list[Json]] = []
    for tiers in (head.tiers, *(before[v.seq].tiers for v in open_)):
        if tiers not in sets:
            sets.append(tiers)
    disputes: list[codec.Value] = [
        [
            v.hash,
            before[v.seq].hash,
            v.seq,
            v.until_ms,
            v.authority,
            sets.index(before[v.seq].tiers),
        ]
        for v in open_
    ]
    day = head.time_ms // DAY_MS
    today = [v.authority for v in versions if v.time_ms // DAY_MS == day]
    following = head.control.get("next")
    return codec.encode(
        [
            1,
            key_list_value(head.control),
            None if following is None else raw_of(following),
            0,
            [[key_list_value(tier) for tier in tiers] for tiers in sets],
            list(log_peaks([v.entry for v in versions])),
            head.height,
            sum(v.height == head.height for v in versions),
            day,
            [today.count(authority) for authority in range(4)],
            disputes,
        ]
    )


def key_list_value(key_list: Json) -> list[codec.Value]:
    return [[raw_of(key) for key in key_list["keys"]], key_list["threshold"]]


def log_root(entries: list[bytes]) -> bytes:
    """RFC 6962 section 2.1."""
    if len(entries) == 1:
        return sha256(b"\0" + entries[0]).digest()
    split = 1 << (len(entries) - 1).bit_length() - 1
    return sha256(b"\1" + log_root(entries[:split]) + log_root(entries[split:])).digest()


def log_peaks(entries: list[bytes]) -> list[bytes]:
    """Roots of the perfect subtrees, largest first."""
    if not entries:
        return []
    size = 1 << len(entries).bit_length() - 1
    return [log_root(entries[:size]), *log_peaks(entries[size:])]


def resolved(did: str, document: Json) -> Json:
    """The document as a resolver shows it: absolute ids, the DID as controller."""
    shown = {"@context": ["https://www.w3.org/ns/did/v1.1"], "id": did, **document}
    for name in RELATIONSHIPS:
        if name in document:
            shown[name] = [did + reference for reference in document[name]]
    for name, more in (("verificationMethod", {"controller": did}), ("service", {})):
        if name in document:
            shown[name] = [{**item, "id": did + item["id"], **more} for item in document[name]]
    return shown


def time_text(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
