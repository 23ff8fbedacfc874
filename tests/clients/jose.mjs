// Verifies an access token as a resource server with npm `jose` would: the key set fetched from its URL.
// stdin: {"token", "jwksUri", "issuer", "requiredClaims"?}; stdout: {"header", "claims"}.
import { createRemoteJWKSet, jwtVerify } from "jose";
import { readInput, writeOutput } from "./io.mjs";

const { token, jwksUri, issuer, requiredClaims = ["client_id"] } = await readInput();
const keys = createRemoteJWKSet(new URL(jwksUri));
const { payload, protectedHeader } = await jwtVerify(token, keys, {
  issuer,
  algorithms: ["ES256"],
  requiredClaims: ["sub", "iat", "exp", "jti", ...requiredClaims],
});
writeOutput({ header: protectedHeader, claims: payload });
