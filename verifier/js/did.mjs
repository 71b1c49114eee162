// DID answers: is this document what the chain's state holds for this DID? (did/verify.py)

import {
  Invalid, check, concat, decode, equal, fromBase64url, hashTagged, readArray, readBytes, readInt, utf8,
} from "./codec.mjs";
import { Verdict, guarded, joinFinality, judgeDecoded, verifyStateProof } from "./chain.mjs";

const PREFIX = "did:zynk:";
export const SHA2_256 = [0x12, 0x20];
const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
export const ERROR_PREFIX = "https://www.w3.org/ns/did#";
const CONTEXT = ["https://www.w3.org/ns/did/v1.1"];
export const RELATIONSHIPS = ["authentication", "assertionMethod", "keyAgreement", "capabilityInvocation", "capabilityDelegation"];
const PROOF_MEMBERS = ["type", "record", "stateProof", "header", "certificate", "handoffs"];

/** base58 multibase text of bytes that do not begin with 0. */
function encodeMultibase(bytes) {
  let number = bytes.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  let text = "";
  for (; number > 0n; number /= 58n) text = ALPHABET[Number(number % 58n)] + text;
  return "z" + text;
}

/** The multibase text of a sha2-256 multihash. */
export const hashText = (digest) => encodeMultibase(concat(SHA2_256, digest));

/** The 32 bytes that follow the two of `prefix` in base58 multibase text, in its one form. */
export function decodeMultibase(text, prefix) {
  check(typeof text === "string" && /^z[1-9A-HJ-NP-Za-km-z]{1,63}$/.test(text), "not base58 multibase");
  let number = 0n;
  for (const character of text.slice(1)) number = number * 58n + BigInt(ALPHABET.indexOf(character));
  const raw = Uint8Array.from({ length: 34 }, (_, i) => Number((number >> BigInt(8 * (33 - i))) & 0xffn));
  check(encodeMultibase(raw) === text && equal(raw.slice(0, 2), prefix), "multibase text is of another kind");
  return raw.slice(2);
}

/** The 32-byte identifier of a did:zynk DID. */
export function decodeDid(did) {
  check(typeof did === "string" && did.startsWith(PREFIX), "not a did:zynk DID");
  return decodeMultibase(did.slice(PREFIX.length), SHA2_256);
}

export const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** The value of JSON text as did/strict_json.py takes it: nested at most 16 deep, no name twice, no
 *  number that is not a safe integer. Throws Invalid. */
export function parseJson(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Invalid("not JSON");
  }
  const structure = text.replace(/"(?:[^"\\]|\\.)*"/g, '"');
  const isNumber = (number) => /^-?\d{1,16}$/.test(number) && Number.isSafeInteger(Number(number));
  check((structure.match(/-?\d[\d.eE+-]*/g) ?? []).every(isNumber), "JSON number is not an integer");
  const countNames = (item, depth) => {
    if (item === null || typeof item !== "object") return 0;
    check(depth > 0, "JSON is nested too deep");
    const own = isObject(item) ? Object.keys(item).length : 0;
    return Object.values(item).reduce((sum, inner) => sum + countNames(inner, depth - 1), own);
  };
  check(structure.split(":").length - 1 === countNames(value, 16), "JSON object repeats a name");
  return value;
}

/** JCS (RFC 8785) of objects, arrays, text, safe integers, booleans and null. */
export function canonicalJson(value) {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (isObject(value)) {
    const names = Object.keys(value).sort(); // by UTF-16 code units, as JCS has it
    return `{${names.map((name) => `${JSON.stringify(name)}:${canonicalJson(value[name])}`).join(",")}}`;
  }
  const isPlain = value === null || ["string", "boolean"].includes(typeof value) || Number.isSafeInteger(value);
  check(isPlain, "value has no canonical form");
  check(typeof value !== "string" || !/[\ud800-\udfff]/u.test(value), "text has a lone surrogate");
  return JSON.stringify(value);
}

