//! What `cargo xtask dev` says once everything answers.

use std::path::Path;

use super::demo::Demo;
use crate::{stack::whole::Stack, verb::print as say};

/// Where everything is, the token, and how to do it again.
pub(super) fn print(stack: &Stack, demo: &Demo, announcement: &Path) {
    let (control_plane, edge, file) = (stack.control_plane_url(), stack.edge_url(), shown(announcement));
    let Demo { credentials, environment, token } = demo;
    say(&format!(
        "
Keypost is up
  control plane   {control_plane}
  edge            {edge}
  for scripts     {file}  (URLs, administrator's API key, database, demo)

The demo device {device} got this token, and it verifies against JWKS:

{token}

{header}
{claims}

Do it again, as the device:

  curl -s -u {id}:{secret} -d grant_type=client_credentials {endpoint}
  curl -s {jwks}

And as the administrator:

  KEY=$(python3 -c 'import json; print(json.load(open(\"{file}\"))[\"adminApiKey\"])')
  curl -s -H \"X-API-Key: $KEY\" {control_plane}/api/internal/org/{org}
  curl -s -H \"X-API-Key: $KEY\" {control_plane}/api/internal/org/{org}/env/{env}/device/{device}

Ctrl-C stops everything.",
        device = credentials.device_id,
        token = token.text,
        header = pretty(&token.header),
        claims = pretty(&token.claims),
        id = credentials.client_id,
        secret = credentials.client_secret,
        endpoint = environment.token_endpoint,
        jwks = environment.jwks_uri,
        org = credentials.organization_id,
        env = credentials.environment_id,
    ));
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// The path as seen from where the person is.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
