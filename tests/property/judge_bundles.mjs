// Judges the bundles that come as JSON lines on stdin; one verdict (and height) a line on stdout.
import { createInterface } from "node:readline";
import { judge, decodeValidatorSet } from "../../verifier/js/chain.mjs";
import { fromHex, isValidSignature } from "../../verifier/js/codec.mjs";

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
  const { verdict, header } = await judge(
    fromHex(b.proof), trust, BigInt(b.nowMs), b.maxAgeMs === null ? null : BigInt(b.maxAgeMs));
  console.log(`${verdict} ${header?.height ?? "-"}`);
}