export function readRecord(bytes) {
  const v = readArray(decode(bytes, 512), 14, "DID record");
  for (const i of [1, 3, 4, 5, 6, 12]) readBytes(v[i], "DID record hash", 32);
  for (const i of [0, 2, 7, 8, 9, 10, 11, 13]) readInt(v[i], "DID record number");
  check(v[0] === 1n && v[7] <= 1n, "DID record has another version or status");
  return {
    did: v[1], seq: v[2], head: v[3], docHash: v[5], controlHash: v[6], isActive: v[7] === 0n,
    createdHeight: v[8], createdMs: v[9], updatedHeight: v[10], updatedMs: v[11], logRoot: v[12], disputeUntilMs: v[13],
  };
}

// --- judging ---

/** The verdict alone is the answer: nothing that the proof shows may be looked at. */
export const isRefused = ({ verdict }) => [Verdict.WRONG, Verdict.CANNOT_TELL].includes(verdict);

/** {verdict, reason, header} of the finality in a proof object. Throws Invalid. */
export async function judgeHeader({ header, certificate, handoffs }, trust, nowMs, maxAgeMs) {
  check(Array.isArray(handoffs) && handoffs.length <= 1024, "handoffs are malformed");
  const steps = handoffs.map((step) => {
    hasMembers(step, ["header", "certificate", "nextValidators"]);
    return [step.header, step.certificate, step.nextValidators].map((text) => fromBase64url(text, 32 * 1024));
  });
  const finality = await joinFinality(fromBase64url(header, 1024), fromBase64url(certificate, 32 * 1024), steps);
  return judgeDecoded(finality, trust, nowMs, maxAgeMs);
}

/** {verdict, reason, header, record} of a proof object; `record` is null where there is none. */
export async function judgeProof(proof, did, trust, nowMs, maxAgeMs = null) {
  return guarded(async () => {
    const identifier = decodeDid(did);
    hasMembers(proof, PROOF_MEMBERS);
    check(proof.type === "ZynkStateProof1", "proof has another type");
    const judged = await judgeHeader(proof, trust, nowMs, maxAgeMs);
    if (isRefused(judged)) return judged;
    const row = proof.record === null ? null : fromBase64url(proof.record, 512);
    const stateProof = fromBase64url(proof.stateProof, 16 * 1024);
    await verifyStateProof(judged.header.stateRoot, rowKey(identifier), row, stateProof);
    const record = row === null ? null : readRecord(row);
    check(record === null || equal(record.did, identifier), "record is of another DID", "state");
    return { ...judged, record };
  });
}

/** The key of a DID's record in the state. */
export const rowKey = (identifier) => concat(utf8("did\0"), identifier);

/** {verdict, reason, header, record} of a whole resolution result (its text, or what `parseJson` made of
 *  it) about the newest version: everything in it must follow from its proof. */
export async function judgeResolution(answer, did, trust, nowMs, maxAgeMs = null) {
  return judgeResult(answer, did, expectNewest, trust, nowMs, maxAgeMs);
}

/** The same, where `expect` gives the result that must be there, but for its proof, of {did, record, header,
 *  log, document}: what is proven, the `log` of an older version's proof or null, and the document shown. */
export async function judgeResult(answer, did, expect, trust, nowMs, maxAgeMs) {
  return guarded(async () => {
    if (typeof answer === "string") answer = parseJson(answer);
    hasMembers(answer, ["didDocument", "didResolutionMetadata", "didDocumentMetadata"]);
    const { didDocument: document, didResolutionMetadata, didDocumentMetadata } = answer;
    check(isObject(didResolutionMetadata) && isObject(didDocumentMetadata), "metadata is not an object");
    const isFound = !("error" in didResolutionMetadata);
    const { proof: proofs, ...rest } = isFound ? didDocumentMetadata : didResolutionMetadata;
    const { proof, log } = splitProof(proofs);
    const judged = await judgeProof(proof, did, trust, nowMs, maxAgeMs);
    if (isRefused(judged)) return judged;
    const { record, header } = judged;
    check(record !== null || log === null, "proof is of the wrong kind for what was asked");
    const expected = await expect({ did, record, header, log, document });
    const shown = {
      didDocument: document,
      didResolutionMetadata: isFound ? didResolutionMetadata : rest,
      didDocumentMetadata: isFound ? rest : didDocumentMetadata,
    };
    check(canonicalJson(shown) === canonicalJson(expected), "answer says something that its proof does not show", "content");
    return judged;
  });
}

