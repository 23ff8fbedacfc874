// RSA-2048 keys for thousands of devices. Looking for primes is what takes long, and n of them make n (n - 1) / 2 keys: no two
// devices have the same modulus, which is all that whoever verifies sees. For a bench only: two keys with a common prime are
// both broken.

import { createPrivateKey, generatePrimeSync } from "node:crypto";

const E = 65537n;

/** Primes enough for so many keys, in hexadecimal. */
export function makePrimes(keys) {
  const primes = [];
  while ((primes.length * (primes.length - 1)) / 2 < keys) {
    const prime = generatePrimeSync(1024, { bigint: true });
    // E must have an inverse modulo one less.
    if (prime % E !== 1n) primes.push(prime.toString(16));
  }
  return primes;
}

/** The modulus of the key of this number, 256 bytes. */
export function modulusOf(primes, number) {
  const [p, q] = pairOf(primes, number);
  return bytesOf(p * q);
}

/** The private key of this number. */
export function keyOf(primes, number) {
  const [p, q] = pairOf(primes, number);
  const jwk = {
    kty: "RSA",
    n: encode(p * q),
    e: encode(E),
    d: encode(inverseOfE((p - 1n) * (q - 1n))),
    p: encode(p),
    q: encode(q),
    dp: encode(inverseOfE(p - 1n)),
    dq: encode(inverseOfE(q - 1n)),
    qi: encode(inverse(q, p)),
  };
  return createPrivateKey({ key: jwk, format: "jwk" });
}

function pairOf(primes, number) {
  let second = 1;
  while (number >= second) {
    number -= second;
    second += 1;
  }
  return [BigInt(`0x${primes[second]}`), BigInt(`0x${primes[number]}`)];
}

// 1 / E modulo m: the one multiple of m that is one less than a multiple of E.
function inverseOfE(m) {
  return (1n + m * inverse(E - (m % E), E)) / E;
}

function inverse(a, m) {
  let [r, next, s, following] = [m, a % m, 0n, 1n];
  while (next > 0n) {
    const quotient = r / next;
    [r, next] = [next, r - quotient * next];
    [s, following] = [following, s - quotient * following];
  }
  return s < 0n ? s + m : s;
}

function encode(number) {
  return bytesOf(number).toString("base64url");
}

function bytesOf(number) {
  const hex = number.toString(16);
  return Buffer.from(hex.length % 2 ? `0${hex}` : hex, "hex");
}
