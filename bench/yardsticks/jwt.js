// What yardsticks (b), (c) and (e) share: an ES256 JWT of some 500 bytes by WebCrypto, on a key that is imported once.

const encoder = new TextEncoder();

/** A compact JWS of these claims. The header is the same for every token and comes encoded. */
export async function sign(key, header, claims) {
  const input = `${header}.${base64url(encoder.encode(JSON.stringify(claims)))}`;
  const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key, encoder.encode(input));
  return `${input}.${base64url(new Uint8Array(signature))}`;
}

export function base64url(bytes) {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}

export function encodedHeader(kid) {
  return base64url(encoder.encode(JSON.stringify({ alg: "ES256", typ: "JWT", kid })));
}

export function importKey(jwk) {
  return crypto.subtle.importKey("jwk", jwk, { name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]);
}

/** The claims of a usual device, with which the token has about as many bytes as one of Keypost's. */
export function deviceClaims(issuer, device, clientId, now, jti) {
  return {
    iss: issuer,
    sub: device,
    iat: now,
    exp: now + 3600,
    jti,
    client_id: clientId,
    client_app_id: "client",
    scope: ["device"],
    tags: { country: "US", device_type: "kiosk", app_id: "pos" },
  };
}

export function randomId() {
  return base64url(crypto.getRandomValues(new Uint8Array(16)));
}

export function tokenAnswer(token) {
  return new Response(
    JSON.stringify({ access_token: token, token_type: "Bearer", expires_in: 3600, scope: "device" }),
    { headers: { "content-type": "application/json", "cache-control": "no-store", pragma: "no-cache" } },
  );
}
