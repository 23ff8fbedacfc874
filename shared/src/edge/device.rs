//! Devices that prove who they are by certificate: the assertion grant (RFC 7523 §2.1).

use std::rc::Rc;

use super::client::Client;
use super::http::{Request, Response};
use super::platform::{LogLevel, Platform};
use super::pool::{Loaded, Pool};
use super::record::{Found, Record};
use super::token::{Issue, grant};
use super::{Context, Edge};
use crate::assertion::{AssertionProblem, UnverifiedAssertion};
use crate::device_certificate::{
    Admission, DEVICE_SCOPE, DeviceIdentity, DeviceRefusal, Named, ProvisioningMode, Trace, admit,
    new_client, prove,
};
use crate::document::{ClientDocument, ClientSubject, DeviceDocument, Revoked};
use crate::id::{ClientId, DeviceId};
use crate::oauth::{ClientAuthentication, Form, OAuthError};

/// So long, in seconds, does a token live that no status list could revoke: of a device whose record is not published yet,
/// or of a client that has no clear bit.
pub(super) const SHORT_TTL: u64 = 300;

/// Why somebody who came with an assertion gets no token.
#[derive(Debug)]
pub(super) enum Refused {
    Assertion(AssertionProblem),
    Device(DeviceRefusal),
    /// Whatever has an answer of its own.
    OAuth(OAuthError),
}

impl From<AssertionProblem> for Refused {
    fn from(problem: AssertionProblem) -> Self {
        Self::Assertion(problem)
    }
}

impl From<DeviceRefusal> for Refused {
    fn from(refusal: DeviceRefusal) -> Self {
        match refusal {
            DeviceRefusal::Assertion(problem) => Self::Assertion(problem),
            refusal => Self::Device(refusal),
        }
    }
}

impl From<OAuthError> for Refused {
    fn from(error: OAuthError) -> Self {
        Self::OAuth(error)
    }
}

impl Refused {
    /// The answer where the assertion is the grant.
    fn of_grant(&self) -> OAuthError {
        match self {
            Self::Assertion(problem) => OAuthError::InvalidGrant(problem.code()),
            Self::Device(DeviceRefusal::NoDeviceScope) => OAuthError::InvalidScope("no_device_scope"),
            Self::Device(refusal) => OAuthError::InvalidGrant(refusal.code()),
            Self::OAuth(error) => *error,
        }
    }

    /// For the log. Nothing in it is the client's own text but what a valid certificate says.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::Assertion(problem) => format!("{}: {problem}", problem.code()),
            Self::Device(refusal) => format!("{}: {refusal}", refusal.code()),
            Self::OAuth(error) => error.to_string(),
        }
    }
}

/// Who came by certificate.
pub(super) struct Admitted {
    pub(super) client: AdmittedClient,
    /// Whether the control plane should hear of it: it is new, or seen with its first certificate.
    pub(super) to_report: bool,
    /// Whether its record is not published yet.
    pub(super) unpublished: bool,
}

pub(super) enum AdmittedClient {
    Known(Rc<Client>),
    New { id: ClientId, document: Box<ClientDocument> },
}

impl AdmittedClient {
    pub(super) fn id(&self) -> &ClientId {
        match self {
            Self::Known(client) => &client.id,
            Self::New { id, .. } => id,
        }
    }

    pub(super) fn document(&self) -> &ClientDocument {
        match self {
            Self::Known(client) => client.document(),
            Self::New { document, .. } => document,
        }
    }
}

impl<P: Platform> Edge<P> {
    /// The assertion grant.
    pub(super) async fn jwt_bearer(
        &self,
        context: &Context<'_, P>,
        loaded: Loaded<P>,
        request: Request<'_>,
        form: &Form,
    ) -> Result<Response, OAuthError> {
        if ClientAuthentication::is_present(request.headers.authorization, form) {
            return Err(OAuthError::InvalidRequest(
                "this grant takes no client authentication beside the assertion",
            ));
        }
        let text = form.get("assertion").ok_or(OAuthError::InvalidRequest("assertion is missing"))?;
        let pool = loaded.pool.clone();
        self.by_assertion(context, loaded, form, text).await.map_err(|refused| {
            let detail = format!("pool {}: {}", pool.id, refused.detail());
            context.log(LogLevel::Info, "assertion_refused", &detail);
            refused.of_grant()
        })
    }

    async fn by_assertion(
        &self,
        context: &Context<'_, P>,
        mut loaded: Loaded<P>,
        form: &Form,
        text: &str,
    ) -> Result<Response, Refused> {
        let pool = loaded.pool.clone();
        if pool.document.provisioning.mode == ProvisioningMode::Off {
            return Err(DeviceRefusal::CertificatesOff.into());
        }
        let assertion = UnverifiedAssertion::parse(text)?;
        let issuer = pool.document.issuer.as_str();
        assertion.claims.check(&[issuer, &format!("{issuer}/oauth2/token")], context.now)?;
        let identity = self.verify_by_certificate(context, &pool, &assertion).await?;
        let named = Named::by_claims(&assertion.claims, &identity.device_id)?;
        let admitted = self.admit_device(context, &mut loaded, &identity, &named).await?;
        let client = &admitted.client;
        if form.get("client_id").is_some_and(|named| named != client.id().as_str()) {
            return Err(OAuthError::InvalidRequest("client_id is not the client of the assertion").into());
        }
        let scopes = grant(&client.document().scopes, form.get("scope"))?;
        if matches!(client, AdmittedClient::New { .. })
            && !self.may_come_in(context, &pool, &identity.device_id)
        {
            return Err(DeviceRefusal::TooMany.into());
        }
        if !self.use_up(context, pool.id, &assertion.claims).await {
            return Err(AssertionProblem::Replayed.into());
        }
        let issue = Issue {
            client_id: client.id(),
            client: client.document(),
            scopes: &scopes,
            unpublished: admitted.unpublished,
            status: match client {
                AdmittedClient::Known(client) => self.next_index(context, &pool, client).await,
                AdmittedClient::New { .. } => None,
            },
            bound_to: pool.document.bind_to_certificate.then_some(identity.thumbprint),
        };
        let response = self.issue(context, &pool, issue).await?;
        if admitted.to_report {
            let x5c = assertion.header.x5c.as_deref().unwrap_or_default();
            self.report(context, &pool, &identity, x5c);
        }
        Ok(response)
    }

