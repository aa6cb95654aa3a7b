//! Times, as Sentry can be told them.

use std::time::{SystemTime, UNIX_EPOCH};

use sentry_core::protocol::Event;

/// Now, by a clock that may be set to before 1970: sentry cannot write such times, and its
/// transports panic where they are to.
pub(crate) fn now() -> SystemTime {
    SystemTime::now().max(UNIX_EPOCH)
}

/// What others said of when it happened, for it to be written.
pub(crate) fn repair_times(event: &mut Event<'_>) {
    event.timestamp = event.timestamp.max(UNIX_EPOCH);
    for breadcrumb in &mut event.breadcrumbs.values {
        breadcrumb.timestamp = breadcrumb.timestamp.max(UNIX_EPOCH);
    }
}
