// The light client: following a chain from a trust point, and two answers held against each other.
//
// The same rules as ledger/light.py, in the same order (docs/protocol.md, "Light verification"). Pure
// functions of bytes, a trust point (see chain.mjs) and the time; heights and times are BigInt. Feed
// `Bisection` the light block that it wants from any source: what it reaches need not be believed.

import {
  Verdict, checkNext, checkTimes, decodeFinalityProof, decodeValidatorSet, judge,
  readCertificate, readHeader, verifyFinalHeader, verifyHandoff,
} from "./chain.mjs";
import { Invalid, UnknownVersion, check, decode, equal, readArray, readBytes } from "./codec.mjs";

const LIGHT_BLOCK_BYTES_MAX = 64 * 1024;
const VALIDATOR_SET_BYTES_MAX = 256 * 64;
const BISECTION_BLOCKS_MAX = 8192;

/** {header, certificate, validators, nextValidators} of a light block's wire bytes. Throws Invalid. */
export async function decodeLightBlock(data) {
  const [header, certificate, ...sets] = readArray(decode(data, LIGHT_BLOCK_BYTES_MAX), 4, "light block");
  const [validators, nextValidators] = await Promise.all(sets.map((set) =>
    decodeValidatorSet(readBytes(set, "validator set", 0, VALIDATOR_SET_BYTES_MAX))));
  const block = { header: await readHeader(header), certificate: readCertificate(certificate), validators, nextValidators };
  check(equal(validators.hash, block.header.validatorsHash) && equal(nextValidators.hash, block.header.nextValidatorsHash),
    "light block carries validator sets that its header names not");
  return block;
}

/** The trust point of a header that is trusted by its hash; `data` is its light block. */
export async function trustHeader(data, headerHash, chainId, trustingPeriodMs) {
  const block = await decodeLightBlock(data);
  check(equal(block.header.hash, headerHash), "the header is not the trusted one");
  await verifyFinalHeader(block.header, block.certificate, block.validators, chainId);
  return advance({ chainId, trustingPeriodMs }, block);
}

const advance = (trust, { header, nextValidators }) => ({
  ...trust, height: header.height, timeMs: header.timeMs, validators: nextValidators, headerHash: header.hash,
});

function checkTrust(trust, nowMs) {
  check(nowMs <= trust.timeMs + trust.trustingPeriodMs, "the trust point is older than the trusting period");
}

/** Follow the heights after the trust point one by one; the last, now trusted. Throws Invalid. */
export async function verifySequential(blocks, trust, nowMs) {
  for (const { header, certificate, ...sets } of blocks) {
    checkTrust(trust, nowMs);
    check(header.height === trust.height + 1n, "a height is missing");
    checkNext(header, trust);
    await verifyFinalHeader(header, certificate, trust.validators, trust.chainId);
    checkTimes(header, trust, nowMs);
    trust = advance(trust, { header, ...sets });
  }
  return trust;
}

/** Throw unless `block` is final for whoever trusts `trust`, directly or by a skip. */
async function verifyStep({ header, certificate, validators, nextValidators }, trust) {
  checkNext(header, trust);
  const isAdjacent = equal(header.validatorsHash, trust.validators.hash);
  const carried = isAdjacent ? nextValidators : validators;
  await verifyHandoff({ header, certificate, nextValidators: carried }, trust.validators, trust.chainId);
}

/** On the way to height `target`. `onBlock` takes the light block of height `wanted`; it gives null
 *  (more is wanted), {trust} (the target is reached) or {verdict, reason}, which ends it. */
export class Bisection {
  #waiting = []; // too far for the trust so far, nearest last
  #blocks = 0;

  constructor(trust, target) {
    if (target <= trust.height) throw new RangeError(`no way back: the trusted height is ${trust.height}`);
    this.trust = trust;
    this.target = target;
  }

  get wanted() {
    const nearest = this.#waiting.at(-1);
    return nearest ? (this.trust.height + nearest.header.height) / 2n : this.target;
  }

  async onBlock(data, nowMs) {
    const cannotTell = (reason) => ({ verdict: Verdict.CANNOT_TELL, reason });
    if (!data?.length) return cannotTell(`no light block of height ${this.wanted}`);
    if (this.#blocks++ === BISECTION_BLOCKS_MAX) return cannotTell("too many blocks are needed");
    try {
      const block = await decodeLightBlock(data);
      check(block.header.height === this.wanted, "light block is of another height");
      checkTrust(this.trust, nowMs);
      this.#waiting.push(block);
      return (await this.#step(nowMs)) ? { trust: this.trust } : null;
    } catch (error) {
      if (error instanceof UnknownVersion) return cannotTell(error.message);
      if (error instanceof Invalid) return { verdict: Verdict.WRONG, reason: error.message };
      throw error;
    }
  }

  /** Step to the nearest waiting blocks as long as they carry; true if none is left. */
  async #step(nowMs) {
    while (this.#waiting.length) {
      const block = this.#waiting.at(-1);
      checkTimes(block.header, this.trust, nowMs);
      try {
        await verifyStep(block, this.trust);
      } catch (error) {
        if (error.isTooFar) return false;
        throw error;
      }
      this.trust = advance(this.trust, this.#waiting.pop());
    }
    return true;
  }
}

/** Hold a witness's finality proof (wire bytes) against the verified header of the same height:
 *  {verdict, reason}, or {attack: [both proofs' bytes]} if both are final and differ. */
export async function compareWitness(first, second, trust, nowMs) {
  const { header } = await decodeFinalityProof(first);
  const judgement = await judge(second, trust, nowMs);
  if (judgement.verdict !== Verdict.VALID) return judgement;
  if (judgement.header.height !== header.height) {
    return { ...judgement, verdict: Verdict.CANNOT_TELL, reason: "the witness answers about another height" };
  }
  return equal(judgement.header.hash, header.hash) ? judgement : { attack: [first, second] };
}
