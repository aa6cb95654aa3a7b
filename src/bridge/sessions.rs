//! Calls as sessions of [release health], where the client's session mode is `Request`.
//!
//! [release health]: https://develop.sentry.dev/sdk/telemetry/sessions/

use sentry_core::Hub;

/// Begins the session of a call whose hub is `hub`.
///
/// Not if the clock is set to before 1970: sentry-core would panic as that session ends, with
/// a lock held, and count no session after that.
#[cfg(feature = "release-health")]
pub(crate) fn begin(hub: &Hub) {
    use std::time::{SystemTime, UNIX_EPOCH};

    if tracks_requests(hub) && SystemTime::now() >= UNIX_EPOCH {
        hub.start_session();
    }
}

/// Ends the session of a call whose hub is `hub`. The session has counted the errors sent in it
/// by itself.
#[cfg(feature = "release-health")]
pub(crate) fn end(hub: &Hub, has_panicked: bool) {
    use sentry_core::protocol::SessionStatus;

    if tracks_requests(hub) {
        hub.end_session_with_status(match has_panicked {
            true => SessionStatus::Crashed,
            false => SessionStatus::Exited,
        });
    }
}

#[cfg(feature = "release-health")]
fn tracks_requests(hub: &Hub) -> bool {
    use sentry_core::SessionMode;

    hub.client().is_some_and(|client| {
        let options = client.options();
        options.auto_session_tracking && options.session_mode == SessionMode::Request
    })
}

#[cfg(not(feature = "release-health"))]
pub(crate) fn begin(_: &Hub) {}

#[cfg(not(feature = "release-health"))]
pub(crate) fn end(_: &Hub, _: bool) {}
