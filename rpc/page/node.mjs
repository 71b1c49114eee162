// Asking the node that served this page. Nothing that comes back is believed here.

import { parseJson } from "/verifier/did.mjs";

/** The node refused, or did not answer; `message` is for people. */
export class NodeError extends Error {}

/** The text of a read (docs/rpc.md, "Reads by GET"). Throws NodeError. */
export async function readText(method, params) {
  return fetchText(`/read/${method}?${new URLSearchParams(params)}`);
}

/** Its value. Throws NodeError, or Invalid for what is not strict JSON. */
export const read = async (method, params = {}) => parseJson(await readText(method, params));

/** The genesis document's text. Throws NodeError. */
export const readGenesis = () => fetchText("/genesis.json");

async function fetchText(path) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", credentials: "omit", redirect: "error" });
  } catch {
    throw new NodeError("The node does not answer. Is it running, and are you online?");
  }
  const text = await answer.text();
  if (answer.ok) return text;
  let said = `status ${answer.status}`;
  try {
    said = JSON.parse(text).error.message;
  } catch {
    // not the node's own words
  }
  throw new NodeError(`The node refused: ${said}`);
}
