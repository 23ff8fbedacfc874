// Makes devices with a key and a certificate each, from one certificate that openssl has made: openssl would be started
// thousands of times.
//
//   node certificates.js TEMPLATE.der ISSUER.key COUNT PRIMES.json
//
// The template is of the device `pos-0000000`; number n is `pos-000000n`, with a key and a serial number of its own. Writes the
// primes that `keys.js` makes the keys of, and prints a JSON array of the certificates in base64, as they stand in `x5c`.

import { createPrivateKey, sign, X509Certificate } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { makePrimes, modulusOf } from "./keys.js";

const [template, issuerKey, count, primesFile] = process.argv.slice(2);
const original = readFileSync(template);
const issuer = createPrivateKey(readFileSync(issuerKey));
const primes = makePrimes(Number(count));
writeFileSync(primesFile, JSON.stringify(primes), { mode: 0o600 });

const parsed = new X509Certificate(original);
const places = {
  serial: placeOf(Buffer.from(parsed.serialNumber, "hex")),
  name: placeOf(Buffer.from("pos-0000000")),
  modulus: placeOf(Buffer.from(parsed.publicKey.export({ format: "jwk" }).n, "base64url")),
};
// Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm, signature }, both with lengths of two bytes; the
// signature is what ends it.
const tbs = { start: 4, end: 8 + original.readUInt16BE(6) };
const signatureLength = 512;

const certificates = [];
for (let number = 0; number < Number(count); number += 1) {
  const der = Buffer.from(original);
  der.writeUInt32BE(number, places.serial + 4);
  der.write(`pos-${String(number).padStart(7, "0")}`, places.name);
  modulusOf(primes, number).copy(der, places.modulus);
  sign("sha256", der.subarray(tbs.start, tbs.end), issuer).copy(der, der.length - signatureLength);
  certificates.push(der.toString("base64"));
}
process.stdout.write(JSON.stringify(certificates));

function placeOf(bytes) {
  const place = original.indexOf(bytes);
  if (place < 0 || original.indexOf(bytes, place + 1) >= 0) {
    throw new Error(`the template does not have ${bytes.toString("hex")} exactly once`);
  }
  return place;
}
