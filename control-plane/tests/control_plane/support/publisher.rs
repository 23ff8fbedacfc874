use std::sync::Arc;
use std::time::Duration;

use keypost::clock::Clock;
use keypost::crypto_at_rest::MasterKey;
use keypost::entropy::{Entropy, SystemEntropy};
use keypost::envelope::Envelopes;
use keypost::kms::Kms;
use keypost::kv::KvApi;
use keypost::metrics::Metrics;
use keypost::publisher::{Publications, Publisher, PublisherSettings, RunningPublisher};
use keypost::root::{RootPlace, RootSigner};
use keypost_shared::jwe::SealingKey;
use keypost_shared::jwk::EcPublicJwk;
use keypost_shared::publisher_key::Schedule;

use super::{KvServer, TestClock, TestDatabase, kms_at, no_kms, secret};

pub(crate) const EDGE_URL: &str = "https://edge.test";
pub(crate) const PUBLIC_URL: &str = "https://keypost.test";

/// How long a test's control plane waits.
#[derive(Clone, Copy)]
pub(crate) enum Patience {
    /// So long that a busy machine is no fault.
    Long,
    /// So short that a test can wait for it to end: for tests that are about what happens then.
    Short,
}

impl Patience {
    /// How long a call to KV may take.
    pub(crate) fn for_kv(self) -> Duration {
        match self {
            Patience::Long => Duration::from_secs(15),
            Patience::Short => Duration::from_secs(2),
        }
    }

    /// How long an answer waits for its documents. A request has 30 s.
    fn of_answers(self) -> Duration {
        match self {
            Patience::Long => Duration::from_secs(25),
            Patience::Short => Duration::from_secs(1),
        }
    }
}

/// What a publisher has around it.
pub(crate) struct Around<'a> {
    /// Where AWS KMS is, if anywhere.
    pub(crate) kms_url: Option<&'a str>,
    pub(crate) root: RootPlace,
    pub(crate) patience: Patience,
}

impl Default for Around<'_> {
    fn default() -> Self {
        Self { kms_url: None, root: RootPlace::Local, patience: Patience::Long }
    }
}

/// A publisher at work, with times that suit tests.
pub(crate) struct TestPublisher {
    pub(crate) publications: Publications,
    pub(crate) metrics: Metrics,
    pub(crate) kms: Kms,
    pub(crate) root: EcPublicJwk,
    running: RunningPublisher,
}

impl TestPublisher {
    /// How long after it was given up a call may still land here.
    pub(crate) const LATE_WRITE_WINDOW: Duration = Duration::from_secs(60);

    pub(crate) fn settings() -> PublisherSettings {
        PublisherSettings {
            batch_size: 500,
            lease: Duration::from_secs(30),
            late_write_window: Self::LATE_WRITE_WINDOW,
            poll: Duration::from_millis(50),
            sweep: Duration::from_millis(50),
            call_period: Duration::from_millis(5),
            write_interval: Duration::ZERO,
            list_lag: Duration::ZERO,
            first_backoff: Duration::from_millis(40),
            longest_backoff: Duration::from_millis(400),
            schedule: Schedule::default(),
        }
    }

    pub(crate) async fn start(database: &TestDatabase, kv: &KvServer, clock: &Arc<TestClock>) -> Self {
        Self::start_with(database, kv, clock, Self::settings()).await
    }

    pub(crate) async fn start_with(
        database: &TestDatabase,
        kv: &KvServer,
        clock: &Arc<TestClock>,
        settings: PublisherSettings,
    ) -> Self {
        Self::start_under(MasterKey::parse(&secret(1)).unwrap(), database, kv, clock, settings).await
    }

    /// Under this master key.
    pub(crate) async fn start_under(
        master_key: MasterKey,
        database: &TestDatabase,
        kv: &KvServer,
        clock: &Arc<TestClock>,
        settings: PublisherSettings,
    ) -> Self {
        Self::start_as(master_key, database, kv, clock, settings, Around::default()).await
    }

    /// With this around it.
    pub(crate) async fn start_amid(
        database: &TestDatabase,
        kv: &KvServer,
        clock: &Arc<TestClock>,
        around: Around<'_>,
    ) -> Self {
        let master_key = MasterKey::parse(&secret(1)).unwrap();
        Self::start_as(master_key, database, kv, clock, Self::settings(), around).await
    }

    async fn start_as(
        master_key: MasterKey,
        database: &TestDatabase,
        kv: &KvServer,
        clock: &Arc<TestClock>,
        settings: PublisherSettings,
        Around { kms_url, root, patience }: Around<'_>,
    ) -> Self {
        let db = database.pool.clone();
        let metrics = Metrics::new();
        let kms = kms_url.map_or_else(|| no_kms(&metrics), |url| kms_at(url, &metrics));
        let (now, rng) = (clock.now(), SystemEntropy.rng());
        let root = RootSigner::load(&root, &db, &master_key, &kms, now, rng).await.unwrap();
        root.take_over(&db, now).await.unwrap();
        let publications = Publications::new(db.clone(), patience.of_answers());
        let public = root.public().clone();
        let publisher = Publisher {
            db,
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            kv: KvApi::new(&kv.config(), patience.for_kv()).unwrap(),
            root,
            master_key,
            envelopes: Envelopes::new(kms.clone()),
            sealing_key: SealingKey::parse_list(&secret(2)).unwrap().remove(0),
            edge_url: EDGE_URL.to_owned(),
            public_url: PUBLIC_URL.to_owned(),
            settings,
            publications: publications.clone(),
            metrics: metrics.clone(),
        };
        Self { publications, metrics, kms, root: public, running: publisher.start() }
    }

    pub(crate) async fn stop(self) {
        self.running.stop().await;
    }
}
