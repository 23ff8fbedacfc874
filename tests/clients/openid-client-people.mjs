// What npm `openid-client` makes of the issuer of people's tokens: discovery (OpenID Connect), then a client app's questions
// about a token before and after it has revoked it.
// stdin: {"issuer", "clientId", "clientSecret", "token"}; stdout: {"metadata", "before", "after"}.
import * as client from "openid-client";
import { readInput, writeOutput } from "./io.mjs";

const { issuer, clientId, clientSecret, token } = await readInput();
const config = await client.discovery(new URL(issuer), clientId, undefined, client.ClientSecretBasic(clientSecret), {
  algorithm: "oidc",
  // The local edge speaks plain HTTP.
  execute: [client.allowInsecureRequests],
});
const before = await client.tokenIntrospection(config, token);
await client.tokenRevocation(config, token);
const after = await client.tokenIntrospection(config, token);
writeOutput({ metadata: config.serverMetadata(), before, after });
