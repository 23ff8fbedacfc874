//! Who did what to what: the events that are written in the transaction of the change that they tell of.
//!
//! Events are chained per organization: each carries a hash over the one before and over itself, so that one that was
//! altered or taken out is found ([`event_hash`], `keypost audit verify`). What belongs to no organization has a chain of
//! its own.

use std::net::IpAddr;
use std::sync::Arc;

use keypost_shared::id::{EnvId, OrgId};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

/// What is not worth telling: every change changes it.
const UNTOLD: &str = "updatedAt";

/// Who does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// What kind of actor it is.
    pub kind: ActorKind,
    /// Its id.
    pub id: Option<String>,
    /// What it is called.
    pub name: Option<String>,
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// The kinds of actors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActorKind {
    /// Whoever holds an API key; the id is the key's.
    ApiKey,
    /// Whoever holds a one-time password; the id is the device's.
    Otp,
    /// A person who is signed in, or who signs in; the id is theirs.
    User,
    /// Whoever holds a key of single sign-on; the id is the key's.
    SsoKey,
    /// A command on the machine of the control plane.
    Command,
    /// The control plane by itself.
    System,
}

impl ActorKind {
    /// Its name in the database and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ActorKind::ApiKey => "api_key",
            ActorKind::Otp => "otp",
            ActorKind::User => "user",
            ActorKind::SsoKey => "sso_key",
            ActorKind::Command => "command",
            ActorKind::System => "system",
        }
    }
}

/// Where a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSource {
    /// The address of who sent it.
    pub address: IpAddr,
    /// Its id.
    pub request_id: Option<String>,
}

impl RequestSource {
    /// Whoever sent it.
    pub fn actor(self, kind: ActorKind, id: Option<String>, name: Option<String>) -> Actor {
        Actor { kind, id, name, address: Some(self.address), request_id: self.request_id }
    }
}

impl Actor {
    /// The control plane itself.
    pub fn system() -> Arc<Self> {
        Arc::new(Self { kind: ActorKind::System, id: None, name: None, address: None, request_id: None })
    }

    /// A command of this name on the machine of the control plane.
    pub fn command(name: &str) -> Self {
        let name = Some(name.to_owned());
        Self { kind: ActorKind::Command, id: None, name, address: None, request_id: None }
    }
}

/// What something was done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The organization that it belongs to; none for what belongs to none.
    pub org: Option<OrgId>,
    /// The environment that it belongs to.
    pub env: Option<EnvId>,
    /// What it is, such as `device`.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
}

/// One thing that was done.
#[derive(Clone, Debug)]
pub struct Event {
    /// To what.
    pub target: Target,
    /// What: the target's kind, a dot, a verb.
    pub action: String,
    /// What it changed: `before` and `after`, each with what it is about alone. Never a secret.
    pub changes: Value,
}

impl Event {
    /// Something was created.
    pub fn created(target: Target, after: &impl Serialize) -> Self {
        Self::new(target, "create", json!({"after": fields(after)}))
    }

    /// Something was changed. Only the fields that differ are told.
    pub fn updated(target: Target, before: &impl Serialize, after: &impl Serialize) -> Self {
        Self::changed(target, "update", before, after)
    }

    /// Something was changed by a verb of its own.
    pub fn changed(
        target: Target,
        verb: &'static str,
        before: &impl Serialize,
        after: &impl Serialize,
    ) -> Self {
        let (mut before, mut after) = (fields(before), fields(after));
        let same: Vec<String> = before
            .iter()
            .filter(|(name, value)| after.get(*name) == Some(value))
            .map(|(name, _)| name.clone())
            .collect();
        for name in same {
            before.remove(&name);
            after.remove(&name);
        }
        Self::new(target, verb, json!({"before": before, "after": after}))
    }

    /// Something was deleted.
    pub fn deleted(target: Target, before: &impl Serialize) -> Self {
        Self::new(target, "delete", json!({"before": fields(before)}))
    }

    /// Something else was done.
    pub fn new(target: Target, verb: &'static str, changes: Value) -> Self {
        Self { action: format!("{}.{verb}", target.kind), target, changes }
    }
}

