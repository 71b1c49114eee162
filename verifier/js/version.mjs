// Older versions of a DID: by versionId, by versionTime, or as known at a height (did/version.py).
//
// The rules are those of docs/protocol.md, "Older versions". Where the record does not decide, the answer
// has the operation log from the version on: nothing in between or after can be left out of it.

import { Invalid, check, equal, fromBase64url, readBytes, sha256 } from "./codec.mjs";
import {
  SHA2_256, canonicalJson, decodeMultibase, didOf, expectNewest, foundResult, hasMembers, judgeResult,
  notFoundResult, timeText, toStored, unknownResult, versionIdOf,
} from "./did.mjs";
import { ENTRY_BYTES_MAX, readEntry } from "./history.mjs";

const OPERATIONS_MAX = 512n;
const VERSION_ID = /^(0|[1-9]\d{0,15})-(z[1-9A-HJ-NP-Za-km-z]+)$/;
const VERSION_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
const HEIGHT = /^(0|[1-9]\d{0,15})$/;

/** There is no such version; the message is the detail that a true answer gives. */
class NoSuchVersion extends Error {}

/** {version: {seq, hash}, timeS, asOfHeight}, each of them null where it is not asked for, of these options
 *  of DID Resolution; null if none is given. Throws Invalid. */
export function readVersionQuery({ versionId = null, versionTime = null, asOfHeight = null }) {
  if (versionId === null && versionTime === null && asOfHeight === null) return null;
  check(versionId === null || versionTime === null, "versionId and versionTime exclude each other");
  return {
    version: versionId === null ? null : readVersionId(versionId),
    timeS: versionTime === null ? null : readVersionTime(versionTime),
    asOfHeight: asOfHeight === null ? null : readHeight("asOfHeight", asOfHeight),
  };
}

function readVersionId(text) {
  const match = typeof text === "string" ? VERSION_ID.exec(text) : null;
  check(match !== null, "versionId is not <seq>-<operation hash>");
  return { seq: BigInt(match[1]), hash: decodeMultibase(match[2], SHA2_256) };
}

/** Unix seconds. */
function readVersionTime(text) {
  const ms = typeof text === "string" && VERSION_TIME.test(text) ? Date.parse(text) : NaN;
  const isReal = !Number.isNaN(ms) && !text.startsWith("0000") && timeText(ms) === text;
  check(isReal, "versionTime is not UTC without fractions");
  return BigInt(ms) / 1000n;
}

export function readHeight(name, value) {
  const isHeight = Number.isSafeInteger(value) ? value >= 0 : typeof value === "string" && HEIGHT.test(value);
  check(isHeight && Number.isSafeInteger(Number(value)), `${name} is not a height`);
  return BigInt(value);
}

/** As `judgeResolution`, of the answer to `query` (see `readVersionQuery`; null: the newest version). */
export async function judgeVersion(answer, did, query, trust, nowMs, maxAgeMs = null) {
  return judgeResult(answer, did, query === null ? expectNewest : (shown) => expectVersion(shown, query),
    trust, nowMs, maxAgeMs);
}

/** What an answer has to say, given its proven record and header. Throws Invalid. */
async function expectVersion(shown, query) {
  const { did, record, header, log: form, document } = shown;
  checkWithin(query, header);
  if (record === null) return unknownResult(did);
  try {
    if (isHeadAsked(record, query)) return await expectNewest(shown);
  } catch (error) {
    if (!(error instanceof NoSuchVersion)) throw error;
    check((await verifySuffix(form, record)).length === 0, "proof shows a log that it does not need");
    return notFoundResult(error.message);
  }
  const log = await verifySuffix(form, record);
  check(log.length > 0, "proof lacks the operation log");
  try {
    return versionResult(record, query, log[0], findNext(log, query), document);
  } catch (error) {
    if (!(error instanceof NoSuchVersion)) throw error;
    return notFoundResult(error.message);
  }
}

/** What comes after the proof's own block is open, for a DID that does not exist as well. Throws Invalid. */
function checkWithin({ timeS, asOfHeight }, header) {
  check(asOfHeight === null || asOfHeight <= header.height, "asOfHeight is above the height of the proof");
  check(timeS === null || timeS < header.timeMs / 1000n, "versionTime is not before the block of the proof");
}

/** True if the record alone shows that its head is the answer, false if the log has to be seen. Throws
 *  NoSuchVersion where the record shows that. */
function isHeadAsked(record, { version, timeS, asOfHeight }) {
  if (asOfHeight !== null && asOfHeight < record.createdHeight) {
    throw new NoSuchVersion(`the DID was not known at height ${asOfHeight}`);
  }
  if (timeS !== null && timeS < record.createdMs / 1000n) throw new NoSuchVersion("the DID did not exist at this time");
  const isHeadKnown = asOfHeight === null || record.updatedHeight <= asOfHeight;
  if (version !== null && version.seq >= record.seq) {
    if (version.seq === record.seq && equal(version.hash, record.head) && isHeadKnown) return true;
    throw new NoSuchVersion("the DID has no such version");
  }
  return version === null && isHeadKnown && (timeS === null || record.updatedMs / 1000n <= timeS);
}

