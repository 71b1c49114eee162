// Dereferencing answers: is this what the DID's proven document has under this DID URL? (did/verify_answer.py)
//
// The document that a part comes from is in the answer, with its proof: it is judged, and the part found
// in it again (did/dereference.py). URLs of services (`text/uri-list`) have no proof and are not judged.

import { Invalid, check } from "./codec.mjs";
import { guarded } from "./chain.mjs";
import {
  ERROR_PREFIX, RELATIONSHIPS, canonicalJson, foundResult, hasMembers, isObject, isRefused, parseJson,
} from "./did.mjs";
import { judgeVersion, readHeight, readVersionQuery } from "./version.mjs";

const SECURITY = "https://w3id.org/security#"; // errors of Controlled Identifiers 1.0 are there
const TEXT_MAX = 512;
const URL_MAX = 2048;
const PARAMETERS_MAX = 16;
const PCHAR = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})";
const DID = "did:[a-z0-9]+:(?:(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})*:)*(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})+";
const DID_URL = new RegExp(`^(${DID})((?:/${PCHAR}*)*)(?:\\?((?:${PCHAR}|[/?])*))?(?:#((?:${PCHAR}|[/?])*))?$`);
const TEXTS = ["versionId", "versionTime", "service", "serviceType", "relativeRef", "verificationRelationship"];

/** The document has nothing there; `form` is the error object of a true answer. */
class NothingThere extends Error {
  constructor(code, detail, prefix = ERROR_PREFIX) {
    super(detail);
    const title = code[0] + code.slice(1).toLowerCase().replaceAll("_", " ");
    this.form = { type: prefix + code, title, detail };
  }
}

// --- the question ---

/** {did, path, fragment, version, service, serviceType, verificationRelationship, isPart} of a DID URL and
 *  options of DID Resolution beside it (they win); `version` is as `readVersionQuery` gives it, `isPart` says
 *  that more than the document is asked for. Throws Invalid. */
export function readQuestion(text, options = {}) {
  const match = typeof text === "string" && text.length <= URL_MAX ? DID_URL.exec(text) : null;
  check(match !== null, "not a DID URL");
  const [, did, path, query = "", fragment = null] = match;
  const asked = { ...readParameters(query), ...options };
  for (const [name, value] of Object.entries(asked)) checkOption(name, value);
  const { service = null, serviceType = null, relativeRef = null, verificationRelationship = null } = asked;
  const selectsServices = service !== null || serviceType !== null;
  check(relativeRef === null || selectsServices, "relativeRef needs a service beside it");
  const isRelationship = verificationRelationship === null || RELATIONSHIPS.includes(verificationRelationship);
  check(isRelationship, "there is no such verification relationship");
  return {
    did, path, fragment, service, serviceType, verificationRelationship, version: readVersionQuery(asked),
    isPart: path !== "" || fragment !== null || selectsServices || verificationRelationship !== null,
  };
}

function readParameters(query) {
  const pairs = query === "" ? [] : query.split("&").map((pair) => /^([^=]*)=?(.*)$/s.exec(pair).slice(1).map(percentDecode));
  const names = new Set(pairs.map(([name]) => name));
  check(pairs.length <= PARAMETERS_MAX && names.size === pairs.length && !names.has(""),
    "DID URL has too many, repeated or unnamed parameters");
  return Object.fromEntries(pairs);
}

function percentDecode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Invalid("DID URL is not UTF-8 once decoded");
  }
}

function checkOption(name, value) {
  if (value === null) return;
  if (name === "asOfHeight" || name === "trusted_height") return void readHeight(name, value);
  const isFlag = name === "expandRelativeUrls" && [true, false, "true", "false"].includes(value);
  const isText = TEXTS.includes(name) && typeof value === "string" && value !== "" && [...value].length <= TEXT_MAX;
  check(isFlag || isText, `option ${name} is unknown or malformed`);
}

// --- the answer ---

