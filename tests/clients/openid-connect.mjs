// Signs people in with npm `openid-client` and a real Chromium, which runs no script of any page.
// stdin: {"issuer", "chromium", "apps": {"a": {"id", "key"}, "b": {"id", "key"}}, "username", "email", "password"},
// where each app has registered http://127.0.0.1/callback;
// stdout: what was seen, step by step.
import { createServer } from "node:http";
import { createRemoteJWKSet, jwtVerify } from "jose";
import * as client from "openid-client";
import { chromium } from "playwright-core";
import { readInput, writeOutput } from "./io.mjs";

const { issuer, chromium: executablePath, apps, username, email, password } = await readInput();
const SCOPE = "openid profile email offline_access";
const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";

const config = {};
for (const [name, { id, key }] of Object.entries(apps)) {
  config[name] = await client.discovery(new URL(issuer), id, key, undefined, {
    // The local stack speaks plain HTTP.
    execute: [client.allowInsecureRequests],
  });
}

// The apps' callbacks: they only notice what came.
const server = createServer((request, response) => response.end("<title>Back</title>You are back at the app."));
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const redirectUri = `http://127.0.0.1:${server.address().port}/callback`;

// As root it starts without its sandbox only.
const browser = await chromium.launch({ executablePath, chromiumSandbox: process.getuid() !== 0 });
const seen = {};

async function newBrowser() {
  const context = await browser.newContext({ javaScriptEnabled: false });
  context.setDefaultTimeout(15_000);
  return await context.newPage();
}

// Begins at an app; gives back what finishes there.
async function begin(page, app, more = {}) {
  const verifier = client.randomPKCECodeVerifier();
  const checks = {
    pkceCodeVerifier: verifier,
    expectedState: client.randomState(),
    expectedNonce: client.randomNonce(),
    idTokenExpected: true,
  };
  const url = client.buildAuthorizationUrl(config[app], {
    redirect_uri: redirectUri,
    scope: SCOPE,
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    state: checks.expectedState,
    nonce: checks.expectedNonce,
    ...more,
  });
  await page.goto(url.href);
  return async () => {
    await page.waitForURL((url) => url.href.startsWith(redirectUri));
    return await client.authorizationCodeGrant(config[app], new URL(page.url()), checks);
  };
}

async function look(page) {
  return {
    title: await page.title(),
    heading: await page.getByRole("heading", { level: 1 }).textContent(),
    alert: (await page.getByRole("alert").count()) ? await page.getByRole("alert").textContent() : null,
    invalid: await page.locator("[aria-invalid=true]").evaluateAll((all) => all.map((one) => one.id)),
    described: await page
      .locator("[aria-describedby]")
      .evaluateAll((all) =>
        all.map((one) =>
          one
            .getAttribute("aria-describedby")
            .split(" ")
            .map((id) => document.getElementById(id)?.textContent ?? null),
        ),
      ),
    focused: await page.evaluate(() => document.activeElement?.id ?? null),
  };
}

try {
  // A new account, from the page of app A.
  let page = await newBrowser();
  let finish = await begin(page, "a");
  seen.signInPage = await look(page);
  await page.getByRole("link", { name: "Create an account" }).click();
  await page.getByRole("button", { name: "Create account" }).waitFor();
  seen.signUpPage = await look(page);
  await page.getByLabel("Username").fill(username);
  await page.getByLabel("Email address").fill(email);
  await page.getByLabel("Password").fill("password1");
  await page.getByRole("button", { name: "Create account" }).click();
  await page.getByRole("alert").waitFor();
  seen.commonPassword = await look(page);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Create account" }).click();
  seen.signedUp = (await finish()).claims();

  // The same person in another browser: a wrong password, then the right one.
  page = await newBrowser();
  finish = await begin(page, "a", { login_hint: username });
  seen.hinted = { username: await page.getByLabel("Username").inputValue(), ...(await look(page)) };
  await page.getByLabel("Password").fill("not the password");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").waitFor();
  seen.wrongPassword = await look(page);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
  const atA = await finish();
  seen.signedIn = { claims: atA.claims(), scope: atA.scope, tokenType: atA.token_type };

  // The ID token, by another library, against the key set at the edge.
  const keys = createRemoteJWKSet(new URL(config.a.serverMetadata().jwks_uri));
  const verified = await jwtVerify(atA.id_token, keys, { issuer, audience: apps.a.id, algorithms: ["ES256"] });
  seen.verified = { header: verified.protectedHeader, claims: verified.payload };
  const access = await jwtVerify(atA.access_token, keys, { issuer, audience: apps.a.id });
  seen.accessToken = access.payload;
  seen.userInfo = await client.fetchUserInfo(config.a, atA.access_token, atA.claims().sub);

  // App B asks for no password, and its session is the same.
  finish = await begin(page, "b");
  seen.atB = (await finish()).claims();
  finish = await begin(page, "b", { prompt: "none" });
  seen.silently = (await finish()).claims();

  // Unless it insists.
  await begin(page, "b", { prompt: "login" });
  seen.insisted = await look(page);
  // A stranger is not signed in silently.
  const stranger = await newBrowser();
  finish = await begin(stranger, "b", { prompt: "none" });
  seen.stranger = await finish().then(
    () => "signed in",
    (error) => error.error,
  );

  // Refreshing, and an exchange for B without a browser.
  const refreshed = await client.refreshTokenGrant(config.a, atA.refresh_token);
  seen.refreshed = { claims: refreshed.claims(), another: refreshed.refresh_token !== atA.refresh_token };
  const exchanged = await client.genericGrantRequest(config.b, EXCHANGE, {
    subject_token: refreshed.access_token,
    subject_token_type: ACCESS_TOKEN,
    audience: apps.b.id,
    scope: SCOPE,
  });
  const { payload } = await jwtVerify(exchanged.access_token, keys, { issuer, audience: apps.b.id });
  seen.exchanged = {
    claims: payload,
    issuedTokenType: exchanged.issued_token_type,
    hasRefreshToken: Boolean(exchanged.refresh_token),
  };
} finally {
  await browser.close();
  server.close();
}
writeOutput(seen);
