//! Getting a token as a device does, and verifying it as a resource server does: with JWKS and with code that
//! shares nothing with ours.

use base64ct::{Base64UrlUnpadded, Encoding as _};
use jwt_compact::{AlgorithmExt as _, TimeOptions, UntrustedToken, alg::Es256, jwk::JsonWebKey};
use p256::ecdsa::VerifyingKey;
use serde::Deserialize;
use serde_json::Value;

use super::demo::Credentials;
use crate::Error;

/// A token whose signature, issuer and times have been checked.
#[derive(Debug)]
pub(super) struct VerifiedToken {
    pub(super) text: String,
    pub(super) header: Value,
    pub(super) claims: Value,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

/// The client credentials grant, with client_secret_basic (RFC 6749 §4.4).
///
/// # Errors
/// [`Error::Answer`] when the edge refuses.
pub(super) async fn request(
    http: &reqwest::Client,
    endpoint: &str,
    credentials: &Credentials,
) -> Result<String, Error> {
    let request = format!("POST {endpoint}");
    let answer = http
        .post(endpoint)
        .basic_auth(&credentials.client_id, Some(&credentials.client_secret))
        .form(&[("grant_type", "client_credentials")])
        .send()
        .await
        .map_err(Error::request(&request))?;
    let status = answer.status();
    let body = answer.text().await.map_err(Error::request(&request))?;
    if !status.is_success() {
        return Err(Error::Answer { request, status: status.as_u16(), body });
    }
    let answer: TokenAnswer =
        serde_json::from_str(&body).map_err(Error::malformed("the answer with the token"))?;
    Ok(answer.access_token)
}

/// Checks the signature with the key in JWKS that the token names, the issuer, and that it has not expired.
///
/// # Errors
/// [`Error::Malformed`] saying what is wrong with the token.
pub(super) async fn verify(
    http: &reqwest::Client,
    jwks_uri: &str,
    issuer: &str,
    text: &str,
) -> Result<VerifiedToken, Error> {
    const TOKEN: &str = "the token";
    let wrong = |detail: String| Error::Malformed { what: TOKEN.to_owned(), detail };
    let get = format!("GET {jwks_uri}");
    let jwks: Jwks = http
        .get(jwks_uri)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(Error::request(&get))?
        .json()
        .await
        .map_err(Error::request(&get))?;

    let unverified = UntrustedToken::new(text).map_err(Error::malformed(TOKEN))?;
    let kid = unverified.header().key_id.clone().ok_or_else(|| wrong("it names no key".to_owned()))?;
    let jwk = jwks
        .keys
        .iter()
        .find(|key| key.get("kid").and_then(Value::as_str) == Some(kid.as_str()))
        .ok_or_else(|| wrong(format!("its key {kid} is not in JWKS")))?;
    let jwk: JsonWebKey<'_> =
        serde_json::from_value(jwk.clone()).map_err(Error::malformed("the key in JWKS"))?;
    let key = VerifyingKey::try_from(&jwk).map_err(Error::malformed("the key in JWKS"))?;
    let token = Es256.validator::<Value>(&key).validate(&unverified).map_err(Error::malformed(TOKEN))?;
    let claims = token.claims();
    claims.validate_expiration(&TimeOptions::default()).map_err(Error::malformed(TOKEN))?;
    if claims.custom.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(wrong(format!("its issuer is not {issuer}")));
    }
    let part = |index: usize| {
        let encoded = text.split('.').nth(index).unwrap_or_default();
        let decoded = Base64UrlUnpadded::decode_vec(encoded).map_err(Error::malformed(TOKEN))?;
        serde_json::from_slice(&decoded).map_err(Error::malformed(TOKEN))
    };
    Ok(VerifiedToken { text: text.to_owned(), header: part(0)?, claims: part(1)? })
}
