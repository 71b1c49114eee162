// Judges what comes as JSON lines on stdin (a signature, bundle, DID answer, history or receipt); one
// verdict a line on stdout, for bundles with the height, for histories with who was in charge.
import { createInterface } from "node:readline";
import { decodeValidatorSet, judge } from "../../verifier/js/chain.mjs";
import { Invalid, fromHex, isValidSignature } from "../../verifier/js/codec.mjs";
import { canonicalJson, judgeResolution, parseJson } from "../../verifier/js/did.mjs";
import { judgeHistory } from "../../verifier/js/history.mjs";
import { judgeReceipt } from "../../verifier/js/receipt.mjs";

const judges = {
  async bundle(b, trust, nowMs, maxAgeMs) {
    const { verdict, header } = await judge(fromHex(b.proof), trust, nowMs, maxAgeMs);
    return `${verdict} ${header?.height ?? "-"}`;
  },
  async did(b, trust, nowMs, maxAgeMs) {
    return (await judgeResolution(b.answer, b.did, trust, nowMs, maxAgeMs)).verdict;
  },
  async history(b, trust, nowMs, maxAgeMs) {
    try {
      const { verdict, operations } = await judgeHistory(b.pages.map(parseJson), b.did, trust, nowMs, maxAgeMs);
      return `${verdict} ${canonicalJson((operations ?? []).map((o) => [o.changesAuthority, o.authority]))}`;
    } catch (error) {
      if (!(error instanceof Invalid)) throw error;
      return "wrong []"; // not the JSON that everybody reads alike
    }
  },
  async receipt(b, trust, nowMs, maxAgeMs) {
    const salt = b.salt === undefined ? null : fromHex(b.salt);
    return (await judgeReceipt(fromHex(b.receipt), fromHex(b.multihash), trust, nowMs, { salt, maxAgeMs })).verdict;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const b = JSON.parse(line);
  if (b.signature !== undefined) {
    console.log(await isValidSignature(fromHex(b.public_key), fromHex(b.message), fromHex(b.signature)));
    continue;
  }
  const trust = {
    chainId: b.chainId,
    height: BigInt(b.height),
    timeMs: BigInt(b.timeMs),
    validators: await decodeValidatorSet(fromHex(b.validators)),
    trustingPeriodMs: BigInt(b.trustingPeriodMs),
    headerHash: fromHex(b.headerHash),
    clockDriftMaxMs: BigInt(b.clockDriftMaxMs),
  };
  const maxAgeMs = b.maxAgeMs === null ? null : BigInt(b.maxAgeMs);
  console.log(await judges[b.kind ?? "bundle"](b, trust, BigInt(b.nowMs), maxAgeMs));
}
