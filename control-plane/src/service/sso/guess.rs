//! One attempt to sign in, as those see it who slow guessing down (see [`delay`](super::delay)).
//!
//! What is asked of the database is the same whether there is such an account or not, and whyever there are no tokens: how
//! long such an answer takes tells nothing.

use std::net::IpAddr;

use keypost_shared::id::{OrgId, UserId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::super::Context;
use super::super::attempts::{TooMany, network};
use super::delay::{ACCOUNT, ACCOUNT_FROM_NETWORK, Failures, NETWORK};
use crate::store::StoreError;
use crate::store::sso::sign_in_failure::{self, FailureKey};
use crate::store::sso::sign_in_network;

/// A network from which somebody signs in again and again is noted once an hour: of twenty, the one that was noted longest
/// ago is forgotten for another, and each after 90 days.
const NOTED_AGAIN: Duration = Duration::hours(1);
/// How long an attempt may take for whose sake others are refused: longer than a request may.
const CLAIM: Duration = Duration::minutes(1);

/// What is guessed at: a person's password, or that of an account which does not exist.
#[derive(Clone, Debug)]
pub(super) enum Account {
    /// Of this organization, this person.
    Known(OrgId, UserId),
    /// Nobody's: where somebody tried to sign in, and by which name.
    Unknown(String),
}

/// An attempt whose outcome is open.
pub(super) struct Guess {
    account: Account,
    network: IpAddr,
    keys: Keys,
    /// When the person was last noted to have signed in from this network.
    last_used: Option<OffsetDateTime>,
    /// Something has failed lately, for this account from this network.
    has_failed: bool,
    /// Whatever the password is, it is wrong.
    is_refused: bool,
    /// For whose sake others are refused meanwhile.
    claimed: Vec<FailureKey>,
}

#[derive(Clone, Copy)]
struct Keys {
    account: FailureKey,
    account_from_network: FailureKey,
    network: FailureKey,
}

impl Keys {
    fn of(account: &Account, network: IpAddr) -> Self {
        let account = match account {
            Account::Known(_, user) => format!("user {user}"),
            Account::Unknown(name) => format!("name {name}"),
        };
        Self {
            account_from_network: FailureKey::of("account from network", &format!("{network} {account}")),
            account: FailureKey::of("account", &account),
            network: FailureKey::of("network", &network.to_string()),
        }
    }
}

/// Why a guess is not even made.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoGuess {
    #[error(transparent)]
    TooMany(#[from] TooMany),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Guess {
    /// Looks how things stand. [`TooMany`] where the network has failed so often that it must wait.
    pub(super) async fn begin(context: &Context, address: IpAddr, account: Account) -> Result<Self, NoGuess> {
        let now = context.now();
        let network = network(address);
        let keys = Keys::of(&account, network);
        let mut connection = context.connection().await?;
        let failed =
            sign_in_failure::read(&mut connection, &[keys.account, keys.account_from_network, keys.network])
                .await?;
        let of = |wanted: FailureKey| {
            let found = failed.iter().find(|(key, _)| *key == wanted);
            found.map_or(Failures::none(now), |(_, failures)| *failures)
        };
        if let Some(delay) = of(keys.network).delay(now) {
            return Err(TooMany { retry_after: delay.unsigned_abs() }.into());
        }
        let person = match &account {
            Account::Known(_, user) => *user,
            Account::Unknown(_) => UserId(Uuid::nil()),
        };
        let last_used = sign_in_network::last_used(&mut connection, person, network).await?;
        let has_failed = failed.iter().any(|(key, _)| *key == keys.account_from_network);
        let claimed = Vec::new();
        let mut guess = Self { account, network, keys, last_used, has_failed, is_refused: false, claimed };
        let rules = [(keys.account, ACCOUNT), (keys.account_from_network, ACCOUNT_FROM_NETWORK)];
        for (key, rule) in rules.into_iter().skip(usize::from(guess.is_familiar())) {
            let failures = of(key);
            if failures.delay(now).is_some() {
                guess.is_refused = true;
            } else if failures.is_used_up(rule, now) {
                // From here on one attempt at a time: guesses that come all at once do not all come before the first of
                // them has failed.
                if sign_in_failure::claim(&mut connection, key, &failures, now + CLAIM).await? {
                    guess.claimed.push(key);
                } else {
                    guess.is_refused = true;
                }
            }
        }
        Ok(guess)
    }

    /// Whether the delays of the account do not apply: the person has signed in from this network before.
    fn is_familiar(&self) -> bool {
        self.last_used.is_some()
    }

    /// Whether the password is wrong whatever it is.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// It was wrong, or refused.
    pub(super) async fn failed(self, context: &Context) -> Result<(), StoreError> {
        let now = context.now();
        let Keys { account, account_from_network, network } = self.keys;
        let mut tx = context.begin().await?;
        let all = [account, account_from_network, network];
        sign_in_failure::update(&mut tx, &all, now, |key, before| {
            let before = if self.claimed.contains(&key) { before.undelayed() } else { before };
            if key == network {
                before.failed(NETWORK, now)
            } else if self.is_refused {
                // What comes while it is refused makes it no longer.
                before
            } else if key == account_from_network {
                before.failed(ACCOUNT_FROM_NETWORK, now)
            } else if self.is_familiar() {
                before
            } else {
                before.failed(ACCOUNT, now)
            }
        })
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// It was right: from this network on, strangers cannot bring delays upon the account.
    pub(super) async fn succeeded(self, context: &Context) -> Result<(), StoreError> {
        let now = context.now();
        let is_noted = self.last_used.is_some_and(|last_used| now < last_used + NOTED_AGAIN);
        if is_noted && !self.has_failed {
            // The usual case. A familiar network claims nothing but what has failed from it.
            return Ok(());
        }
        // Each by itself: in one transaction they would have to be locked in one order with those that fail.
        let mut connection = context.connection().await?;
        if self.has_failed {
            sign_in_failure::forget(&mut connection, self.keys.account_from_network).await?;
        }
        if self.claimed.contains(&self.keys.account) {
            sign_in_failure::release(&mut connection, self.keys.account).await?;
        }
        let (Account::Known(org, user), false) = (&self.account, is_noted) else { return Ok(()) };
        match sign_in_network::note(&mut connection, org, *user, self.network, now).await {
            // The person has just been deleted, which who opens the session finds too.
            Err(error) if error.is_dangling() => Ok(()),
            noted => noted,
        }
    }

    /// Nobody knows: it could not be checked.
    pub(super) async fn abandoned(self, context: &Context) -> Result<(), StoreError> {
        let mut connection = context.connection().await?;
        for key in self.claimed {
            sign_in_failure::release(&mut connection, key).await?;
        }
        Ok(())
    }
}
