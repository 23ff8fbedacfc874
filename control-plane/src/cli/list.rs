//! Lists: pages are followed as far as the person wants them.

use clap::Args;

use super::api::{Api, Page, Place};
use super::error::CommandError;
use super::output::{Column, Output, tell};

/// The most that the API gives in one page.
const LARGEST_PAGE: u64 = 500;

/// How much of a list to show.
#[derive(Debug, Args)]
#[command(next_help_heading = "Paging")]
pub(super) struct ListArgs {
    /// Show at most so many.
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Show all there are.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Go on where an earlier list ended.
    #[arg(long, allow_hyphen_values = true)]
    cursor: Option<String>,
}

impl ListArgs {
    /// Prints what is at `place`, page by page, so that a list of any length takes little memory.
    pub(super) async fn print(
        &self,
        api: &Api,
        output: Output,
        place: Place,
        columns: &[Column],
    ) -> Result<(), CommandError> {
        let mut cursor = self.cursor.clone();
        let mut left = if self.all { u64::MAX } else { self.limit };
        let (mut widths, mut shown) = (Vec::new(), 0);
        loop {
            let asked =
                place.clone().with("limit", left.min(LARGEST_PAGE)).with_some("cursor", cursor.as_ref());
            let page: Page = api.get(&asked).await?.read()?;
            if !page.items.is_empty() {
                output.page(&page.items, columns, &mut widths)?;
                shown += page.items.len();
            }
            left = left.saturating_sub(page.items.len() as u64);
            match page.next_cursor {
                None => break,
                // It would go on for ever.
                Some(next) if cursor.as_ref() == Some(&next) => {
                    return Err(CommandError::Answer("the cursor does not move".to_owned()));
                }
                Some(next) if left == 0 => {
                    tell(&format!(
                        "keypost: there are more: --cursor {next} shows the next, --all all of them"
                    ));
                    break;
                }
                Some(next) => cursor = Some(next),
            }
        }
        if shown == 0 && !output.json {
            tell("keypost: there are none");
        }
        Ok(())
    }
}
