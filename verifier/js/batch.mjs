// Batch answers: many DIDs at one height, under one state multiproof. (did/verify_batch.py)

import { check, equal, fromBase64url, sha256 } from "./codec.mjs";
import { Verdict, guarded } from "./chain.mjs";
import {
  canonicalJson, decodeDid, expectNewest, hasMembers, isRefused, judgeHeader, parseJson, readRecord, rowKey, unknownResult,
} from "./did.mjs";

const DIDS_MAX = 100;
const MULTIPROOF_BYTES_MAX = 4 * 1024 * 1024;
const DEPTH_MAX = 256;
const PROOF_MEMBERS = ["type", "records", "multiproof", "header", "certificate", "handoffs"];

/** {verdict, reason, header, records} of an answer of `did_resolveBatch` about `dids`, in their order;
 *  a record is null where there is none. Nothing proves what a resolver says of other methods' DIDs or of
 *  malformed ones, so with such among them it can not tell. */
export async function judgeBatch(answer, dids, trust, nowMs, maxAgeMs = null) {
  return guarded(async () => {
    if (typeof answer === "string") answer = parseJson(answer);
    check(dids.length >= 1 && dids.length <= DIDS_MAX && new Set(dids).size === dids.length, "DIDs are too many or repeated");
    const foreign = dids.find((did) => !isOurs(did));
    if (foreign !== undefined) {
      return { verdict: Verdict.CANNOT_TELL, reason: `nothing proves an answer about ${foreign}`, header: null };
    }
    hasMembers(answer, ["results", "proof"]);
    const { results, proof } = answer;
    hasMembers(proof, PROOF_MEMBERS);
    check(proof.type === "ZynkStateMultiproof1", "proof has another type");
    const judged = await judgeHeader(proof, trust, nowMs, maxAgeMs);
    if (isRefused(judged)) return judged;
    for (const items of [results, proof.records]) {
      check(Array.isArray(items) && items.length === dids.length, "batch answer has a wrong count");
    }
    const records = await verifyRecords(dids, proof, judged.header.stateRoot);
    for (const [i, did] of dids.entries()) await verifyResult(results[i], did, records[i]);
    return { ...judged, records };
  });
}

async function verifyResult(result, did, record) {
  const shown = { record, log: null, document: result?.didDocument ?? null };
  const expected = record === null ? unknownResult(did) : await expectNewest(shown);
  check(canonicalJson(result) === canonicalJson(expected), `answer about ${did} says something that its proof does not show`);
}

function isOurs(did) {
  try {
    decodeDid(did);
    return true;
  } catch {
    return false;
  }
}

async function verifyRecords(dids, proof, stateRoot) {
  const records = [];
  const asked = [];
  for (const [i, did] of dids.entries()) {
    const shown = proof.records[i];
    const row = shown === null ? null : fromBase64url(shown, 512);
    const record = row === null ? null : readRecord(row);
    const identifier = decodeDid(did);
    check(record === null || equal(record.did, identifier), "record is of another DID");
    records.push(record);
    asked.push({ path: await sha256(rowKey(identifier)), valueHash: row === null ? null : await sha256(row) });
  }
  await verifyMultiproof(stateRoot, asked, fromBase64url(proof.multiproof, MULTIPROOF_BYTES_MAX));
  return records;
}

/** Throw unless under `root` each row of `asked`, {path, valueHash}, has this value, or (null) none. The
 *  steps of the proof are those of ledger/state/multiproof.py. */
export async function verifyMultiproof(root, asked, proof) {
  let at = 0;
  function take(count) {
    check(count <= proof.length - at, "state multiproof has missing bytes");
    at += count;
    return proof.subarray(at - count, at);
  }

  async function hashOf(rows, depth) {
    const [step] = take(1);
    if (step <= 2) return hashOfEnd(step, rows, depth);
    check(step <= 5 && depth < DEPTH_MAX, "state multiproof is malformed");
    const isRight = ({ path }) => (path[depth >> 3] >> (7 - (depth % 8))) & 1;
    const [left, right] = [rows.filter((row) => !isRight(row)), rows.filter(isRight)];
    const isBoth = left.length > 0 && right.length > 0;
    check((step === 3) === isBoth, "state multiproof does not follow the keys");
    if (isBoth) return sha256([1], await hashOf(left, depth + 1), await hashOf(right, depth + 1));
    const beside = step === 4 ? new Uint8Array(32) : take(32);
    check(step === 4 || beside.some(Boolean), "state multiproof spells out an empty side");
    const own = await hashOf(rows, depth + 1);
    return left.length ? sha256([1], own, beside) : sha256([1], beside, own);
  }

  async function hashOfEnd(step, rows, depth) {
    const present = rows.filter(({ valueHash }) => valueHash !== null);
    check(present.length === (step === 1 ? 1 : 0), "state multiproof shows other keys than those with a value");
    if (step === 0) return new Uint8Array(32);
    if (step === 1) return sha256([0], present[0].path, present[0].valueHash);
    const leaf = take(64);
    const other = leaf.subarray(0, 32);
    check(!rows.some(({ path }) => equal(path, other)), "state multiproof of absence names the key itself");
    check(sharedBits(other, rows[0].path) >= depth, "state multiproof names a key that is not on the path");
    return sha256([0], leaf);
  }

  const found = await hashOf(asked, 0);
  check(at === proof.length, "state multiproof has trailing bytes");
  check(equal(found, root), "state multiproof leads to another root");
}

/** How many bits two paths begin with alike. */
function sharedBits(a, b) {
  const byte = a.findIndex((value, i) => value !== b[i]);
  return byte < 0 ? DEPTH_MAX : byte * 8 + Math.clz32(a[byte] ^ b[byte]) - 24;
}
