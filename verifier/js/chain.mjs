// Headers, validator sets, certificates, handoffs, state and log proofs, and what a proof is worth.
//
// The same rules as ledger/finality.py, ledger/light.py and ledger/state/proof.py, in the same
// order, so that both give the same verdict on the same bytes (docs/protocol.md, "Certificates and
// finality", "Light verification"). Heights, times and powers are BigInt.

import {
  Invalid, UnknownVersion, check, compare, concat, decode, encode, equal, hashTagged, isValidSignature,
  readArray, readBytes, readInt, readList, sha256, signBytes, toHex,
} from "./codec.mjs";

export const PROTOCOL_VERSION = 4n;
export const CLOCK_DRIFT_MAX_MS = 10_000n;
const VALIDATORS_MAX = 256;
const TOTAL_POWER_MAX = 2n ** 61n - 1n;
const VIEW_MAX = 2n ** 32n;
const HANDOFFS_MAX = 1024;
export const FINALITY_PROOF_BYTES_MAX = 4 * 1024 * 1024;
const FINALIZE = 3n;

export const Verdict = Object.freeze({
  VALID: "valid",
  VALID_BUT_EXPIRED_TRUST: "valid-but-expired-trust",
  TOO_OLD: "too-old",
  WRONG: "wrong",
  CANNOT_TELL: "cannot-tell",
});

// --- what a proof is made of ---

export async function readHeader(value) {
  const v = readArray(value, 15, "header");
  for (const i of [4, 6, 8, 9, 11, 12, 13, 14]) readBytes(v[i], "header hash", 32);
  check(typeof v[1] === "string" && [...v[1]].length <= 64, "header chain id is malformed");
  return {
    protocolVersion: readInt(v[0], "header protocol version", 2n ** 16n),
    chainId: v[1],
    height: readInt(v[2], "header height"),
    timeMs: readInt(v[3], "header time"),
    parentHash: v[4],
    originView: readInt(v[5], "header origin view", VIEW_MAX),
    proposer: v[6],
    vrfProof: readBytes(v[7], "header VRF proof", 0, 80),
    bodyHash: v[8],
    stateRoot: v[9],
    auditSize: readInt(v[10], "header audit size"),
    auditRoot: v[11],
    resultsRoot: v[12],
    validatorsHash: v[13],
    nextValidatorsHash: v[14],
    hash: await hashTagged("block", encode(v)),
  };
}

/** {validators: [{publicKey, power}], totalPower, powerByKey, hash} of a set's wire bytes. */
export async function decodeValidatorSet(data) {
  const items = readList(decode(data, VALIDATORS_MAX * 64), VALIDATORS_MAX, "validator set");
  const validators = items.map((item) => {
    const [key, power] = readArray(item, 2, "validator");
    readInt(power, "voting power", TOTAL_POWER_MAX);
    check(power > 0n, "validator is malformed");
    return { publicKey: readBytes(key, "validator key", 32), power };
  });
  check(validators.length > 0, "validator set is empty");
  const inOrder = (a, b) => a.power > b.power || (a.power === b.power && compare(a.publicKey, b.publicKey) < 0);
  check(validators.every((v, i) => i === 0 || inOrder(validators[i - 1], v)), "validator set is not in order");
  const powerByKey = new Map(validators.map((v) => [toHex(v.publicKey), v.power]));
  check(powerByKey.size === validators.length, "validator set names a key twice");
  const totalPower = validators.reduce((sum, v) => sum + v.power, 0n);
  check(totalPower <= TOTAL_POWER_MAX, "total voting power is too large");
  return { validators, totalPower, powerByKey, hash: await hashTagged("validator-set", data) };
}

export function readCertificate(value) {
  const [kind, height, view, blockHash, bitmap, signatures] = readArray(value, 6, "certificate");
  check(readInt(kind, "certificate kind", 3n) > 0n, "certificate kind is unknown");
  return {
    kind,
    height: readInt(height, "certificate height"),
    view: readInt(view, "certificate view", VIEW_MAX),
    blockHash: readBytes(blockHash, "certificate block hash", kind === 2n ? 0 : 32),
    bitmap: readBytes(bitmap, "certificate bitmap", 0, VALIDATORS_MAX / 8),
    signatures: readList(signatures, VALIDATORS_MAX, "certificate signatures").map((s) =>
      readBytes(s, "certificate signature", 64)),
  };
}

/** The decoded array form of a finality proof. */
export async function readFinalityProof(value) {
  const [header, certificate, steps] = readArray(value, 3, "finality proof");
  const handoffs = [];
  for (const item of readList(steps, HANDOFFS_MAX, "handoffs")) {
    const [h, c, set] = readArray(item, 3, "handoff");
    handoffs.push({
      header: await readHeader(h),
      certificate: readCertificate(c),
      nextValidators: await decodeValidatorSet(readBytes(set, "validator set", 0, VALIDATORS_MAX * 64)),
    });
  }
  return { header: await readHeader(header), certificate: readCertificate(certificate), handoffs };
}

export const decodeFinalityProof = (data) => readFinalityProof(decode(data, FINALITY_PROOF_BYTES_MAX));

