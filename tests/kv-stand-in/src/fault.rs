//! Faults on demand.

use serde::{Deserialize, Serialize};

/// What happens to a bulk write or a bulk delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Refused with 429 and this `Retry-After`, in seconds; none sends no such header.
    RateLimited(Option<u64>),
    /// Refused with this status, in Cloudflare's envelope.
    Status(u16),
    /// Carried out, then answered with this status and no body, as by a gateway that lost the answer.
    CarriedOutThen(u16),
    /// The connection is reset before the call is carried out.
    ResetBefore,
    /// The connection is reset after the call was carried out.
    ResetAfter,
    /// 200, but keys that contain this text are listed as failed and not written.
    Unsuccessful(String),
    /// Not answered, and not carried out until [`land_lost_calls`](crate::KvStandIn::land_lost_calls).
    Hang,
    /// Carried out at once, never answered.
    CarriedOutThenHang,
    /// Carried out and answered after so many milliseconds, whether or not the caller still waits.
    Stall(u64),
    /// 200 with `success: false`, not carried out.
    NoSuccess,
    /// 200 with something that is not JSON, not carried out.
    Rubbish,
    /// Refused with 400 if a key contains this text; the fault stays.
    RefuseEach(String),
}
