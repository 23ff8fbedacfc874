//! The people of an organization `acme`, as the rules see them: client apps, users and their sessions.

use keypost::entropy::{Entropy, SystemEntropy, random_uuid};
use keypost::service::audit::Actor;
use keypost::service::change::Change;
use keypost::service::sso::caller::{self, CallerError, SignedIn};
use keypost::service::sso::session::{self, PairFor, SessionError, SignInFrom, TokenPair};
use keypost::store::publication::Priority;
use keypost::store::sso::key::{self, KeyHolder};
use keypost::store::sso::session::Which;
use keypost::store::sso::user::{self, NameKeys, User, UserStatus};
use keypost_shared::id::{ClientId, OrgId, PoolId, SessionId, SsoAppId, UserId};
use keypost_shared::kv_key::KvKey;
use keypost_shared::secret::{ApiKey, KeyKind, SecretText};
use rand_core::OsRng;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use time::Duration;
use uuid::Uuid;

use crate::support::{TestApp, TestEdge, eventually};

/// The people of an organization, and the pool that their tokens are of.
pub(super) struct People<'a> {
    pub(super) app: &'a TestApp,
    pub(super) org: OrgId,
    pub(super) pool: PoolId,
}

/// A client app, with the key that it has now.
#[derive(Clone)]
pub(super) struct ClientApp {
    pub(super) id: SsoAppId,
    pub(super) key: String,
}

impl ClientApp {
    pub(super) fn client_id(&self) -> String {
        ClientId::from(self.id).to_string()
    }
}

impl<'a> People<'a> {
    /// An organization without people.
    pub(super) async fn of_acme(app: &'a TestApp) -> Self {
        app.create("/api/internal/org", json!({"id": "acme", "name": "Acme"})).await;
        let pool: Uuid =
            sqlx::query_scalar("select id from client_pool where kind = 'sso' and org_id = 'acme'")
                .fetch_one(&app.database.pool)
                .await
                .unwrap();
        Self { app, org: "acme".parse().unwrap(), pool: PoolId(pool) }
    }

    pub(super) fn issuer(&self) -> String {
        format!("{}/{}", self.app.context.edge_url, self.pool)
    }

    pub(super) async fn change(&self) -> Change {
        Change::begin(&self.app.context, &Actor::system()).await.unwrap()
    }

    pub(super) fn client_key(&self, app: &ClientApp) -> KvKey {
        KvKey::Client(self.pool, app.id.into())
    }

    /// A client app of the organization's.
    pub(super) async fn client_app(&self, name: &str) -> ClientApp {
        let id = SsoAppId(random_uuid(&mut SystemEntropy.rng()));
        sqlx::query(
            "insert into client_app (id, org_id, name, created_at, updated_at) values ($1, 'acme', $2, now(), now())",
        )
        .bind(id.0)
        .bind(name)
        .execute(&self.app.database.pool)
        .await
        .unwrap();
        let mut change = self.change().await;
        let key = self.add_key(&mut change, id).await;
        let app = ClientApp { id, key };
        change.mark(self.client_key(&app), Priority::Change);
        change.commit().await.unwrap();
        app
    }

    async fn add_key(&self, change: &mut Change, app: SsoAppId) -> String {
        let made = ApiKey::generate(KeyKind::SsoApp, &mut OsRng);
        let holder = KeyHolder {
            key_id: random_uuid(&mut SystemEntropy.rng()),
            org: self.org.clone(),
            app: Some(app),
        };
        let now = change.now();
        key::insert(change.tx(), &holder, &made.hash(), now).await.unwrap();
        made.expose().to_owned()
    }

    /// Gives the app another key; the one before goes on for a while.
    pub(super) async fn rotate_key(&self, app: &ClientApp, overlap: Duration) -> ClientApp {
        let mut change = self.change().await;
        let until = change.now() + overlap;
        key::expire(change.tx(), &self.org, Some(app.id), until).await.unwrap();
        let key = self.add_key(&mut change, app.id).await;
        change.lose_later(self.client_key(app), until);
        change.commit().await.unwrap();
        ClientApp { id: app.id, key }
    }

