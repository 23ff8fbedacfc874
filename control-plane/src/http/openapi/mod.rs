//! The OpenAPI document (3.1): what all operations have in common is added here, once.

mod request_schema;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::map_response;
use axum::response::Response;
use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, ParameterStyle, PathItem};
use utoipa::openapi::response::Response as ApiResponse;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Required};
use utoipa::{OpenApi as _, PartialSchema, ToSchema};

use utoipa_swagger_ui::SwaggerUi;

use super::problem::ProblemAnswer;
use super::sso::{Dress, OAuthErrorAnswer, RefusalAnswer};

const MANAGEMENT: &str = "/api/internal/";
/// Single sign-on, which answers in its envelope (api.md §4).
const SINGLE_SIGN_ON: [&str; 2] = ["/api/auth", "/api/organization"];
/// What owners manage by single sign-on.
const OWNERS: &str = "/api/organization";
/// What people do themselves.
const SIGNING_IN: &str = "/api/auth/";
/// Where somebody begins, with an Idempotency-Key if they like.
const SIGNING_UP: &str = "/api/auth/signup";
const UUID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Keypost control plane",
        description = "Management of organizations, environments, client pools and devices, and the activation of devices. \
            Errors are problems (RFC 9457); every answer carries X-Request-Id. Creating requests honour Idempotency-Key, \
            changing ones If-Match.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    tags(
        (name = "Organizations", description = "Tenants"),
        (name = "Environments", description = "Parts of an organization, each with a client pool"),
        (name = "Devices", description = "The devices of an environment, their apps, and how they are activated"),
        (name = "Signing keys", description = "What tokens are signed with: rotation and revocation"),
        (name = "Certificates", description = "Devices that authenticate by certificate"),
        (name = "Service clients", description = "OAuth clients that are bound to no device"),
        (name = "API keys", description = "Keys for this API"),
        (name = "Audit", description = "Who did what"),
        (name = "Publishing", description = "What KV is told"),
        (name = "Single sign-on: signing in", description = "Signing up and in, one's own sessions and password"),
        (name = "Single sign-on: OpenID Connect", description = "The page that people sign in at, and tokens for apps, in OAuth's own shapes"),
        (name = "Single sign-on: organizations", description = "Organizations, as their owners manage them"),
        (name = "Single sign-on: client apps", description = "The applications that an organization's people sign in to"),
        (name = "Single sign-on: users", description = "The users of client apps, as owners manage them"),
        (name = "Probes", description = "Whether it runs"),
    )
)]
struct Common;

/// What the routers' documents are merged into.
pub(super) fn base() -> OpenApi {
    let mut api = Common::openapi();
    let components = api.components.get_or_insert_default();
    components.schemas.insert("Problem".to_owned(), ProblemAnswer::schema());
    let mut schemas = Vec::new();
    ProblemAnswer::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.schemas.insert("Refusal".to_owned(), RefusalAnswer::schema());
    let mut schemas = Vec::new();
    RefusalAnswer::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.schemas.insert("OAuthError".to_owned(), OAuthErrorAnswer::schema());
    let key = ApiKeyValue::with_description("X-API-Key", "kp_admin_… or kp_org_…");
    components.add_security_scheme("apiKey", SecurityScheme::ApiKey(ApiKey::Header(key)));
    let key = ApiKeyValue::with_description("apikey", "org_… or app_…");
    components.add_security_scheme("ssoKey", SecurityScheme::ApiKey(ApiKey::Header(key)));
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    components.add_security_scheme("accessToken", SecurityScheme::Http(bearer));
    api
}

/// Adds to every operation what follows from its path and method.
pub(super) fn complete(mut api: OpenApi) -> Value {
    for (path, item) in &mut api.paths.paths {
        for (method, operation) in operations(item) {
            add_parameters(path, method, operation);
            add_answers(path, method, operation);
            let none: [&str; 0] = [];
            if path.starts_with(MANAGEMENT) {
                operation.security = Some(vec![SecurityRequirement::new("apiKey", none)]);
            }
            if path.starts_with(OWNERS) {
                let schemes = ["accessToken", "ssoKey", "apiKey"];
                operation.security =
                    Some(schemes.map(|scheme| SecurityRequirement::new(scheme, none)).into());
            }
            if let Some(name) = path.strip_prefix(SIGNING_IN) {
                operation.security = security_of_signing_in(name);
            }
        }
    }
    // Maps with texts for keys: it serialises.
    let mut document = serde_json::to_value(api).unwrap_or_default();
    request_schema::complete(&mut document);
    document
}

/// `/openapi.json`, and `/docs`, a page to read and try it. The page's assets are in the binary, and its policy lets it
/// load nothing else.
pub(super) fn pages<S: Clone + Send + Sync + 'static>(document: Value) -> Router<S> {
    const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                          frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
    let with_policy = async |mut response: Response| {
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    };
    Router::from(SwaggerUi::new("/docs").external_url_unchecked("/openapi.json", document))
        .layer(map_response(with_policy))
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [("get", get), ("put", put), ("post", post), ("delete", delete), ("patch", patch)]
        .into_iter()
        .filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}

