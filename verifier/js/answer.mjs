// A resolver's answer of any kind, judged by what was asked for. (did/verify_answer.py)

import { Verdict, guarded } from "./chain.mjs";
import { check } from "./codec.mjs";
import { isObject, isRefused, parseJson } from "./did.mjs";
import { judgeBatch } from "./batch.mjs";
import { judgeDereferencing, readQuestion } from "./dereference.mjs";
import { judgeVersion } from "./version.mjs";

/** {verdict, reason, header, record} of an answer (its text, or what `parseJson` made of it) to `asked`: a
 *  DID or DID URL, with options of DID Resolution; or a list of DIDs, which gives `records`. An answer that
 *  is true of another DID, version or fragment is wrong. */
export async function judgeAnswer(answer, asked, options, trust, nowMs, maxAgeMs = null) {
  return guarded(async () => {
    let value = typeof answer === "string" ? parseJson(answer) : answer;
    if (isObject(value) && Object.keys(value).sort().join() === "id,jsonrpc,result") value = value.result;
    check(isObject(value), "answer is not an object");
    if ("operations" in value || "record" in value) {
      const reason = "this is no resolution: judgeHistory judges the pages of a history, judgeProof a record's proof";
      return { verdict: Verdict.CANNOT_TELL, reason, header: null };
    }
    if (Array.isArray(asked)) return judgeBatch(value, asked, trust, nowMs, maxAgeMs);
    if ("dereferencingMetadata" in value) return judgeDereferencing(value, asked, options, trust, nowMs, maxAgeMs);
    const { did, isPart, version } = readQuestion(asked, options);
    const judged = await judgeVersion(value, did, version, trust, nowMs, maxAgeMs);
    check(isRefused(judged) || !isPart, "answer is about the DID, not about the DID URL");
    return judged;
  });
}
