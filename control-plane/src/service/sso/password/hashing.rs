//! Hashing under load: as many passwords at once as the machine has cores, a queue that ends, and memory that is used
//! again. What else the machine does comes first: a storm of sign-ins takes the time that is left.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use keypost_shared::secret::SecretText;
use rand_core::CryptoRngCore;
use tokio::sync::{Semaphore, oneshot};

use super::cost::PasswordCost;
use super::hash::{self, BrokenHash, Memory, SALT_LENGTH, Verdict};
use super::policy::Password;
use crate::metrics::Metrics;

/// How many may wait for each of the cores. Of hashes that take 30 ms, that is a wait of 3 s.
const WAITING_PER_CORE: usize = 100;
/// How far behind everything else the threads stand that hash (setpriority(2)): a tenth of the time that another thread gets
/// which wants to run too.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Hashes and checks passwords. Clones share the same threads and queue.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    cost: PasswordCost,
    dummy: SecretText,
    /// Who is hashed or waits.
    places: Arc<Semaphore>,
    /// To the threads, which end when nobody can send any more.
    jobs: Sender<Job>,
    metrics: Metrics,
}

type Job = Box<dyn FnOnce(&mut Memory) + Send>;

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
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let start = |_: &usize| {
            let queue = queue.clone();
            let started =
                thread::Builder::new().name("password".to_owned()).spawn(move || work(&queue, cost));
            started
                .inspect_err(|error| tracing::error!(%error, "a thread that hashes was not started"))
                .is_ok()
        };
        let threads = (0..cores).filter(start).count();
        Self(Arc::new(Inner {
            cost,
            dummy: hash::dummy(cost),
            places: Arc::new(Semaphore::new(threads * (1 + waiting))),
            jobs,
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

    /// What waits is done even if nobody waits for it any more, and keeps its place until then.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Memory) -> Result<T, BrokenHash> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let asked = Instant::now();
        let Ok(place) = self.0.places.clone().try_acquire_owned() else {
            self.0.metrics.password_refused();
            return Err(PasswordError::Busy { retry_after: Duration::from_secs(2) });
        };
        let (tell, told) = oneshot::channel();
        let metrics = self.0.metrics.clone();
        let job = move |memory: &mut Memory| {
            metrics.password_waited(asked.elapsed());
            let began = Instant::now();
            let done = work(memory);
            metrics.password_worked(began.elapsed());
            drop(place);
            // Whoever asked may be gone.
            let _ = tell.send(done);
        };
        self.0.jobs.send(Box::new(job)).map_err(|lost| PasswordError::Lost(lost.to_string()))?;
        Ok(told.await.map_err(|lost| PasswordError::Lost(lost.to_string()))??)
    }
}

/// Hashes what comes, until nobody can send any more.
fn work(queue: &Mutex<Receiver<Job>>, cost: PasswordCost) {
    // On Linux that is this thread alone; elsewhere it would be the process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!(%error, "a thread that hashes has the priority of all others");
    }
    let mut memory = Memory::default();
    loop {
        let next = queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
        let Ok(job) = next else { return };
        // Whoever waits for one that panics finds it lost; the next one finds a thread.
        let _ = catch_unwind(AssertUnwindSafe(|| job(&mut memory)));
        memory.keep_at_most(cost);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use futures_util::future::join_all;
    use rand_core::OsRng;
    use tokio::task::spawn_blocking;

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
    async fn a_storm_is_turned_away_beyond_the_queue() {
        let passwords = passwords(1024, 2, 5);
        // Both threads are held until everybody has asked.
        let barrier = Arc::new(Barrier::new(3));
        let hold = |barrier: Arc<Barrier>| {
            passwords.run(move |_| {
                barrier.wait();
                Ok(())
            })
        };
        let held = join_all([hold(barrier.clone()), hold(barrier.clone())]);
        let storm = join_all((0..98).map(|_| passwords.verify(typed(), None)));
        let (held, storm, _) = tokio::join!(
            held,
            storm,
            // Begun last: by then all have asked.
            async { spawn_blocking(move || barrier.wait()).await }
        );
        assert_eq!(held, [Ok(()), Ok(())]);
        let busy = |outcome: &&Result<Verdict, PasswordError>| matches!(outcome, Err(PasswordError::Busy { retry_after }) if !retry_after.is_zero());
        let turned_away = storm.iter().filter(busy).count();
        let checked = storm.iter().filter(|outcome| **outcome == Ok(Verdict::Wrong)).count();
        assert_eq!((checked, turned_away), (10, 88));
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
    async fn a_panic_loses_what_was_hashed_and_nothing_else() {
        let passwords = passwords(64, 1, 1);
        let lost = passwords.run(|_| -> Result<(), BrokenHash> { panic!("on purpose") }).await;
        assert!(matches!(lost, Err(PasswordError::Lost(_))), "{lost:?}");
        assert_eq!(passwords.verify(typed(), None).await, Ok(Verdict::Wrong));
    }
}
