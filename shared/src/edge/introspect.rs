//! `POST /{pool}/oauth2/introspect` (RFC 7662): whether a token counts now.
//!
//! A service client with the scope `introspect` may ask about any token of its pool, every client about its own. Whoever
//! else has authenticated learns nothing: `{"active": false}`. The clients of a pool of people are its organization's client
//! apps, all of which may ask.

use serde::Serialize;
use serde_json::value::RawValue;

use super::client::Client;
use super::device::SHORT_TTL;
use super::http::{Request, Response};
use super::platform::{LogLevel, Platform};
use super::pool::{Freshness, Loaded};
use super::record::Found;
use super::revocation::RevokedToken;
use super::token::read_form;
use super::{Context, Edge};
use crate::device_certificate::ProvisioningMode;
use crate::document::{ClientDocument, ClientSubject, PoolKind};
use crate::id::{ClientId, DeviceId, PoolId, SessionId, TokenId};
use crate::issued_token::TokenClaims;
use crate::oauth::OAuthError;
use crate::time::UnixTime;

/// The scope of service clients that may ask about any token of their pool.
pub const INTROSPECT_SCOPE: &str = "introspect";

/// RFC 7662 §2.2.
#[derive(Serialize)]
struct Active<'a> {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a ClientId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    token_type: &'static str,
    exp: UnixTime,
    iat: UnixTime,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a RawValue>,
    iss: &'a str,
    jti: &'a TokenId,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<SessionId>,
    #[serde(rename = "userType", skip_serializing_if = "Option::is_none")]
    user_type: Option<&'a str>,
    #[serde(rename = "organizationId", skip_serializing_if = "Option::is_none")]
    organization_id: Option<&'a str>,
    #[serde(rename = "clientAppId", skip_serializing_if = "Option::is_none")]
    client_app_id: Option<&'a ClientId>,
    /// What it is bound to (RFC 8705 §3.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<&'a RawValue>,
}

impl<P: Platform> Edge<P> {
    pub(super) async fn introspect(
        &self,
        context: &Context<'_, P>,
        pool: PoolId,
        request: Request<'_>,
    ) -> Result<Response, OAuthError> {
        let mut loaded = self.load_live_pool(context, pool, Freshness::Current).await?;
        let form = read_form(request)?;
        let (caller, _) = self.authenticate_client(context, &mut loaded, request, &form).await?;
        let token = form.get("token").ok_or(OAuthError::InvalidRequest("token is missing"))?;
        let claims = self.verify_token(context, &loaded.pool, token).await?;
        let Some(claims) = claims.filter(|claims| may_ask(&caller, claims)) else { return Ok(inactive()) };
        if !self.counts(context, &mut loaded, &claims).await? {
            return Ok(inactive());
        }
        let answer = Active {
            active: true,
            scope: claims.scope.as_ref().and_then(|scope| scope.to_text()),
            client_id: claims.issued_to(),
            username: claims.username.as_deref(),
            token_type: "Bearer",
            exp: claims.exp,
            iat: claims.iat,
            sub: &claims.sub,
            aud: claims.aud.as_deref(),
            iss: &claims.iss,
            jti: &claims.jti,
            sid: claims.sid,
            user_type: claims.user_type.as_deref(),
            organization_id: claims.organization_id.as_deref(),
            client_app_id: claims.client_app_id.as_ref(),
            cnf: claims.cnf.as_deref(),
        };
        let body = serde_json::to_vec(&answer).map_err(|error| {
            context.log(LogLevel::Error, "introspection_failed", &error.to_string());
            OAuthError::TemporarilyUnavailable
        })?;
        Ok(Response::secret_json(200, body))
    }

    /// Whether a token that is rightly signed and has not expired has been revoked in none of the ways that there are.
    async fn counts(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        claims: &TokenClaims,
    ) -> Result<bool, OAuthError> {
        let pool = loaded.pool.clone();
        let token = RevokedToken::of(claims);
        // A status that nobody could look up is no good one.
        if claims.has_status() && token.status.is_none() {
            return Ok(false);
        }
        if self.has_been_revoked(context, &pool, &token).await {
            return Ok(false);
        }
        if let Some(index) = token.status {
            let list = self.load_status_list(context, &pool, index.list).await?;
            if list.bits().is_revoked(index) {
                return Ok(false);
            }
        }
        match pool.document.kind {
            PoolKind::Device => self.its_client_counts(context, loaded, claims).await,
            // People are in no record: what ends their sessions sets bits.
            PoolKind::Sso => Ok(claims.is_of_a_person()),
        }
    }

    /// Whether the client that a token was issued to may still have one.
    async fn its_client_counts(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        claims: &TokenClaims,
    ) -> Result<bool, OAuthError> {
        let Some(client_id) = &claims.client_id else { return Ok(false) };
        let accepts = async |client: &Client| Ok(client.is_enabled());
        match self.find_record(context, loaded, &self.clients, client_id.clone(), accepts).await? {
            Found::Accepted(client) => {
                self.its_device_counts(context, loaded, &client.document().subject).await
            }
            Found::Missing => self.is_of_a_new_device(context, loaded, claims, client_id).await,
            Found::Refused(_) | Found::Unverifiable | Found::KeptOut => Ok(false),
        }
    }

    /// Whether it is the token of a device that has come in by its certificate and whose record is not published yet.
    async fn is_of_a_new_device(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        claims: &TokenClaims,
        client_id: &ClientId,
    ) -> Result<bool, OAuthError> {
        let pool = loaded.pool.clone();
        let policy = &pool.document.provisioning;
        let Ok(device) = claims.sub.parse::<DeviceId>() else { return Ok(false) };
        let new = policy.mode == ProvisioningMode::Auto
            && !claims.has_status()
            && claims.exp.since(claims.iat) <= SHORT_TTL
            && *client_id == ClientId::of_device_app(pool.id, &device, &policy.client_app_id);
        // One that stands in the list is not new: it is missing because it has been deleted.
        Ok(new
            && self.standing::<ClientDocument>(context, loaded, client_id).await?.is_none()
            && self.standing::<crate::document::DeviceDocument>(context, loaded, &device).await?.is_none())
    }
}

fn may_ask(caller: &Client, claims: &TokenClaims) -> bool {
    let document = caller.document();
    let about_any =
        matches!(document.subject, ClientSubject::Service) && document.scopes.contains(INTROSPECT_SCOPE);
    about_any || claims.client_id.as_ref() == Some(&caller.id)
}

fn inactive() -> Response {
    Response::secret_json(200, br#"{"active":false}"#.to_vec())
}
