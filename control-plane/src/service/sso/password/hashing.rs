//! Hashing under load: as many passwords at once as the machine has cores, a queue that ends, and memory that is used
//! again.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use keypost_shared::secret::SecretText;
use rand_core::CryptoRngCore;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::cost::PasswordCost;
use super::hash::{self, BrokenHash, Memory, SALT_LENGTH, Verdict};
use super::policy::Password;
use crate::metrics::Metrics;

/// How many may wait for each of the cores. Of hashes that take 30 ms, that is a wait of 3 s.
const WAITING_PER_CORE: usize = 100;

/// Hashes and checks passwords. Clones share the same cores, queue and memory.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    cost: PasswordCost,
    dummy: SecretText,
    /// Who works or waits.
    places: Arc<Semaphore>,
    /// Who works.
    cores: Arc<Semaphore>,
    memory: Mutex<Vec<Memory>>,
    metrics: Metrics,
}

/// Why a password was not hashed or checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait already.
    #[error("too many passwords are waiting to be checked")]
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
    /// The hash or the machine is broken.
    #[error(transparent)]
    Broken(#[from] BrokenHash),
    /// The work was lost.
    #[error("a password could not be hashed: {0}")]
    Lost(String),
}

impl Passwords {
    /// Hashes at this cost, on all cores.
    pub fn new(cost: PasswordCost, metrics: Metrics) -> Self {
        Self::on(cost, metrics, available_parallelism().map_or(1, NonZeroUsize::get), WAITING_PER_CORE)
    }

    /// On so many cores, each of which may keep so many waiting.
    fn on(cost: PasswordCost, metrics: Metrics, cores: usize, waiting: usize) -> Self {
        Self(Arc::new(Inner {
            cost,
            dummy: hash::dummy(cost),
            places: Arc::new(Semaphore::new(cores * (1 + waiting))),
            cores: Arc::new(Semaphore::new(cores)),
            memory: Mutex::default(),
            metrics,
        }))
    }

    /// The hash of a password that somebody has chosen, to be kept: a PHC string.
    pub async fn hash(
        &self,
        password: Password,
        rng: &mut (impl CryptoRngCore + ?Sized),
    ) -> Result<SecretText, PasswordError> {
        let mut salt = [0; SALT_LENGTH];
        rng.fill_bytes(&mut salt);
        let cost = self.0.cost;
        self.run(move |memory| hash::hash(&password, &salt, cost, memory)).await
    }

    /// Checks a password against a stored hash. Where there is none, that is as much work, and the password is wrong.
    pub async fn verify(
        &self,
        password: Password,
        stored: Option<SecretText>,
    ) -> Result<Verdict, PasswordError> {
        let cost = self.0.cost;
        let exists = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.0.dummy.clone());
        let verdict = self.run(move |memory| hash::verify(&password, &stored, cost, memory)).await?;
        Ok(if exists { verdict } else { Verdict::Wrong })
    }

    /// What has begun goes on even if nobody waits for it any more, and keeps its place until then.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> Result<T, BrokenHash> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let asked = Instant::now();
        let Ok(place) = self.0.places.clone().try_acquire_owned() else {
            self.0.metrics.password_refused();
            return Err(PasswordError::Busy { retry_after: Duration::from_secs(2) });
        };
        let core = self.0.cores.clone().acquire_owned().await;
        let core = core.map_err(|closed| PasswordError::Lost(closed.to_string()))?;
        self.0.metrics.password_waited(asked.elapsed());
        let inner = self.0.clone();
        let worked = spawn_blocking(move || {
            let began = Instant::now();
            let mut memory = inner.take_memory();
            let done = work(&mut memory);
            inner.give_back(memory);
            inner.metrics.password_worked(began.elapsed());
            drop((core, place));
            done
        });
        Ok(worked.await.map_err(|lost| PasswordError::Lost(lost.to_string()))??)
    }
}

impl Inner {
    fn take_memory(&self) -> Memory {
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop().unwrap_or_default()
    }

    /// One that has grown beyond what a hash needs now, for an older hash that needs more, is not kept.
    fn give_back(&self, memory: Memory) {
        if u32::try_from(memory.kib()).is_ok_and(|kib| kib <= self.cost.memory_kib()) {
            self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use rand_core::OsRng;

    use super::*;
    use crate::metrics::Readings;

    fn passwords(memory_kib: u32, cores: usize, waiting: usize) -> Passwords {
        let cost = PasswordCost::new(memory_kib, 1).unwrap();
        Passwords::on(cost, Metrics::new(), cores, waiting)
    }

    fn typed() -> Password {
        Password::typed("a good password")
    }

    #[tokio::test]
    async fn what_was_hashed_is_right_and_nobodys_password_is_wrong() {
        let passwords = passwords(64, 2, 10);
        let stored = passwords.hash(typed(), &mut OsRng).await.unwrap();
        let again = passwords.hash(typed(), &mut OsRng).await.unwrap();
        assert_ne!(stored.expose(), again.expose(), "the salt is random");
        let right = Verdict::Right { is_outdated: false };
        assert_eq!(passwords.verify(typed(), Some(stored.clone())).await, Ok(right));
        assert_eq!(passwords.verify(Password::typed("another"), Some(stored)).await, Ok(Verdict::Wrong));
        assert_eq!(passwords.verify(typed(), None).await, Ok(Verdict::Wrong));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_storm_is_turned_away_beyond_the_queue_and_needs_the_memory_of_the_cores_alone() {
        let passwords = passwords(1024, 2, 5);
        let storm = join_all((0..100).map(|_| passwords.verify(typed(), None))).await;
        let busy = |outcome: &&Result<Verdict, PasswordError>| matches!(outcome, Err(PasswordError::Busy { retry_after }) if !retry_after.is_zero());
        let turned_away = storm.iter().filter(busy).count();
        let checked = storm.iter().filter(|outcome| **outcome == Ok(Verdict::Wrong)).count();
        // None of the futures goes on before all have asked, so exactly as many are taken as there are places.
        assert_eq!((checked, turned_away), (12, 88));
        assert!((1..=2).contains(&passwords.0.memory.lock().unwrap().len()));
        assert_eq!(
            passwords.verify(typed(), None).await,
            Ok(Verdict::Wrong),
            "afterwards there are places again"
        );
        let metrics = passwords.0.metrics.render(Readings::default()).unwrap();
        assert!(metrics.contains("keypost_passwords_refused_total 88"), "{metrics}");
    }

    #[tokio::test]
    async fn who_goes_away_keeps_no_place() {
        let passwords = passwords(64, 1, 1);
        for _ in 0..50 {
            let mut check = Box::pin(passwords.verify(typed(), None));
            let _ = futures_util::poll!(&mut check);
            drop(check);
            // The work that has begun is waited for: its place is free when it is done.
            let all = passwords.0.places.clone().acquire_many_owned(2).await.unwrap();
            drop(all);
        }
        assert_eq!(passwords.verify(typed(), None).await, Ok(Verdict::Wrong));
    }

    #[tokio::test]
    async fn memory_that_an_older_hash_made_grow_is_not_kept() {
        let larger = passwords(4096, 1, 1).hash(typed(), &mut OsRng).await.unwrap();
        let passwords = passwords(64, 1, 1);
        let right = Verdict::Right { is_outdated: false };
        assert_eq!(passwords.verify(typed(), Some(larger)).await, Ok(right));
        assert!(passwords.0.memory.lock().unwrap().is_empty());
    }
}
