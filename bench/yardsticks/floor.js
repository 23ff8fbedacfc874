// What a job of Keypost's cannot do without, and nothing else: the request is read as a whole, then workerd is asked for what the
// job needs of it, in JavaScript and one thing after another, and a JWT is signed as in (b). Nothing is parsed, looked up,
// checked or remembered. So no Worker that keeps Keypost's promises costs less than its job's floor.
//
// PLAN says what the job needs: {"kv": reads, "es256": verifications, "rsa2048": verifications with a key that is imported
// for each, "rsa2048Held": the same with a key that is kept, "rsa4096Held": the same, "cache": questions and entries,
// "signs": whether there is a token}.

import { deviceClaims, encodedHeader, importKey, randomId, sign, tokenAnswer } from "./jwt.js";

const ISSUER = "https://edge.example/00000000-0000-4000-8000-000000000000";
const ES256 = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const RS256 = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
const HEADERS = ["authorization", "content-type", "content-length", "origin", "x-request-id"];

let prepared;
let record = 0;

// Keys of its own, and something that each has signed.
async function prepare(env) {
  const message = crypto.getRandomValues(new Uint8Array(1_500));
  const signed = async (algorithm) => {
    const pair = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
    const signature = await crypto.subtle.sign(algorithm, pair.privateKey, message);
    const spki = await crypto.subtle.exportKey("spki", pair.publicKey);
    return { algorithm, spki, key: pair.publicKey, signature };
  };
  const rsa = (modulusLength) =>
    signed({ ...RS256, modulusLength, publicExponent: new Uint8Array([1, 0, 1]) });
  const plan = JSON.parse(env.PLAN);
  return {
    plan,
    message,
    es256: await signed(ES256),
    rsa2048: await rsa(2048),
    rsa4096: plan.rsa4096Held ? await rsa(4096) : undefined,
    key: await importKey(JSON.parse(env.SIGNING_KEY)),
    header: encodedHeader("yardstick"),
  };
}

export default {
  async fetch(request, env) {
    prepared ??= await prepare(env);
    const { plan, message, es256, rsa2048, rsa4096, key, header } = prepared;
    let read = `${request.method}\n${request.url}`;
    for (const name of HEADERS) {
      const value = request.headers.get(name);
      if (value !== null) read += `\n${value}`;
    }
    read += await request.text();

    const verify = async ({ algorithm, signature }, key) => {
      if (!(await crypto.subtle.verify(algorithm, key, signature, message))) {
        throw new Error("a signature does not verify");
      }
    };
    for (let done = 0; done < (plan.kv ?? 0); done += 1) {
      record = (record + 1) % Number(env.RECORDS);
      const name = `${env.RECORD_PREFIX}${String(record).padStart(7, "0")}`;
      if ((await env.KEYPOST_KV.get(name, { cacheTtl: 30 })) === null) {
        throw new Error("a record is missing");
      }
    }
    for (let done = 0; done < (plan.es256 ?? 0); done += 1) await verify(es256, es256.key);
    for (let done = 0; done < (plan.rsa2048Held ?? 0); done += 1) await verify(rsa2048, rsa2048.key);
    for (let done = 0; done < (plan.rsa2048 ?? 0); done += 1) {
      await verify(rsa2048, await crypto.subtle.importKey("spki", rsa2048.spki, RS256, false, ["verify"]));
    }
    for (let done = 0; done < (plan.rsa4096Held ?? 0); done += 1) await verify(rsa4096, rsa4096.key);
    for (let done = 0; done < (plan.cache ?? 0); done += 1) {
      const name = `https://floor.invalid/${randomId()}`;
      if ((await caches.default.match(name)) !== undefined) throw new Error("used twice");
      await caches.default.put(name, new Response("1", { headers: { "cache-control": "max-age=300" } }));
    }
    if (!plan.signs) {
      return new Response(`{"active":${read.length > 0}}`, {
        headers: { "content-type": "application/json", "cache-control": "no-store", pragma: "no-cache" },
      });
    }
    const now = Math.floor(Date.now() / 1000);
    const claims = deviceClaims(ISSUER, "pos-0000001", "bench-client", now, randomId());
    return tokenAnswer(await sign(key, header, claims));
  },
};