/** The one item of a `proof` list: {proof: the plain proof object, log: that of an older version's or null}. */
function splitProof(proofs) {
  check(Array.isArray(proofs) && proofs.length === 1, "proof is not a list of one item");
  const [proof] = proofs;
  if (!isObject(proof) || proof.type !== "ZynkHistoryProof1" || !("log" in proof)) return { proof, log: null };
  const { log, ...plain } = proof;
  return { proof: { ...plain, type: "ZynkStateProof1" }, log };
}

/** What an answer about the newest version has to say. Throws Invalid. */
export async function expectNewest({ did, record, log, document }) {
  if (record === null) return unknownResult(did);
  check(log === null, "proof is of the wrong kind for what was asked: that of an older version (judgeVersion)");
  if (!record.isActive) return foundResult(null, metadataOf(record));
  const hash = await hashTagged("did-document", utf8(canonicalJson(toStored(didOf(record), document))));
  check(equal(hash, record.docHash), "document is not the one that the record names", "content");
  return foundResult(document, metadataOf(record));
}

export function hasMembers(value, names) {
  check(isObject(value) && Object.keys(value).length === names.length && names.every((name) => Object.hasOwn(value, name)),
    `expected exactly ${names.join(", ")}`);
}

// --- documents and results ---

/** The stored form behind a resolved document: relative ids, without what the method adds. */
export function toStored(did, document) {
  check(isObject(document), "document is not an object");
  const { "@context": context, id, ...stored } = document;
  check(canonicalJson(context ?? null) === canonicalJson(CONTEXT) && id === did, "document is not of this DID", "content");
  const list = (name) => (Array.isArray(stored[name]) ? stored[name] : check(false, `${name} is not a list`));
  const relative = (text) => {
    check(typeof text === "string" && text.startsWith(did + "#"), "id is not of this DID", "content");
    return text.slice(did.length);
  };
  for (const name of RELATIONSHIPS) if (name in stored) stored[name] = list(name).map(relative);
  for (const name of ["verificationMethod", "service"]) {
    if (!(name in stored)) continue;
    stored[name] = list(name).map((item) => {
      check(isObject(item), `${name} is malformed`);
      const { controller, ...kept } = item;
      if (name === "service") return { ...item, id: relative(item.id) };
      check(controller === did, "controller is another DID", "content");
      return { ...kept, id: relative(item.id) };
    });
  }
  return stored;
}

export const didOf = (record) => PREFIX + hashText(record.did);
export const versionIdOf = (seq, hash) => `${seq}-${hashText(hash)}`;

function metadataOf(record) {
  const created = timeText(record.createdMs);
  const found = { created, versionId: versionIdOf(record.seq, record.head), canonicalId: didOf(record) };
  if (record.seq > 0n) found.updated = timeText(record.updatedMs);
  if (!record.isActive) found.deactivated = true;
  if (record.disputeUntilMs) found.disputeUntil = timeText(record.disputeUntilMs);
  return found;
}

export function timeText(ms) {
  check(ms <= 253402300799999n, "time is past the year 9999");
  return new Date(Number(ms)).toISOString().slice(0, 19) + "Z";
}

export const foundResult = (didDocument, didDocumentMetadata) => ({
  didDocument, didResolutionMetadata: { contentType: "application/did" }, didDocumentMetadata,
});

export function notFoundResult(detail) {
  const error = { type: ERROR_PREFIX + "NOT_FOUND", title: "Not found", detail };
  return { didDocument: null, didResolutionMetadata: { error }, didDocumentMetadata: {} };
}

export const unknownResult = (did) => notFoundResult(`no operation has created ${did}`);
