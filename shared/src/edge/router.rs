//! Which endpoint a request is for, and what every answer has in common.

use super::apart::apart;
use super::http::{REQUEST_ID, Request, Response};
use super::platform::Platform;
use super::pool::Freshness;
use super::{Context, Edge};
use crate::id::PoolId;
use crate::kv_key::read_number;
use crate::oauth::OAuthError;

/// After how many seconds a client should try again where something is missing here for now.
const RETRY_AFTER: &str = "30";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Health,
    Jwks(PoolId),
    Metadata(PoolId),
    Status(PoolId, u32),
    Token(PoolId),
    Revoke(PoolId),
    Introspect(PoolId),
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix('/')?.splitn(4, '/');
        match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            ("healthz", None, ..) => Some(Self::Health),
            (".well-known", Some("oauth-authorization-server"), Some(pool), None) => {
                pool.parse().ok().map(Self::Metadata)
            }
            (pool, Some(folder), Some(leaf), None) => {
                let pool = pool.parse().ok()?;
                match (folder, leaf) {
                    ("oauth2", "token") => Some(Self::Token(pool)),
                    ("oauth2", "revoke") => Some(Self::Revoke(pool)),
                    ("oauth2", "introspect") => Some(Self::Introspect(pool)),
                    ("status", number) => read_number(number).ok().map(|number| Self::Status(pool, number)),
                    (".well-known", "jwks.json") => Some(Self::Jwks(pool)),
                    (".well-known", "oauth-authorization-server" | "openid-configuration") => {
                        Some(Self::Metadata(pool))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn allowed(self) -> &'static str {
        match self {
            Self::Token(_) | Self::Revoke(_) | Self::Introspect(_) => "POST, OPTIONS",
            Self::Health | Self::Jwks(_) | Self::Metadata(_) | Self::Status(..) => "GET, HEAD, OPTIONS",
        }
    }

    /// The pool whose client the request is by, where it is by one.
    fn of_client(self) -> Option<PoolId> {
        match self {
            Self::Token(pool) | Self::Revoke(pool) | Self::Introspect(pool) => Some(pool),
            Self::Health | Self::Jwks(_) | Self::Metadata(_) | Self::Status(..) => None,
        }
    }

    fn allows(self, method: &str) -> bool {
        self.allowed().split(", ").any(|allowed| allowed == method)
    }
}

impl<P: Platform> Edge<P> {
    /// Answers a request.
    pub async fn handle(&self, platform: &P, request: Request<'_>) -> Response {
        let mut context = Context { platform, now: platform.now(), request_id: String::new() };
        context.request_id = match request.headers.request_id {
            Some(given) if is_request_id(given) => given.to_owned(),
            _ => context.random_id(),
        };
        let mut response = self.route(&context, request).await;
        if request.method == "HEAD" {
            response.body.clear();
        }
        response.with(REQUEST_ID, context.request_id)
    }

    async fn route(&self, context: &Context<'_, P>, request: Request<'_>) -> Response {
        let Some(route) = Route::of(request.path) else {
            return not_found();
        };
        if !route.allows(request.method) {
            return refuse(OAuthError::MethodNotAllowed).with("allow", route.allowed());
        }
        if request.method == "OPTIONS" {
            return apart(self.preflight(context, route, &request)).await;
        }
        let answer = match route {
            Route::Health => Ok(self.healthz(context, &request)),
            Route::Jwks(pool) => apart(self.jwks(context, pool, &request)).await,
            Route::Metadata(pool) => apart(self.metadata(context, pool, &request)).await,
            Route::Status(pool, number) => apart(self.status_list(context, pool, number, &request)).await,
            Route::Token(pool) => self.token(context, pool, request).await,
            Route::Revoke(pool) => apart(self.revoke(context, pool, request)).await,
            Route::Introspect(pool) => apart(self.introspect(context, pool, request)).await,
        };
        match (route.of_client(), answer) {
            (Some(pool), answer) => self.allow_origin(pool, &request, answer.unwrap_or_else(refuse)),
            (_, Ok(response)) => response,
            (_, Err(error)) => refuse(error).with("access-control-allow-origin", "*"),
        }
    }

    /// CORS for a POST: the origins that the pool lists, and no other.
    fn allow_origin(&self, pool: PoolId, request: &Request<'_>, response: Response) -> Response {
        let listed = self.pools.peek(pool).map(|(pool, _)| pool);
        let listed = listed.as_ref().map(|pool| pool.document.cors_origins.as_slice()).unwrap_or_default();
        if listed.is_empty() {
            return response;
        }
        let response = response.with("vary", "Origin");
        match request.headers.origin.filter(|origin| listed.iter().any(|listed| listed == origin)) {
            Some(origin) => response.with("access-control-allow-origin", origin),
            None => response,
        }
    }

    /// Answers what a browser asks before a request of another origin. Without an `Access-Control-Allow-Origin` in the
    /// answer it sends none.
    async fn preflight(&self, context: &Context<'_, P>, route: Route, request: &Request<'_>) -> Response {
        let response =
            Response { status: 204, headers: vec![("allow", route.allowed().to_owned())], body: Vec::new() }
                .with("access-control-max-age", "3600");
        match route.of_client() {
            Some(pool) => {
                if let Err(error) = self.load_live_pool(context, pool, Freshness::Verifiable).await {
                    return refuse(error);
                }
                let response = response
                    .with("access-control-allow-methods", "POST")
                    .with("access-control-allow-headers", "authorization, content-type, x-request-id");
                self.allow_origin(pool, request, response)
            }
            None => response
                .with("access-control-allow-origin", "*")
                .with("access-control-allow-methods", "GET, HEAD")
                .with("access-control-allow-headers", "if-none-match, x-request-id"),
        }
    }
}

/// The answer of a Worker whose configuration cannot be read: healthy enough to say so, and no more.
pub fn unconfigured() -> Response {
    refuse(OAuthError::TemporarilyUnavailable)
}

fn refuse(error: OAuthError) -> Response {
    let response = Response::secret_json(error.status(), error.body());
    match error {
        OAuthError::InvalidClient { by_header: true } => {
            response.with("www-authenticate", "Basic realm=\"keypost\", charset=\"UTF-8\"")
        }
        OAuthError::TemporarilyUnavailable => response.with("retry-after", RETRY_AFTER),
        _ => response,
    }
}

fn not_found() -> Response {
    let body = br#"{"error":"invalid_request","error_description":"there is no such endpoint"}"#;
    Response::secret_json(404, body.to_vec())
}

/// A request id that a client may choose: enough to be found in a log, nothing that could forge a line there.
fn is_request_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    #[test]
    fn each_url_has_one_spelling() {
        let pool = POOL.parse().unwrap();
        let route = |path: &str| Route::of(&path.replace("POOL", POOL));
        assert_eq!(route("/POOL/oauth2/token"), Some(Route::Token(pool)));
        assert_eq!(route("/POOL/oauth2/revoke"), Some(Route::Revoke(pool)));
        assert_eq!(route("/POOL/oauth2/introspect"), Some(Route::Introspect(pool)));
        assert_eq!(route("/POOL/status/7"), Some(Route::Status(pool, 7)));
        assert_eq!(route("/POOL/.well-known/jwks.json"), Some(Route::Jwks(pool)));
        for metadata in [
            "/POOL/.well-known/oauth-authorization-server",
            "/.well-known/oauth-authorization-server/POOL",
            "/POOL/.well-known/openid-configuration",
        ] {
            assert_eq!(route(metadata), Some(Route::Metadata(pool)), "{metadata}");
        }
        assert_eq!(route("/healthz"), Some(Route::Health));
        for nowhere in [
            "",
            "/",
            "//",
            "/POOL",
            "/POOL/oauth2/token/",
            "/POOL/status",
            "/POOL/status/",
            "/POOL/status/07",
            "/POOL/status/-1",
            "/POOL/status/4294967296",
            "/POOL/status/1/",
            "//POOL/oauth2/token",
            "/x/oauth2/token",
            "/%2e%2e/x",
        ] {
            assert_eq!(route(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn a_request_id_cannot_forge_a_log_line() {
        assert!(is_request_id("abc-1.2_3"));
        for bad in ["", "a b", "a\nb", "é", "\"", &"x".repeat(65)] {
            assert!(!is_request_id(bad), "{bad:?}");
        }
    }
}
