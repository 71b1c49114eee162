// Canonical msgpack, domain-tagged SHA-256, and libsodium's rules for Ed25519 on WebCrypto.
//
// docs/protocol.md, "Bytes": nil, bool, integers 0..2^64-1 in shortest form (BigInt here), bin
// (Uint8Array), str, arrays nested at most 16 deep. Anything else, and any other form of the same
// value, is refused. Plain ES modules: browsers (over HTTPS or on localhost, which WebCrypto
// demands) and Node.js 18 or newer.

const { subtle } = globalThis.crypto ?? (await import("node:crypto")).webcrypto;
const UTF8 = new TextEncoder();
const DEPTH_MAX = 16;

/** Somebody else's data is wrong; `fault` says what of it: "form", "chain" (or validators that are not the
 *  trusted ones), "signatures", "state" (not that of the block) or "content" (not what the state has). */
export class Invalid extends Error {
  constructor(reason, fault = "form") {
    super(reason);
    this.fault = fault;
  }
}

/** A header of a protocol version that this code does not know: neither right nor wrong. */
export class UnknownVersion extends Invalid {}

export function check(condition, reason, fault) {
  if (!condition) throw new Invalid(reason, fault);
}

// --- bytes ---

export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Negative, 0 or positive, as bytes compare. */
export function compare(a, b) {
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}

export const equal = (a, b) => compare(a, b) === 0;
export const toHex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
export const utf8 = (text) => UTF8.encode(text);

export function decodeUtf8(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Invalid("text is not UTF-8");
  }
}

