// What the page shows, as DOM elements made from text: nothing from outside ever becomes markup.

import { Verdict } from "/verifier/chain.mjs";
import { hashText } from "/verifier/did.mjs";

/** An element. `attributes` with a value of null or false are left out; children are elements or text. */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

const plural = (count, one, many = one + "s") => `${count} ${count === 1 ? one : many}`;
const mono = (text) => el("span", { class: "mono" }, text);
const tag = (text, kind = "") => el("span", { class: `tag ${kind}`.trim() }, text);
const json = (value) => el("pre", {}, JSON.stringify(value, null, 2));

function time(ms) {
  const date = new Date(Number(ms));
  const text = date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  return el("time", { datetime: date.toISOString(), title: date.toISOString() }, text);
}

// --- the verdict ---

const KIND = {
  [Verdict.VALID]: "good", [Verdict.VALID_BUT_EXPIRED_TRUST]: "warn", [Verdict.TOO_OLD]: "warn",
  [Verdict.WRONG]: "bad", [Verdict.CANNOT_TELL]: "warn",
};

/** A card; `note` is a further sentence, `steps` are sentences, `said` is shown as not believed. */
export function verdictCard(kind, title, sentence, { note = "", steps = [], said = "" } = {}) {
  return el("section", { class: `verdict ${kind}`, "data-kind": kind },
    el("span", { class: "sign", "aria-hidden": "true" }),
    el("h2", {}, title),
    el("p", {}, ...[sentence].flat()),
    note ? el("p", {}, note) : null,
    steps.length ? el("details", {}, el("summary", {}, kind === "bad" ? "What was found" : "How this was checked"), el("ol", {}, steps.map((step) => el("li", {}, ...[step].flat())))) : null,
    said ? el("details", {}, el("summary", {}, "What the node said (do not rely on it)"), el("pre", {}, said.slice(0, 20_000))) : null,
  );
}

export function lookupVerdict(found, trust) {
  const { verdict, header, record } = found;
  if (verdict === Verdict.WRONG) return lieCard(...describeLie(found, trust), found, trust);
  if (verdict === Verdict.CANNOT_TELL) return doubtCard(found, trust);
  const title = record === null ? "Proven: there is no such identity" : record.isActive ? "Verified" : "Verified: deactivated";
  const whose = trust.isPinned ? "the validators that you pinned" : "this node’s validators, as first seen";
  const sentence = [`As of block ${header.height} of ${header.chainId}, `, time(header.timeMs), `, checked here against ${whose}.`];
  const kind = KIND[verdict];
  if (verdict === Verdict.VALID) return verdictCard(kind, title, sentence, { steps: lookupSteps(found, trust) });
  const why = verdict === Verdict.TOO_OLD ? ["The signatures hold, but the node shows an old state: block ", String(header.height), " of ", time(header.timeMs), ". Something newer may exist, and the node may be hiding it."]
    : "The signatures hold, but the validators that you trust are from so long ago that they may have left. Pin a newer trust point.";
  return verdictCard(kind, verdict === Verdict.TOO_OLD ? "Out of date" : "Your trust is too old", why, { steps: lookupSteps(found, trust) });
}

// --- what a lying node did ---

/** [title, what it did] of an answer that is wrong. */
function describeLie({ fault, header, denies, isHistory }, { chainId }) {
  if (fault === "chain") return ["This is another chain", describeOtherChain(header, chainId, "The node’s answer")];
  if (fault === "signatures") return ["Not signed by the validators", "The node shows a block that the validators you trust did not sign."];
  if (denies) return ["This identity may be hidden", "The node says that there is no such identity, and its proof does not show that."];
  if (isHistory) return ["The history was altered", "What the node shows as this identity’s past is not what the validators made final."];
  if (fault === "state") return ["Not what the block holds", "What the node shows is not in the block that it names: it is out of date in new dress, or made up."];
  if (fault === "content") return ["This answer was altered", "The validators made another document, or other facts about it, final."];
  return ["This answer is not genuine", "What the node sent is not a proof of anything: it was tampered with, or damaged on the way."];
}

function describeOtherChain(header, chainId, what) {
  const isNamedAlike = header === null || header.chainId === chainId;
  return isNamedAlike ? `${what} is signed by other validators than those of “${chainId}” that you trust, though it bears that name.`
    : `${what} is of the chain “${header.chainId}”; the one you trust is “${chainId}”.`;
}

