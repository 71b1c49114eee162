// Judges what comes as JSON lines on stdin (a signature, bundle, DID answer, history, receipt or a way
// for the light client); one verdict a line on stdout, for bundles and ways with the height, for
// histories with who was in charge.
import { createInterface } from "node:readline";
import { decodeValidatorSet, judge } from "../../verifier/js/chain.mjs";
import { Invalid, fromHex, isValidSignature, toHex } from "../../verifier/js/codec.mjs";
import { judgeAnswer } from "../../verifier/js/answer.mjs";
import { canonicalJson, judgeResolution, parseJson } from "../../verifier/js/did.mjs";
import { judgeHistory } from "../../verifier/js/history.mjs";
import { Bisection, compareWitness, decodeLightBlock, verifySequential } from "../../verifier/js/light.mjs";
import { judgeReceipt } from "../../verifier/js/receipt.mjs";
import { decodeReceiptJson } from "../../verifier/js/receipt_json.mjs";

const judges = {
  async bundle(b, trust, nowMs, maxAgeMs) {
    const { verdict, header } = await judge(fromHex(b.proof), trust, nowMs, maxAgeMs);
    return `${verdict} ${header?.height ?? "-"}`;
  },
  async resolution(b, trust, nowMs, maxAgeMs) {
    return (await judgeResolution(b.texts[0], b.asked, trust, nowMs, maxAgeMs)).verdict;
  },
  async answer(b, trust, nowMs, maxAgeMs) {
    return (await judgeAnswer(b.texts[0], b.asked, b.options, trust, nowMs, maxAgeMs)).verdict;
  },
  async history(b, trust, nowMs, maxAgeMs) {
    try {
      const { verdict, operations } = await judgeHistory(b.texts.map(parseJson), b.asked, trust, nowMs, maxAgeMs);
      return `${verdict} ${canonicalJson((operations ?? []).map((o) => [o.changesAuthority, o.authority]))}`;
    } catch (error) {
      if (!(error instanceof Invalid)) throw error;
      return "wrong []"; // not the JSON that everybody reads alike
    }
  },
  async receipt(b, trust, nowMs, maxAgeMs) {
    const salt = b.salt ? fromHex(b.salt) : null;
    try {
      const receipt = b.twin === undefined ? fromHex(b.receipt) : decodeReceiptJson(b.twin);
      return (await judgeReceipt(receipt, fromHex(b.multihash), trust, nowMs, { salt, maxAgeMs })).verdict;
    } catch (error) {
      if (!(error instanceof Invalid)) throw error;
      return "wrong"; // not the one form of a twin
    }
  },
  async bisection(b, trust, nowMs) {
    const bisection = new Bisection(trust, BigInt(b.target));
    const asked = [];
    let end = null;
    while (end === null) {
      asked.push(bisection.wanted);
      end = await bisection.onBlock(fromHex(b.blocks[bisection.wanted] ?? ""), nowMs);
    }
    const reached = end.trust && `${end.trust.height} ${toHex(end.trust.headerHash)} ${toHex(end.trust.validators.hash)}`;
    return `${asked.join(",")} ${reached ?? end.verdict}`;
  },
  async sequential(b, trust, nowMs) {
    try {
      const blocks = await Promise.all(Object.values(b.blocks).map((block) => decodeLightBlock(fromHex(block))));
      const end = await verifySequential(blocks, trust, nowMs);
      return `${end.height} ${toHex(end.headerHash)} ${toHex(end.validators.hash)}`;
    } catch (error) {
      if (error instanceof Invalid) return "refused";
      throw error;
    }
  },
  async witness(b, trust, nowMs) {
    const found = await compareWitness(fromHex(b.first), fromHex(b.proof), trust, nowMs);
    return found.attack ? "attack" : found.verdict;
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
