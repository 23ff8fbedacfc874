//! Clients that prove themselves by an assertion of their own key: `private_key_jwt` (RFC 7523 §2.2), with a key that was
//! registered, or with the one of a device's certificate.

use std::rc::Rc;

use super::client::Client;
use super::device::{AdmittedClient, Refused};
use super::platform::{LogLevel, Platform};
use super::pool::Loaded;
use super::{Context, Edge};
use crate::assertion::{AssertionProblem, Claims, UnverifiedAssertion};
use crate::certificate::Fingerprint;
use crate::client_jwk::ClientJwk;
use crate::crypto::CryptoError;
use crate::device_certificate::{DeviceRefusal, Named};
use crate::id::{ClientId, PoolId};
use crate::oauth::OAuthError;

/// One text for every reason that depends on the client.
const REFUSAL: OAuthError = OAuthError::InvalidClient { by_header: false };

impl Refused {
    /// The answer where the assertion authenticates a client. What is wrong with the assertion itself is told; what
    /// would tell whether there is such a client is not.
    fn of_client(&self) -> OAuthError {
        match self {
            Self::Assertion(AssertionProblem::BadSignature) => REFUSAL,
            Self::Assertion(problem) => OAuthError::InvalidClientAssertion(problem.code()),
            Self::Device(
                DeviceRefusal::Unknown
                | DeviceRefusal::NoMatch(_)
                | DeviceRefusal::Disabled
                | DeviceRefusal::SubjectMismatch(_)
                | DeviceRefusal::NoDeviceScope
                | DeviceRefusal::OtherClient
                | DeviceRefusal::TooMany,
            ) => REFUSAL,
            Self::Device(refusal) => OAuthError::InvalidClientAssertion(refusal.code()),
            Self::OAuth(error) => *error,
        }
    }
}

impl<P: Platform> Edge<P> {
    /// Authenticates a client by an assertion, and says which certificate its token is to be bound to, if it is.
    pub(super) async fn authenticate_by_assertion(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        text: &str,
        client_id: Option<&str>,
    ) -> Result<(Rc<Client>, Option<Fingerprint>), OAuthError> {
        let pool = loaded.pool.id;
        self.prove(context, loaded, text, client_id).await.map_err(|refused| {
            let detail = format!("pool {pool}: {}", refused.detail());
            context.log(LogLevel::Info, "client_assertion_refused", &detail);
            refused.of_client()
        })
    }

    async fn prove(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        text: &str,
        client_id: Option<&str>,
    ) -> Result<(Rc<Client>, Option<Fingerprint>), Refused> {
        let pool = loaded.pool.clone();
        let assertion = UnverifiedAssertion::parse(text)?;
        let claims = &assertion.claims;
        claims.check(&[&pool.document.issuer], context.now)?;
        if claims.iss != claims.sub {
            return Err(AssertionProblem::IssMismatch.into());
        }
        if client_id.is_some_and(|named| named != claims.sub) {
            return Err(
                OAuthError::InvalidRequest("client_id is not the client of the client_assertion").into()
            );
        }
        let id: ClientId = claims.sub.parse().map_err(|_| REFUSAL)?;
        if assertion.header.x5c.is_none() {
            let accepts = async |client: &Client| {
                Ok(client.is_enabled() && self.signed(context, client, &assertion).await?)
            };
            let client = self.find_client(context, loaded, id, accepts).await?.ok_or(REFUSAL)?;
            self.use_up_once(context, pool.id, claims).await?;
            return Ok((client, None));
        }
        let identity = self.verify_by_certificate(context, &pool, &assertion).await?;
        let admitted = self.admit_device(context, loaded, &identity, &Named::Client(id)).await?;
        // A device that comes to exist by its certificate does so by the grant that is made for it.
        let AdmittedClient::Known(client) = admitted.client else { return Err(REFUSAL.into()) };
        if admitted.unpublished {
            return Err(REFUSAL.into());
        }
        self.use_up_once(context, pool.id, claims).await?;
        if admitted.to_report {
            self.report(context, &pool, &identity, assertion.header.x5c.as_deref().unwrap_or_default());
        }
        Ok((client, pool.document.bind_to_certificate.then_some(identity.thumbprint)))
    }

    async fn use_up_once(
        &self,
        context: &Context<'_, P>,
        pool: PoolId,
        claims: &Claims,
    ) -> Result<(), Refused> {
        if self.use_up(context, pool, claims).await { Ok(()) } else { Err(AssertionProblem::Replayed.into()) }
    }

    /// Whether one of the client's keys signed.
    async fn signed(
        &self,
        context: &Context<'_, P>,
        client: &Client,
        assertion: &UnverifiedAssertion<'_>,
    ) -> Result<bool, OAuthError> {
        let keys = client.document().jwks.as_ref().map(|jwks| jwks.keys.as_slice()).unwrap_or_default();
        let kid = assertion.header.kid.as_deref();
        let named = kid.is_some_and(|kid| keys.iter().any(|key| key.kid.as_deref() == Some(kid)));
        for key in keys.iter().filter(|key| !named || key.kid.as_deref() == kid) {
            if self.signed_by(context, key, assertion).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn signed_by(
        &self,
        context: &Context<'_, P>,
        key: &ClientJwk,
        assertion: &UnverifiedAssertion<'_>,
    ) -> Result<bool, OAuthError> {
        let alg = assertion.header.alg.name();
        let (Ok(kind), Some(spki)) = (key.key.kind(), key.key.to_spki()) else { return Ok(false) };
        if key.alg.as_ref().is_some_and(|own| own != alg) {
            return Ok(false);
        }
        let Ok(check) = assertion.signature_check(kind, &spki) else { return Ok(false) };
        match context.platform.verify_signature(&check).await {
            Ok(verified) => Ok(verified),
            Err(CryptoError::BadKey) => Ok(false),
            Err(error) => {
                context.log(LogLevel::Error, "crypto_failed", &error.to_string());
                Err(OAuthError::TemporarilyUnavailable)
            }
        }
    }
}
