//! Who asks, and what they may reach. The scopes made here are the only way to an organization's rows.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use keypost_shared::id::OrgId;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::audit::Actor;

/// What a key may be narrowed to (api.md §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Read organizations, environments and pools.
    OrgRead,
    /// Create and change them.
    OrgWrite,
    /// Read devices and their apps.
    DeviceRead,
    /// Create and change them.
    DeviceWrite,
    /// Make one-time passwords.
    OtpCreate,
    /// Create and change service clients.
    ClientWrite,
    /// Upload and remove trust anchors, deny certificates.
    CertificateWrite,
    /// Rotate and revoke signing keys.
    KeyRotate,
    /// Revoke tokens.
    TokenRevoke,
    /// Create and delete API keys.
    ApiKeyWrite,
    /// Read who did what.
    AuditRead,
    /// See and steer what is published to KV.
    SyncWrite,
}

/// A text that names no permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a permission")]
pub struct UnknownPermission;

impl Permission {
    const ALL: [(Permission, &'static str); 12] = [
        (Permission::OrgRead, "org:read"),
        (Permission::OrgWrite, "org:write"),
        (Permission::DeviceRead, "device:read"),
        (Permission::DeviceWrite, "device:write"),
        (Permission::OtpCreate, "otp:create"),
        (Permission::ClientWrite, "client:write"),
        (Permission::CertificateWrite, "certificate:write"),
        (Permission::KeyRotate, "key:rotate"),
        (Permission::TokenRevoke, "token:revoke"),
        (Permission::ApiKeyWrite, "apikey:write"),
        (Permission::AuditRead, "audit:read"),
        (Permission::SyncWrite, "sync:write"),
    ];

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|(_, name)| *name)
    }

    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(permission, _)| *permission == self).map_or("", |(_, name)| name)
    }
}

impl PartialSchema for Permission {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
        RefOr::T(text.enum_values(Some(Self::names())).build().into())
    }
}

impl ToSchema for Permission {}

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(permission, _)| *permission).ok_or(UnknownPermission)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whoever holds an API key that is good now.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key's id.
    pub api_key_id: Uuid,
    /// The one organization that it reaches; none for a global admin key.
    pub org: Option<OrgId>,
    /// What it is narrowed to; none for all that its reach allows.
    pub permissions: Option<Vec<Permission>>,
    /// When the key expires.
    pub expires_at: Option<OffsetDateTime>,
    /// Whom the audit events name.
    pub actor: Arc<Actor>,
}

/// Why a caller may not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It belongs to somebody else: the caller must not learn that it exists.
    #[error("it belongs to another organization")]
    NotTheirs,
    /// The key lacks the permission.
    #[error("the API key lacks the permission {0}")]
    Lacks(Permission),
    /// Only global admin keys may.
    #[error("only a global admin key may do this")]
    GlobalOnly,
    /// The other key is not narrowed to permissions, but the caller's is.
    #[error(
        "the API key lacks some permissions, so the other one must be narrowed to permissions that it has"
    )]
    LacksSome,
    /// The other key is narrowed to a permission, among others, that the caller's lacks and this version does not know.
    #[error("the API key lacks a permission of the other one")]
    LacksUnknown,
    /// The other key would outlive the caller's, which expires at this time.
    #[error("the other key must not outlive the API key in use, which expires at {}", rfc3339(.0))]
    Outlived(OffsetDateTime),
}

fn rfc3339(time: &OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

/// What an API key may do within its reach, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Power<'a> {
    /// What it is narrowed to; none for all that its reach allows. By name, for there may be some that only a later
    /// version knows.
    pub permissions: Option<&'a [String]>,
    /// When it expires.
    pub expires_at: Option<OffsetDateTime>,
}

/// Proof that the caller may do what it asks for in one organization.
#[derive(Clone, Debug)]
pub struct OrgScope {
    org: OrgId,
    actor: Arc<Actor>,
}