/** {verdict, reason, header, record} of a dereferencing answer (its text, or what `parseJson` made of it). */
export async function judgeDereferencing(answer, asked, options, trust, nowMs, maxAgeMs = null) {
  return guarded(async () => {
    if (typeof answer === "string") answer = parseJson(answer);
    const question = readQuestion(asked, options);
    hasMembers(answer, ["dereferencingMetadata", "content", "contentStream", "contentMetadata"]);
    const { dereferencingMetadata: shown, content, contentStream, contentMetadata } = answer;
    check(isObject(shown) && isObject(contentMetadata), "metadata is not an object");
    const resolution = resolutionIn(shown, content, contentMetadata);
    const judged = await judgeVersion(resolution, question.did, question.version, trust, nowMs, maxAgeMs);
    if (isRefused(judged)) return judged;
    check(canonicalJson(content) === canonicalJson(contentStream), "content and contentStream differ");
    const isError = "error" in shown;
    const isEmpty = content === null && Object.keys(contentMetadata).length === 0;
    check(!isError || isEmpty, "an error comes with content");
    if ("proof" in shown) return judged; // all of it is the resolution's own error
    const expected = expectContent(resolution, question);
    const found = { content, dereferencingMetadata: shown };
    check(canonicalJson(found) === canonicalJson(expected), "content is not what the document has under this DID URL");
    return judged;
  });
}

/** The resolution result that a dereferencing answer rests on. */
function resolutionIn(shown, content, contentMetadata) {
  if ("proof" in shown) return { didDocument: null, didResolutionMetadata: shown, didDocumentMetadata: {} };
  if ("error" in shown) return foundResult(shown.didDocument, shown.didDocumentMetadata);
  return foundResult("didDocument" in shown ? shown.didDocument : content, contentMetadata);
}

/** What has to be shown besides the metadata, given a verified resolution. */
function expectContent({ didDocument, didDocumentMetadata }, question) {
  if (didDocument === null) return { content: null, dereferencingMetadata: {} };
  const contentType = "application/did";
  try {
    if (!question.isPart) return { content: didDocument, dereferencingMetadata: { contentType } };
    return { content: findPart(didDocument, question), dereferencingMetadata: { contentType, didDocument } };
  } catch (error) {
    if (!(error instanceof NothingThere)) throw error;
    return { content: null, dereferencingMetadata: { error: error.form, didDocument, didDocumentMetadata } };
  }
}

function findPart(document, question) {
  const { did, path, fragment, service, serviceType, verificationRelationship } = question;
  if (path !== "") throw new NothingThere("NOT_FOUND", "did:zynk defines no paths");
  const isSelecting = service !== null || serviceType !== null;
  const resource = isSelecting ? { ...document, service: selectServices(document, question) } : document;
  if (fragment === null && verificationRelationship === null) return resource;
  return { "@context": document["@context"], ...findFragment(resource, `${did}#${fragment ?? ""}`, verificationRelationship) };
}

function selectServices(document, { did, service, serviceType }) {
  const wanted = service === null || service.startsWith("did:") ? service : `${did}#${service.replace(/^#/, "")}`;
  const isWanted = ({ id, type }) =>
    (wanted === null || id === wanted) && (serviceType === null || [type].flat().includes(serviceType));
  const found = (document.service ?? []).filter(isWanted);
  if (found.length === 0) throw new NothingThere("NOT_FOUND", "the document has no such service");
  return found;
}

function findFragment(document, wanted, relationship) {
  const method = (document.verificationMethod ?? []).find(({ id }) => id === wanted);
  if (relationship !== null && method === undefined) {
    throw new NothingThere("INVALID_VERIFICATION_METHOD", "the DID URL names no verification method", SECURITY);
  }
  if (relationship !== null && !(document[relationship] ?? []).includes(wanted)) {
    const code = "INVALID_RELATIONSHIP_FOR_VERIFICATION_METHOD";
    throw new NothingThere(code, `the verification method is not for ${relationship}`, SECURITY);
  }
  const found = method ?? (document.service ?? []).find(({ id }) => id === wanted);
  if (found === undefined) throw new NothingThere("NOT_FOUND", "the document has nothing with this fragment");
  return found;
}
