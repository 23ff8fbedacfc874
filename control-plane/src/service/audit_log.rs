//! Reading what was done.

use super::Context;
use super::access::Reach;
use crate::store::audit::{EventFilter, EventPosition, StoredEvent};
use crate::store::{self, StoreError};

/// The events that the caller may see and that the filter lets through, newest first, after `after`.
///
/// An organization sees its own, from its beginning on: its id may have been another's before.
pub async fn list(
    context: &Context,
    reach: &Reach,
    filter: &EventFilter,
    after: Option<&EventPosition>,
    rows: i64,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut connection = context.connection().await?;
    let from_seq = match reach.org() {
        Some(org) => store::audit::beginning(&mut connection, org).await?,
        None => 1,
    };
    store::audit::list(&mut connection, reach, from_seq, filter, after, rows).await
}
