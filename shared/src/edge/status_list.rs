//! `GET /{pool}/status/{n}`: the pool's Token Status Lists (draft-ietf-oauth-status-list), as the control plane has signed
//! them. The edge serves none that it has not verified, and asks them itself in introspection.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

use super::bounded::Bounded;
use super::held::{KV_CACHE_SECONDS, is_fresh};
use super::http::{Page, Request, Response};
use super::platform::{LogLevel, Platform};
use super::pool::{Freshness, Pool};
use super::{Context, Edge};
use crate::id::{Kid, PoolId};
use crate::issued_token::TokenError;
use crate::jws::{JwsError, JwsHeader, UnverifiedJws};
use crate::kv_key::KvKey;
use crate::oauth::OAuthError;
use crate::status_list::{
    LIST_BLOCKS, STATUS_LIST_MEDIA_TYPE, STATUS_LIST_TTL, STATUS_LIST_TYP, StatusBits, StatusListClaims,
    StatusListError, list_url,
};
use crate::time::UnixTime;

/// The most that an isolate's lists may take, counted as their length in KV and once inflated.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;
/// The longest that a list may be in KV: one of random bits has less than half.
const MAX_TEXT: usize = 512 * 1024;
/// The longest that a held list is used before KV is asked again, in seconds.
const MAX_AGE: u64 = 30;

/// A list as the isolate holds it.
pub(super) struct StatusList {
    page: Page,
    bits: StatusBits,
    signed_by: Kid,
    iat: UnixTime,
    exp: UnixTime,
}

struct Held {
    list: Rc<StatusList>,
    read_at: UnixTime,
}

/// The isolate's status lists, by pool and number.
pub(super) struct StatusListStore {
    held: RefCell<Bounded<(PoolId, u32), Held>>,
}

/// Why a text in KV is not the list that belongs there. For the log.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error("it is too long")]
    TooLong,
    #[error(transparent)]
    Jws(#[from] JwsError),
    #[error("it is of another type")]
    WrongType,
    #[error(transparent)]
    Signature(#[from] TokenError),
    #[error("it belongs to {0:?}")]
    WrongList(String),
    #[error("it has expired")]
    Expired,
    #[error("it is older than the copy held")]
    Older,
    #[error(transparent)]
    Bits(#[from] StatusListError),
}

impl StatusList {
    /// The bits.
    pub(super) fn bits(&self) -> &StatusBits {
        &self.bits
    }

    /// Whether it still counts, in a pool with these keys.
    fn counts<P: Platform>(&self, pool: &Pool<P>, now: UnixTime) -> bool {
        now < self.exp && pool.document.jwks.keys.iter().any(|key| key.kid == self.signed_by)
    }

    fn refresh_after(&self) -> u64 {
        (self.exp.since(self.iat) / 4).clamp(1, MAX_AGE)
    }
}

impl StatusListStore {
    pub(super) fn new() -> Self {
        Self { held: RefCell::new(Bounded::new(NonZeroUsize::MAX, MAX_HELD_BYTES)) }
    }

    fn get<P: Platform>(
        &self,
        pool: &Pool<P>,
        number: u32,
        now: UnixTime,
    ) -> Option<(Rc<StatusList>, UnixTime)> {
        let mut held = self.held.borrow_mut();
        let held = held.get(&(pool.id, number)).filter(|held| held.list.counts(pool, now))?;
        Some((held.list.clone(), held.read_at))
    }
}

impl<P: Platform> Edge<P> {
    /// `GET /{pool}/status/{n}`.
    pub(super) async fn status_list(
        &self,
        context: &Context<'_, P>,
        pool: PoolId,
        number: u32,
        request: &Request<'_>,
    ) -> Result<Response, OAuthError> {
        let loaded = self.load_pool(context, pool, Freshness::Verifiable).await?;
        // Before KV is asked: anybody can ask for four thousand million of them.
        if number >= loaded.pool.document.status_lists {
            return Err(OAuthError::UnknownStatusList);
        }
        let list = self.load_status_list(context, &loaded.pool, number).await?;
        let max_age = list.exp.since(context.now).min(STATUS_LIST_TTL);
        Ok(Response::public(request, &list.page, max_age))
    }

    /// A verified list: from the isolate's memory, or from KV where that copy is missing or due.
    pub(super) async fn load_status_list(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        number: u32,
    ) -> Result<Rc<StatusList>, OAuthError> {
        if let Some((list, read_at)) = self.status_lists.get(pool, number, context.now)
            && is_fresh(read_at, context.now, list.refresh_after())
        {
            return Ok(list);
        }
        let read = self.read_status_list(context, pool, number).await;
        // What the isolate holds by now: another request may have brought a newer one.
        let held = self.status_lists.get(pool, number, context.now).map(|(list, _)| list);
        let list = match (read, held) {
            (Some(read), held) if held.as_ref().is_none_or(|held| read.iat >= held.iat) => read,
            (_, Some(held)) => held,
            _ => return Err(OAuthError::TemporarilyUnavailable),
        };
        let length = list.page.body().len() + LIST_BLOCKS as usize;
        let held = Held { list: list.clone(), read_at: context.now };
        self.status_lists.held.borrow_mut().put((pool.id, number), held, length);
        Ok(list)
    }

    /// Reads a list. None where nothing came that counts; the log says why.
    async fn read_status_list(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        number: u32,
    ) -> Option<Rc<StatusList>> {
        let key = KvKey::Status(pool.id, number);
        let text = match context.platform.kv_get(&key.to_string(), KV_CACHE_SECONDS).await {
            Ok(Some(text)) => text,
            Ok(None) => {
                context.log(LogLevel::Error, "document_missing", &format!("{key} is not in KV"));
                return None;
            }
            Err(error) => {
                context.log(LogLevel::Warn, "kv_unreadable", &format!("{key}: {error}"));
                return None;
            }
        };
        match self.verify_status_list(context, pool, number, text).await {
            Ok(list) => Some(list),
            Err(error) => {
                context.log(LogLevel::Error, "document_refused", &format!("{key}: {error}"));
                None
            }
        }
    }

    async fn verify_status_list(
        &self,
        context: &Context<'_, P>,
        pool: &Pool<P>,
        number: u32,
        text: String,
    ) -> Result<Rc<StatusList>, ListError> {
        if text.len() > MAX_TEXT {
            return Err(ListError::TooLong);
        }
        let held = self.status_lists.get(pool, number, context.now).map(|(list, _)| list);
        if let Some(held) = held.as_ref().filter(|held| held.page.body() == text.as_bytes()) {
            return Ok(held.clone());
        }
        let jws = UnverifiedJws::<JwsHeader>::parse(&text)?;
        if jws.header.typ != STATUS_LIST_TYP {
            return Err(ListError::WrongType);
        }
        jws.verify(context.platform, &pool.document.jwks).await?;
        let StatusListClaims { sub, iat, exp, status_list, .. } = jws.payload()?;
        if sub != list_url(&pool.document.issuer, number) {
            return Err(ListError::WrongList(sub));
        }
        if context.now >= exp {
            return Err(ListError::Expired);
        }
        if held.is_some_and(|held| iat < held.iat) {
            return Err(ListError::Older);
        }
        let bits = StatusBits::decompress(&status_list)?;
        let signed_by = jws.header.kid.clone();
        let page = Page::new(STATUS_LIST_MEDIA_TYPE, text.into_bytes());
        Ok(Rc::new(StatusList { page, bits, signed_by, iat, exp }))
    }
}
