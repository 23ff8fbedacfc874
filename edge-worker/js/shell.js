// The JavaScript half of the shell: what Rust asks of workerd, one call for each thing, and one call back with its outcome.
//
// Whatever Rust waits for has a number. Rust counts them and never uses one twice, so that what comes late, for a request
// that has ended or from before a restart, finds nobody.

import { env, waitUntil } from "cloudflare:workers";
import module from "./index_bg.wasm";
import {
  __wbg_reset_state,
  initSync,
  settleBytes,
  settleFailure,
  settleFlag,
  settleKey,
  settleNothing,
  settleText,
} from "./keypost_edge.js";
import { forgetPages, keep } from "./repeat.js";

// How often WebAssembly has been started anew.
let generation = 0;

// What waits for Rust, by number: requests for their answer, and work that goes on after one.
const waiting = new Map();
let last = 0;

const EMPTY = new Uint8Array(0);

/** Starts WebAssembly. */
export function ready() {
  initSync({ module });
}

/** A promise that Rust keeps, under the number that `start` is called with. */
export function waitFor(start) {
  return new Promise((resolve) => {
    last = (last + 1) >>> 0;
    waiting.set(last, resolve);
    start(last);
  });
}

/**
 * Calls Rust. What comes out of it as an exception is a fault: a panic, or memory at its end. Nothing of that instance may be
 * trusted any more, so a new one takes its place, which knows nothing yet, and whoever waited for the old one is told.
 */
export function guarded(call) {
  try {
    call();
  } catch (fault) {
    console.error(JSON.stringify({ level: "error", event: "restarted", detail: String(fault) }));
    generation += 1;
    const abandoned = [...waiting.values()];
    waiting.clear();
    forgetPages();
    __wbg_reset_state();
    for (const resolve of abandoned) {
      resolve(ABANDONED);
    }
  }
}

// What those are told who waited for an instance that has ended. Not a Response, because each must be made by the request that
// it answers.
const ABANDONED = Symbol("abandoned");

/** What a request is answered with in the end. */
export function answered(outcome) {
  if (outcome !== ABANDONED) {
    return outcome;
  }
  return new Response('{"error":"temporarily_unavailable"}', {
    status: 503,
    headers: { "content-type": "application/json", "cache-control": "no-store", "retry-after": "1" },
  });
}

// Tells Rust how something has ended, unless that Rust is gone.
function tell(promise, number, settle) {
  const born = generation;
  promise.then(
    (value) => {
      if (born === generation) guarded(() => settle(number, value));
    },
    (error) => {
      if (born === generation) {
        guarded(() => settleFailure(number, String(error?.name), String(error?.message)));
      }
    },
  );
}

// Calls what may throw at once, as some of workerd's functions do, where others reject.
function attempt(call) {
  try {
    return call();
  } catch (error) {
    return Promise.reject(error);
  }
}

/** A variable or secret; undefined where it is not set, null where it is no text. */
export function variable(name) {
  const value = env[name];
  return value === undefined || typeof value === "string" ? value : null;
}

/** Whether there is a KV namespace. */
export function hasKv() {
  return env.KEYPOST_KV !== undefined;
}

/** Answers a request whose body broke off: there is nobody left to read it. */
export function brokenOff(number) {
  respond(number, 400, "", EMPTY);
}

/** Answers with JSON that no cache may keep: what most answers are, and worth a way without any parsing. */
export function respondSecret(number, status, requestId, body) {
  const resolve = waiting.get(number);
  if (resolve === undefined) {
    return;
  }
  waiting.delete(number);
  const headers = {
    "content-type": "application/json",
    "cache-control": "no-store",
    pragma: "no-cache",
    "x-request-id": requestId,
  };
  resolve(new Response(body.slice(), { status, headers }));
}

/** Answers a request. The headers are lines: a name, its value, the next name. */
export function respond(number, status, lines, body) {
  const resolve = waiting.get(number);
  if (resolve === undefined) {
    return;
  }
  waiting.delete(number);
  // A copy, because a view would be of Rust's memory while the answer is still being sent. No body at all where there is
  // none: 204 and 304 must not have even an empty one.
  resolve(new Response(body.length === 0 ? null : body.slice(), { status, headers: headersOf(lines) }));
}

/** Answers a GET of this URL with a page for everybody, which repeats in the second of which it is. */
export function respondPublic(number, second, url, lines, body) {
  const { "x-request-id": _, ...headers } = headersOf(lines);
  keep(url, second, headers, body);
  respond(number, 200, lines, body);
}

function headersOf(lines) {
  const parts = lines.split("\n");
  const headers = {};
  for (let at = 0; at + 1 < parts.length; at += 2) {
    headers[parts[at]] = parts[at + 1];
  }
  return headers;
}

