// A file and its receipt: the file is hashed here, in pieces, and never leaves the device.

import { Verdict } from "/verifier/chain.mjs";
import { Invalid, check, concat, fromBase64url, fromHex } from "/verifier/codec.mjs";
import { isObject, parseJson } from "/verifier/did.mjs";
import { isSalted, judgeReceipt } from "/verifier/receipt.mjs";
import { JSON_BYTES_MAX, decodeReceiptJson } from "/verifier/receipt_json.mjs";
import { Sha256 } from "./sha256.mjs";

const RECEIPT_BYTES_MAX = 4 * 1024 * 1024 + 16 * 1024;
const SALT_BYTES = 32;
const SHA2_256 = Uint8Array.of(0x12, 0x20);

/** {verdict, reason, fault, header, anchor, isSalted} of two `File`s; `isSalted` asks for the leaf's salt, which
 *  is read from `saltText` (hex). */
export async function checkReceipt(content, receiptFile, saltText, trust) {
  let receipt;
  let salted = false;
  let salt = null;
  try {
    check(receiptFile.size <= JSON_BYTES_MAX, "the receipt is too large to be one");
    receipt = readReceipt(new Uint8Array(await receiptFile.arrayBuffer()));
    salted = isSalted(receipt);
    if (salted) salt = readSalt(saltText);
  } catch (error) {
    if (!(error instanceof Invalid)) throw error;
    return { verdict: Verdict.WRONG, reason: error.message, fault: error.fault, isSalted: salted };
  }
  if (salted && salt === null) return { verdict: Verdict.CANNOT_TELL, reason: "its salt is needed", isSalted: true };
  const multihash = concat(SHA2_256, await hashFile(content));
  const nowMs = BigInt(Date.now());
  const judged = await judgeReceipt(receipt, multihash, trust.last, nowMs, { salt });
  const isOlder = judged.verdict === Verdict.CANNOT_TELL; // than the newest trust
  return { ...(isOlder ? await judgeReceipt(receipt, multihash, trust.first, nowMs, { salt }) : judged), isSalted: salted };
}

/** The wire bytes: the file itself, its JSON twin, or what `audit_receipt` or `zynk audit receipt --json` gave. */
function readReceipt(bytes) {
  const first = bytes.find((byte) => ![0x09, 0x0a, 0x0d, 0x20].includes(byte));
  if (first !== 0x7b) return bytes;
  const value = parseJson(new TextDecoder().decode(bytes));
  const answer = isObject(value.result) ? value.result : value;
  const shown = "receipt" in answer ? answer.receipt : answer;
  return typeof shown === "string" ? fromBase64url(shown, RECEIPT_BYTES_MAX) : decodeReceiptJson(shown);
}

/** Null if there is none yet. */
function readSalt(text) {
  const hex = text.replace(/\s/g, "").toLowerCase();
  if (hex === "") return null;
  check(/^[0-9a-f]+$/.test(hex) && hex.length === 2 * SALT_BYTES, `the salt is not ${2 * SALT_BYTES} hex digits`, "salt");
  return fromHex(hex);
}

async function hashFile(file) {
  const hash = new Sha256();
  const reader = file.stream().getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return hash.digest();
    hash.update(value);
  }
}
