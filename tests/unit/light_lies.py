"""What an endpoint may say that is not so; each is a function from a true answer to a false one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from ledger.accounts import Account
from ledger.finality import FinalityProof
from rpc.params import bytes_of_text, text_of_bytes

Lie = Callable[[str, dict[str, Any], Any], Any]
"""(method, params, a copy of the true answer) -> the answer that is given."""


def more_money(method: str, params: dict[str, Any], answer: Any) -> Any:
    if method == "chain_account":
        found = Account.decode(bytes_of_text(answer["proof"]["value"]))
        richer = dataclasses.replace(found, balance=found.balance + 1)
        answer["balance"] = str(richer.balance)
        answer["proof"]["value"] = text_of_bytes(richer.encode())
    return answer


def another_chain(method: str, params: dict[str, Any], answer: Any) -> Any:
    if method == "chain_account":
        proof = FinalityProof.decode(bytes_of_text(answer["proof"]["finality"]))
        later = proof.header.height + 1  # one at the head's own height is just not news
        header = dataclasses.replace(proof.header, chain_id="another", height=later)
        foreign = dataclasses.replace(proof, header=header)
        answer["proof"]["finality"] = text_of_bytes(foreign.encode())
    return answer


def replay_of(method: str, old: Any) -> Lie:
    """An answer that was true once."""
    return lambda asked, params, answer: old if asked == method else answer


def hide(did: str, other: str, absent: Any) -> Lie:
    """A true proof that another DID does not exist, made out for this one."""

    def hidden(method: str, params: dict[str, Any], answer: Any) -> Any:
        if method != "did_resolve" or params["did"] != did:
            return answer
        return json.loads(json.dumps(absent).replace(other, did))

    return hidden


def flip_blob(answer: Any, seed: int) -> Any:
    """One base64url character of one blob in the answer, wherever it is, becomes another."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, dict | list):
                walk(value)
            elif isinstance(value, str) and len(value) > 40 and ":" not in value:
                places.append((node, key))

    walk(answer)
    node, key = places[seed % len(places)]
    at = seed * 7919 % (len(node[key]) - 2)
    text = node[key]
    node[key] = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
    return answer
