// Gets a token with npm `openid-client`: discovery from the issuer, then the client credentials grant.
// stdin: {"issuer", "clientId", "clientSecret", "method": "basic"|"post", "algorithm": "oidc"|"oauth2", "scope"?};
// stdout: the token response.
import * as client from "openid-client";
import { readInput, writeOutput } from "./io.mjs";

const { issuer, clientId, clientSecret, method, algorithm, scope } = await readInput();
const authenticate = { basic: client.ClientSecretBasic, post: client.ClientSecretPost }[method];
const config = await client.discovery(new URL(issuer), clientId, undefined, authenticate(clientSecret), {
  algorithm,
  // The local edge speaks plain HTTP.
  execute: [client.allowInsecureRequests],
});
writeOutput(await client.clientCredentialsGrant(config, scope ? { scope } : {}));