function lieCard(title, did, { reason, fault, said }, trust) {
  const note = trust.isPinned || fault !== "chain" ? "" : "If this network was begun anew, forget the old one under “Whom you trust”.";
  return verdictCard("bad", title, `${did} Nothing of it is shown as true.`, { note, said, steps: [`Where the check ended: ${reason}.`] });
}

function doubtCard({ reason, header, said }, { last }) {
  if (header !== null && header?.height < last.height) {
    const known = ["The node shows block ", String(header.height), ", but you trust block ", String(last.height), " of ", time(last.timeMs), " already. Something newer exists, and the node does not show it."];
    return verdictCard("warn", "Out of date", known, { said });
  }
  return verdictCard("warn", "Cannot tell", `Neither right nor wrong by what you trust: ${reason}.`, { said });
}

function lookupSteps({ header, record, operations, sets }, trust) {
  const { last } = trust;
  return [
    `You trust ${plural(last.validators.validators.length, "validator")} of ${trust.chainId} as of ${last.height === 0n ? "its genesis" : `block ${last.height}`}.`,
    `${plural(sets.length, "handoff")} ${sets.length === 1 ? "leads" : "lead"} from them to those who signed.`,
    `Signatures of more than two thirds of the voting power made block ${header.height} final.`,
    record === null ? "The block’s state root proves that it holds no record of this identity."
      : "The block’s state root proves the record of this identity.",
    ...(record === null ? [] : [
      record.isActive ? "The document has the hash that the record names." : "The record says that the identity is deactivated.",
      `${plural(operations.length, "operation")}: each is in the log that the record names, none is missing, and they lead to those in charge that the record names.`,
    ]),
  ];
}

export function receiptVerdict({ verdict, reason, fault, header, anchor, isSalted }, trust, name) {
  if (fault === "salt") return verdictCard("warn", "The salt is not complete", `Nothing was checked: ${reason}.`);
  if (verdict === Verdict.CANNOT_TELL && isSalted && !anchor) {
    return verdictCard("warn", "Its salt is needed", "The receipt hides the file’s hash behind a salt: enter it above.");
  }
  if (verdict === Verdict.WRONG) return lieCard("The receipt does not hold", describeReceipt(fault, header, trust, isSalted), { reason, fault }, trust);
  if (verdict === Verdict.CANNOT_TELL) return doubtCard({ reason, header: null }, trust);
  const sentence = [`“${name}” was in the audit log of ${header.chainId} at block ${anchor.height}, `, time(anchor.timeMs), "."];
  if (verdict === Verdict.VALID) return verdictCard("good", "The receipt holds", sentence);
  return verdictCard("warn", "The receipt holds, but your trust is old", [...sentence, " The validators that you trust may have left since; pin a newer trust point to be sure."]);
}

function describeReceipt(fault, header, { chainId }, isSalted) {
  if (fault === "content") return isSalted ? "It belongs to another file, or the salt is another one." : "It belongs to another file.";
  if (fault === "chain") return describeOtherChain(header, chainId, "The receipt");
  if (fault === "signatures") return "The validators that you trust did not sign it.";
  return "It was tampered with, or damaged.";
}

// --- an identity ---

/** The cards of a verified answer. */
export function identityCards({ record, document: shown, operations }) {
  if (record === null) return [];
  return [shown === null ? null : documentCard(shown), chargeCard(record, operations), historyCard(operations)].filter(Boolean);
}

const card = (id, title, ...children) => el("section", { class: "panel", "aria-labelledby": id }, el("h2", { id }, title), ...children);

const PURPOSES = {
  authentication: "authentication", assertionMethod: "assertions", keyAgreement: "key agreement",
  capabilityInvocation: "invoking capabilities", capabilityDelegation: "delegating capabilities",
};

function documentCard(shown) {
  const local = (id) => id.slice(shown.id.length);
  const methods = (shown.verificationMethod ?? []).map((method) => el("li", {},
    el("h3", {}, local(method.id)), mono(method.publicKeyMultibase),
    el("span", { class: "tags" }, Object.entries(PURPOSES).filter(([name]) => shown[name]?.includes(method.id)).map(([, text]) => tag(text)))));
  const services = (shown.service ?? []).map((service) => el("li", {},
    el("h3", {}, `${local(service.id)} · ${[service.type].flat().join(", ")}`),
    ...[service.serviceEndpoint].flat().map((endpoint) => link(typeof endpoint === "string" ? endpoint : endpoint.uri))));
  const list = (title, items) => (items.length ? [el("h3", {}, title), el("ul", { class: "entries" }, items)] : []);
  return card("document-title", "Document",
    el("p", { class: "mono" }, shown.id),
    ...list("Keys", methods), ...list("Services", services),
    ...list("Also known as", (shown.alsoKnownAs ?? []).map((uri) => el("li", {}, link(uri)))),
    el("details", {}, el("summary", {}, "As JSON"), json(shown)));
}

