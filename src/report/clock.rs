//! Times that Sentry's protocol can express.

use std::time::{SystemTime, UNIX_EPOCH};

use sentry_core::protocol::Event;

/// Now, or 1970 if the clock is set to before that: sentry cannot serialize such times, and its
/// transports would panic.
pub(crate) fn now() -> SystemTime {
    SystemTime::now().max(UNIX_EPOCH)
}

/// Moves times before 1970, which others set in an event, to 1970.
pub(crate) fn repair_times(event: &mut Event<'_>) {
    event.timestamp = event.timestamp.max(UNIX_EPOCH);
    for breadcrumb in &mut event.breadcrumbs.values {
        breadcrumb.timestamp = breadcrumb.timestamp.max(UNIX_EPOCH);
    }
}
