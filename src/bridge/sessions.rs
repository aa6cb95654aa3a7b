//! Calls as sessions of [release health], where the client takes requests for
//! sessions.
//!
//! [release health]: https://develop.sentry.dev/sdk/telemetry/sessions/

use sentry_core::Hub;

/// Begins the session of a call whose hub is `hub`.
#[cfg(feature = "release-health")]
pub(crate) fn begin(hub: &Hub) {
    if tracks_requests(hub) {
        hub.start_session();
    }
}

/// Ends the session of a call whose hub is `hub`. That errors were sent in it, it
/// knows.
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
