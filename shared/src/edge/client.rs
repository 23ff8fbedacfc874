//! Clients at the edge: whether one has proven itself, by its secret.

use std::rc::Rc;

use super::apart::apart;
use super::http::Request;
use super::platform::{LogLevel, Platform};
use super::pool::Loaded;
use super::record::{Found, Record};
use super::{Context, Edge};
use crate::certificate::Fingerprint;
use crate::document::{ClientDocument, ClientStatus};
use crate::id::ClientId;
use crate::oauth::{ClientAuthentication, ClientCredentials, Form, OAuthError};
use crate::secret::SecretHash;
use crate::time::UnixTime;

/// A client's record as the isolate holds it.
pub(super) type Client = Record<ClientDocument>;

impl Client {
    /// Whether it may have tokens.
    pub(super) fn is_enabled(&self) -> bool {
        self.document().status == ClientStatus::Enabled
    }

    /// Whether the secret of this hash is one that counts now, and the client may have tokens.
    fn accepts(&self, presented: &SecretHash, now: UnixTime) -> bool {
        let secrets = self.document().secrets.iter();
        let live = secrets.filter(|secret| secret.expires_at.is_none_or(|end| now < end));
        // Every secret is compared, found or not.
        let proven = live.fold(false, |proven, secret| secret.sha256.matches(presented) | proven);
        proven && self.is_enabled()
    }
}

impl<P: Platform> Edge<P> {
    /// Authenticates the client that a request comes from, by whichever proof it brings, and says which certificate its
    /// token is to be bound to, if it is.
    pub(super) async fn authenticate_client(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        request: Request<'_>,
        form: &Form,
    ) -> Result<(Rc<Client>, Option<Fingerprint>), OAuthError> {
        match ClientAuthentication::find(request.headers.authorization, form)? {
            ClientAuthentication::Secret(credentials) => {
                Ok((self.authenticate(context, loaded, &credentials).await?, None))
            }
            ClientAuthentication::Assertion { assertion, client_id } => {
                apart(self.authenticate_by_assertion(context, loaded, assertion, client_id)).await
            }
        }
    }

    /// Authenticates a client by its secret. An unknown client, a wrong secret and a disabled client get the same answer
    /// after the same work.
    async fn authenticate(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        credentials: &ClientCredentials,
    ) -> Result<Rc<Client>, OAuthError> {
        let presented = credentials.secret.hash();
        let Some(client_id) = credentials.client_id.clone() else {
            context.log(LogLevel::Info, "client_refused", "the client_id is not well-formed");
            return Err(credentials.refusal());
        };
        let accepts = async |client: &Client| Ok(client.accepts(&presented, context.now));
        let found = self.find_client(context, loaded, client_id, accepts).await?;
        found.ok_or_else(|| credentials.refusal())
    }

    /// Finds a client that `accepts` says yes to. A record that does not verify counts as absent.
    pub(super) async fn find_client(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        client_id: ClientId,
        accepts: impl AsyncFn(&Client) -> Result<bool, OAuthError>,
    ) -> Result<Option<Rc<Client>>, OAuthError> {
        let pool = loaded.pool.id;
        let found = self.find_record(context, loaded, &self.clients, client_id.clone(), accepts).await?;
        let reason = match found {
            Found::Accepted(client) => {
                if self.its_device_counts(context, loaded, &client.document().subject).await? {
                    return Ok(Some(client));
                }
                "its device has been revoked"
            }
            Found::Refused(_) => "its proof is wrong or the client is disabled",
            Found::KeptOut => "it has been revoked",
            Found::Unverifiable => "its record does not verify",
            Found::Missing => {
                apart(self.spend_a_verification(context, loaded)).await;
                "there is no record of it that counts"
            }
        };
        let detail = format!("client {client_id} of pool {pool}: {reason}");
        context.log(LogLevel::Info, "client_refused", &detail);
        Ok(None)
    }

    async fn spend_a_verification(&self, context: &Context<'_, P>, loaded: &Loaded<P>) {
        if let Err(error) = loaded.trust.verify_nothing(context.platform).await {
            context.log(LogLevel::Warn, "crypto_failed", &error.to_string());
        }
    }
}
