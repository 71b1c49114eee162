// The JSON twin of an audit receipt, for people and web pages. (audit/receipt.py)
//
// Bytes are lower-case hex, integers are numbers, streams are base58 text. Every member is read in its one
// form, so that one receipt has one twin but for white space and the order of members.

import { check, encode, fromHex } from "./codec.mjs";
import { hasMembers, parseJson } from "./did.mjs";

export const JSON_BYTES_MAX = 3 * (4 * 1024 * 1024 + 16 * 1024);
const ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const HEADER = {
  protocol_version: readNumber, chain_id: readText, height: readNumber, time_ms: readNumber, parent_hash: readHex,
  origin_view: readNumber, proposer: readHex, vrf_proof: readHex, body_hash: readHex, state_root: readHex,
  audit_size: readNumber, audit_root: readHex, results_root: readHex, validators_hash: readHex,
  next_validators_hash: readHex,
};
const CERTIFICATE = {
  kind: readNumber, height: readNumber, view: readNumber, block_hash: readHex, bitmap: readHex,
  signatures: (list) => readList(list, readHex),
};
const PATH = { index: readNumber, path: (list) => readList(list, readHex) };
const HANDOFF = { header: fields(HEADER), certificate: fields(CERTIFICATE), next_validators: readHex };
const LEAF = { stream: readStream, multihash: readHex, commitment: (value) => (value === null ? null : readHex(value)) };
const ANCHOR = {
  stream: readStream, submitter: readHex, seq: readNumber, count: readNumber, batch_root: readHex, height: readNumber,
  time_ms: readNumber,
};
const RECEIPT = {
  type: readText, leaf: fields(LEAF), batch: fields(PATH), anchor: fields(ANCHOR), log: fields(PATH),
  header: fields(HEADER), certificate: fields(CERTIFICATE), handoffs: (list) => readList(list, fields(HANDOFF)),
};

/** The wire bytes of the receipt whose twin is `value` (text, or what `parseJson` made of it); they are still
 *  to be judged. Throws Invalid. */
export function decodeReceiptJson(value) {
  if (typeof value === "string") {
    check(value.length <= JSON_BYTES_MAX, "receipt JSON is too long");
    value = parseJson(value);
  }
  const [tag, [stream, multihash, commitment], batch, anchor, log, ...finality] = fields(RECEIPT)(value);
  const leaf = ["audit-leaf/1", stream, multihash, ...(commitment === null ? [] : [commitment])];
  return encode([tag, encode(leaf), batch, encode(["audit-anchor/1", ...anchor]), log, finality]);
}

/** A reader of objects with exactly these members; it gives their values in this order. */
function fields(readers) {
  return (value) => {
    hasMembers(value, Object.keys(readers));
    return Object.entries(readers).map(([name, read]) => read(value[name]));
  };
}

function readList(value, read) {
  check(Array.isArray(value), "receipt JSON has no list where one belongs");
  return value.map(read);
}

function readNumber(value) {
  check(Number.isSafeInteger(value) && value >= 0, "receipt JSON has a malformed number");
  return BigInt(value);
}

function readText(value) {
  check(typeof value === "string", "receipt JSON has no text where one belongs");
  return value;
}

function readHex(value) {
  return fromHex(readText(value));
}

/** The 32 bytes behind `z` and base58, in its one form. */
function readStream(value) {
  const match = /^z(1*)([2-9A-HJ-NP-Za-km-z][1-9A-HJ-NP-Za-km-z]*)?$/.exec(readText(value).slice(0, 64));
  check(match !== null, "stream id is malformed");
  let number = 0n;
  for (const character of match[2] ?? "") number = number * 58n + BigInt(ALPHABET.indexOf(character));
  const hex = number === 0n ? "" : number.toString(16);
  const bytes = fromHex("00".repeat(match[1].length) + hex.padStart(hex.length + (hex.length % 2), "0"));
  check(bytes.length === 32 && value.length <= 64, "stream id is malformed");
  return bytes;
}
