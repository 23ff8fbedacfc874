// Yardstick (e): a whole token endpoint in JavaScript, its clients in memory: the form, the client's secret, the scope, the
// token. No more care than it takes to be right.

import { deviceClaims, encodedHeader, importKey, randomId, sign, tokenAnswer } from "./jwt.js";

const ISSUER = "https://edge.example/00000000-0000-4000-8000-000000000000";
const encoder = new TextEncoder();

let key;
let header;
let clients;

export default {
  async fetch(request, env) {
    if (!key) {
      key = await importKey(JSON.parse(env.SIGNING_KEY));
      header = encodedHeader("yardstick");
      clients = new Map(Object.entries(JSON.parse(env.CLIENTS)));
    }
    if (request.method !== "POST" || new URL(request.url).pathname !== "/oauth2/token") {
      return refuse(404, "invalid_request");
    }
    const type = request.headers.get("content-type") ?? "";
    if (type.split(";")[0].trim() !== "application/x-www-form-urlencoded") {
      return refuse(400, "invalid_request");
    }
    const form = new URLSearchParams(await request.text());
    if (form.get("grant_type") !== "client_credentials") {
      return refuse(400, "unsupported_grant_type");
    }
    const [id, secret] = credentials(request, form);
    const client = clients.get(id);
    const presented = new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(secret)));
    const stored = Uint8Array.fromBase64(client?.sha256 ?? "", { alphabet: "base64url" });
    if (stored.length !== presented.length || !crypto.subtle.timingSafeEqual(stored, presented)) {
      return refuse(401, "invalid_client");
    }
    const scope = form.get("scope") ?? client.scope;
    if (!scope.split(" ").every((one) => client.scope.split(" ").includes(one))) {
      return refuse(400, "invalid_scope");
    }
    const now = Math.floor(Date.now() / 1000);
    return tokenAnswer(await sign(key, header, deviceClaims(ISSUER, client.device, id, now, randomId())));
  },
};

function credentials(request, form) {
  const authorization = request.headers.get("authorization");
  if (authorization?.startsWith("Basic ")) {
    const [id, secret] = atob(authorization.slice(6)).split(":");
    return [decodeURIComponent(id), decodeURIComponent(secret)];
  }
  return [form.get("client_id") ?? "", form.get("client_secret") ?? ""];
}

function refuse(status, error) {
  return new Response(JSON.stringify({ error }), {
    status,
    headers: { "content-type": "application/json", "cache-control": "no-store" },
  });
}
