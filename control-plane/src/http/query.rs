//! Query parameters: each known, at most once, and named where it is wrong.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64ct::{Base64UrlUnpadded, Encoding};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::problem::{FieldError, Problem};

const DEFAULT_LIMIT: u16 = 50;
const MAX_LIMIT: u16 = 500;

/// What a request says in its query.
pub(super) trait FromQuery: Sized {
    /// Takes the parameters that it knows. `None` where one of them is wrong, which `query` has noted.
    fn from_query(query: &mut QueryFields) -> Option<Self>;
}

/// A query that is as it must be.
pub(super) struct Query<T>(pub(super) T);

/// The parameters of a query. Each is taken once; what is left over is unknown.
pub(super) struct QueryFields {
    values: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

/// Which part of a list is asked for, ordered by `K`.
#[derive(Clone, Debug)]
pub(super) struct PageRequest<K> {
    /// How many items at most.
    pub(super) limit: u16,
    /// The key of the last item of the page before.
    pub(super) after: Option<K>,
}

/// A part of a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page<T> {
    items: Vec<T>,
    /// What to send as `cursor` for the next page; none where this is the last.
    next_cursor: Option<String>,
}

impl<T, E> Page<Result<T, E>> {
    /// The page, or the first of the errors in its place.
    pub(super) fn transposed(self) -> Result<Page<T>, E> {
        let items: Result<Vec<T>, E> = self.items.into_iter().collect();
        Ok(Page { items: items?, next_cursor: self.next_cursor })
    }
}

impl<T: FromQuery> FromRequestParts<App> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let axum::extract::Query(values) = axum::extract::Query::try_from_uri(&parts.uri)
            .map_err(|_| Problem::invalid_field("query", "cannot be read"))?;
        let mut query = QueryFields { values, errors: Vec::new() };
        let read = T::from_query(&mut query);
        let unknown = query
            .values
            .iter()
            .map(|(name, _)| FieldError { field: name.clone(), detail: "is unknown, or repeated".into() });
        query.errors.extend(unknown);
        match read {
            Some(read) if query.errors.is_empty() => Ok(Self(read)),
            _ => Err(Problem::invalid(query.errors)),
        }
    }
}

impl QueryFields {
    /// A parameter that may be absent. The outer `None` is an error.
    pub(super) fn optional<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<Option<T>> {
        let Some(text) = self.take(name) else { return Some(None) };
        match text.parse() {
            Ok(value) => Some(Some(value)),
            Err(error) => {
                self.wrong(name, error);
                None
            }
        }
    }

    /// A parameter that may be absent, and is checked where it is not. The outer `None` is an error.
    pub(super) fn checked<T>(
        &mut self,
        name: &str,
        check: impl FnOnce(String) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let Some(text) = self.take(name) else { return Some(None) };
        match check(text) {
            Ok(value) => Some(Some(value)),
            Err(detail) => {
                self.wrong(name, detail);
                None
            }
        }
    }

    /// A parameter that is on or off, and off where it is absent.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.take(name).as_deref() {
            None | Some("false") => Some(false),
            Some("true") => Some(true),
            Some(_) => {
                self.wrong(name, "must be true or false");
                None
            }
        }
    }

    /// All parameters whose names begin with `prefix`, without it.
    pub(super) fn prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, left) =
            std::mem::take(&mut self.values).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.values = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(name, value)| (name.replacen(prefix, "", 1), value)).collect()
    }

    /// `limit` and `cursor` (api.md).
    pub(super) fn page<K: FromStr>(&mut self) -> Option<PageRequest<K>> {
        let limit = match self.take("limit").map(|text| text.parse::<u16>()) {
            None => Some(DEFAULT_LIMIT),
            Some(Ok(limit)) if (1..=MAX_LIMIT).contains(&limit) => Some(limit),
            Some(_) => {
                self.wrong("limit", format!("must be a whole number from 1 to {MAX_LIMIT}"));
                None
            }
        };
        let after = match self.take("cursor") {
            None => Some(None),
            Some(text) => match read_cursor(&text) {
                Some(key) => Some(Some(key)),
                None => {
                    self.wrong("cursor", "must be the nextCursor of an answer");
                    None
                }
            },
        };
        Some(PageRequest { limit: limit?, after: after? })
    }

    /// Notes that a parameter is wrong.
    pub(super) fn wrong(&mut self, name: &str, detail: impl ToString) {
        self.errors.push(FieldError { field: name.to_owned(), detail: detail.to_string() });
    }

    /// Takes the first parameter of that name; another one stays, and is reported.
    fn take(&mut self, name: &str) -> Option<String> {
        let position = self.values.iter().position(|(own, _)| own == name)?;
        Some(self.values.remove(position).1)
    }
}

impl FromQuery for () {
    fn from_query(_: &mut QueryFields) -> Option<Self> {
        Some(())
    }
}

impl<K: FromStr> FromQuery for PageRequest<K> {
    fn from_query(query: &mut QueryFields) -> Option<Self> {
        query.page()
    }
}

impl<K> PageRequest<K> {
    /// How many rows to ask for: one more than the page has, which tells whether there is a next one.
    pub(super) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The page, from the rows that were asked for.
    pub(super) fn page<R, T>(
        &self,
        mut rows: Vec<R>,
        key: impl Fn(&R) -> String,
        show: impl FnMut(R) -> T,
    ) -> Page<T> {
        let more = rows.len() > usize::from(self.limit);
        rows.truncate(self.limit.into());
        let last = if more { rows.last() } else { None };
        let next_cursor = last.map(|row| Base64UrlUnpadded::encode_string(key(row).as_bytes()));
        Page { items: rows.into_iter().map(show).collect(), next_cursor }
    }
}

/// A cursor is the key of the last item seen. It gives away and opens nothing: whoever forges one begins elsewhere in the
/// same list.
fn read_cursor<K: FromStr>(text: &str) -> Option<K> {
    let bytes = Base64UrlUnpadded::decode_vec(text).ok()?;
    String::from_utf8(bytes).ok()?.parse().ok()
}
