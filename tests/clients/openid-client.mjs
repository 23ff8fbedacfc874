// Gets a token with npm `openid-client`: discovery from the issuer, then the client credentials grant.
// stdin: {"issuer", "clientId", "method": "basic"|"post"|"key", "algorithm": "oidc"|"oauth2", "scope"?},
// with "clientSecret", or for "key" (`private_key_jwt`) with "privateKey" (PEM), "alg", and "x5c"?;
// stdout: the token response.
import { createPrivateKey, subtle } from "node:crypto";
import * as client from "openid-client";
import { readInput, writeOutput } from "./io.mjs";

const KEYS = {
  RS256: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" },
  PS256: { name: "RSA-PSS", hash: "SHA-256" },
  ES256: { name: "ECDSA", namedCurve: "P-256" },
  ES384: { name: "ECDSA", namedCurve: "P-384" },
};

async function authentication({ method, clientSecret, privateKey, alg, x5c }) {
  if (method === "basic") return client.ClientSecretBasic(clientSecret);
  if (method === "post") return client.ClientSecretPost(clientSecret);
  const jwk = createPrivateKey(privateKey).export({ format: "jwk" });
  const key = await subtle.importKey("jwk", jwk, KEYS[alg], false, ["sign"]);
  return client.PrivateKeyJwt(key, {
    [client.modifyAssertion]: (header) => {
      if (x5c) header.x5c = x5c;
    },
  });
}

const input = await readInput();
const { issuer, clientId, algorithm, scope } = input;
const config = await client.discovery(new URL(issuer), clientId, undefined, await authentication(input), {
  algorithm,
  // The local edge speaks plain HTTP.
  execute: [client.allowInsecureRequests],
});
writeOutput(await client.clientCredentialsGrant(config, scope ? { scope } : {}));
