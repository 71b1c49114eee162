// Audit receipts: is this content in the log that these validators made final? (audit/verify.py)

import {
  check, concat, decode, equal, readArray, readBytes, readInt, readList, sha256, toHex,
} from "./codec.mjs";
import { FINALITY_PROOF_BYTES_MAX, guarded, judgeDecoded, readFinalityProof, verifyInclusion } from "./chain.mjs";

const RECEIPT_BYTES_MAX = FINALITY_PROOF_BYTES_MAX + 16 * 1024;
const DIGEST_BYTES = { "1220": 32, "1340": 64, "1620": 32 }; // sha2-256, sha2-512, sha3-256

/** {verdict, reason, header, anchor} of a receipt's wire bytes for a content's multihash. `salt`
 *  (32 B) opens a salted leaf; `stream` (32 B), if given, must be the leaf's. */
export async function judgeReceipt(data, multihash, trust, nowMs, { salt = null, stream = null, maxAgeMs = null } = {}) {
  return guarded(async () => {
    const [tag, leafBytes, batch, anchorBytes, log, finality] =
      readArray(decode(data, RECEIPT_BYTES_MAX), 6, "receipt");
    check(tag === "audit-receipt/1", "receipt has another tag");
    const leaf = readLeaf(readBytes(leafBytes, "receipt leaf", 0, 160));
    const anchor = readAnchor(readBytes(anchorBytes, "anchor record", 0, 256));
    const [batchIndex, batchPath] = readPath(batch, "batch path");
    const [logIndex, logPath] = readPath(log, "log path");
    const proof = await readFinalityProof(finality);

    await checkContent(leaf, multihash, salt);
    check(equal(leaf.stream, anchor.stream), "leaf and anchor belong to different streams");
    check(stream === null || equal(leaf.stream, stream), "the receipt is for another stream");
    const { header } = proof;
    await verifyInclusion(anchor.batchRoot, anchor.count, batchIndex, await sha256([0], leafBytes), batchPath);
    await verifyInclusion(header.auditRoot, header.auditSize, logIndex, await sha256([0], anchorBytes), logPath);
    check(anchor.height <= header.height && anchor.timeMs <= header.timeMs,
      "the anchor claims to be younger than the header that holds it");
    return { ...(await judgeDecoded(proof, trust, nowMs, maxAgeMs)), anchor };
  });
}

/** Whether a receipt's leaf is salted: then `judgeReceipt` needs its salt. Throws Invalid. */
export function isSalted(data) {
  const [, leaf] = readArray(decode(data, RECEIPT_BYTES_MAX), 6, "receipt");
  return readLeaf(readBytes(leaf, "receipt leaf", 0, 160)).commitment !== null;
}

function checkMultihash(multihash) {
  const length = DIGEST_BYTES[toHex(multihash.subarray(0, 2))];
  check(length !== undefined && multihash.length === length + 2, "hash function is not allowed");
}

function readLeaf(data) {
  const v = decode(data, 160);
  check(Array.isArray(v) && (v.length === 3 || v.length === 4) && v[0] === "audit-leaf/1", "leaf is malformed");
  const stream = readBytes(v[1], "leaf stream", 32);
  if (v.length === 4) {
    readBytes(v[2], "multihash of a salted leaf", 0);
    return { stream, multihash: null, commitment: readBytes(v[3], "leaf commitment", 32) };
  }
  checkMultihash(readBytes(v[2], "leaf multihash", 0, 66));
  return { stream, multihash: v[2], commitment: null };
}

function readAnchor(data) {
  const v = readArray(decode(data, 256), 8, "anchor record");
  check(v[0] === "audit-anchor/1", "anchor has another tag");
  check(readInt(v[4], "anchor count", 1024n) > 0n, "anchor has no leaves");
  return {
    stream: readBytes(v[1], "anchor stream", 32), submitter: readBytes(v[2], "anchor submitter", 32),
    seq: readInt(v[3], "anchor seq"), count: v[4], batchRoot: readBytes(v[5], "batch root", 32),
    height: readInt(v[6], "anchor height"), timeMs: readInt(v[7], "anchor time"),
  };
}

function readPath(value, what) {
  const [index, path] = readArray(value, 2, what);
  return [readInt(index, what), readList(path, 64, what).map((hash) => readBytes(hash, what, 32))];
}

async function checkContent(leaf, multihash, salt) {
  checkMultihash(multihash);
  if (leaf.commitment === null) return check(equal(leaf.multihash, multihash), "the receipt is for another content", "content");
  check(salt?.length === 32, "the leaf is salted; its salt is needed to compare the content");
  const opened = await sha256(concat(salt, multihash.subarray(2)));
  check(equal(opened, leaf.commitment), "content and salt do not open the leaf's commitment", "content");
}
