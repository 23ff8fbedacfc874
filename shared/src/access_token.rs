//! The access token (api.md §3): a JWT whose claims are the pool's, the client's and the moment's.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::certificate::Fingerprint;
use crate::document::{ClaimsProfile, ClientDocument, ClientSubject, PoolDocument};
use crate::id::{ClientId, Kid};
use crate::jwk::SigningAlg;
use crate::jws::{self, JwsHeader};
use crate::scope::Scopes;
use crate::status_list::{StatusClaim, StatusIndex};
use crate::time::UnixTime;

/// What an access token is made of.
#[derive(Clone, Copy, Debug)]
pub struct AccessToken<'a> {
    /// The pool that issues.
    pub pool: &'a PoolDocument,
    /// The client that asked.
    pub client_id: &'a ClientId,
    /// Its record.
    pub client: &'a ClientDocument,
    /// The scopes granted, all of them among the client's.
    pub scopes: &'a Scopes,
    /// The moment of issue.
    pub now: UnixTime,
    /// How long it lives, in seconds.
    pub ttl: u64,
    /// The token's own id: unique, and unguessable because revocation takes it.
    pub jti: &'a str,
    /// The certificate that it is bound to, if it is (RFC 8705 §3.1).
    pub bound_to: Option<Fingerprint>,
    /// Where its status is found, if it has one.
    pub status: Option<StatusIndex>,
}

impl AccessToken<'_> {
    /// The bytes that the key `kid` signs.
    pub fn signing_input(&self, kid: &Kid) -> Result<String, serde_json::Error> {
        let typ = match self.pool.claims_profile {
            ClaimsProfile::Device => "JWT",
            ClaimsProfile::Rfc9068 => "at+jwt",
        };
        let header = JwsHeader { alg: SigningAlg::ES256, typ: typ.to_owned(), kid: kid.clone() };
        jws::signing_input(&header, &self.claims())
    }

    fn claims(&self) -> Claims<'_> {
        let pool = self.pool;
        let device = match &self.client.subject {
            ClientSubject::Device(device) => Some(device),
            ClientSubject::Service => None,
        };
        Claims {
            iss: &pool.issuer,
            sub: device.map_or(self.client_id.as_str(), |device| device.device_id.as_str()),
            aud: self.audience(),
            iat: self.now,
            exp: self.now + self.ttl,
            jti: self.jti,
            client_id: self.client_id.as_str(),
            client_app_id: device.map(|device| device.client_app_id.as_str()),
            scope: match pool.claims_profile {
                ClaimsProfile::Device => Some(Scope::Array(self.scopes)),
                // Text has no form for no scope at all (RFC 6749 §3.3).
                ClaimsProfile::Rfc9068 if self.scopes.is_empty() => None,
                ClaimsProfile::Rfc9068 => Some(Scope::Text(self.scopes.to_string())),
            },
            metadata: device.map(|device| &*device.metadata),
            tags: device.map(|device| &*device.tags),
            primary_server_url: device.and_then(|device| device.primary_server_url.as_deref()),
            server_urls: device.map(|device| device.server_urls.as_slice()),
            status: self.status.map(|index| StatusClaim::new(index, &pool.issuer)),
            cnf: self.bound_to.map(|certificate| Confirmation { x5t_s256: certificate.to_base64url() }),
        }
    }

    fn audience(&self) -> Option<Audience<'_>> {
        let own = self.client.audience.as_slice();
        let audience = if own.is_empty() { self.pool.audience.as_slice() } else { own };
        match (audience, self.pool.claims_profile) {
            ([], ClaimsProfile::Device) => None,
            ([], ClaimsProfile::Rfc9068) => Some(Audience::One(&self.pool.issuer)),
            ([one], _) => Some(Audience::One(one)),
            (many, _) => Some(Audience::Many(many)),
        }
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<Audience<'a>>,
    iat: UnixTime,
    exp: UnixTime,
    jti: &'a str,
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_app_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<Scope<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_server_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_urls: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusClaim>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
}

/// draft-ietf-oauth-status-list §6.
/// RFC 7800 §3.1.
#[derive(Serialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    x5t_s256: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(&'a str),
    Many(&'a [String]),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Scope<'a> {
    Array(&'a Scopes),
    Text(String),
}