    /// Deletes an app that has no users.
    pub(super) async fn delete_app(&self, app: &ClientApp) {
        let mut change = self.change().await;
        for statement in
            ["delete from sso_key where client_app_id = $1", "delete from client_app where id = $1"]
        {
            sqlx::query(statement).bind(app.id.0).execute(change.tx()).await.unwrap();
        }
        change.lose(self.client_key(app));
        change.commit().await.unwrap();
    }

    /// A user of an app, or an owner.
    pub(super) async fn user(&self, app: Option<&ClientApp>, name: &str) -> User {
        let mut change = self.change().await;
        let now = change.now();
        let user = User {
            id: UserId(random_uuid(&mut SystemEntropy.rng())),
            org: self.org.clone(),
            app: app.map(|app| app.id),
            username: name.to_owned(),
            email: format!("{name}@example.com"),
            first_name: None,
            last_name: None,
            metadata: RawValue::from_string(r#"{"role": "DRIVER"}"#.to_owned()).unwrap(),
            status: UserStatus::Enabled,
            last_login_at: None,
            created_at: now,
            updated_at: now,
        };
        let keys = NameKeys { username: user.username.clone(), email: user.email.clone() };
        user::insert(change.tx(), &user, &keys, &SecretText::new("x".to_owned())).await.unwrap();
        change.commit().await.unwrap();
        user
    }

    pub(super) async fn sign_in(&self, user: &User) -> TokenPair {
        let mut change = self.change().await;
        let (pool, started) = session::begin(&mut change, user, SignInFrom::default()).await.unwrap();
        let pair = PairFor { app: user.app, extends_session: true, scope: None, narrowed: None };
        let pair = session::issue(&mut change, &pool, &started, user, pair).await.unwrap();
        change.commit().await.unwrap();
        pair
    }

    pub(super) async fn refresh(&self, token: &SecretText) -> Result<TokenPair, SessionError> {
        let source = keypost::service::audit::RequestSource {
            address: "192.0.2.1".parse().unwrap(),
            request_id: None,
        };
        session::refresh(&self.app.context, source, token.expose(), session::Refreshing::default()).await
    }

    pub(super) async fn end(&self, which: Which) {
        let mut change = self.change().await;
        session::end(&mut change, &self.org, which, "logout").await.unwrap();
        change.commit().await.unwrap();
    }

    pub(super) async fn log_out(&self, session: SessionId) {
        self.end(Which::One(session)).await;
    }

    /// Whether the control plane takes the token for good.
    pub(super) async fn counts(&self, token: &str) -> bool {
        let found: Result<SignedIn, CallerError> = caller::signed_in(&self.app.context, token).await;
        match found {
            Ok(_) => true,
            Err(CallerError::NotValid) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Lets the control plane take up and publish everything, and the bound pass by which every edge knows.
    pub(super) async fn settle(&self, seconds: u64) {
        self.app.edge_reports().search().await.unwrap();
        eventually("everything is published", async || {
            let waiting = "select count(*) from publication where generation > published_generation
                           and (not_before is null or not_before <= now() + interval '1 hour')";
            self.app.database.number(waiting).await == 0
        })
        .await;
        self.app.clock.advance(std::time::Duration::from_secs(seconds));
    }

    /// Posts to an endpoint of the pool at the edge, as this app.
    pub(super) async fn post(
        &self,
        edge: &TestEdge<'_>,
        app: &ClientApp,
        endpoint: &str,
        token: &str,
    ) -> (u16, Value) {
        let id = app.client_id();
        let form = [("client_id", id.as_str()), ("client_secret", app.key.as_str()), ("token", token)];
        edge.post(&format!("/{}/oauth2/{endpoint}", self.pool), &form).await
    }

    /// What introspection says.
    pub(super) async fn is_active(&self, edge: &TestEdge<'_>, app: &ClientApp, token: &str) -> bool {
        let (status, answer) = self.post(edge, app, "introspect", token).await;
        assert_eq!(status, 200, "{answer}; {}", edge.log());
        answer["active"].as_bool().unwrap()
    }
}

pub(super) fn access(pair: &TokenPair) -> &str {
    pair.access_token.expose()
}