function link(uri) {
  if (!/^https?:\/\//i.test(uri)) return mono(uri);
  return el("a", { class: "mono", href: uri, rel: "noopener noreferrer nofollow", referrerpolicy: "no-referrer" }, uri);
}

function chargeCard(record, operations) {
  const since = operations.findLast((operation) => operation.changesAuthority);
  const { authority } = operations.at(-1);
  return card("charge-title", record.isActive ? "Who controls it" : "Who controlled it",
    authorityList(authority, [
      el("dt", {}, "Since"), el("dd", {}, time(since.timeMs), ` · block ${since.height}, ${describe(since).toLowerCase()}`),
    ]),
    record.disputeUntilMs === 0n ? null
      : el("p", { class: "hint" }, "A recovery tier can still undo the last change until ", time(record.disputeUntilMs), "."));
}

function authorityList({ control, recovery = [] }, more = []) {
  return el("dl", {},
    el("dt", {}, "Control"), el("dd", {}, keyList(control)),
    ...more,
    el("dt", {}, "Next keys"),
    el("dd", {}, control.next ? ["Committed: only the keys behind ", mono(control.next), " can change it."] : "Not committed: the control keys can change it."),
    ...(recovery.length ? recovery.flatMap((tier, i) => [el("dt", {}, `Recovery ${i + 1}`), el("dd", {}, keyList(tier))])
      : [el("dt", {}, "Recovery"), el("dd", {}, "None: lost keys can not be replaced.")]));
}

function keyList({ keys, threshold }) {
  const need = keys.length === 1 ? "One key" : threshold === keys.length ? `All ${keys.length} keys together` : `${threshold} of ${keys.length} keys`;
  return [need, el("ul", { class: "keys" }, keys.map((key) => el("li", { class: "mono" }, key)))];
}

// --- history ---

const WORDS = { create: "Created", update: "Updated", recover: "Recovered", deactivate: "Deactivated" };

function describe({ form }) {
  return form.type === "recover" ? `Recovered by tier ${form.body.tier + 1}` : WORDS[form.type];
}

function historyCard(operations) {
  const gone = operations.filter((operation) => operation.nullifiedBy !== null).length;
  const summary = plural(operations.length, "operation") + (gone ? `, ${gone} of them nullified by a recovery.` : ".");
  return card("history-title", "History", el("p", { class: "hint" }, summary, " Newest first."),
    el("ol", { class: "history", reversed: true }, operations.toReversed().map(historyItem)));
}

function historyItem(operation) {
  const { seq, form, nullifiedBy, hash, authority, changesAuthority, height, timeMs } = operation;
  return el("li", { class: nullifiedBy === null ? null : "nullified", "data-seq": String(seq) },
    el("div", { class: "what" },
      el("h3", {}, `#${seq} ${describe(operation)}`),
      nullifiedBy === null ? null : tag(`nullified by #${nullifiedBy}`, "bad"),
      changesAuthority && seq > 0 ? tag("control changed", "warn") : null),
    el("p", { class: "when" }, time(timeMs), ` · block ${height} · signed by ${plural(form.sigs.length, "key")}`),
    el("details", {}, el("summary", {}, "Details", el("span", { class: "visually-hidden" }, ` of operation ${seq}`)),
      authorityList(authority, [el("dt", {}, "Operation"), el("dd", { class: "mono" }, hashText(hash))]),
      json(form)));
}

// --- trust ---

export function trustNow(trust) {
  if (trust === null) return el("p", {}, "Nothing yet: this node does not hand out its genesis, so nothing can be checked before you pin a file.");
  const { chainId, root, source, isPinned, sinceMs, first, last } = trust;
  const how = isPinned ? ["Pinned by you, ", time(sinceMs), "."]
    : ["Taken from this node when it was first used here, ", time(sinceMs), ". A node that lied then would not be caught: compare the hash with one that you got elsewhere, then pin it."];
  return el("dl", {},
    el("dt", {}, "Chain"), el("dd", {}, chainId),
    el("dt", {}, source === "genesis" ? "Genesis hash" : "Block hash"), el("dd", { class: "mono" }, root),
    el("dt", {}, "Trusted"), el("dd", {}, how),
    el("dt", {}, "Validators"), el("dd", {}, `${last.validators.validators.length} `,
      last.height === first.height ? "" : `(as of block ${last.height}, reached from the trusted ones)`));
}
