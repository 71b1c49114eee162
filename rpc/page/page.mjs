// The page's wiring: forms, links, files, and what is announced.

import { Verdict } from "/verifier/chain.mjs";
import { Invalid } from "/verifier/codec.mjs";
import { findDid, lookUp } from "./lookup.mjs";
import { NodeError } from "./node.mjs";
import { checkReceipt } from "./receipt_check.mjs";
import { el, identityCards, lookupVerdict, receiptVerdict, trustNow, verdictCard } from "./show.mjs";
import { forgetTrust, keepTrust, loadTrust, moveOn, trustOfFile } from "./trust.mjs";

const $ = (id) => document.getElementById(id);
let lookupCount = 0;

// --- can this browser do it? ---

/** Why no signature can be checked here, or null. */
async function findObstacle() {
  if (!globalThis.isSecureContext || !globalThis.crypto?.subtle) {
    return "Signatures can not be checked on this connection: browsers give web pages cryptography over HTTPS and on localhost only. Open this page in one of these two ways.";
  }
  try {
    const base = Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 0x58 : 0x66)); // Ed25519's base point
    await crypto.subtle.importKey("raw", base, "Ed25519", false, ["verify"]);
    return null;
  } catch {
    return "This browser can not check Ed25519 signatures. Chrome 137, Firefox 129, Safari 17 and newer can.";
  }
}

// --- trust ---

/** The trust, shown; null if there is none. */
async function useTrust() {
  let trust = null;
  try {
    trust = await loadTrust();
  } catch (error) {
    if (!(error instanceof NodeError || error instanceof Invalid)) throw error;
  }
  const chip = $("trust-chip");
  chip.dataset.trust = trust === null ? "none" : trust.isPinned ? "pinned" : "first-use";
  chip.textContent = trust === null ? "Nothing trusted yet" : `${trust.chainId} · ${trust.isPinned ? "pinned" : "trusted on first use"}`;
  const actions = trust === null ? [] : [
    trust.isPinned ? null : button("Pin this", () => pin(async () => ({ ...trust, isPinned: true, sinceMs: Date.now() }))),
    button("Forget", forget),
  ].filter(Boolean);
  $("trust-now").replaceChildren(trustNow(trust), el("div", { class: "row" }, ...actions));
  return trust;
}

function button(text, act) {
  const node = el("button", { type: "button" }, text);
  node.addEventListener("click", act);
  return node;
}

async function pin(make) {
  $("pin-error").textContent = "";
  $("trust-said").textContent = "";
  $("pin-text").removeAttribute("aria-invalid");
  try {
    keepTrust(await make());
  } catch (error) {
    if (!(error instanceof Invalid || error instanceof NodeError)) throw error;
    $("pin-error").textContent = error.message;
    $("pin-text").setAttribute("aria-invalid", "true");
    $("pin-text").focus();
    return;
  }
  $("pin-text").value = "";
  const trust = await useTrust();
  $("trust-said").textContent = `Pinned: ${trust.chainId}.`;
  focusTrust();
  await lookUpShown();
}

async function forget() {
  forgetTrust();
  await useTrust();
  $("trust-said").textContent = "Forgotten. What this node shows is now trusted as seen first.";
  focusTrust();
  await lookUpShown();
}

/** Its button may be gone: focus goes to what comes next. */
const focusTrust = () => $("trust").querySelector("summary").focus();

// --- looking up ---

function wanted() {
  const hash = decodeURIComponent(location.hash.slice(1));
  return hash.startsWith("did:") ? hash : new URLSearchParams(location.search).get("did") ?? "";
}

async function lookUpShown() {
  const text = wanted();
  if (text === "") return;
  $("did").value = text;
  const did = findDid(text);
  if (did === null) return refuseInput();
  const mine = ++lookupCount;
  document.title = `${did.slice(0, 20)}… · Zynk identities`;
  $("did-error").textContent = "";
  $("did").removeAttribute("aria-invalid");
  const submit = $("lookup").querySelector("button");
  submit.setAttribute("aria-busy", "true");
  $("verdict").replaceChildren(verdictCard("wait", "Checking…", "Asking the node, then checking what it says."));
  $("result").replaceChildren();
  const [verdict, cards] = await judgeLookup(did);
  if (mine !== lookupCount) return; // another lookup has begun since
  submit.removeAttribute("aria-busy");
  $("verdict").replaceChildren(verdict);
  $("result").replaceChildren(...cards);
}

