//! How publishing goes.

use super::Context;
use super::access::GlobalScope;
use crate::metrics::Waiting;
use crate::store::publication::Backlog;
use crate::store::{self, StoreError};

/// What waits to be published, for the metrics.
pub async fn waiting(context: &Context) -> Result<Waiting, StoreError> {
    let mut connection = context.connection().await?;
    let (pending, oldest) = store::publication::waiting(&mut connection).await?;
    let age = oldest.map(|oldest| context.now() - oldest).unwrap_or_default();
    Ok(Waiting {
        documents: pending.unsigned_abs(),
        oldest_seconds: age.whole_seconds().try_into().unwrap_or(0),
    })
}

/// What waits to be published, and for how long it has waited, in seconds.
pub async fn backlog(context: &Context, _: GlobalScope) -> Result<(Backlog, u64), StoreError> {
    let mut connection = context.connection().await?;
    let backlog = store::publication::backlog(&mut connection).await?;
    let waiting = backlog.oldest.map(|oldest| context.now() - oldest).unwrap_or_default();
    Ok((backlog, waiting.whole_seconds().try_into().unwrap_or(0)))
}

/// Whether the database answers.
pub async fn is_ready(context: &Context) -> Result<(), StoreError> {
    store::ping(&context.db).await
}
