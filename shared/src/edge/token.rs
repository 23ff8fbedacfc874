//! `POST /{pool}/oauth2/token` (RFC 6749 §3.2).

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::Serialize;

use super::apart::apart;
use super::device::SHORT_TTL;
use super::http::{Body, Request, Response};
use super::platform::{LogLevel, Platform};
use super::pool::{Freshness, Loaded, Pool, PoolSigner};
use super::{Context, Edge};
use crate::access_token::AccessToken;
use crate::certificate::Fingerprint;
use crate::document::{ClientDocument, PoolKind};
use crate::id::{ClientId, PoolId};
use crate::jws;
use crate::oauth::{Form, JWT_BEARER_GRANT, OAuthError};
use crate::scope::Scopes;
use crate::status_list::StatusIndex;

#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    /// None where no scope was granted: there is no empty one (RFC 6749 §3.3).
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

/// A token to issue.
pub(super) struct Issue<'a> {
    pub(super) client_id: &'a ClientId,
    pub(super) client: &'a ClientDocument,
    /// The scopes granted, all of them among the client's.
    pub(super) scopes: &'a Scopes,
    /// Whether the device's own record is not published yet.
    pub(super) unpublished: bool,
    /// Where its status will be found.
    pub(super) status: Option<StatusIndex>,
    /// The certificate that it is bound to, if it is.
    pub(super) bound_to: Option<Fingerprint>,
}

impl<P: Platform> Edge<P> {
    pub(super) async fn token(
        &self,
        context: &Context<'_, P>,
        pool: PoolId,
        request: Request<'_>,
    ) -> Result<Response, OAuthError> {
        let loaded = self.load_live_pool(context, pool, Freshness::Current).await?;
        let form = read_form(request)?;
        match form.get("grant_type") {
            // The same for everybody, before anything is looked up: there is nothing to be learnt from it.
            Some(_) if loaded.pool.document.kind == PoolKind::Sso => Err(OAuthError::IssuedElsewhere),
            None => Err(OAuthError::InvalidRequest("grant_type is missing")),
            Some("client_credentials") => self.client_credentials(context, loaded, request, &form).await,
            Some(JWT_BEARER_GRANT) => apart(self.jwt_bearer(context, loaded, request, &form)).await,
            Some(_) => Err(OAuthError::UnsupportedGrantType),
        }
    }

    /// The client credentials grant (RFC 6749 §4.4).
    async fn client_credentials(
        &self,
        context: &Context<'_, P>,
        mut loaded: Loaded<P>,
        request: Request<'_>,
        form: &Form,
    ) -> Result<Response, OAuthError> {
        let (client, bound_to) = self.authenticate_client(context, &mut loaded, request, form).await?;
        let scopes = grant(&client.document().scopes, form.get("scope"))?;
        let issue = Issue {
            client_id: &client.id,
            client: client.document(),
            scopes: &scopes,
            unpublished: false,
            status: self.next_index(context, &loaded.pool, &client).await,
            bound_to,
        };
        self.issue(context, &loaded.pool, issue).await
    }

    /// Signs a token and answers with it.
    pub(super) async fn issue(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        issue: Issue<'_>,
    ) -> Result<Response, OAuthError> {
        let Issue { client_id, client, scopes, unpublished, status, bound_to } = issue;
        let Some(PoolSigner { kid, key }) = &pool.signer else {
            context.log(LogLevel::Error, "no_signing_key", &format!("pool {} has no usable key", pool.id));
            return Err(OAuthError::TemporarilyUnavailable);
        };
        let jti = context.random_id();
        // A pool without lists is of a time before them.
        let unlisted = status.is_none() && pool.document.status_lists > 0;
        let most = if unpublished || unlisted { SHORT_TTL } else { u64::MAX };
        let ttl = pool.document.token_ttl.min(most);
        let token = AccessToken {
            pool: &pool.document,
            client_id,
            client,
            scopes,
            now: context.now,
            ttl,
            jti: &jti,
            bound_to,
            status,
        };
        let failed = |reason: String| {
            context.log(LogLevel::Error, "signing_failed", &format!("pool {}: {reason}", pool.id));
            OAuthError::TemporarilyUnavailable
        };
        let input = token.signing_input(kid).map_err(|error| failed(error.to_string()))?;
        let signature =
            key.sign(context, input.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
        let access_token = jws::append_signature(input, &signature);
        let body = TokenResponse {
            access_token: &access_token,
            token_type: "Bearer",
            expires_in: ttl,
            scope: (!scopes.is_empty()).then(|| scopes.to_string()),
        };
        Ok(Response::secret_json(200, serde_json::to_vec(&body).map_err(|error| failed(error.to_string()))?))
    }
}

/// The body of an OAuth request.
pub(super) fn read_form(request: Request<'_>) -> Result<Form, OAuthError> {
    let media_type = request.headers.content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(OAuthError::InvalidRequest("the content type must be application/x-www-form-urlencoded"));
    }
    let Body::Complete(body) = request.body else {
        return Err(OAuthError::BodyTooLarge);
    };
    Ok(Form::parse(body)?)
}

/// The scopes to grant: all that the client has, or those it asks for where it has every one of them (RFC 6749 §3.3).
pub(super) fn grant(allowed: &Scopes, requested: Option<&str>) -> Result<Scopes, OAuthError> {
    let Some(requested) = requested else {
        return Ok(allowed.clone());
    };
    let requested: Scopes =
        requested.parse().map_err(|_| OAuthError::InvalidScope("scope is not a list of scope tokens"))?;
    if allowed.contains_all(&requested) {
        Ok(requested)
    } else {
        Err(OAuthError::InvalidScope("a scope that this client may not have"))
    }
}

impl<P: Platform> Context<'_, P> {
    /// 128 random bits as text.
    pub(super) fn random_id(&self) -> String {
        let mut bytes = [0; 16];
        self.platform.fill_random(&mut bytes);
        Base64UrlUnpadded::encode_string(&bytes)
    }
}