async function judgeLookup(did) {
  try {
    const trust = await useTrust();
    if (trust === null) {
      return [verdictCard("warn", "Nothing to check against", "Pin a genesis file below: this node does not hand out its own."), []];
    }
    const found = await lookUp(did, trust);
    if (found.verdict === Verdict.VALID) keepNewer(await moveOn(trust, found.header, found.sets), trust);
    const isShown = ![Verdict.WRONG, Verdict.CANNOT_TELL].includes(found.verdict);
    return [lookupVerdict(found, trust), isShown ? identityCards(found) : []];
  } catch (error) {
    if (error instanceof NodeError) return [verdictCard("warn", "No answer", error.message), []];
    throw error;
  }
}

function keepNewer(moved, before) {
  if (moved !== before) keepTrust(moved);
}

function refuseInput() {
  lookupCount++;
  $("did-error").textContent = "This is not a did:zynk identifier: it begins with did:zynk:zQm and has 56 characters.";
  $("did").setAttribute("aria-invalid", "true");
  $("did").focus();
  $("verdict").replaceChildren();
  $("result").replaceChildren();
}

// --- files ---

function onDrop(zone, take) {
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take([...event.dataTransfer.files]);
  });
}

let receiptCount = 0;
const picked = { content: null, receipt: null };

async function judgePicked() {
  const { content, receipt } = picked;
  if (content === null || receipt === null) return;
  const mine = ++receiptCount;
  const say = (node) => mine === receiptCount && $("receipt-verdict").replaceChildren(node);
  say(verdictCard("wait", "Checking…", "Hashing the file on this device."));
  const trust = await useTrust();
  if (trust === null) return say(verdictCard("warn", "Nothing to check against", "Pin a genesis file below first."));
  try {
    const judged = await checkReceipt(content, receipt, $("receipt-salt").value, trust);
    if (mine !== receiptCount) return; // other files, or another salt, have come since
    $("receipt-salt-field").hidden = !judged.isSalted;
    say(receiptVerdict(judged, trust, content.name));
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    say(verdictCard("warn", "The file can not be read", error.message));
  }
}

function takeDropped(files) {
  const ends = (ending) => files.findLast((file) => file.name.toLowerCase().endsWith(ending));
  const receipt = ends(".zreceipt") ?? (files.length === 2 ? ends(".json") : undefined);
  for (const file of files) picked[file === receipt ? "receipt" : "content"] = file;
  judgePicked();
}

// --- begin ---

async function begin() {
  const obstacle = await findObstacle();
  if (obstacle !== null) {
    $("unable").textContent = obstacle;
    $("unable").hidden = false;
    for (const control of document.querySelectorAll("form button, form input, form textarea, .drop input")) control.disabled = true;
    $("trust-chip").textContent = "Nothing can be checked";
    return;
  }
  $("lookup").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("did").value.trim();
    if (findDid(text) === null) return refuseInput();
    const before = location.hash;
    location.hash = findDid(text);
    if (location.hash === before) lookUpShown(); // else `hashchange` does
  });
  addEventListener("hashchange", lookUpShown);
  $("pin").addEventListener("submit", (event) => {
    event.preventDefault();
    pin(() => trustOfFile($("pin-text").value));
  });
  const pinFile = async ([file]) => file && pin(async () => trustOfFile(await file.text()));
  $("pin-file").addEventListener("change", () => pinFile([...$("pin-file").files]));
  onDrop($("pin"), pinFile);
  $("trust-chip").addEventListener("click", () => {
    $("trust").open = true;
    focusTrust();
  });
  $("receipt-content").addEventListener("change", () => ((picked.content = $("receipt-content").files[0] ?? null), judgePicked()));
  $("receipt-file").addEventListener("change", () => ((picked.receipt = $("receipt-file").files[0] ?? null), judgePicked()));
  $("receipt-salt").addEventListener("input", judgePicked);
  onDrop($("receipt-drop"), takeDropped);
  await useTrust();
  await lookUpShown();
}

addEventListener("unhandledrejection", () => {
  $("unable").textContent = "This page has failed; nothing below is checked. Please load it again.";
  $("unable").hidden = false;
  $("verdict").replaceChildren();
  $("result").replaceChildren();
});
begin();
