// Gets a token with npm `openid-client`, looks into it, revokes it, looks again, and gets the next one.
// stdin: {"issuer", "clientId", "clientSecret", "method": "basic"|"post"};
// stdout: {"token", "before", "after", "next"}: two tokens, two introspection answers.
import * as client from "openid-client";
import { readInput, writeOutput } from "./io.mjs";

const { issuer, clientId, clientSecret, method } = await readInput();
const authenticate = { basic: client.ClientSecretBasic, post: client.ClientSecretPost }[method];
const config = await client.discovery(new URL(issuer), clientId, undefined, authenticate(clientSecret), {
  algorithm: "oauth2",
  // The local edge speaks plain HTTP.
  execute: [client.allowInsecureRequests],
});
const { access_token: token } = await client.clientCredentialsGrant(config);
const before = await client.tokenIntrospection(config, token, { token_type_hint: "access_token" });
await client.tokenRevocation(config, token, { token_type_hint: "access_token" });
const after = await client.tokenIntrospection(config, token);
const { access_token: next } = await client.clientCredentialsGrant(config);
writeOutput({ token, before, after, next });