/** The parts as they stand in DID proofs: header, certificate and sets each as wire bytes. */
export const joinFinality = (header, certificate, handoffs) => readFinalityProof([
  decode(header, 1024), decode(certificate, 32 * 1024),
  handoffs.map(([h, c, set]) => [decode(h, 1024), decode(c, 32 * 1024), set]),
]);

// --- finality ---

function signerIndexes(certificate, set) {
  const count = set.validators.length;
  check(certificate.bitmap.length === (count + 7) >> 3, "certificate bitmap has a wrong length");
  const indexes = [];
  for (let i = 0; i < certificate.bitmap.length * 8; i++) {
    if (certificate.bitmap[i >> 3] & (0x80 >> i % 8)) indexes.push(i);
  }
  check(indexes.every((i) => i < count), "certificate names a validator that does not exist");
  check(indexes.length === certificate.signatures.length, "certificate has a wrong number of signatures");
  return indexes;
}

/** Throw unless `certificate` finalizes exactly `header` under `set`; with `trusted`, its signers
 *  must hold more than 1/3 of that set's power as well. */
export async function verifyFinalHeader(header, certificate, set, chainId, trusted = null) {
  if (header.protocolVersion !== PROTOCOL_VERSION) throw new UnknownVersion("header is of another protocol version");
  check(header.chainId === chainId, "header is of another chain", "chain");
  check(equal(header.validatorsHash, set.hash), "header names another validator set", "chain");
  check(certificate.kind === FINALIZE, "certificate does not finalize");
  check(certificate.height === header.height && equal(certificate.blockHash, header.hash),
    "certificate is for another block");
  const indexes = signerIndexes(certificate, set);
  const signers = indexes.map((i) => set.validators[i]);
  if (trusted !== null) {
    const overlap = signers.reduce((sum, v) => sum + (trusted.powerByKey.get(toHex(v.publicKey)) ?? 0n), 0n);
    const tooFar = Object.assign(new Invalid("too few of the trusted validators signed", "chain"), { isTooFar: true });
    if (3n * overlap <= trusted.totalPower) throw tooFar; // a shorter skip may do
  }
  const power = signers.reduce((sum, v) => sum + v.power, 0n);
  check(3n * power > 2n * set.totalPower, "certificate has no quorum", "signatures");
  const { kind, height, view, blockHash } = certificate;
  const message = signBytes("vote", chainId, [kind, height, view, blockHash]);
  const checks = signers.map((v, i) => isValidSignature(v.publicKey, message, certificate.signatures[i]));
  check((await Promise.all(checks)).every(Boolean), "certificate has a bad signature", "signatures");
}

/** Take one step and return the set it carries (adjacent or skipping: docs/protocol.md). */
export async function verifyHandoff({ header, certificate, nextValidators }, trusted, chainId) {
  if (equal(header.validatorsHash, trusted.hash)) {
    await verifyFinalHeader(header, certificate, trusted, chainId);
    check(equal(nextValidators.hash, header.nextValidatorsHash),
      "handoff carries a validator set that its header does not name");
  } else {
    await verifyFinalHeader(header, certificate, nextValidators, chainId, trusted);
  }
  return nextValidators;
}

function checkOrder(previous, header) {
  if (previous === null || equal(previous.hash, header.hash)) return;
  check(header.height > previous.height, "handoffs are not in order of height");
  check(header.timeMs > previous.timeMs, "time does not increase from one header to the next");
  check(header.height !== previous.height + 1n || equal(header.parentHash, previous.hash),
    "the header does not follow the one before it");
}

/** Follow the steps from the set `trusted`, then check the header. Throws Invalid. */
export async function verifyFinality(proof, trusted, chainId) {
  let set = trusted;
  let previous = null;
  for (const handoff of proof.handoffs) {
    checkOrder(previous, handoff.header);
    set = await verifyHandoff(handoff, set, chainId);
    previous = handoff.header;
  }
  checkOrder(previous, proof.header);
  await verifyFinalHeader(proof.header, proof.certificate, set, chainId);
  return proof.header;
}

// --- what a proof is worth ---
//
// A trust point is {chainId, height, timeMs, validators: a decoded set, trustingPeriodMs,
// headerHash?, clockDriftMaxMs?}: `validators` votes on the next height; height 0 is genesis.

/** What `work` gives; WRONG if it finds bad data, with the `fault` of `Invalid`. */
export async function guarded(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Invalid)) throw error;
    return { verdict: Verdict.WRONG, reason: error.message, fault: error.fault, header: null, record: null };
  }
}

/** {verdict, reason, header} of a finality proof's wire bytes; empty or null is no answer. */
export async function judge(data, trust, nowMs, maxAgeMs = null) {
  if (!data?.length) return { verdict: Verdict.CANNOT_TELL, reason: "there is no proof", header: null };
  return guarded(async () => judgeDecoded(await decodeFinalityProof(data), trust, nowMs, maxAgeMs));
}

