//! Single sign-on (api.md §4): `/api/auth` and `/api/organization`.

mod caller;
mod envelope;

pub(super) use self::envelope::in_envelope;
