//! What the edge tells the control plane: signed, to KV and by POST.

use super::platform::{Delivery, Platform};
use super::{Context, Edge};
use crate::edge_report::{EdgeReport, REPORT_PATH, SIGNATURE_HEADER, SignedReport, TIMESTAMP_HEADER};

/// Why nothing can be told. For the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportFailure {
    #[error("there is no shared secret")]
    NoSecret,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl<P: Platform> Edge<P> {
    /// Signs a report, which KV is to keep for `kv_ttl` seconds.
    pub(super) fn delivery(
        &self,
        context: &Context<'_, P>,
        report: &EdgeReport,
        kv_ttl: u32,
    ) -> Result<Delivery, ReportFailure> {
        let secret = self.config.shared_secrets.first().ok_or(ReportFailure::NoSecret)?;
        let signed = SignedReport::sign(secret, report, context.now)?;
        Ok(Delivery {
            request_id: context.request_id.clone(),
            kv_key: report.kv_key().to_string(),
            kv_value: signed.to_kv(),
            kv_ttl,
            url: self.config.control_plane_url.as_ref().map(|url| format!("{url}{REPORT_PATH}")),
            headers: vec![
                ("content-type", "application/json".to_owned()),
                (TIMESTAMP_HEADER, signed.timestamp.to_string()),
                (SIGNATURE_HEADER, signed.signature),
            ],
            body: signed.body,
        })
    }
}
