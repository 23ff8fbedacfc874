//! Tokens that their clients have revoked: what this isolate knows of them, and how others at this location hear of it.
//!
//! Whatever the isolate has forgotten, or never knew, KV still knows: what stands here only counts sooner.
//!
//! A question to the location's cache costs as much as signing a token. So each pool has one note there that changes with
//! each revocation: as long as it is the same, nothing else has to be asked again.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use super::bounded::Bounded;
use super::client::Client;
use super::platform::{KvReadError, LogLevel, Platform};
use super::pool::Pool;
use super::{Context, Edge};
use crate::edge_report::{EdgeReport, SignedReport};
use crate::id::{PoolId, TokenId};
use crate::kv_key::EdgeKey;
use crate::status_list::{StatusBlock, StatusIndex};
use crate::time::UnixTime;

use super::held::{KV_CACHE_SECONDS, is_fresh};

/// The most revoked tokens that an isolate remembers.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(32_768).unwrap();
/// The most blocks of status lists of which it remembers bits.
const MAX_BLOCKS: NonZeroUsize = NonZeroUsize::new(32_768).unwrap();
/// The most tokens of which it remembers that nobody had revoked them.
const MAX_GOOD: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// The most pools of which it remembers what the location's note said.
const MAX_POOLS: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// How long the location's note of a pool is believed, in seconds of the clock.
const NOTE_SECONDS: u64 = 1;
/// How long it is believed that KV has no revocation of a token, in seconds.
const GOOD_SECONDS: u64 = 5;

/// A block of one of a pool's status lists.
type BlockName = (PoolId, u32, u32);

struct Bits {
    revoked: u8,
    until: UnixTime,
}

/// Names the latest revocation in a pool that the location has heard of. None where it knows of none.
pub(super) type Latest = Option<Rc<str>>;

/// What the location's note of a pool said.
struct Noted {
    latest: Latest,
    asked_at: UnixTime,
}

/// A token that nobody had revoked.
struct Good {
    /// As far as the location knew when this was the latest revocation there.
    latest: Latest,
    /// As far as KV knew then.
    read_at: UnixTime,
}

/// The isolate's memory of revoked tokens, each until it has expired, of the bits that they set, and of what it has asked.
pub(super) struct RevocationStore {
    tokens: RefCell<Bounded<(PoolId, TokenId), UnixTime>>,
    blocks: RefCell<Bounded<BlockName, Bits>>,
    good: RefCell<Bounded<(PoolId, TokenId), Good>>,
    noted: RefCell<Bounded<PoolId, Noted>>,
}

/// A token that has been revoked.
#[derive(Clone, Debug)]
pub(super) struct RevokedToken {
    pub(super) jti: TokenId,
    pub(super) exp: UnixTime,
    pub(super) status: Option<StatusIndex>,
}

impl RevocationStore {
    pub(super) fn new() -> Self {
        Self {
            tokens: RefCell::new(Bounded::new(MAX_TOKENS, usize::MAX)),
            blocks: RefCell::new(Bounded::new(MAX_BLOCKS, usize::MAX)),
            good: RefCell::new(Bounded::new(MAX_GOOD, usize::MAX)),
            noted: RefCell::new(Bounded::new(MAX_POOLS, usize::MAX)),
        }
    }

    /// Whether this very token has been revoked here.
    pub(super) fn knows(&self, pool: PoolId, jti: &TokenId, now: UnixTime) -> bool {
        self.tokens.borrow_mut().get(&(pool, jti.clone())).is_some_and(|end| now < *end)
    }

    /// The bits of a block that have been set by what was revoked here.
    pub(super) fn bits(&self, block: BlockName, now: UnixTime) -> u8 {
        let mut blocks = self.blocks.borrow_mut();
        blocks.get(&block).filter(|bits| now < bits.until).map_or(0, |bits| bits.revoked)
    }

    /// What is known of a token that nobody had revoked: after which revocation the location was asked, and when KV was.
    fn good(&self, name: &(PoolId, TokenId)) -> Option<(Latest, UnixTime)> {
        self.good.borrow_mut().get(name).map(|good| (good.latest.clone(), good.read_at))
    }

    fn set_bits(&self, block: BlockName, revoked: u8, until: UnixTime, now: UnixTime) {
        let revoked = revoked | self.bits(block, now);
        self.blocks.borrow_mut().put(block, Bits { revoked, until }, 0);
    }

    fn keep<P: Platform>(&self, pool: &Pool<P>, token: &RevokedToken, now: UnixTime) {
        self.tokens.borrow_mut().put((pool.id, token.jti.clone()), token.exp, 0);
        if let Some(index) = token.status {
            // Other tokens with this index may outlive this one.
            let until = now + pool.document.longest_token_ttl;
            self.set_bits((pool.id, index.list, index.block()), index.mask(), until, now);
        }
    }
}

/// The location's notes. That of the pool is written after the others, so that who sees it finds them.
fn pool_note(pool: PoolId) -> String {
    format!("revocations/{pool}")
}

fn token_note(pool: PoolId, jti: &TokenId) -> String {
    format!("revoked-token/{pool}/{jti}")
}

fn bits_note((pool, list, block): BlockName) -> String {
    format!("revoked-bits/{pool}/{list}/{block}")
}

