// Signs assertions (RFC 7523) in bulk, as devices would: Node has OpenSSL, and a bench needs thousands of them.
//
//   node assertions.js PRIMES.json ORDERS.json
//
// ORDERS.json: {"intermediate": x5c entry, "now": seconds, "audience": issuer,
// "orders": [{"number": of its key, "device": id, "certificate": x5c entry}]}. Prints a JSON array, an assertion for each order.

import { randomBytes, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { keyOf } from "./keys.js";

const primes = JSON.parse(readFileSync(process.argv[2]));
const { intermediate, now, audience, orders } = JSON.parse(readFileSync(process.argv[3]));

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const keys = new Map();

const assertions = orders.map(({ number, device, certificate }) => {
  if (!keys.has(number)) keys.set(number, keyOf(primes, number));
  const jti = randomBytes(16).toString("base64url");
  const header = { alg: "RS256", typ: "JWT", x5c: [certificate, intermediate] };
  const claims = { iss: device, sub: device, aud: audience, iat: now, exp: now + 300, jti };
  const input = `${encode(header)}.${encode(claims)}`;
  return `${input}.${sign("sha256", Buffer.from(input), keys.get(number)).toString("base64url")}`;
});

process.stdout.write(JSON.stringify(assertions));
