//! What an app learns of a person, by scope (OpenID Connect Core §5.1, §5.4).

use serde::Serialize;

use super::scope::OpenIdScope;
use crate::store::sso::user::User;

/// Standard claims.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StandardClaims {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    given_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    family_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_verified: Option<bool>,
}

impl StandardClaims {
    /// What these scopes tell of a person.
    pub fn of(user: &User, scope: OpenIdScope) -> Self {
        let mut claims = Self::default();
        if scope.profile {
            let names = [&user.first_name, &user.last_name];
            let full: Vec<&str> = names.into_iter().flatten().map(String::as_str).collect();
            claims.name = (!full.is_empty()).then(|| full.join(" "));
            claims.given_name = user.first_name.clone();
            claims.family_name = user.last_name.clone();
            claims.preferred_username = Some(user.username.clone());
            claims.updated_at = Some(user.updated_at.unix_timestamp());
        }
        if scope.email {
            claims.email = Some(user.email.clone());
            // Nobody has sent anything there yet.
            claims.email_verified = Some(false);
        }
        claims
    }
}
