// Looking up a DID: the answer, its whole history, and one verdict on both.

import { Verdict } from "/verifier/chain.mjs";
import { Invalid, equal, fromBase64url } from "/verifier/codec.mjs";
import { decodeDid, isRefused, judgeResolution, parseJson } from "/verifier/did.mjs";
import { judgeHistory } from "/verifier/history.mjs";
import { readText } from "./node.mjs";

const TRIES_MAX = 3;
const PAGE = 100;
const PAGES_MAX = 200;
const AGE_MAX_MS = 600_000n;

/** The DID in what a person typed or followed (a DID, a DID URL), or null. */
export function findDid(text) {
  const did = /did:zynk:[1-9A-HJ-NP-Za-km-z]+/.exec(text)?.[0] ?? "";
  try {
    decodeDid(did);
    return did;
  } catch (error) {
    if (error instanceof Invalid) return null;
    throw error;
  }
}

/** {verdict, reason, fault, header, record, document, operations, sets, said, denies, isHistory}: `said` is what
 *  the node said, as text, and nothing else may be shown as true unless the verdict allows; `denies` that it
 *  says the identity does not exist, `isHistory` that the history is at fault. Throws NodeError. */
export async function lookUp(did, trust) {
  for (let tries = 1; ; tries++) {
    const found = await lookUpOnce(did, trust.last);
    if (found !== null) return found;
    if (tries === TRIES_MAX) {
      return { verdict: Verdict.CANNOT_TELL, reason: "the identity changes while it is read; try again", said: "" };
    }
  }
}

/** Null if the DID changed between the answers. */
async function lookUpOnce(did, point) {
  const asked = { did, trusted_height: point.height };
  const nowMs = BigInt(Date.now());
  const said = await readText("did_resolve", asked);
  const judged = await judgeResolution(said, did, point, nowMs, AGE_MAX_MS);
  if (isRefused(judged)) return { ...judged, said, denies: isDenial(said) };
  const answer = parseJson(said);
  const texts = await readPages(asked);
  const history = await judgePages(texts, did, point, nowMs);
  if (isRefused(history)) return { ...history, said: texts.join("\n"), isHistory: true };
  if (!isSameRecord(judged.record, history.record)) return null;
  const metadata = judged.record === null ? answer.didResolutionMetadata : answer.didDocumentMetadata;
  const [proof] = metadata.proof; // one, since the verdict is on it
  const sets = proof.handoffs.map((step) => fromBase64url(step.nextValidators, 16 * 1024));
  const older = judged.verdict === Verdict.VALID ? history : judged;
  return {
    ...judged, verdict: older.verdict, reason: older.reason, said,
    document: answer.didDocument, operations: history.operations, sets,
  };
}

function isDenial(said) {
  try {
    return parseJson(said).didResolutionMetadata.error.type.endsWith("#NOT_FOUND");
  } catch (error) {
    if (error instanceof Invalid || error instanceof TypeError) return false; // it has no such member
    throw error;
  }
}

async function readPages(asked) {
  const texts = [];
  for (let cursor = 0; cursor !== null && texts.length < PAGES_MAX; ) {
    const text = await readText("did_history", { ...asked, cursor, limit: PAGE });
    texts.push(text);
    const next = readNext(text);
    cursor = Number.isSafeInteger(next) && next > cursor ? next : null;
  }
  return texts;
}

function readNext(text) {
  try {
    return parseJson(text)?.nextCursor;
  } catch (error) {
    if (error instanceof Invalid) return null; // `judgePages` says so
    throw error;
  }
}

async function judgePages(texts, did, point, nowMs) {
  try {
    return await judgeHistory(texts.map(parseJson), did, point, nowMs, AGE_MAX_MS);
  } catch (error) {
    if (!(error instanceof Invalid)) throw error;
    return { verdict: Verdict.WRONG, reason: error.message, fault: error.fault };
  }
}

function isSameRecord(a, b) {
  return a === null || b === null ? a === b : equal(a.head, b.head);
}