/** Keeps the isolate at work after the answer, until `finished` is called with the number that this gives. */
export function stayFor() {
  let number;
  waitUntil(waitFor((own) => (number = own)));
  return number;
}

export function finished(number) {
  const resolve = waiting.get(number);
  waiting.delete(number);
  resolve?.();
}

/** Forgets a request whose client has been gone for long. */
export function forget(number) {
  waiting.delete(number);
}

export function kvGet(number, key, cacheTtl) {
  const value = attempt(() => env.KEYPOST_KV.get(key, { cacheTtl }));
  tell(value, number, (number, value) => (value === null ? settleNothing(number) : settleText(number, value)));
}

export function kvPut(number, key, value, expirationTtl) {
  tell(attempt(() => env.KEYPOST_KV.put(key, value, { expirationTtl })), number, settleNothing);
}

// A cache key is a URL. Nothing is ever fetched from this one: `.invalid` is nobody's (RFC 2606 §2).
function cacheKey(name) {
  return `https://keypost.invalid/${name}`;
}

export function recall(number, name) {
  const found = attempt(() => caches.default.match(cacheKey(name))).then((response) => response?.text());
  tell(found, number, (number, text) => (text === undefined ? settleNothing(number) : settleText(number, text)));
}

export function remember(number, name, text, seconds) {
  tell(putIntoCache(name, text, seconds), number, settleNothing);
}

/** The same for whoever does not wait for it, and goes on where it fails. */
export function rememberLater(name, text, seconds) {
  waitUntil(putIntoCache(name, text, seconds).catch(() => {}));
}

function putIntoCache(name, text, seconds) {
  const response = new Response(text, { headers: { "cache-control": `max-age=${seconds}` } });
  return attempt(() => caches.default.put(cacheKey(name), response));
}

/** Posts, and waits for the whole answer: its status in two bytes, then its body. Follows no redirect. */
export function post(number, url, lines, body, milliseconds) {
  const headers = new Headers();
  const parts = lines.split("\n");
  for (let at = 0; at + 1 < parts.length; at += 2) {
    headers.append(parts[at], parts[at + 1]);
  }
  const signal = AbortSignal.timeout(milliseconds);
  const answer = attempt(() => fetch(url, { method: "POST", headers, body, redirect: "manual", signal }));
  const whole = answer.then(async (response) => {
    const content = new Uint8Array(await response.arrayBuffer());
    const bytes = new Uint8Array(2 + content.length);
    bytes[0] = response.status >> 8;
    bytes[1] = response.status & 255;
    bytes.set(content, 2);
    return bytes;
  });
  tell(whole, number, settleBytes);
}

const ECDSA_P256 = { name: "ECDSA", namedCurve: "P-256" };
const ECDSA_SHA256 = { name: "ECDSA", hash: "SHA-256" };

const subtle = crypto.subtle;

export function sign(number, key, message) {
  const signature = attempt(() => subtle.sign(ECDSA_SHA256, key, message));
  tell(signature, number, (number, signature) => settleBytes(number, new Uint8Array(signature)));
}

export function verify(number, key, signature, message) {
  tell(attempt(() => subtle.verify(ECDSA_SHA256, key, signature, message)), number, settleFlag);
}

/** The uncompressed point of SEC 1 §2.3.3. WebCrypto refuses one that is not on the curve. */
export function importPoint(number, point) {
  tell(attempt(() => subtle.importKey("raw", point, ECDSA_P256, false, ["verify"])), number, settleKey);
}

/** One call decrypts and imports: the private key is never a string or bytes in reach of this program. */
export function unwrap(number, sealingKey, iv, additionalData, sealed) {
  const algorithm = { name: "AES-GCM", iv: iv.slice(), additionalData: additionalData.slice(), tagLength: 128 };
  const copy = sealed.slice();
  const opened = attempt(() => subtle.importKey("raw", sealingKey, "AES-GCM", false, ["unwrapKey"])).then((key) =>
    subtle.unwrapKey("jwk", copy, key, algorithm, ECDSA_P256, false, ["sign"]),
  );
  tell(opened, number, settleKey);
}

/** Imports the public key of a certificate or a client; `curve` is empty for RSA. */
export function importSpki(number, name, curve, hash, spki) {
  const algorithm = curve === "" ? { name, hash } : { name, namedCurve: curve };
  tell(attempt(() => subtle.importKey("spki", spki, algorithm, false, ["verify"])), number, settleKey);
}

/** Verifies by such a key. */
export function check(number, name, hash, saltLength, key, signature, message) {
  tell(attempt(() => subtle.verify({ name, hash, saltLength }, key, signature, message)), number, settleFlag);
}

export function fillRandom(bytes) {
  crypto.getRandomValues(bytes);
}

export function now() {
  return Date.now();
}

/** Writes to the log, at the level that Cloudflare's logs sort by. */
export function log(level, line) {
  console[level](line);
}
