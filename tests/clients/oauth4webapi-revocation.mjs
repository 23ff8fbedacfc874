// Looks into a token with npm `oauth4webapi`, and where a secret of its own client is given, revokes it and looks again.
// stdin: {"issuer", "token", "asker": {"clientId", "clientSecret"}, "owner"?: {"clientId", "clientSecret"}};
// stdout: the introspection answers.
import * as oauth from "oauth4webapi";
import { readInput, writeOutput } from "./io.mjs";

const { issuer, token, asker, owner } = await readInput();
const insecure = { [oauth.allowInsecureRequests]: true };
const url = new URL(issuer);
const discovered = await oauth.discoveryRequest(url, { algorithm: "oauth2", ...insecure });
const server = await oauth.processDiscoveryResponse(url, discovered);
const as = ({ clientId, clientSecret }) => [
  server,
  { client_id: clientId },
  oauth.ClientSecretBasic(clientSecret),
  token,
  insecure,
];
const introspect = async () => {
  const response = await oauth.introspectionRequest(...as(asker));
  return oauth.processIntrospectionResponse(server, { client_id: asker.clientId }, response);
};
const answers = [await introspect()];
if (owner) {
  await oauth.processRevocationResponse(await oauth.revocationRequest(...as(owner)));
  answers.push(await introspect());
}
writeOutput(answers);
