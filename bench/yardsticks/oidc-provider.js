// Yardstick (d): npm's oidc-provider in Node, the client_credentials grant with ES256 JWTs. Its port, its signing key and its
// client come in the environment.

import { Provider } from "oidc-provider";

const { PORT, SIGNING_KEY, CLIENT_ID, CLIENT_SECRET } = process.env;
const RESOURCE = "https://api.example";

const provider = new Provider("https://edge.example", {
  jwks: { keys: [{ ...JSON.parse(SIGNING_KEY), alg: "ES256", use: "sig", kid: "yardstick" }] },
  scopes: ["device"],
  clients: [
    {
      client_id: CLIENT_ID,
      client_secret: CLIENT_SECRET,
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
      scope: "device",
      id_token_signed_response_alg: "ES256",
      token_endpoint_auth_method: "client_secret_basic",
    },
  ],
  clientAuthMethods: ["client_secret_basic"],
  cookies: { keys: ["there are no cookies"] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => RESOURCE,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        audience: RESOURCE,
        scope: "device",
        accessTokenFormat: "jwt",
        accessTokenTTL: 3600,
        jwt: { sign: { alg: "ES256" } },
      }),
    },
  },
});

provider.listen(Number(PORT), "127.0.0.1");