/** As `judge`, for a proof that is well-formed. */
export async function judgeDecoded(proof, trust, nowMs, maxAgeMs = null) {
  const { header, handoffs } = proof;
  const say = (verdict, reason = "") => ({ verdict, reason, header });
  const first = handoffs.length ? handoffs[0].header : header;
  const isKnown = header.height === trust.height && handoffs.length === 0 && trust.headerHash?.length > 0;
  if (!isKnown && (first.height <= trust.height || header.height <= trust.height)) {
    return say(Verdict.CANNOT_TELL, "the proof begins at or below the trusted height");
  }
  try {
    check(!isKnown || equal(header.hash, trust.headerHash), "the header is not the trusted one of this height", "chain");
    if (isKnown && !equal(header.validatorsHash, trust.validators.hash)) {
      return say(Verdict.CANNOT_TELL, "who signed the trusted header is not known here");
    }
    if (!isKnown) checkNext(first, trust);
    await verifyFinality(proof, trust.validators, trust.chainId);
    for (const h of isKnown ? [] : [first, header]) checkTimes(h, trust, nowMs);
  } catch (error) {
    if (error instanceof UnknownVersion) return say(Verdict.CANNOT_TELL, error.message);
    if (error instanceof Invalid) return { ...say(Verdict.WRONG, error.message), fault: error.fault };
    throw error;
  }
  if (maxAgeMs !== null && nowMs - header.timeMs > maxAgeMs) return say(Verdict.TOO_OLD, "the header is too old");
  const isExpired = nowMs > trust.timeMs + trust.trustingPeriodMs;
  return isExpired
    ? say(Verdict.VALID_BUT_EXPIRED_TRUST, "the trust point is older than the trusting period") : say(Verdict.VALID);
}

/** The header of the next height must be the trusted one's successor: there is nothing to skip. */
export function checkNext({ height, parentHash, validatorsHash }, trust) {
  const follows = !trust.headerHash?.length || equal(parentHash, trust.headerHash);
  check(height !== trust.height + 1n || (follows && equal(validatorsHash, trust.validators.hash)),
    "the header does not follow the trusted one", "chain");
}

export function checkTimes(header, trust, nowMs) {
  check(header.timeMs > trust.timeMs, "the header is not later than the trust point");
  check(header.timeMs <= nowMs + (trust.clockDriftMaxMs ?? CLOCK_DRIFT_MAX_MS), "the header is from the future");
}

// --- state ---

/** Throw unless under `root` the raw row `key` has `value`, or (null) no value. */
export async function verifyStateProof(root, key, value, proof) {
  check(proof.length >= 3 && proof.length <= 2 + 1 + 64 + 32 + 256 * 32, "state proof has a wrong length");
  const path = await sha256(key);
  const depth = (proof[0] << 8) | proof[1];
  const kind = proof[2];
  check(depth <= 256 && kind <= 2, "state proof is malformed");
  check((kind === 1) === (value !== null), "state proof is of the other kind", "state");
  let at = 3;
  let current = new Uint8Array(32);
  if (kind === 1) current = await sha256([0], path, await sha256(value));
  if (kind === 2) {
    const other = proof.subarray(at, (at += 64));
    check(other.length === 64, "state proof has missing bytes");
    check(!equal(other.subarray(0, 32), path), "state proof of absence names the key itself", "state");
    const isOnPath = Array.from({ length: depth }, (_, d) => bit(other, d) === bit(path, d)).every(Boolean);
    check(isOnPath, "state proof names a key that is not on the path", "state");
    current = await sha256([0], other);
  }
  const bitmap = proof.subarray(at, (at += (depth + 7) >> 3));
  const present = Array.from({ length: depth }, (_, d) => bit(bitmap, d));
  const unused = Array.from({ length: bitmap.length * 8 - depth }, (_, d) => bit(bitmap, depth + d));
  check(proof.length === at + 32 * present.filter(Boolean).length && !unused.some(Boolean),
    "state proof has missing or trailing bytes or bits");
  for (let d = depth - 1; d >= 0; d--) {
    let sibling = new Uint8Array(32);
    if (present[d]) {
      sibling = proof.subarray(at, (at += 32));
      check(sibling.some(Boolean), "state proof spells out an empty sibling");
    }
    current = await (bit(path, d) ? sha256([1], sibling, current) : sha256([1], current, sibling));
  }
  check(equal(current, root), "state proof leads to another root", "state");
}

const bit = (bytes, i) => (bytes[i >> 3] >> (7 - (i % 8))) & 1;

// --- logs ---

/** RFC 9162 section 2.1.3.2; index and size are BigInt. */
export async function verifyInclusion(root, size, leafIndex, leafHash, path) {
  check(leafIndex < size, "leaf index is outside the tree");
  let index = leafIndex;
  let last = size - 1n;
  let current = leafHash;
  for (const sibling of path) {
    check(last > 0n, "inclusion proof is too long");
    if (index & 1n || index === last) {
      current = await sha256([1], sibling, current);
      while (!(index & 1n) && index > 0n) {
        index >>= 1n;
        last >>= 1n;
      }
    } else {
      current = await sha256([1], current, sibling);
    }
    index >>= 1n;
    last >>= 1n;
  }
  check(last === 0n, "inclusion proof is too short");
  check(equal(current, root), "inclusion proof leads to another root");
}
