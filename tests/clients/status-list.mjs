// Checks a token's status offline, as a resource server would: the list is found by the token, its signature is checked
// with npm `jose`, and it is read with npm `@sd-jwt/jwt-status-list`.
// stdin: {"token", "jwksUri"}; stdout: {"idx", "uri", "status", "header", "claims", "http"}; status 1 is INVALID.
import { createRemoteJWKSet, jwtVerify } from "jose";
import { getListFromStatusListJWT, getStatusListFromJWT } from "@sd-jwt/jwt-status-list";
import { readInput, writeOutput } from "./io.mjs";

const { token, jwksUri } = await readInput();
const { idx, uri } = getStatusListFromJWT(token);
const response = await fetch(uri, { headers: { accept: "application/statuslist+jwt" } });
if (response.status !== 200) throw new Error(`${uri}: ${response.status}`);
const list = await response.text();
const keys = createRemoteJWKSet(new URL(jwksUri));
const { payload, protectedHeader } = await jwtVerify(list, keys, {
  algorithms: ["ES256"],
  typ: "statuslist+jwt",
  subject: uri,
  requiredClaims: ["iat", "exp", "ttl", "status_list"],
});
writeOutput({
  idx,
  uri,
  status: getListFromStatusListJWT(list).getStatus(idx),
  header: protectedHeader,
  claims: payload,
  http: Object.fromEntries(["content-type", "cache-control", "etag"].map((name) => [name, response.headers.get(name)])),
});
