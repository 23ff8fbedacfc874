//! What a token, revocation or introspection request can be answered with instead (RFC 6749 §5.2).

use serde::Serialize;

use super::FormError;
use crate::device_certificate::RefusalCode;

/// An error answer. Its text is for the client's developer; what an operator must know goes to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OAuthError {
    /// 400: the request is malformed.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// 400: the body is no list of parameters.
    #[error("{0}")]
    InvalidForm(#[from] FormError),
    /// 413: the body has more than [`crate::edge::MAX_BODY`] bytes.
    #[error("the body is too large")]
    BodyTooLarge,
    /// 405: the endpoint takes POST only.
    #[error("this endpoint takes POST only")]
    MethodNotAllowed,
    /// 401: the client is unknown or did not prove itself. One text for every reason.
    #[error("client authentication failed")]
    InvalidClient {
        /// Whether it tried by the `Authorization` header, which asks for a `WWW-Authenticate` in the answer.
        by_header: bool,
    },
    /// 401: a `client_assertion` that would be refused whoever sent it.
    #[error("{0}")]
    InvalidClientAssertion(RefusalCode),
    /// 400: an assertion, or the certificate behind it, that gets no token.
    #[error("{0}")]
    InvalidGrant(RefusalCode),
    /// 400: a scope that the client may not have, or that is none.
    #[error("{0}")]
    InvalidScope(&'static str),
    /// 400: a grant type that is not offered.
    #[error("this grant_type is not supported")]
    UnsupportedGrantType,
    /// 400: whatever the grant type, this pool's tokens are people's, and come from the control plane.
    #[error("nothing is issued here: people sign in at the endpoints that the metadata of this issuer names")]
    IssuedElsewhere,
    /// 404: no such pool.
    #[error("there is no such client pool")]
    UnknownPool,
    /// 404: no such status list.
    #[error("there is no such status list")]
    UnknownStatusList,
    /// 503: something that this location must have is missing, unverifiable or out of date.
    #[error("this cannot be answered at the moment, try again later")]
    TemporarilyUnavailable,
}

impl OAuthError {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest(_)
            | Self::InvalidForm(_)
            | Self::InvalidGrant(_)
            | Self::InvalidScope(_)
            | Self::UnsupportedGrantType
            | Self::IssuedElsewhere => 400,
            Self::InvalidClient { .. } | Self::InvalidClientAssertion(_) => 401,
            Self::UnknownPool | Self::UnknownStatusList => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTooLarge => 413,
            Self::TemporarilyUnavailable => 503,
        }
    }

    /// The `error` member (RFC 6749 §5.2; `temporarily_unavailable` is borrowed from §4.1.2.1).
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest(_)
            | Self::InvalidForm(_)
            | Self::BodyTooLarge
            | Self::MethodNotAllowed
            | Self::UnknownPool
            | Self::UnknownStatusList => "invalid_request",
            Self::InvalidClient { .. } | Self::InvalidClientAssertion(_) => "invalid_client",
            Self::InvalidGrant(_) => "invalid_grant",
            Self::InvalidScope(_) => "invalid_scope",
            Self::UnsupportedGrantType | Self::IssuedElsewhere => "unsupported_grant_type",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }

    /// The JSON body.
    pub fn body(self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body {
            error: &'static str,
            error_description: String,
        }
        // Two strings always serialise.
        serde_json::to_vec(&Body { error: self.code(), error_description: self.to_string() })
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_keep_to_the_characters_of_rfc_6749() {
        for error in [
            OAuthError::BodyTooLarge,
            OAuthError::MethodNotAllowed,
            OAuthError::InvalidClient { by_header: true },
            OAuthError::UnsupportedGrantType,
            OAuthError::IssuedElsewhere,
            OAuthError::UnknownPool,
            OAuthError::UnknownStatusList,
            OAuthError::TemporarilyUnavailable,
        ] {
            let allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
            assert!(error.to_string().bytes().all(allowed), "{error}");
        }
    }
}
