// A file and its receipt: the file is hashed here, in pieces, and never leaves the device.

import { Verdict } from "/verifier/chain.mjs";
import { Invalid, check, concat, fromBase64url } from "/verifier/codec.mjs";
import { isObject, parseJson } from "/verifier/did.mjs";
import { judgeReceipt } from "/verifier/receipt.mjs";
import { Sha256 } from "./sha256.mjs";

const RECEIPT_BYTES_MAX = 4 * 1024 * 1024;
const SHA2_256 = Uint8Array.of(0x12, 0x20);

/** {verdict, reason, header, anchor} of two `File`s. */
export async function checkReceipt(content, receiptFile, trust) {
  let receipt;
  try {
    check(receiptFile.size <= RECEIPT_BYTES_MAX, "the receipt is too large to be one");
    receipt = readReceipt(new Uint8Array(await receiptFile.arrayBuffer()));
  } catch (error) {
    if (!(error instanceof Invalid)) throw error;
    return { verdict: Verdict.WRONG, reason: error.message };
  }
  const multihash = concat(SHA2_256, await hashFile(content));
  const nowMs = BigInt(Date.now());
  const judged = await judgeReceipt(receipt, multihash, trust.last, nowMs);
  if (judged.verdict !== Verdict.CANNOT_TELL) return judged;
  return judgeReceipt(receipt, multihash, trust.first, nowMs); // older than the newest trust
}

/** The wire bytes: the file itself, or the answer of `audit_receipt` as JSON. */
function readReceipt(bytes) {
  if (bytes[0] !== 0x7b) return bytes;
  const value = parseJson(new TextDecoder().decode(bytes));
  const answer = isObject(value.result) ? value.result : value;
  check("receipt" in answer, "this JSON form is for reading; take the .zreceipt file");
  return fromBase64url(answer.receipt, RECEIPT_BYTES_MAX);
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
