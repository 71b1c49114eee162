"""The form of operations: each rule that `decode_operation` holds them to, with its own refusal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from did import strict_json
from did.build import create_operation, deactivate_operation, recover_operation, update_operation
from did.control import CONTROL_KEYS_MAX
from did.document import DOCUMENT_BYTES_MAX, SERVICES_MAX, VERIFICATION_METHODS_MAX
from did.multikey import X25519_PREFIX, encode_hash, encode_multikey
from did.operation import OPERATION_BYTES_MAX, decode_operation
from ledger.errors import InvalidInputError, UsageError
from tests.vectors.did_world import EXP, NET, control, document, key, key_list

Json = dict[str, Any]

CREATE = create_operation(
    net=NET,
    exp_height=EXP,
    document=document(),
    control=control("a", "b", next_keys=key_list("n")),
    recovery=[key_list("t")],
    signers=[key("a"), key("b")],
)
DID = decode_operation(CREATE).did_text
PREV = decode_operation(CREATE).hash
UPDATE = update_operation(
    net=NET,
    exp_height=EXP,
    did=DID,
    prev=PREV,
    seq=1,
    document=document(),
    control=control("n"),
    signers=[key("n")],
)
RECOVER = recover_operation(
    net=NET,
    exp_height=EXP,
    did=DID,
    prev=PREV,
    seq=1,
    tier=0,
    document=document(),
    control=control("n"),
    signers=[key("t")],
)
DEACTIVATE = deactivate_operation(
    net=NET, exp_height=EXP, did=DID, prev=PREV, seq=1, reveal=key_list("n"), signers=[key("n")]
)
SEVENTEEN = [f"k{number}" for number in range(17)]


def changed(sample: bytes, change: Callable[[Json], Any]) -> bytes:
    form = copy.deepcopy(strict_json.decode(sample, bytes_max=OPERATION_BYTES_MAX))
    change(form)
    return strict_json.encode(form)


def refused(data: bytes, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match):
        decode_operation(data)


@pytest.mark.parametrize("sample", [CREATE, UPDATE, RECOVER, DEACTIVATE])
def test_operation_is_its_bytes_and_every_part_of_them_is_refused(sample: bytes) -> None:
    assert decode_operation(sample).encoded == sample
    assert changed(sample, lambda form: None) == sample
    for end in range(len(sample)):
        with pytest.raises(InvalidInputError):
            decode_operation(sample[:end])
    refused(sample + b"\n", "not canonical")
    refused(sample + b"{}", "not JSON")


def test_operation_longer_than_16_kib_is_refused_before_it_is_parsed() -> None:
    refused(b"[" * (OPERATION_BYTES_MAX + 1), "too long")
    refused(b"[" * OPERATION_BYTES_MAX, "too deep")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b'"v":1', b'"v":1.0', "not an integer"),
        (b'"v":1', b'"v":1e0', "not an integer"),
        (b'"v":1', b'"v":-0', "not canonical"),
        (b'"v":1', b'"v":NaN', "not an integer"),
        (b'"v":1', b'"v":9007199254740992', "too large"),
        (b'"v":1', b'"v":1,"v":1', "repeats a name"),
        (b'"threshold":1', b'"threshold":1,"threshold":1', "repeats a name"),
        (b'"v":1', b'"v": 1', "not canonical"),
        (b'"net":"z', b'"net":"\\u007a', "not canonical"),
        (b'"net":"z', b'"net":"\\ud800z', "not JSON"),
        (b'"net":"z', b'"net":"\xed\xa0\x80z', "not JSON"),
        (b'"type":"Files"', b'"type":"\\udc00"', "not JSON"),
    ],
)
def test_json_that_readers_could_read_differently_is_refused(
    old: bytes, new: bytes, match: str
) -> None:
    assert old in CREATE
    refused(CREATE.replace(old, new, 1), match)


@pytest.mark.parametrize("sample", [CREATE, UPDATE, RECOVER, DEACTIVATE])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda form: form.update(more=1), "unknown or missing members"),
        (lambda form: form.pop("expHeight"), "unknown or missing members"),
        (lambda form: form.update(v=2), "another version"),
        (lambda form: form.update(v=True), "another version"),
        (lambda form: form.update(type="replace"), "type is unknown"),
        (lambda form: form.update(type=None), "type is unknown"),
        (lambda form: form.update(net=""), "names no network"),
        (lambda form: form.update(net="n" * 65), "names no network"),
        (lambda form: form.update(net=7), "names no network"),
        (lambda form: form.update(seq=-1), "seq is malformed"),
        (lambda form: form.update(seq="1"), "seq is malformed"),
        (lambda form: form.update(expHeight=-1), "expHeight is malformed"),
        (lambda form: form.update(expHeight=True), "expHeight is malformed"),
        (lambda form: form.update(seq=1 - form["seq"]), "seq 0"),
        (lambda form: form.update(body=None), "no body"),
        (lambda form: form["body"].update(more=1), "body"),
        (lambda form: form.update(sigs=[]), "not signed"),
        (lambda form: form.update(sigs={}), "not signed"),
        (lambda form: form["sigs"][0].update(more=1), "signature is malformed"),
        (lambda form: form["sigs"][0].pop("sig"), "signature is malformed"),
        (lambda form: form["sigs"][0].update(sig="A" * 84), "wrong length"),
        (lambda form: form["sigs"][0].update(sig="A" * 85 + "B"), "not canonical"),
        (lambda form: form["sigs"][0].update(sig="=" * 86), "base64url"),
        (lambda form: form["sigs"][0].update(key="z6Mk"), "not a known Multikey"),
        (lambda form: form.update(sigs=form["sigs"][:1] * 2), "ascending order"),
        (lambda form: form.update(sigs=form["sigs"][:1] * 9), "not signed"),
    ],
)
def test_member_that_breaks_a_rule_is_refused(
    sample: bytes, change: Callable[[Json], Any], match: str
) -> None:
    refused(changed(sample, change), match)


def test_signatures_are_in_ascending_order_of_key() -> None:
    refused(changed(CREATE, lambda form: form["sigs"].reverse()), "ascending order")


def test_create_names_neither_did_nor_prev_and_all_others_both() -> None:
    refused(changed(CREATE, lambda form: form.update(did=DID)), "unknown or missing")
    refused(changed(CREATE, lambda form: form.update(prev=encode_hash(PREV))), "unknown or missing")
    for sample in (UPDATE, RECOVER, DEACTIVATE):
        refused(changed(sample, lambda form: form.pop("did")), "unknown or missing")
        refused(changed(sample, lambda form: form.pop("prev")), "unknown or missing")
        refused(changed(sample, lambda form: form.update(did=DID + "#a")), "base58|multihash")
        refused(changed(sample, lambda form: form.update(prev=PREV.hex())), "not base58btc")
        refused(changed(sample, lambda form: form.update(prev=None)), "not base58btc")


# --- key lists, wherever they stand ---


def _control(form: Json) -> Json:
    found: Json = form["body"]["control"]
    return found


def _tier(form: Json) -> Json:
    found: Json = form["body"]["recovery"][0]
    return found


def _reveal(form: Json) -> Json:
    found: Json = form["body"]["reveal"]
    return found


KEY_LISTS = [(CREATE, _control), (CREATE, _tier), (RECOVER, _control), (DEACTIVATE, _reveal)]
KEY = encode_multikey(key("k").public_key)


@pytest.mark.parametrize(("sample", "where"), KEY_LISTS)
@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"keys": [KEY, KEY]}, "names a key twice"),
        ({"keys": []}, "no list of keys"),
        ({"keys": KEY}, "no list of keys"),
        (
            {"keys": [encode_multikey(key(n).public_key) for n in SEVENTEEN[:9]]},
            "no list of keys",
        ),
        ({"keys": [encode_multikey(key("k").public_key, X25519_PREFIX)]}, "not an Ed25519"),
        ({"keys": ["z1" + KEY[1:]]}, "not a known Multikey"),
        ({"keys": [KEY + " "]}, "not canonical"),
        ({"keys": [KEY[1:]]}, "not base58btc multibase"),
        ({"keys": ["u" + KEY[1:]]}, "not base58btc multibase"),
        ({"keys": [7]}, "not base58btc multibase"),
        ({"threshold": 0}, "bad threshold"),
        ({"threshold": 9}, "bad threshold"),
        ({"threshold": True}, "bad threshold"),
        ({"threshold": "1"}, "bad threshold"),
        ({"more": 1}, "malformed"),
    ],
)
def test_key_list_that_breaks_a_rule_is_refused(
    sample: bytes, where: Callable[[Json], Json], members: Json, match: str
) -> None:
    refused(changed(sample, lambda form: where(form).update(members)), match)


@pytest.mark.parametrize(("sample", "where"), KEY_LISTS)
@pytest.mark.parametrize("count", [1, CONTROL_KEYS_MAX])
def test_key_list_of_one_to_eight_keys_with_every_threshold_is_read(
    sample: bytes, where: Callable[[Json], Json], count: int
) -> None:
    keys = [encode_multikey(key(name).public_key) for name in SEVENTEEN[:count]]
    for threshold in range(1, count + 1):
        members = {"keys": keys, "threshold": threshold}
        decode_operation(changed(sample, lambda form, m=members: where(form).update(m)))  # type: ignore[misc]  # bound now


def test_commitment_is_a_sha2_256_multihash() -> None:
    for value in (None, "", PREV.hex(), encode_hash(PREV) + "1", KEY):
        refused(
            changed(CREATE, lambda form, v=value: _control(form).update(next=v)),  # type: ignore[misc]  # bound now
            "not base58btc|not a sha2-256|base58",
        )


def test_recovery_has_one_to_three_tiers_or_is_left_out() -> None:
    tier = _tier(strict_json.decode(CREATE, bytes_max=OPERATION_BYTES_MAX))
    assert len(decode_operation(changed(CREATE, _set_tiers([tier] * 3))).tiers) == 3
    for tiers in ([], [tier] * 4, None, tier):
        refused(changed(CREATE, _set_tiers(tiers)), "recovery is malformed")
    assert decode_operation(changed(CREATE, lambda form: form["body"].pop("recovery"))).tiers == ()


def _set_tiers(tiers: object) -> Callable[[Json], Any]:
    return lambda form: form["body"].update(recovery=tiers)


def test_recover_names_a_tier_and_nothing_else_does() -> None:
    for tier in (-1, "0", None, True):
        refused(changed(RECOVER, lambda form, t=tier: form["body"].update(tier=t)), "tier")  # type: ignore[misc]  # bound now
    refused(changed(RECOVER, lambda form: form["body"].update(tier=3)), "does not exist")
    refused(changed(RECOVER, lambda form: form["body"].pop("tier")), "body is malformed")
    refused(changed(UPDATE, lambda form: form["body"].update(tier=0)), "body is malformed")


def test_deactivation_carries_no_state() -> None:
    refused(changed(DEACTIVATE, lambda form: form["body"].update(document={})), "deactivation")
    assert decode_operation(changed(DEACTIVATE, lambda form: form.update(body={}))).reveal is None


# --- the document inside ---


def _with_document(value: Json) -> bytes:
    return changed(CREATE, lambda form: form["body"].update(document=value))


def _document_of(bytes_: int) -> Json:
    """A document whose JCS form has exactly so many bytes."""
    urls = [f"https://example.org/{number:02}/".ljust(500, "a") for number in range(16)]
    made: Json = {"alsoKnownAs": urls}
    left = bytes_ - len(strict_json.encode(made))
    services = [{"id": "#s", "type": "S", "serviceEndpoint": "https://example.org/"}]
    left -= len(strict_json.encode({"service": services})) - 1
    services[0]["serviceEndpoint"] += "b" * left
    return {**made, "service": services}


def test_document_of_8_kib_is_read_and_of_a_byte_more_refused() -> None:
    whole = _document_of(DOCUMENT_BYTES_MAX)
    found = decode_operation(_with_document(whole)).document
    assert found is not None
    assert len(found) == DOCUMENT_BYTES_MAX
    refused(_with_document(_document_of(DOCUMENT_BYTES_MAX + 1)), "document is too long")


def _methods(count: int) -> Json:
    ids = [f"#{name}" for name in SEVENTEEN[:count]]
    return {
        "verificationMethod": [
            {"id": name, "type": "Multikey", "publicKeyMultibase": KEY} for name in ids
        ],
        "authentication": ids,
    }


def _services(count: int) -> Json:
    return {
        "service": [
            {"id": f"#{name}", "type": "S", "serviceEndpoint": "a:b"} for name in SEVENTEEN[:count]
        ]
    }


def _names(count: int) -> Json:
    return {"alsoKnownAs": [f"a:{name}" for name in SEVENTEEN[:count]]}


@pytest.mark.parametrize("make", [_methods, _services, _names])
def test_sixteen_of_a_kind_are_read_and_seventeen_refused(make: Callable[[int], Json]) -> None:
    assert VERIFICATION_METHODS_MAX == SERVICES_MAX == 16
    decode_operation(_with_document(make(16)))
    refused(_with_document(make(17)), "wrong count")
    name = next(iter(make(16)))
    refused(_with_document({name: []}), "wrong count")


@pytest.mark.parametrize(
    "place",
    [
        lambda uri: {"alsoKnownAs": [uri]},
        lambda uri: {"service": [{"id": "#s", "type": "S", "serviceEndpoint": uri}]},
        lambda uri: {"service": [{"id": "#s", "type": "S", "serviceEndpoint": {"uri": uri}}]},
    ],
)
def test_uri_of_512_bytes_is_read_and_of_one_more_refused(place: Callable[[str], Json]) -> None:
    uri = "https://example.org/".ljust(512, "a")
    decode_operation(_with_document(place(uri)))
    refused(_with_document(place(uri + "a")), "not a URI")
    for personal in (
        "mailto:a@example.org",
        "Tel:+1",
        "data:,x",
        "https://me@example.org/",
        "https://me:pw@example.org/",
        "ftp://@example.org",
    ):
        refused(_with_document(place(personal)), "personal data|user information")


def test_document_nested_too_deep_is_refused() -> None:
    value: Any = "x"
    for _ in range(17):
        value = [value]
    refused(_with_document({"service": value}), "too deep")


def test_document_refers_to_nothing_that_it_does_not_hold() -> None:
    refused(_with_document({**document(), "authentication": ["#gone"]}), "no verification method")
    refused(_with_document({**document(), "authentication": ["#s"]}), "no verification method")
    agree = {
        "verificationMethod": [
            {
                "id": "#x",
                "type": "Multikey",
                "publicKeyMultibase": encode_multikey(key("x").public_key, X25519_PREFIX),
            }
        ]
    }
    decode_operation(_with_document({**agree, "keyAgreement": ["#x"]}))
    for name in (
        "authentication",
        "assertionMethod",
        "capabilityInvocation",
        "capabilityDelegation",
    ):
        refused(_with_document({**agree, name: ["#x"]}), "wrong kind")
    refused(_with_document({**document(), "keyAgreement": ["#k1"]}), "wrong kind")


def test_builder_without_a_signer_is_our_callers_mistake() -> None:
    with pytest.raises(UsageError, match="needs a signer"):
        deactivate_operation(net=NET, exp_height=EXP, did=DID, prev=PREV, seq=1, signers=[])
