//! `POST /{pool}/oauth2/revoke` (RFC 7009): a client ends one of its own tokens.

use super::http::{Request, Response};
use super::platform::{LogLevel, Platform};
use super::pool::{Freshness, Pool};
use super::revocation::RevokedToken;
use super::token::read_form;
use super::{Context, Edge};
use crate::document::PoolKind;
use crate::edge_report::{EdgeReport, RevocationReport};
use crate::id::PoolId;
use crate::issued_token::{TokenClaims, TokenError, UnverifiedToken};
use crate::oauth::OAuthError;

/// The least that KV keeps something, in seconds.
const LEAST_KV_TTL: u32 = 60;

impl<P: Platform> Edge<P> {
    /// Revokes a token. Whatever is not a token of the client's own is left alone and answered in the same way.
    ///
    /// Past the pool's `next_update` this goes on: who revokes asks for less.
    pub(super) async fn revoke(
        &self,
        context: &Context<'_, P>,
        pool: PoolId,
        request: Request<'_>,
    ) -> Result<Response, OAuthError> {
        let mut loaded = self.load_live_pool(context, pool, Freshness::Verifiable).await?;
        let form = read_form(request)?;
        let (client, _) = self.authenticate_client(context, &mut loaded, request, &form).await?;
        // `token_type_hint` would only say where to look first (RFC 7009 §2.1).
        let token = form.get("token").ok_or(OAuthError::InvalidRequest("token is missing"))?;
        let claims = self.verify_token(context, &loaded.pool, token).await?;
        let its_own = |claims: &TokenClaims| {
            let kind = loaded.pool.document.kind;
            claims.issued_to() == Some(&client.id) && (kind == PoolKind::Device || claims.is_of_a_person())
        };
        if let Some(claims) = claims.filter(its_own) {
            self.accept_revocation(context, &loaded.pool, claims).await?;
        }
        Ok(Response::secret_empty(200))
    }

    /// The claims of a token of this pool that has not expired. None for any other text.
    pub(super) async fn verify_token(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        text: &str,
    ) -> Result<Option<TokenClaims>, OAuthError> {
        let verified = async {
            let token = UnverifiedToken::parse(text)?;
            let key = pool.verifying_key(context, token.header()).await?.ok_or(TokenError::UnknownKey)?;
            token.verify_by(context.platform, &key).await
        };
        match verified.await {
            Ok(claims) => {
                let own = claims.iss == pool.document.issuer && claims.is_current(context.now);
                Ok(own.then_some(claims))
            }
            Err(TokenError::Crypto(error)) => {
                context.log(LogLevel::Error, "crypto_failed", &error.to_string());
                Err(OAuthError::TemporarilyUnavailable)
            }
            Err(_) => Ok(None),
        }
    }

    /// Sees to it that a revocation cannot be lost, and only then lets it count.
    async fn accept_revocation(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        claims: TokenClaims,
    ) -> Result<(), OAuthError> {
        if self.revocations.knows(pool.id, &claims.jti, context.now) {
            return Ok(());
        }
        let token = RevokedToken::of(&claims);
        let Some(client_id) = claims.status_holder() else { return Ok(()) };
        let report = EdgeReport::Revocation(RevocationReport {
            pool: pool.id,
            jti: claims.jti,
            client_id,
            exp: claims.exp,
            list: token.status.map(|index| index.list),
            idx: token.status.map(|index| index.idx),
            revoked_at: context.now,
        });
        let left = u32::try_from(claims.exp.since(context.now)).unwrap_or(u32::MAX);
        let delivery = self.delivery(context, &report, left.max(LEAST_KV_TTL));
        let delivery = delivery.map_err(|error| {
            context.log(LogLevel::Error, "report_failed", &format!("{}: {error}", report.kv_key()));
            OAuthError::TemporarilyUnavailable
        })?;
        if !context.platform.hand_over(delivery).await {
            let detail = format!("{}: neither KV nor the control plane took it", report.kv_key());
            context.log(LogLevel::Error, "revocation_not_kept", &detail);
            return Err(OAuthError::TemporarilyUnavailable);
        }
        self.remember_revoked(context, pool, &token).await;
        Ok(())
    }
}

impl RevokedToken {
    pub(super) fn of(claims: &TokenClaims) -> Self {
        Self { jti: claims.jti.clone(), exp: claims.exp, status: claims.status_index() }
    }
}
