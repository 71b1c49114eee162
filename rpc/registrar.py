"""DID registration over HTTP: POST /1.0/create, /1.0/update, /1.0/deactivate.

DIF DID Registration with client-managed secrets: the client signs, here things are put together.
A job goes through these states, one a call:

    request ------------------> action getVerificationMethod, if keys are missing
    request with keys --------> action signPayload: the operation, by the control keys
    + signingResponse --------> action signPayload: the tx that carries it, by the paying key
    + signingResponse --------> finished | wait (until final) | failed
    jobId alone --------------> the same again

**The job is in its id**: nothing is held here between calls, so that nobody can fill it up, any
node can take the next call, and a restart loses nothing. The client could change it; but whatever
counts in it is under the client's own signatures.

A signature is checked in the call that brings it, and so is the number of them: nobody is asked to
pay for an operation that is not signed, or that no longer follows the DID's head. A request costs
its caller REQUEST_COST, a part for its bytes and for each signature, and what the methods of the
node cost that it leads to.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from did import strict_json
from did.control import CONTROL_KEYS_MAX
from did.document import DOCUMENT_BYTES_MAX, to_resolved
from did.multikey import decode_base64url, encode_base64url, encode_multikey
from did.operation import Operation, OperationType, decode_operation, encode_version_id
from did.oplog import ENTRY_BYTES_MAX, LogEntry
from did.registration import (
    ALGORITHM,
    PURPOSE_CONTROL,
    PURPOSE_PAYMENT,
    Head,
    assemble,
    build_form,
    read_request,
    read_signatures,
    required_signers,
    signed_bytes,
    signing_requests,
)
from ledger import codec
from ledger.errors import InvalidInputError
from ledger.fees import compute_fee_min
from ledger.params import ChainParams
from ledger.tx import Message, Tx
from rpc.dispatch import Caller, Dispatcher, check_marks
from rpc.errors import RpcCode, RpcError
from rpc.params import text_of_bytes

KIND_BY_PATH = {
    "/1.0/create": OperationType.CREATE,
    "/1.0/update": OperationType.UPDATE,
    "/1.0/deactivate": OperationType.DEACTIVATE,
}
BODY_BYTES_MAX = 96 * 1024
JOB_BYTES_MAX = 32 * 1024
MARKS_MAX = 4096
"""Brackets, commas, colons and escapes of a body, and of a job: 3 ms of parsing."""
REQUEST_COST = 10
BYTES_PER_COST = 4 * 1024
SIGNATURE_COST = 2
VALID_FOR_BLOCKS = 1000
POLL_AFTER_MS = 2_000
REASON_CHARS_MAX = 800
_TEMPLATE = [
    {"type": "Multikey", "purpose": [PURPOSE_CONTROL]},
    {"type": "Multikey", "purpose": [PURPOSE_PAYMENT]},
]


class Registrar:
    """Answers registration requests through the node's own methods."""

    def __init__(self, dispatcher: Dispatcher, *, final_wait_ms: int) -> None:
        self._dispatcher = dispatcher
        self._final_wait_ms = final_wait_ms

    async def answer(
        self, kind: OperationType, data: bytes, caller: Caller
    ) -> tuple[int, dict[str, Any]]:
        """(HTTP status, body). Raises RpcError for what is no fault of the request's."""
        await self._dispatcher.pay(caller, REQUEST_COST + len(data) // BYTES_PER_COST)
        try:
            check_marks(data, MARKS_MAX)
            body = strict_json.decode(data, bytes_max=BODY_BYTES_MAX)
            if type(body) is not dict:
                raise InvalidInputError("request is not an object")
            job = None if body.get("jobId") is None else _decode_job(body["jobId"])
            if job is not None and job["kind"] != kind.value:
                raise InvalidInputError("job is of another operation", expected=job["kind"][:20])
            if job is None or job["step"] == "start":
                return await self._start(kind, _merge(job, body), caller)
            match job["step"]:
                case "operation":
                    return await self._take_operation(job, body, caller)
                case "payment":
                    return await self._take_payment(job, body, caller)
                case _:
                    return await self._look_again(job, caller)
        except InvalidInputError as error:
            return 400, _failed(str(error))
        except RpcError as error:
            if error.code == RpcCode.TX_REFUSED:
                return 400, _failed(error.reason)
            if error.code not in (RpcCode.INVALID_PARAMS, RpcCode.TOO_LARGE):
                raise
            return 400, _failed(str(error))

    async def _start(
        self, kind: OperationType, body: Mapping[str, Any], caller: Caller
    ) -> tuple[int, dict[str, Any]]:
        request = read_request(kind, body)
        head = None if request.did is None else await self._head(request.did, caller)
        needs_keys = head is None or head.control.next is not None
        if request.payer is None or (needs_keys and not request.control_keys):
            kept = {name: value for name, value in body.items() if name not in ("jobId", "secret")}
            asking = {"step": "start", "kind": kind.value, "body": kept}
            return 200, _action(
                asking, "getVerificationMethod", verificationMethodTemplate=_TEMPLATE
            )
        status = await self._ask("node_status", {}, caller)
        form = build_form(
            request,
            head,
            net=str(status["chain_id"]),
            exp_height=int(status["height"]) + VALID_FOR_BLOCKS,
        )
        signers = required_signers(request, head)
        requests = signing_requests(form, signers)
        job = {
            "step": "operation",
            "kind": kind.value,
            "form": form,
            "payer": request.payer.hex(),
            "kids": {request_id: item["kid"] for request_id, item in requests.items()},
            "threshold": signers.threshold,
        }
        return 200, _action(job, "signPayload", signingRequest=requests)

    async def _head(self, did: str, caller: Caller) -> Head:
        """What is in force. Raises InvalidInputError for a DID that can not be changed."""
        found = await self._ask("did_proof", {"did": did}, caller)
        record = found["record"]
        if record is None or record["status"] != "active":
            raise InvalidInputError("the DID does not exist, or is deactivated", got=did)
        page = await self._ask(
            "did_history", {"did": did, "cursor": record["seq"], "limit": 1}, caller
        )
        raw = decode_base64url(page["operations"][0]["entry"], bytes_max=ENTRY_BYTES_MAX)
        operation = decode_operation(LogEntry.decode(raw).operation)
        if operation.control is None or operation.document is None:
            raise InvalidInputError("the DID is being changed; ask again", retry=True)
        return Head(
            hash=operation.hash,
            seq=operation.seq,
            control=operation.control,
            tiers=operation.tiers,
            document=strict_json.decode(operation.document, bytes_max=DOCUMENT_BYTES_MAX),
        )

    async def _take_operation(
        self, job: dict[str, Any], body: Mapping[str, Any], caller: Caller
    ) -> tuple[int, dict[str, Any]]:
        """The control keys have signed: make the tx that carries the operation."""
        form, kids, threshold = job["form"], job["kids"], job["threshold"]
        signatures = await self._signatures(body, kids, signed_bytes(form), caller)
        if len(signatures) < threshold:
            raise InvalidInputError(
                "too few signatures",
                expected=f"{threshold} of " + ", ".join(kids),
                got=str(len(signatures)),
            )
        operation = assemble(form, signatures)
        await self._check_head(operation, caller)
        payer = bytes.fromhex(job["payer"])
        account = await self._ask("chain_account", {"account": job["payer"]}, caller)
        status = await self._ask("node_status", {}, caller)
        params = ChainParams(**(await self._ask("chain_params", {}, caller))["params"])
        messages = [Message("did/op", operation.encoded)]
        chain_id, nonce = str(status["chain_id"]), int(account.get("next_nonce", account["nonce"]))
        valid_until = int(status["height"]) + min(VALID_FOR_BLOCKS, params.tx_valid_blocks_max)
        fee = compute_fee_min(
            params, chain_id=chain_id, nonce=nonce, valid_until=valid_until, messages=messages
        )
        content: list[codec.Value] = [[m.type, m.body] for m in messages]
        unsigned = codec.encode([chain_id, payer, nonce, fee, valid_until, content, bytes(64)])
        tx = Tx.decode(unsigned)
        following = {
            "step": "payment", "kind": job["kind"], "tx": encode_base64url(unsigned),
        }  # fmt: skip
        request = {
            "kid": encode_multikey(payer),
            "alg": ALGORITHM,
            "purpose": PURPOSE_PAYMENT,
            "payload": {"fee": str(fee), "nonce": nonce, "validUntil": valid_until},
            "serializedPayload": base64.b64encode(tx.sign_bytes()).decode("ascii"),
        }
        return 200, _action(following, "signPayload", signingRequest={"payment": request})

    async def _check_head(self, operation: Operation, caller: Caller) -> None:
        """Raises InvalidInputError if the operation no longer follows what is in force."""
        if operation.prev is None:
            return
        found = await self._ask("did_proof", {"did": operation.did_text}, caller)
        record, expected = found["record"], encode_version_id(operation.seq - 1, operation.prev)
        if record is None or record["versionId"] != expected:
            raise InvalidInputError("the DID was changed meanwhile; begin again", expected=expected)

    async def _take_payment(
        self, job: dict[str, Any], body: Mapping[str, Any], caller: Caller
    ) -> tuple[int, dict[str, Any]]:
        """The paying key has signed: submit, and wait a while until it is final."""
        unsigned = decode_base64url(job["tx"], bytes_max=JOB_BYTES_MAX)
        draft = Tx.decode(unsigned)
        kids = {"payment": encode_multikey(draft.payer)}
        signatures = await self._signatures(body, kids, draft.sign_bytes(), caller)
        if not signatures:
            raise InvalidInputError("too few signatures", expected="payment", got="0")
        signed = unsigned[:-64] + signatures[0][1]
        answer = await self._ask(
            "did_submit",
            {"tx": text_of_bytes(signed), "wait": "finalized", "timeout_ms": self._final_wait_ms},
            caller,
        )
        following = {**job, "step": "final", "tx": encode_base64url(signed)}
        return _settled(following, answer)

    async def _signatures(
        self, body: Mapping[str, Any], kids: Mapping[str, str], message: bytes, caller: Caller
    ) -> list[tuple[str, bytes]]:
        responses = _responses(body)
        await self._dispatcher.pay(caller, SIGNATURE_COST * len(responses))
        return read_signatures(responses, kids, message)

    async def _look_again(self, job: dict[str, Any], caller: Caller) -> tuple[int, dict[str, Any]]:
        tx = Tx.decode(decode_base64url(job["tx"], bytes_max=JOB_BYTES_MAX))
        try:
            answer = await self._ask("tx_get", {"tx_id": tx.id.hex()}, caller)
        except RpcError as error:
            if error.code != RpcCode.NOT_FOUND:
                raise
            return 400, _failed("the tx is no longer pending")
        return _settled(job, answer)

    async def _ask(self, method: str, params: dict[str, object], caller: Caller) -> Any:
        return await self._dispatcher.invoke(method, params, caller)


def _merge(job: dict[str, Any] | None, body: Mapping[str, Any]) -> dict[str, Any]:
    """A request that goes on from a job's: what it says again counts, option by option."""
    before = {} if job is None else job["body"]
    merged = {**before, **{name: value for name, value in body.items() if value is not None}}
    options = [found for each in (before, body) if type(found := each.get("options")) is dict]
    if len(options) == 2:
        merged["options"] = {**options[0], **options[1]}
    return merged


def _responses(body: Mapping[str, Any]) -> dict[str, Any]:
    secret = body.get("secret")
    found = secret.get("signingResponse") if isinstance(secret, dict) else None
    if type(found) is not dict or len(found) > CONTROL_KEYS_MAX:
        raise InvalidInputError(
            "request has no signingResponse",
            expected=f"an object of at most {CONTROL_KEYS_MAX} responses",
        )
    return found


def _settled(job: dict[str, Any], answer: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """What became of a submitted tx."""
    tx = Tx.decode(decode_base64url(job["tx"], bytes_max=JOB_BYTES_MAX))
    operation = decode_operation(tx.messages[0].body)
    if answer["status"] == "dropped":
        return 400, _failed(str(answer.get("reason", "dropped")), operation.did_text)
    if answer["status"] != "finalized":
        wait = "the tx is not final yet"
        return 200, _answer(_encode_job(job), state="wait", wait=wait, waitTime=POLL_AFTER_MS)
    if answer["code"] != "ok":
        return 400, _failed(str(answer["code"]), operation.did_text)
    shown: dict[str, Any] = {"state": "finished", "did": operation.did_text}
    if operation.document is not None:
        stored = strict_json.decode(operation.document, bytes_max=DOCUMENT_BYTES_MAX)
        shown["didDocument"] = to_resolved(operation.did_text, stored)
    metadata: dict[str, Any] = {"versionId": operation.version_id}
    if operation.document is None:
        metadata["deactivated"] = True
    body = {
        "jobId": None,
        "didState": shown,
        "didRegistrationMetadata": {"txId": tx.id.hex(), "height": answer["height"]},
        "didDocumentMetadata": metadata,
    }
    return (201 if operation.type is OperationType.CREATE else 200), body


def _action(job: dict[str, Any], action: str, **more: Any) -> dict[str, Any]:
    return _answer(_encode_job(job), state="action", action=action, **more)


def _failed(reason: str, did: str | None = None) -> dict[str, Any]:
    shown = {} if did is None else {"did": did}
    return _answer(None, state="failed", reason=reason[:REASON_CHARS_MAX], **shown)


def _answer(job_id: str | None, **state: Any) -> dict[str, Any]:
    return {
        "jobId": job_id,
        "didState": state,
        "didRegistrationMetadata": {},
        "didDocumentMetadata": {},
    }


_JOB_MEMBERS: dict[str, dict[str, type]] = {
    "start": {"step": str, "kind": str, "body": dict},
    "operation": {
        "step": str, "kind": str, "form": dict, "payer": str, "kids": dict, "threshold": int,
    },
    "payment": {"step": str, "kind": str, "tx": str},
    "final": {"step": str, "kind": str, "tx": str},
}  # fmt: skip


def _encode_job(job: dict[str, Any]) -> str:
    return encode_base64url(strict_json.encode(job))


def _decode_job(text: object) -> dict[str, Any]:
    """Raises InvalidInputError; what it says is judged where it is used."""
    data = decode_base64url(text, bytes_max=JOB_BYTES_MAX)
    check_marks(data, MARKS_MAX)
    job = strict_json.decode(data, bytes_max=JOB_BYTES_MAX)
    members = _JOB_MEMBERS.get(str(job.get("step"))) if type(job) is dict else None
    if members is None or job.keys() != members.keys():
        raise InvalidInputError("jobId is not one that was given out here")
    is_typed = all(type(job[name]) is kind for name, kind in members.items())
    kids, payer = job.get("kids", {}), job.get("payer", "00" * 32)
    if (
        not is_typed
        or not all(type(kid) is str for kid in kids.values())
        or re.fullmatch("[0-9a-f]{64}", payer) is None
    ):
        raise InvalidInputError("jobId is not one that was given out here")
    return dict(job)