impl OrgScope {
    /// For what the edge reports, which has no caller: the control plane itself acts, where the report is authentic.
    pub(super) fn of_the_edge(org: OrgId) -> Self {
        Self { org, actor: Actor::system() }
    }

    /// For whoever manages an organization by a right of single sign-on.
    pub(super) fn of_an_owner(org: OrgId, actor: Arc<Actor>) -> Self {
        Self { org, actor }
    }

    /// The organization.
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// Who acts.
    pub fn actor(&self) -> &Arc<Actor> {
        &self.actor
    }
}

/// Proof that the caller may do what it asks for in the whole system.
#[derive(Clone, Debug)]
pub struct GlobalScope {
    actor: Arc<Actor>,
}

impl GlobalScope {
    /// Who acts.
    pub fn actor(&self) -> &Arc<Actor> {
        &self.actor
    }

    /// Whoever reaches everything reaches an organization.
    pub fn narrow(&self, org: OrgId) -> OrgScope {
        OrgScope { org, actor: self.actor.clone() }
    }
}

/// Proof that whoever asks may found an organization: a global admin, or a person who is to own it.
#[derive(Clone, Copy, Debug)]
pub struct MayFound(());

impl MayFound {
    /// A person founds an organization of their own.
    pub(super) fn as_its_owner() -> Self {
        Self(())
    }
}

impl From<&GlobalScope> for MayFound {
    fn from(_: &GlobalScope) -> Self {
        Self(())
    }
}

/// Proof that the caller may do what it asks for wherever it reaches.
#[derive(Clone, Debug)]
pub enum Reach {
    /// In the whole system.
    Everything(GlobalScope),
    /// In one organization.
    Org(OrgScope),
}

impl Reach {
    /// Who acts.
    pub fn actor(&self) -> &Arc<Actor> {
        match self {
            Reach::Everything(scope) => scope.actor(),
            Reach::Org(scope) => scope.actor(),
        }
    }

    /// The one organization that it is about; none for all.
    pub fn org(&self) -> Option<&OrgId> {
        match self {
            Reach::Everything(_) => None,
            Reach::Org(scope) => Some(scope.org()),
        }
    }
}

impl Caller {
    /// Lets the caller into `org` if it may do there what needs `permission`.
    pub fn enter(&self, org: &OrgId, permission: Permission) -> Result<OrgScope, Denied> {
        // Whose it is comes first: a stranger learns the same whatever its permissions are.
        if self.org.as_ref().is_some_and(|own| own != org) {
            return Err(Denied::NotTheirs);
        }
        self.check(permission)?;
        Ok(OrgScope { org: org.clone(), actor: self.actor.clone() })
    }

    /// Lets the caller do what reaches beyond one organization.
    pub fn enter_everything(&self, permission: Permission) -> Result<GlobalScope, Denied> {
        if self.org.is_some() {
            return Err(Denied::GlobalOnly);
        }
        self.check(permission)?;
        Ok(GlobalScope { actor: self.actor.clone() })
    }

    /// Lets the caller do, wherever it reaches, what needs `permission`.
    pub fn enter_reach(&self, permission: Permission) -> Result<Reach, Denied> {
        match &self.org {
            Some(org) => self.enter(org, permission).map(Reach::Org),
            None => self.enter_everything(permission).map(Reach::Everything),
        }
    }

    /// Whether the caller may have, or hand out, a key of this power that reaches no further than the caller: a key never
    /// grants what its maker lacks.
    pub fn may_hand_out(&self, other: Power<'_>) -> Result<(), Denied> {
        match (&self.permissions, other.permissions) {
            (None, _) => {}
            (Some(_), None) => return Err(Denied::LacksSome),
            (Some(own), Some(names)) => {
                for name in names {
                    let permission = name.parse().map_err(|UnknownPermission| Denied::LacksUnknown)?;
                    if !own.contains(&permission) {
                        return Err(Denied::Lacks(permission));
                    }
                }
            }
        }
        match self.expires_at {
            Some(own) if other.expires_at.is_none_or(|other| other > own) => Err(Denied::Outlived(own)),
            _ => Ok(()),
        }
    }

