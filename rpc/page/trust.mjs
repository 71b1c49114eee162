// Whom the person trusts: one validator set a browser, pinned by the person, or taken from the node on
// first use and remembered, so that a node which later shows another genesis is noticed.
//
// A pin is a genesis file or a trust point (docs/cli.md, `zynk light`). From there trust moves on with
// what was verified, so that it stays younger than the trusting period; `first` stays, for old receipts.
// A person who pins a file vouches for it: its hash is shown, its entries' own signatures are not judged.

import { decodeValidatorSet, readHeader } from "/verifier/chain.mjs";
import {
  Invalid, check, decode, encode, equal, fromBase64url, fromHex, hashTagged, toHex, utf8,
} from "/verifier/codec.mjs";
import { canonicalJson, decodeMultibase, hasMembers, parseJson } from "/verifier/did.mjs";
import { read, readGenesis } from "./node.mjs";

const STORAGE_KEY = "zynk-trust/1";
const POWER_UNIT = 1_000_000n; // uzynk for one unit of power (ledger/staking_record.py)
const PERIOD_DEFAULT_MS = 14n * 86_400_000n;
const MOVE_ON_MS = 3_600_000n;
const SET_BYTES_MAX = 16 * 1024;
const MULTIKEY = [0xed, 0x01];

/** A trust is {chainId, root (hex), source: "genesis" | "trust-point", isPinned, sinceMs, first, last};
 *  `first` and `last` are trust points as the verifier takes them. */
async function makeTrust(source, point) {
  return { chainId: point.chainId, root: toHex(point.headerHash), source, isPinned: true, sinceMs: Date.now(), first: point, last: point };
}

/** The trust that a pasted or dropped file means. Throws Invalid, or what `read` throws. */
export async function trustOfFile(text) {
  const value = parseJson(text.trim());
  check(value !== null && typeof value === "object", "This is neither a genesis file nor a trust point.");
  if (value.type === "zynk-trust-point/1") return makeTrust("trust-point", await fetchPoint(value));
  return makeTrust("genesis", await readGenesisPoint(value));
}

/** As ledger/staking_genesis.py: the strongest stakes, by whole units of power. */
async function readGenesisPoint(value) {
  try {
    hasMembers(value, ["version", "chain_id", "genesis_time_ms", "params", "validators", "accounts"]);
    check(value.version === 2, "genesis has another version");
    const { chain_id: chainId, genesis_time_ms: timeMs, params } = value;
    check(typeof chainId === "string" && /^[a-z0-9][a-z0-9.-]{0,63}$/.test(chainId), "genesis has no chain id");
    const candidates = value.validators.map((v) => ({
      operator: toHex(decodeMultibase(v.operator, MULTIKEY)),
      key: decodeMultibase(v.consensus_key, MULTIKEY),
      power: BigInt(v.bond) / POWER_UNIT,
    }));
    const byPower = (order) => (a, b) => (a.power === b.power ? (order(a) < order(b) ? -1 : 1) : a.power > b.power ? -1 : 1);
    const active = candidates.sort(byPower((c) => c.operator)).slice(0, params.validators_max);
    const ordered = active.sort(byPower((c) => toHex(c.key)));
    return {
      chainId, height: 0n, timeMs: BigInt(timeMs),
      ...(await readSet(encode(ordered.map((c) => [c.key, c.power])))),
      headerHash: await hashTagged("genesis", utf8(canonicalJson(value))),
      trustingPeriodMs: (BigInt(params.unbonding_ms) * 2n) / 3n,
    };
  } catch (error) {
    if (error instanceof Invalid || error instanceof TypeError || error instanceof SyntaxError || error instanceof RangeError) {
      throw new Invalid(`This is not a genesis file: ${error.message}.`);
    }
    throw error;
  }
}

/** A trust point names a header by its hash; the header, and the set that it names, are fetched. */
async function fetchPoint(value) {
  hasMembers(value, ["type", "chain_id", "height", "header_hash"]);
  check(Number.isSafeInteger(value.height) && value.height > 0, "The trust point has no height.");
  const named = await read("chain_header", { block: value.height });
  const header = await readHeader(decode(fromBase64url(named.encoded, 1024), 1024));
  check(equal(header.hash, fromHex(value.header_hash)) && header.chainId === value.chain_id,
    "This node has another block at the trust point’s height: the node or the trust point is of another chain.");
  const sets = await Promise.all([0, 1].map((more) => read("chain_validators", { height: value.height + more }).catch(() => null)));
  for (const answer of sets) {
    const set = answer && (await readSet(fromBase64url(answer.encoded, SET_BYTES_MAX)));
    if (set && equal(set.validators.hash, header.nextValidatorsHash)) {
      return {
        chainId: header.chainId, height: header.height, timeMs: header.timeMs, ...set, headerHash: header.hash,
        trustingPeriodMs: PERIOD_DEFAULT_MS,
      };
    }
  }
  throw new Invalid("This node does not show the validators that the trust point’s block names.");
}

const readSet = async (encoded) => ({ validators: await decodeValidatorSet(encoded), encoded });

/** The trust with `header` (just found valid under it) as its newest point, if that helps: `sets` are
 *  the encoded validator sets that came with the proof. */
export async function moveOn(trust, header, sets) {
  if (header.timeMs < trust.last.timeMs + MOVE_ON_MS) return trust;
  for (const encoded of [trust.last.encoded, ...sets]) {
    const set = await readSet(encoded);
    if (!equal(set.validators.hash, header.nextValidatorsHash)) continue;
    const last = { ...trust.last, height: header.height, timeMs: header.timeMs, headerHash: header.hash, ...set };
    return keepTrust({ ...trust, last });
  }
  return trust;
}

// --- kept in the browser ---

let current = null;

/** What is kept, or else the node's own genesis, which is then kept as seen first. */
export async function loadTrust() {
  if (current === null) {
    const kept = readStorage();
    current = kept === null ? null : await fromText(kept).catch(() => null);
  }
  return current ?? keepTrust({ ...(await trustOfFile(await readGenesis())), isPinned: false });
}

export function keepTrust(trust) {
  current = trust;
  writeStorage(toText(trust));
  return trust;
}

export function forgetTrust() {
  current = null;
  writeStorage(null);
}

const pointText = (p) => ({
  height: String(p.height), timeMs: String(p.timeMs), headerHash: toHex(p.headerHash), validators: toHex(p.encoded),
  trustingPeriodMs: String(p.trustingPeriodMs),
});

const toText = (trust) => JSON.stringify({ ...trust, first: pointText(trust.first), last: pointText(trust.last) });

async function fromText(text) {
  const trust = JSON.parse(text);
  const point = async (p) => ({
    chainId: trust.chainId, height: BigInt(p.height), timeMs: BigInt(p.timeMs), headerHash: fromHex(p.headerHash),
    ...(await readSet(fromHex(p.validators))), trustingPeriodMs: BigInt(p.trustingPeriodMs),
  });
  return { ...trust, first: await point(trust.first), last: await point(trust.last) };
}

function readStorage() {
  try {
    return localStorage.getItem(STORAGE_KEY);
  } catch {
    return null; // storage is shut: trust lasts as long as the page is open
  }
}

function writeStorage(text) {
  try {
    if (text === null) localStorage.removeItem(STORAGE_KEY);
    else localStorage.setItem(STORAGE_KEY, text);
  } catch {
    // as above
  }
}
