//! Tokens that their clients have revoked: what this isolate knows of them, and how others at this location hear of it.
//!
//! Whatever the isolate has forgotten, or never knew, KV still knows: what stands here only counts sooner.

use std::cell::RefCell;
use std::num::NonZeroUsize;

use super::bounded::Bounded;
use super::client::Client;
use super::platform::{LogLevel, Platform};
use super::pool::Pool;
use super::{Context, Edge};
use crate::edge_report::{EdgeReport, SignedReport};
use crate::id::{PoolId, TokenId};
use crate::kv_key::EdgeKey;
use crate::status_list::{StatusBlock, StatusIndex};
use crate::time::UnixTime;

use super::held::KV_CACHE_SECONDS;

/// The most revoked tokens that an isolate remembers.
const MAX_TOKENS: NonZeroUsize = NonZeroUsize::new(32_768).unwrap();
/// The most blocks of status lists of which it remembers bits.
const MAX_BLOCKS: NonZeroUsize = NonZeroUsize::new(32_768).unwrap();

/// A block of one of a pool's status lists.
type BlockName = (PoolId, u32, u32);

struct Bits {
    revoked: u8,
    until: UnixTime,
}

/// The isolate's memory of revoked tokens, each until it has expired, and of the bits that they set.
pub(super) struct RevocationStore {
    tokens: RefCell<Bounded<(PoolId, TokenId), UnixTime>>,
    blocks: RefCell<Bounded<BlockName, Bits>>,
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

/// The location's notes.
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
        let note = token_note(pool.id, &token.jti);
        context.platform.note(&note, "1", seconds(token.exp.since(now))).await;
        if let Some(index) = token.status {
            let block = (pool.id, index.list, index.block());
            let bits = self.noted_bits(context, block).await | self.revocations.bits(block, now);
            let longest = seconds(pool.document.longest_token_ttl);
            context.platform.note(&bits_note(block), &bits.to_string(), longest).await;
        }
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
        // Once for each time that the record is read: no token waits for the location's cache but the first.
        if !client.location_asked.replace(true) {
            let noted = self.noted_bits(context, block).await;
            if noted != 0 {
                let until = context.now + pool.document.longest_token_ttl;
                self.revocations.set_bits(block, noted, until, context.now);
            }
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
            || context.platform.noted(&token_note(pool.id, &token.jti)).await.is_some()
        {
            return true;
        }
        let key = EdgeKey::Revocation(pool.id, token.jti.clone());
        let found = match context.platform.kv_get(&key.to_string(), KV_CACHE_SECONDS).await {
            Ok(Some(text)) => SignedReport::verify_kv(&text, &key, &self.config.shared_secrets),
            Ok(None) => return false,
            Err(error) => {
                // As with every document: what cannot be read anew is as it was, for as long as the lists count.
                context.log(LogLevel::Warn, "kv_unreadable", &format!("{key}: {error}"));
                return false;
            }
        };
        match found {
            Ok(EdgeReport::Revocation(_)) => {
                self.revocations.keep(pool, token, context.now);
                true
            }
            Ok(EdgeReport::Device(_)) => false,
            Err(error) => {
                context.log(LogLevel::Warn, "revocation_refused", &format!("{key}: {error}"));
                false
            }
        }
    }
}
