//! Stands in for metrics where no feature records them.

use http::uri::Authority;

use crate::report::outcome::RpcOutcome;

#[derive(Debug, Clone, Default)]
pub(crate) struct RpcMetrics(());

#[expect(
    clippy::unused_self,
    reason = "has the signatures of the one that records them"
)]
impl RpcMetrics {
    pub(crate) fn is_on(&self) -> bool {
        false
    }

    pub(crate) fn record(&self, _: &RpcOutcome<'_>, _: bool, _: Option<&Authority>) {}
}