    fn check(&self, permission: Permission) -> Result<(), Denied> {
        match &self.permissions {
            Some(granted) if !granted.contains(&permission) => Err(Denied::Lacks(permission)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(org: Option<&str>, permissions: Option<&[Permission]>) -> Caller {
        Caller {
            api_key_id: Uuid::nil(),
            org: org.map(|org| org.parse().unwrap()),
            permissions: permissions.map(<[_]>::to_vec),
            expires_at: None,
            actor: Actor::system(),
        }
    }

    #[test]
    fn a_stranger_learns_nothing_and_an_own_key_what_it_lacks() {
        let mine: OrgId = "mine".parse().unwrap();
        let theirs: OrgId = "theirs".parse().unwrap();
        let narrow = caller(Some("mine"), Some(&[Permission::OrgRead]));
        assert!(narrow.enter(&mine, Permission::OrgRead).is_ok());
        assert_eq!(
            narrow.enter(&mine, Permission::OrgWrite).err(),
            Some(Denied::Lacks(Permission::OrgWrite))
        );
        for permission in [Permission::OrgRead, Permission::OrgWrite] {
            assert_eq!(narrow.enter(&theirs, permission).err(), Some(Denied::NotTheirs));
        }
    }

    #[test]
    fn only_a_global_key_reaches_everything_and_only_with_the_permission() {
        let everything = |caller: Caller| caller.enter_everything(Permission::SyncWrite).err();
        assert_eq!(everything(caller(None, None)), None);
        assert_eq!(everything(caller(Some("mine"), None)), Some(Denied::GlobalOnly));
        let narrow = caller(None, Some(&[Permission::OrgRead]));
        assert_eq!(everything(narrow), Some(Denied::Lacks(Permission::SyncWrite)));
    }

    #[test]
    fn a_key_never_hands_out_what_it_lacks() {
        let at = |seconds| Some(OffsetDateTime::from_unix_timestamp(seconds).unwrap());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let hand_out = |caller: &Caller, permissions: Option<&[String]>, expires_at| {
            caller.may_hand_out(Power { permissions, expires_at }).err()
        };
        let (read, both, unknown) =
            (names(&["org:read"]), names(&["org:read", "org:write"]), names(&["org:read", "moon:walk"]));

        let whole = caller(Some("mine"), None);
        for permissions in [None, Some(both.as_slice()), Some(&unknown)] {
            assert_eq!(hand_out(&whole, permissions, None), None);
        }

        let narrow = caller(Some("mine"), Some(&[Permission::OrgRead, Permission::ApiKeyWrite]));
        assert_eq!(hand_out(&narrow, Some(&read), None), None);
        assert_eq!(hand_out(&narrow, Some(&[]), None), None);
        assert_eq!(hand_out(&narrow, Some(&both), None), Some(Denied::Lacks(Permission::OrgWrite)));
        assert_eq!(hand_out(&narrow, Some(&unknown), None), Some(Denied::LacksUnknown));
        assert_eq!(hand_out(&narrow, None, None), Some(Denied::LacksSome));

        let mortal = Caller { expires_at: at(100), ..whole };
        assert_eq!(hand_out(&mortal, None, at(100)), None);
        assert_eq!(hand_out(&mortal, None, at(99)), None);
        for later in [at(101), None] {
            assert_eq!(hand_out(&mortal, None, later), Some(Denied::Outlived(at(100).unwrap())));
        }
    }

    #[test]
    fn permissions_keep_their_names() {
        for (permission, name) in Permission::ALL {
            assert_eq!(name.parse(), Ok(permission));
            assert_eq!(permission.to_string(), name);
        }
        assert!("org:*".parse::<Permission>().is_err());
    }
}