/// What people must bring along, in one of these ways; none where they need nothing.
fn security_of_signing_in(name: &str) -> Option<Vec<SecurityRequirement>> {
    let by = |scheme: &str| SecurityRequirement::new(scheme, [""; 0]);
    match name {
        "signup" | "login" => Some(vec![SecurityRequirement::default(), by("ssoKey")]),
        "validate" => Some(vec![by("ssoKey"), by("accessToken"), by("ssoKey").add("accessToken", [""; 0])]),
        "password" | "sessions" | "sessions/{sid}" | "userinfo" => Some(vec![by("accessToken")]),
        _ => None,
    }
}

fn add_parameters(path: &str, method: &str, operation: &mut Operation) {
    let mut parameters = Vec::new();
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    parameters.extend(names.map(path_parameter));
    let is_list = operation.operation_id.as_ref().is_some_and(|id| id.starts_with("list"));
    if is_list {
        parameters.push(query("limit", "How many items at most.", whole_number(1, 500)));
        parameters.push(query("cursor", "The nextCursor of the page before.", text(None)));
    }
    if operation.operation_id.as_deref() == Some("listDevices") {
        parameters.push(tag_filters());
    }
    let is_known_again = [MANAGEMENT, OWNERS, SIGNING_UP].iter().any(|prefix| path.starts_with(prefix));
    if gives_a_secret_or_creates(operation) && is_known_again {
        let about = "The same request with the same key gets the same answer, for 24 hours.";
        parameters.push(header("Idempotency-Key", about, "^[!-~]{1,255}$"));
    }
    if is_conditional(path, method, operation) {
        let about = "The ETag of the state that the change is meant for.";
        parameters.push(header("If-Match", about, "^(\\*|\"[0-9a-f]{1,32}\")$"));
    }
    operation.parameters.get_or_insert_default().extend(parameters.into_iter().map(RefOr::T));
}

/// Both honour Idempotency-Key: neither should happen twice because an answer was lost.
fn gives_a_secret_or_creates(operation: &Operation) -> bool {
    creates(operation) || operation.operation_id.as_ref().is_some_and(|id| id.starts_with("rotate"))
}

/// Whether it changes a thing that there is.
fn is_conditional(path: &str, method: &str, operation: &Operation) -> bool {
    if is_single_sign_on(path) {
        return false;
    }
    let by_verb = ["disable", "enable"];
    let id = operation.operation_id.as_deref().unwrap_or_default();
    // Of a key there is one state.
    if id == "removePublisherKey" {
        return false;
    }
    matches!(method, "put" | "patch" | "delete") || by_verb.iter().any(|verb| id.starts_with(verb))
}

/// `tag.KEY=VALUE`, as often as there are keys to look for.
fn tag_filters() -> Parameter {
    let names = text(Some("^tag\\.[A-Za-z0-9._:-]{1,64}$")).build();
    let values = text(None).max_length(Some(256)).build();
    let schema = ObjectBuilder::new()
        .property_names(Some(names))
        .max_properties(Some(64))
        .additional_properties(Some(utoipa::openapi::Schema::Object(values)));
    let about = "tag.KEY=VALUE, for each tag that they must have themselves.";
    let mut parameter = parameter(ParameterIn::Query, "tags", about, schema, Required::False);
    parameter.style = Some(ParameterStyle::Form);
    parameter.explode = Some(true);
    parameter
}

fn creates(operation: &Operation) -> bool {
    operation.responses.responses.contains_key("201")
}

