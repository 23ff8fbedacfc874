// Signs assertions (RFC 7523) in bulk, as devices would: Node has OpenSSL, and a bench needs thousands of them.
//
//   node assertions.js KEY.pem ORDERS.json
//
// ORDERS.json: {"chains": [[x5c entries] ...], "now": seconds, "orders": [{"chain": index, "device": id, "audience": issuer}]}.
// Prints a JSON array, an assertion for each order.

import { createPrivateKey, randomBytes, sign } from "node:crypto";
import { readFileSync } from "node:fs";

const key = createPrivateKey(readFileSync(process.argv[2]));
const { chains, now, orders } = JSON.parse(readFileSync(process.argv[3]));

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const headers = chains.map((x5c) => encode({ alg: "RS256", typ: "JWT", x5c }));

const assertions = orders.map(({ chain, device, audience }) => {
  const jti = randomBytes(16).toString("base64url");
  const claims = { iss: device, sub: device, aud: audience, iat: now, exp: now + 300, jti };
  const input = `${headers[chain]}.${encode(claims)}`;
  return `${input}.${sign("sha256", Buffer.from(input), key).toString("base64url")}`;
});

process.stdout.write(JSON.stringify(assertions));
