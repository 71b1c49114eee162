// A DID's operation log: its entries, and the RFC 6962 tree whose root is in the DID's record (did/oplog.py).
// What an operation may hold the chain judged when it executed it; here its shape is checked as far as it
// is read.

import {
  check, decode, decodeUtf8, equal, hashTagged, readArray, readBytes, readInt, sha256, utf8,
} from "./codec.mjs";
import { canonicalJson, decodeDid, decodeMultibase, hasMembers, hashText, isObject, parseJson } from "./did.mjs";

export const ENTRY_BYTES_MAX = 16 * 1024 + 64;
const ED25519 = [0xed, 0x01];
const TYPES = ["create", "update", "recover", "deactivate"];

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

// --- the tree ---

export const hashEntry = (raw) => sha256([0], raw);
const hashNode = (left, right) => sha256([1], left, right);

/** The peaks (roots of the perfect subtrees, largest first) once a leaf follows `size` (BigInt) others. */
export async function appendLeaf(peaks, size, leafHash) {
  const left = [...peaks];
  let current = leafHash;
  for (let index = size; index & 1n; index >>= 1n) current = await hashNode(left.pop(), current);
  return [...left, current];
}

export async function computeRoot(peaks) {
  let root = peaks.at(-1);
  for (const peak of peaks.slice(0, -1).reverse()) root = await hashNode(peak, root);
  return root;
}