fn add_answers(path: &str, method: &str, operation: &mut Operation) {
    let has_body = operation.request_body.is_some();
    let mut answers = vec![("503", "The service is not available now: Retry-After says when to come back.")];
    if path.starts_with("/api/") {
        answers.push(("400", "The request is wrong: errors names the fields."));
        answers.push(("429", "Too many requests: Retry-After says when to come back."));
    }
    if path.starts_with(MANAGEMENT) {
        answers.push(("401", "No API key, or none that is good."));
        answers.push(("403", "The API key lacks the permission."));
    }
    if path.starts_with(OWNERS) {
        answers.push(("401", "No key and no access token that counts."));
        answers.push(("403", "Only an organization's owner, or its key, may do this."));
    }
    if path.starts_with(SIGNING_IN) {
        answers.push(("401", "What was sent to prove who asks does not count."));
    }
    match operation.operation_id.as_deref() {
        Some("signInByForm" | "signUpByForm") => {
            answers.push(("403", "The form was not made for this browser."));
            answers.push(("404", "The app, or the account, has just gone."));
            answers.push(("409", "Somebody has the name or the address already."));
        }
        Some("getUserInfo" | "getUserInfoByPost") => {
            answers.push(("403", "The token does not have the scope openid."));
        }
        Some("authorizeByForm") => answers.retain(|(status, _)| *status != "401"),
        Some("signUp") => answers.push(("403", "Not everybody may sign up, or not by this key.")),
        Some("getMyOrganization") => answers.push(("404", "A global admin key has none of its own.")),
        Some("ssoExchange") => answers.push(("404", "The client app is not of the person's organization.")),
        _ => {}
    }
    if path.contains('{') {
        answers.push(("404", "It is not there, or not the caller's."));
    }
    if has_body {
        answers.push(("408", "The body did not arrive."));
        answers.push(("413", "The body is too large."));
        answers.push(("415", "The content type is not supported."));
    }
    if creates(operation) {
        answers.push(("409", "It exists already."));
    }
    if gives_a_secret_or_creates(operation) {
        let status = if is_single_sign_on(path) { "409" } else { "422" };
        answers.push((status, "The Idempotency-Key came with another request before."));
    }
    if matches!(operation.operation_id.as_deref(), Some("rebuildSync" | "verifySync")) {
        answers.push(("409", "One of its kind goes on."));
    }
    if method == "delete" && !is_single_sign_on(path) {
        answers.push(("409", "Something belongs to it."));
    }
    if is_conditional(path, method, operation) {
        answers.push(("412", "It is not in the state that If-Match names."));
    }
    for (status, about) in answers {
        let answer = || match Dress::at(path) {
            Some(Dress::Envelope) => refusal(about),
            Some(Dress::OAuth) => oauth_error(about),
            Some(Dress::Page) => page(about),
            None => problem(about),
        };
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| answer().into());
    }
}

fn is_single_sign_on(path: &str) -> bool {
    SINGLE_SIGN_ON.iter().any(|prefix| path.starts_with(prefix))
}

fn refusal(about: &str) -> ApiResponse {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Refusal"))).build();
    let mut response = ApiResponse::new(about);
    response.content.insert("application/json".to_owned(), RefOr::T(content));
    response
}

fn oauth_error(about: &str) -> ApiResponse {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("OAuthError"))).build();
    let mut response = ApiResponse::new(about);
    response.content.insert("application/json".to_owned(), RefOr::T(content));
    response
}

/// A page that tells the person at the browser.
fn page(about: &str) -> ApiResponse {
    let content = ContentBuilder::new().schema(Some(RefOr::T(text(None).build().into()))).build();
    let mut response = ApiResponse::new(about);
    response.content.insert("text/html".to_owned(), RefOr::T(content));
    response
}

fn problem(about: &str) -> ApiResponse {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let mut response = ApiResponse::new(about);
    response.content.insert("application/problem+json".to_owned(), RefOr::T(content));
    response
}

fn path_parameter(name: &str) -> Parameter {
    let (about, schema) = match name {
        "orgId" => ("The organization's id.", text(Some("^[a-z0-9][a-z0-9-]{0,62}$"))),
        "envId" => ("The environment's id.", text(Some("^[a-z0-9][a-z0-9-]{0,62}$"))),
        "deviceId" => ("The device's id.", text(Some("^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"))),
        "clientId" => ("The client's id.", text(Some("^[A-Za-z0-9_-]{1,64}$"))),
        "apiKeyId" => ("The API key's id.", uuid()),
        "appId" => ("The app's id, or its clientAppId.", text(Some("^[a-z0-9][a-z0-9-]{0,62}$"))),
        "clientPoolId" => ("The client pool's id.", text(Some(UUID))),
        "fingerprint" => {
            let about = "SHA-256 of the certificate in hexadecimal, with or without colons.";
            (about, text(Some("^([0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31})$")))
        }
        "kid" => ("The signing key's id: its thumbprint.", text(Some("^[A-Za-z0-9_-]{1,64}$"))),
        "publisherKid" => ("The publisher key's id: its thumbprint.", text(Some("^[A-Za-z0-9_-]{1,64}$"))),
        "sid" => ("The session's id.", uuid()),
        "deniedCertificateId" => ("The denial's id.", text(Some(UUID))),
        "clientAppId" => ("The client app's id.", text(Some(UUID))),
        "userId" => ("The user's id.", text(Some(UUID))),
        _ => ("The id.", text(None)),
    };
    parameter(ParameterIn::Path, name, about, schema, Required::True)
}

fn query(name: &str, about: &str, schema: ObjectBuilder) -> Parameter {
    parameter(ParameterIn::Query, name, about, schema, Required::False)
}

fn header(name: &str, about: &str, pattern: &str) -> Parameter {
    parameter(ParameterIn::Header, name, about, text(Some(pattern)), Required::False)
}

fn parameter(
    place: ParameterIn,
    name: &str,
    about: &str,
    schema: ObjectBuilder,
    required: Required,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .description(Some(about))
        .required(required)
        .schema(Some(RefOr::T(schema.build().into())))
        .build()
}

fn text(pattern: Option<&str>) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).pattern(pattern)
}

fn uuid() -> ObjectBuilder {
    text(Some("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))
}

fn whole_number(least: u32, most: u32) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::Type(Type::Integer))
        .minimum(Some(f64::from(least)))
        .maximum(Some(f64::from(most)))
}
