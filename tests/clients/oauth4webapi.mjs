// Gets a token with npm `oauth4webapi`, which form-encodes every character of Basic credentials that it may.
// stdin: {"issuer", "clientId", "clientSecret"}; stdout: the token response.
import * as oauth from "oauth4webapi";
import { readInput, writeOutput } from "./io.mjs";

const { issuer, clientId, clientSecret } = await readInput();
const insecure = { [oauth.allowInsecureRequests]: true };
const url = new URL(issuer);
const discovered = await oauth.discoveryRequest(url, { algorithm: "oauth2", ...insecure });
const server = await oauth.processDiscoveryResponse(url, discovered);
const client = { client_id: clientId };
const response = await oauth.clientCredentialsGrantRequest(
  server,
  client,
  oauth.ClientSecretBasic(clientSecret),
  new URLSearchParams(),
  insecure,
);
writeOutput(await oauth.processClientCredentialsResponse(server, client, response));
