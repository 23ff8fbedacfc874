//! How publishing goes.

use super::Context;
use super::access::GlobalScope;
use crate::store::publication::Backlog;
use crate::store::{self, StoreError};

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