export function fromHex(text) {
  check(/^([0-9a-f]{2})*$/.test(text), "not lower-case hex");
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** base64url without padding (RFC 4648 section 5), in its one form. */
export function fromBase64url(text, bytesMax) {
  check(typeof text === "string" && /^[A-Za-z0-9_-]*$/.test(text), "not base64url");
  check(text.length <= Math.ceil((bytesMax * 4) / 3) && text.length % 4 !== 1, "base64url is too long");
  const binary = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  const again = btoa(binary).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
  check(again === text, "base64url is not in its one form");
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

// --- canonical msgpack ---

/** The value whose canonical bytes are exactly `bytes`. Throws Invalid. */
export function decode(bytes, bytesMax) {
  check(bytes.length <= bytesMax, "encoded value is too long");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;

  function take(count) {
    check(count <= bytes.length - at, "encoded value is cut off");
    at += count;
    return at - count;
  }

  function integer(size, minimum) {
    const start = take(size);
    const value =
      size === 8 ? view.getBigUint64(start)
      : BigInt(size === 4 ? view.getUint32(start) : size === 2 ? view.getUint16(start) : bytes[start]);
    check(value >= minimum, "integer or length is not in its shortest form");
    return value;
  }

  function text(length) {
    const start = take(length);
    return decodeUtf8(bytes.subarray(start, start + length));
  }

  function binary(length) {
    const start = take(length);
    return bytes.slice(start, start + length);
  }

  function array(length, depth) {
    check(depth > 0, "value is nested too deep");
    check(length <= bytes.length - at, "encoded value is cut off");
    return Array.from({ length }, () => item(depth - 1));
  }

  function item(depth) {
    const tag = bytes[take(1)];
    if (tag < 0x80) return BigInt(tag);
    if (tag >= 0x90 && tag < 0xa0) return array(tag - 0x90, depth);
    if (tag >= 0xa0 && tag < 0xc0) return text(tag - 0xa0);
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return binary(Number(integer(1, 0n)));
      case 0xc5: return binary(Number(integer(2, 0x100n)));
      case 0xc6: return binary(Number(integer(4, 0x10000n)));
      case 0xcc: return integer(1, 0x80n);
      case 0xcd: return integer(2, 0x100n);
      case 0xce: return integer(4, 0x10000n);
      case 0xcf: return integer(8, 0x100000000n);
      case 0xd9: return text(Number(integer(1, 32n)));
      case 0xda: return text(Number(integer(2, 0x100n)));
      case 0xdb: return text(Number(integer(4, 0x10000n)));
      case 0xdc: return array(Number(integer(2, 16n)), depth);
      case 0xdd: return array(Number(integer(4, 0x10000n)), depth);
      default: throw new Invalid("type has no place in canonical bytes");
    }
  }

  const value = item(DEPTH_MAX);
  check(at === bytes.length, "encoded value has trailing bytes");
  return value;
}

/** Canonical bytes of null, booleans, BigInt, Uint8Array, text and arrays. */
export function encode(value) {
  if (value === null) return Uint8Array.of(0xc0);
  if (typeof value === "boolean") return Uint8Array.of(value ? 0xc3 : 0xc2);
  if (typeof value === "bigint") {
    return value < 0x80n ? Uint8Array.of(Number(value)) : sized(value, [0xcc, 0xcd, 0xce, 0xcf]);
  }
  if (Array.isArray(value)) {
    const items = value.map(encode);
    const short = value.length < 16;
    return concat(short ? Uint8Array.of(0x90 + value.length) : sized(value.length, [0, 0xdc, 0xdd]), ...items);
  }
  if (typeof value !== "string") return concat(sized(value.length, [0xc4, 0xc5, 0xc6]), value);
  const text = utf8(value);
  return concat(text.length < 32 ? Uint8Array.of(0xa0 + text.length) : sized(text.length, [0xd9, 0xda, 0xdb]), text);
}

function sized(number, tags) {
  const value = BigInt(number);
  const step = tags.findIndex((tag, i) => tag && value < 1n << BigInt(8 << i));
  const size = 1 << step;
  return Uint8Array.from({ length: size + 1 }, (_, i) =>
    i === 0 ? tags[step] : Number((value >> BigInt(8 * (size - i))) & 0xffn));
}

// --- fields of a decoded array ---

export function readArray(value, length, what) {
  check(Array.isArray(value) && value.length === length, `${what} is malformed`);
  return value;
}

export function readList(value, countMax, what) {
  check(Array.isArray(value) && value.length <= countMax, `${what} is malformed`);
  return value;
}

export function readInt(value, what, maximum = 2n ** 64n - 1n) {
  check(typeof value === "bigint" && value <= maximum, `${what} is malformed`);
  return value;
}

export function readBytes(value, what, minimum, maximum = minimum) {
  check(value instanceof Uint8Array && value.length >= minimum && value.length <= maximum, `${what} is malformed`);
  return value;
}

// --- hashes and signatures ---

export const sha256 = async (...parts) => new Uint8Array(await subtle.digest("SHA-256", concat(...parts)));
const prefix = (tag) => utf8(`zynk/${tag}/1\0`);

/** sha256("zynk/<tag>/1" 00 data). */
export const hashTagged = (tag, data) => sha256(prefix(tag), data);
export const signBytes = (kind, chainId, fields) => concat(prefix("sign/" + kind), encode([chainId, ...fields]));

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
function littleEndian(bytes) {
  return bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
}

/** y of the points whose order divides 8; the sign of x does not matter. */
const SMALL_ORDER_Y = new Set([0n, 1n, P - 1n, ...[
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
].map((y) => littleEndian(fromHex(y)))]);

function isSoundPoint(point) {
  const y = littleEndian(point) & (2n ** 255n - 1n);
  return y < P && !SMALL_ORDER_Y.has(y);
}

/** As libsodium judges: WebCrypto alone takes points of small order, and engines differ. */
export async function isValidSignature(publicKey, message, signature) {
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  if (littleEndian(signature.subarray(32)) >= L) return false;
  if (!isSoundPoint(publicKey) || !isSoundPoint(signature.subarray(0, 32))) return false;
  try {
    const key = await subtle.importKey("raw", publicKey, "Ed25519", false, ["verify"]);
    return await subtle.verify("Ed25519", key, signature, message);
  } catch (error) {
    if (error?.name === "NotSupportedError") throw error; // no answer is not "no"
    return false; // not the encoding of a point
  }
}
