// Yardstick (c): the same as (b), with one KV read for every request. The client's name is in the path.

import { deviceClaims, encodedHeader, importKey, randomId, sign, tokenAnswer } from "./jwt.js";

const ISSUER = "https://edge.example/00000000-0000-4000-8000-000000000000";

let key;
let header;

export default {
  async fetch(request, env) {
    if (!key) {
      key = await importKey(JSON.parse(env.SIGNING_KEY));
      header = encodedHeader("yardstick");
    }
    const name = new URL(request.url).pathname.slice(1);
    const record = await env.KEYPOST_KV.get(name, { cacheTtl: 30 });
    if (record === null) {
      return new Response("there is no such client", { status: 401 });
    }
    const now = Math.floor(Date.now() / 1000);
    const claims = deviceClaims(ISSUER, "pos-0000001", name, now, randomId());
    return tokenAnswer(await sign(key, header, claims));
  },
};
