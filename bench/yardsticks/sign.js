// Yardstick (b): a Worker that signs a JWT for every request.

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
    const now = Math.floor(Date.now() / 1000);
    const claims = deviceClaims(ISSUER, "pos-0000001", "bench-client", now, randomId());
    return tokenAnswer(await sign(key, header, claims));
  },
};