    /// Whose assertion it is, by the chain in its header: the chain is valid and the signature is that of its first
    /// certificate's key.
    pub(super) async fn verify_by_certificate(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        assertion: &UnverifiedAssertion<'_>,
    ) -> Result<Rc<DeviceIdentity>, Refused> {
        let x5c = assertion.header.x5c.as_deref().ok_or(AssertionProblem::X5cMissing)?;
        let identity = self.identify(context, pool, x5c).await??;
        let proven = prove(context.platform, assertion, &identity, &mut Trace::discarded()).await;
        proven.map_err(|error| {
            context.log(LogLevel::Error, "crypto_failed", &error.to_string());
            OAuthError::TemporarilyUnavailable
        })??;
        Ok(identity)
    }

    /// Whether the device may come in, and as which client.
    pub(super) async fn admit_device(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        identity: &DeviceIdentity,
        named: &Named,
    ) -> Result<Admitted, Refused> {
        let pool = loaded.pool.clone();
        let (rules, _) = pool.certificate_rules(context)?;
        let decide = |record: Option<&DeviceDocument>| {
            admit(pool.id, rules, identity, record, named, &mut Trace::discarded())
        };
        let accepts = async |record: &Record<DeviceDocument>| Ok(decide(Some(record.document())).is_ok());
        let id = identity.device_id.clone();
        let admission = match self.find_record(context, loaded, &self.devices, id, accepts).await? {
            Found::Accepted(record) | Found::Refused(record) => decide(Some(record.document()))?,
            Found::Missing => decide(None)?,
            // Not the same as none: it may have been spoilt because it says that the device is disabled.
            Found::Unverifiable => return Err(OAuthError::TemporarilyUnavailable.into()),
            Found::KeptOut => return Err(DeviceRefusal::Disabled.into()),
        };
        match admission {
            Admission::Known { client_id, first_seen } => {
                let client = self.client_of(context, loaded, &client_id, &identity.device_id).await?;
                // A client without a document has not reached this location yet.
                let client = client.ok_or(OAuthError::TemporarilyUnavailable)?;
                let client = AdmittedClient::Known(client);
                Ok(Admitted { client, to_report: first_seen, unpublished: false })
            }
            Admission::New { client_id } => {
                // Its client may be known where the device's own record is not, or not yet: an existing row wins.
                let client = match self.client_of(context, loaded, &client_id, &identity.device_id).await? {
                    Some(client) => AdmittedClient::Known(client),
                    None => {
                        AdmittedClient::New { id: client_id, document: self.make(context, &pool, identity)? }
                    }
                };
                Ok(Admitted { client, to_report: true, unpublished: true })
            }
        }
    }

    /// The client of a device, if it has a document; it must be enabled, the device's, and have the scope `device`.
    async fn client_of(
        &self,
        context: &Context<'_, P>,
        loaded: &mut Loaded<P>,
        client_id: &ClientId,
        device: &DeviceId,
    ) -> Result<Option<Rc<Client>>, Refused> {
        // A device that has been deleted took its clients with it, whatever KV holds of them.
        if self.standing::<DeviceDocument>(context, loaded, device).await? == Some(Revoked::Gone) {
            return Ok(None);
        }
        let accepts = async |client: &Client| Ok(check_client(client, device).is_ok());
        match self.find_record(context, loaded, &self.clients, client_id.clone(), accepts).await? {
            Found::Accepted(client) => Ok(Some(client)),
            Found::Refused(client) => {
                Err(check_client(&client, device).err().unwrap_or(DeviceRefusal::Disabled).into())
            }
            Found::Missing => Ok(None),
            Found::Unverifiable => Err(OAuthError::TemporarilyUnavailable.into()),
            Found::KeptOut => Err(DeviceRefusal::Disabled.into()),
        }
    }

    fn make(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        identity: &DeviceIdentity,
    ) -> Result<Box<ClientDocument>, OAuthError> {
        let document = &pool.document;
        new_client(&document.provisioning, &document.device_defaults, identity).map(Box::new).map_err(
            |error| {
                context.log(LogLevel::Error, "provisioning_failed", &error.to_string());
                OAuthError::TemporarilyUnavailable
            },
        )
    }
}

fn check_client(client: &Client, device: &DeviceId) -> Result<(), DeviceRefusal> {
    let document = client.document();
    match &document.subject {
        ClientSubject::Device(claims) if claims.device_id == *device => {}
        _ => return Err(DeviceRefusal::OtherClient),
    }
    if !client.is_enabled() {
        return Err(DeviceRefusal::Disabled);
    }
    if document.scopes.contains(DEVICE_SCOPE) { Ok(()) } else { Err(DeviceRefusal::NoDeviceScope) }
}