/** The entries of a proof's `log` (did/log_suffix.py): all from one on, up to the record's head. */
async function verifySuffix(form, record) {
  hasMembers(form, ["peaks", "entries"]);
  const { peaks, entries } = form;
  const size = record.seq + 1n;
  const isFitting = Array.isArray(entries) && entries.length <= OPERATIONS_MAX && entries.length <= size;
  check(isFitting, "log has too many entries");
  let seq = size - BigInt(entries.length);
  const peakCount = entries.length === 0 ? 0 : seq.toString(2).replaceAll("0", "").length;
  check(Array.isArray(peaks) && peaks.length === peakCount, "log has a wrong number of peaks");
  if (entries.length === 0) return [];
  let tree = peaks.map((peak) => readBytes(fromBase64url(peak, 32), "log peak", 32));
  const log = [];
  for (const text of entries) {
    const raw = fromBase64url(text, ENTRY_BYTES_MAX);
    tree = await appendLeaf(tree, seq, await sha256([0], raw));
    const entry = await readEntry(raw, record);
    check(entry.seq === seq && entry.form.seq === Number(seq), "log entry is not the one at its place");
    log.push(entry);
    seq += 1n;
  }
  check(equal(await computeRoot(tree), record.logRoot), "log does not lead to the record's log root");
  return log;
}

const hashNode = (left, right) => sha256([1], left, right);

// RFC 6962, from the peaks (roots of the perfect subtrees, largest first); `size` is a BigInt.

/** The peaks once a leaf follows `size` others. */
async function appendLeaf(peaks, size, leafHash) {
  const left = [...peaks];
  let current = leafHash;
  for (let index = size; index & 1n; index >>= 1n) current = await hashNode(left.pop(), current);
  return [...left, current];
}

async function computeRoot(peaks) {
  let root = peaks.at(-1);
  for (const peak of peaks.slice(0, -1).reverse()) root = await hashNode(peak, root);
  return root;
}

/** What followed `log[0]`, the version asked for; null if it was the newest. Throws NoSuchVersion, or
 *  Invalid if the log does not begin where the answer is. */
function findNext(log, { version, timeS, asOfHeight }) {
  const [first] = log;
  const known = log.filter(({ height }) => asOfHeight === null || height <= asOfHeight);
  if (version !== null) {
    check(first.seq === version.seq, "log does not begin at the version asked for");
    const isKnown = known.length > 0 && equal(first.hash, version.hash);
    if (!isKnown) throw new NoSuchVersion("the DID has no such version");
  }
  check(known.length > 0, "log begins after the height asked for");
  const living = findLiving(known);
  if (living[0] !== first) {
    if (version !== null) throw new NoSuchVersion("this version was set aside by a recovery");
    throw new Invalid("log begins at an operation that was set aside");
  }
  const following = living[1] ?? null;
  if (version === null) {
    const isBy = ({ timeMs }) => timeS === null || timeMs / 1000n <= timeS;
    check(isBy(first) && (following === null || !isBy(following)), "log does not begin at the version in force");
  }
  return following;
}

/** The operations that no later one in the log nullifies. */
function findLiving(log) {
  let living = [];
  for (const entry of log) {
    const follows = living.findLastIndex(({ hash }) => equal(hash, hashOf(entry.form.prev)));
    const isFork = living.length > 0 && follows !== living.length - 1;
    check(!isFork || entry.form.type === "recover", "operation forks without being a recovery");
    living = [...living.slice(0, follows + 1), entry];
  }
  return living;
}

const hashOf = (text) => decodeMultibase(text, SHA2_256);

function versionResult(record, { asOfHeight }, shown, following, document) {
  const { seq, hash, timeMs, form } = shown;
  const metadata = { created: timeText(record.createdMs), versionId: versionIdOf(seq, hash), canonicalId: didOf(record) };
  if (seq > 0n) metadata.updated = timeText(timeMs);
  if (form.type === "deactivate") metadata.deactivated = true;
  if (seq > 0n && asOfHeight === null && record.disputeUntilMs > 0n) metadata.disputeUntil = timeText(record.disputeUntilMs);
  if (following !== null) {
    metadata.nextVersionId = following.versionId;
    metadata.nextUpdate = timeText(following.timeMs);
  }
  if (form.type === "deactivate") return foundResult(null, metadata);
  const isItsDocument = canonicalJson(toStored(didOf(record), document)) === canonicalJson(form.body.document);
  check(isItsDocument, "document is not the one of this version");
  return foundResult(document, metadata);
}