impl<P: Platform> Edge<P> {
    /// Makes a revocation count in this isolate, and known at this location.
    pub(super) async fn remember_revoked(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        token: &RevokedToken,
    ) {
        let now = context.now;
        self.revocations.keep(pool, token, now);
        let seconds = |length: u64| u32::try_from(length).unwrap_or(u32::MAX).max(1);
        let longest = seconds(pool.document.longest_token_ttl);
        let note = token_note(pool.id, &token.jti);
        context.platform.note(&note, "1", seconds(token.exp.since(now))).await;
        if let Some(index) = token.status {
            let block = (pool.id, index.list, index.block());
            let bits = self.noted_bits(context, block).await | self.revocations.bits(block, now);
            context.platform.note(&bits_note(block), &bits.to_string(), longest).await;
        }
        context.platform.note(&pool_note(pool.id), &context.random_id(), longest).await;
        self.revocations.noted.borrow_mut().remove(&pool.id);
    }

    /// The latest revocation in a pool that the location knows of, as of this second.
    async fn latest_revocation(&self, context: &Context<'_, P>, pool: PoolId) -> Latest {
        if let Some(noted) = self.revocations.noted.borrow_mut().get(&pool)
            && is_fresh(noted.asked_at, context.now, NOTE_SECONDS)
        {
            return noted.latest.clone();
        }
        let latest: Latest = context.platform.noted(&pool_note(pool)).await.map(Rc::from);
        let noted = Noted { latest: latest.clone(), asked_at: context.now };
        self.revocations.noted.borrow_mut().put(pool, noted, 0);
        latest
    }

    async fn noted_bits(&self, context: &Context<'_, P>, block: BlockName) -> u8 {
        let noted = context.platform.noted(&bits_note(block)).await;
        noted.and_then(|bits| bits.parse().ok()).unwrap_or(0)
    }

    /// The status-list index that the client's next token carries: the lowest one that is clear in its record and in what
    /// is known here to be revoked. None where it has no block with a clear bit, or the list is not served yet.
    pub(super) async fn next_index(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        client: &Client,
    ) -> Option<StatusIndex> {
        let own: StatusBlock = client.document().status_block?;
        if own.list >= pool.document.status_lists {
            return None;
        }
        let block = (pool.id, own.list, own.block);
        // Once for each time that the record is read, and again when something has been revoked here.
        let latest = self.latest_revocation(context, pool.id).await;
        if *client.asked_after.borrow() != latest {
            let noted = self.noted_bits(context, block).await;
            if noted != 0 {
                let until = context.now + pool.document.longest_token_ttl;
                self.revocations.set_bits(block, noted, until, context.now);
            }
            // Not before: whoever asks meanwhile, or breaks off, must not keep the others from asking.
            client.asked_after.replace(latest);
        }
        own.next_index(self.revocations.bits(block, context.now))
    }

    /// Whether the edge, here or elsewhere, has accepted that this token be revoked.
    pub(super) async fn has_been_revoked(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        token: &RevokedToken,
    ) -> bool {
        if self.revocations.knows(pool.id, &token.jti, context.now)
            || token.status.is_some_and(|index| {
                let block = (pool.id, index.list, index.block());
                self.revocations.bits(block, context.now) & index.mask() != 0
            })
        {
            return true;
        }
        let latest = self.latest_revocation(context, pool.id).await;
        let name = (pool.id, token.jti.clone());
        let (asked_after, read_at) = self.revocations.good(&name).unzip();
        if latest.is_some()
            && asked_after.flatten() != latest
            && context.platform.noted(&token_note(pool.id, &token.jti)).await.is_some()
        {
            return true;
        }
        let read_at = match read_at.filter(|read_at| is_fresh(*read_at, context.now, GOOD_SECONDS)) {
            Some(read_at) => read_at,
            None => match self.kv_knows(context, pool, token).await {
                Ok(false) => context.now,
                Ok(true) => return true,
                Err(error) => {
                    // As with every document: what cannot be read anew is as it was, for as long as the lists count.
                    let key = EdgeKey::Revocation(pool.id, token.jti.clone());
                    context.log(LogLevel::Warn, "kv_unreadable", &format!("{key}: {error}"));
                    return false;
                }
            },
        };
        self.revocations.good.borrow_mut().put(name, Good { latest, read_at }, 0);
        false
    }

    /// Whether a revocation of the token stands in KV, where an edge has written it.
    async fn kv_knows(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        token: &RevokedToken,
    ) -> Result<bool, KvReadError> {
        let key = EdgeKey::Revocation(pool.id, token.jti.clone());
        let Some(text) = context.platform.kv_get(&key.to_string(), KV_CACHE_SECONDS).await? else {
            return Ok(false);
        };
        match SignedReport::verify_kv(&text, &key, &self.config.shared_secrets) {
            Ok(EdgeReport::Revocation(_)) => {
                self.revocations.keep(pool, token, context.now);
                Ok(true)
            }
            Ok(EdgeReport::Device(_)) => Ok(false),
            Err(error) => {
                context.log(LogLevel::Warn, "revocation_refused", &format!("{key}: {error}"));
                Ok(false)
            }
        }
    }
}
