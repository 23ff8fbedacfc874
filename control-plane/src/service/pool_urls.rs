//! Where a pool is found at the edge.

use keypost_shared::id::PoolId;

/// The URLs of a client pool (api.md §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUrls {
    /// The issuer (RFC 8414 §2): the `iss` of its tokens, to the letter.
    pub issuer: String,
    /// Where tokens are got.
    pub token_endpoint: String,
    /// Where they are revoked (RFC 7009).
    pub revocation_endpoint: String,
    /// Where its keys are (RFC 7517 §5).
    pub jwks_uri: String,
}

impl PoolUrls {
    /// The URLs of `pool` at the edge with this URL.
    pub fn new(edge_url: &str, pool: PoolId) -> Self {
        let issuer = format!("{edge_url}/{pool}");
        Self {
            token_endpoint: format!("{issuer}/oauth2/token"),
            revocation_endpoint: format!("{issuer}/oauth2/revoke"),
            jwks_uri: format!("{issuer}/.well-known/jwks.json"),
            issuer,
        }
    }
}
