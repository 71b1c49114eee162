// A DID's history: is it whole, which operations are nullified, who was in charge? (did/verify_history.py)
// What an operation may hold the chain judged when it executed it; here its shape is checked as far as it
// is read.

import {
  check, decode, decodeUtf8, equal, fromBase64url, hashTagged, readArray, readBytes, readInt, sha256, utf8,
} from "./codec.mjs";
import { guarded, verifyInclusion } from "./chain.mjs";
import {
  canonicalJson, decodeDid, decodeMultibase, hasMembers, hashText, isObject, isRefused, judgeProof, parseJson, timeText,
} from "./did.mjs";

export const ENTRY_BYTES_MAX = 16 * 1024 + 64;
const ED25519 = [0xed, 0x01];
const TYPES = ["create", "update", "recover", "deactivate"];

/** {verdict, reason, header, record, operations} of all pages of `did_history`, in order. What
 *  `operations` holds says `verifyHistory`; an unknown DID has none, and null as its record. */
export async function judgeHistory(pages, did, trust, nowMs, maxAgeMs = null) {
  return guarded(async () => {
    check(Array.isArray(pages) && pages.length > 0, "history has no pages");
    let first = null;
    const items = [];
    for (const page of pages) {
      hasMembers(page, ["did", "operations", "nextCursor", "proof"]);
      check(page.did === did && Array.isArray(page.operations), "history page is of another DID");
      const judged = await judgeProof(page.proof, did, trust, nowMs, maxAgeMs);
      if (isRefused(judged)) return judged;
      first ??= judged;
      check(headOf(judged) === headOf(first), "the DID changed while its history was read");
      items.push(...page.operations);
    }
    check(first.record !== null || items.length === 0, "history of a DID that does not exist");
    return { ...first, operations: first.record === null ? [] : await verifyHistory(items, first.record) };
  });
}
const headOf = ({ record }) => record && hashText(record.head);

/** Every operation, oldest first: {seq, height, timeMs, versionId, hash, form, nullifiedBy, authority,
 *  changesAuthority}. `form` is its JSON; `authority`, {control: {keys, threshold, next?}, recovery?}, is
 *  who was in charge from then on, tiers strongest first. Throws Invalid. */
export async function verifyHistory(items, record) {
  check(BigInt(items.length) === record.seq + 1n, "history is not whole");
  const operations = [];
  const living = [];
  let authority = null;
  for (const [seq, item] of items.entries()) {
    const operation = await verifyItem(item, record);
    check(operation.seq === seq, "history is not in order of seq");
    const { type, body, prev } = operation.form;
    const follows = living.findLastIndex((other) => hashText(other.hash) === prev);
    check(seq === 0 || follows >= 0, "operation follows none that is alive");
    const dropped = living.splice(follows + 1);
    check(!dropped.length || type === "recover", "operation forks without being a recovery");
    for (const other of dropped) other.nullifiedBy = seq;
    living.push(operation);
    const before = authority;
    if (type !== "deactivate") authority = { control: body.control, ...(body.recovery && { recovery: body.recovery }) };
    const changesAuthority = before === null || canonicalJson(before) !== canonicalJson(authority);
    operations.push(Object.assign(operation, { authority, changesAuthority }));
  }
  check(equal(operations.at(-1).hash, record.head), "history does not end in the record's head");
  const controlHash = await hashTagged("did-control", utf8(canonicalJson(authority)));
  check(equal(controlHash, record.controlHash), "history leads to others in charge than the record");
  const isRight = (operation, i) => operation.nullifiedBy === items[i].nullifiedBy;
  check(operations.every(isRight), "history flags the wrong operations as nullified");
  return operations;
}

async function verifyItem(item, record) {
  hasMembers(item, ["seq", "versionId", "type", "height", "time", "nullifiedBy", "entry", "path"]);
  const raw = fromBase64url(item.entry, ENTRY_BYTES_MAX);
  const { seq, height, timeMs, versionId, hash, form } = await readEntry(raw, record);
  check(Array.isArray(item.path) && item.path.length <= 64, "log path is malformed");
  const path = item.path.map((node) => readBytes(fromBase64url(node, 32), "log path", 32));
  await verifyInclusion(record.logRoot, record.seq + 1n, seq, await sha256([0], raw), path);
  const found = { seq: Number(seq), versionId, type: form.type, height: Number(height), time: timeText(timeMs) };
  check(canonicalJson({ ...item, ...found }) === canonicalJson(item), "history item says something that its entry does not");
  return { seq: found.seq, height, timeMs, versionId, hash, form, nullifiedBy: null };
}

/** {seq, height, timeMs, hash, versionId, form} of an entry's wire bytes, which need a proof that they are
 *  in the log of `record`. `form` is the operation's JSON; numbers are BigInt. Throws Invalid. */
export async function readEntry(raw, record) {
  const [seq, height, timeMs, bytes] = readArray(decode(raw, ENTRY_BYTES_MAX), 4, "operation log entry");
  for (const number of [seq, height, timeMs]) readInt(number, "operation log number");
  const text = decodeUtf8(readBytes(bytes, "operation", 0, 16 * 1024));
  const form = parseJson(text);
  check(canonicalJson(form) === text, "operation is not in canonical form");
  checkForm(form);
  const { sigs, ...unsigned } = form;
  const hash = await hashTagged("did-op", utf8(canonicalJson(unsigned)));
  const did = form.type === "create" ? hash : decodeDid(form.did);
  check(equal(did, record.did), "operation is of another DID");
  return { seq, height, timeMs, hash, versionId: `${form.seq}-${hashText(hash)}`, form };
}

function checkForm(form) {
  const names = ["v", "net", "type", "seq", "expHeight", "body", "sigs"];
  hasMembers(form, form?.type === "create" ? names : [...names, "did", "prev"]);
  const { v, type, body } = form;
  check(v === 1 && TYPES.includes(type) && isObject(body), "operation is malformed");
  if (type === "deactivate") return;
  check(Array.isArray(body.recovery ?? []), "recovery is malformed");
  for (const list of [body.control, ...(body.recovery ?? [])]) {
    check(Array.isArray(list?.keys) && list.threshold >= 1 && list.threshold <= list.keys.length, "key list is malformed");
    for (const key of list.keys) decodeMultibase(key, ED25519);
  }
}