fn fields(thing: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(thing) {
        Ok(Value::Object(mut fields)) => {
            fields.remove(UNTOLD);
            fields
        }
        // What is recorded are structs of texts and numbers: they serialise, and to objects.
        _ => Map::new(),
    }
}

/// An event as it stands in its chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainedEvent {
    /// The chain: an organization's id, or empty.
    pub chain: String,
    /// Its place in the chain, from 1.
    pub seq: i64,
    /// When it happened.
    pub occurred_at: OffsetDateTime,
    /// Who did it.
    pub actor_kind: String,
    /// The actor's id.
    pub actor_id: Option<String>,
    /// What the actor is called.
    pub actor_name: Option<String>,
    /// What was done.
    pub action: String,
    /// What kind of thing it was done to.
    pub target_kind: String,
    /// The thing's id.
    pub target_id: String,
    /// The thing's environment.
    pub env_id: Option<String>,
    /// What it changed, as the JSON text that is stored.
    pub changes: String,
    /// Where the request came from.
    pub address: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
}

/// The hash of an event after another whose hash is `before`; 32 zeros for the first.
///
/// SHA-256 over the hash before and the JSON array of all fields in their order, times as microseconds since 1970.
pub fn event_hash(before: &[u8; 32], event: &ChainedEvent) -> [u8; 32] {
    let micros = i64::try_from(event.occurred_at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
    let text = json!([
        event.chain,
        event.seq,
        micros,
        event.actor_kind,
        event.actor_id,
        event.actor_name,
        event.action,
        event.target_kind,
        event.target_id,
        event.env_id,
        event.changes,
        event.address,
        event.request_id,
    ]);
    Sha256::new().chain_update(before).chain_update(text.to_string()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> ChainedEvent {
        ChainedEvent {
            chain: "acme".into(),
            seq: 1,
            occurred_at: OffsetDateTime::UNIX_EPOCH,
            actor_kind: "api_key".into(),
            actor_id: Some("k".into()),
            actor_name: None,
            action: "device.create".into(),
            target_kind: "device".into(),
            target_id: "pos-1".into(),
            env_id: Some("prod".into()),
            changes: "{}".into(),
            address: Some("192.0.2.1".into()),
            request_id: None,
        }
    }

    #[test]
    fn every_field_counts_and_so_does_the_hash_before() {
        let hash = event_hash(&[0; 32], &event());
        assert_eq!(hash, event_hash(&[0; 32], &event()));
        assert_ne!(hash, event_hash(&[1; 32], &event()));
        let others = [
            ChainedEvent { chain: "other".into(), ..event() },
            ChainedEvent { seq: 2, ..event() },
            ChainedEvent { occurred_at: OffsetDateTime::from_unix_timestamp(1).unwrap(), ..event() },
            ChainedEvent { actor_kind: "otp".into(), ..event() },
            ChainedEvent { actor_id: None, actor_name: Some("k".into()), ..event() },
            ChainedEvent { action: "device.delete".into(), ..event() },
            ChainedEvent { target_kind: "app".into(), ..event() },
            ChainedEvent { target_id: "pos-2".into(), ..event() },
            ChainedEvent { env_id: None, ..event() },
            ChainedEvent { changes: "{ }".into(), ..event() },
            ChainedEvent { address: None, ..event() },
            ChainedEvent { request_id: Some(String::new()), ..event() },
        ];
        for other in others {
            assert_ne!(hash, event_hash(&[0; 32], &other), "{other:?}");
        }
    }

    #[test]
    fn a_change_tells_what_differs() {
        let target = Target { org: None, env: None, kind: "device", id: "pos-1".into() };
        let before = json!({"name": "a", "tags": {"x": "1"}, "description": "d", "updatedAt": 1});
        let after = json!({"name": "b", "tags": {"x": "1"}, "description": null, "updatedAt": 2});
        let event = Event::updated(target, &before, &after);
        assert_eq!(event.action, "device.update");
        let expected =
            json!({"before": {"name": "a", "description": "d"}, "after": {"name": "b", "description": null}});
        assert_eq!(event.changes, expected);
    }
}
