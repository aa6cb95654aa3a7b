//! Which events were sent from the hubs of a local root.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use sentry_core::Hub;
use sentry_core::types::Uuid;

/// Of the events that were seen last: a hub tells its last one again and again.
const MAX_SEEN: usize = 16;

/// Counts events that were sent, as far as their hubs tell.
///
/// A hub knows its last event alone, and not where that was dropped by
/// `before_send` or by sampling: it is asked whenever something else may follow.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    count: usize,
    last: VecDeque<Uuid>,
}

impl Reports {
    /// Asks `hub` for its last event.
    pub(crate) fn look_at(&self, hub: &Hub) {
        let Some(event) = hub.last_event_id().filter(|id| !id.is_nil()) else {
            return;
        };
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.last.contains(&event) {
            return;
        }
        seen.count += 1;
        seen.last.truncate(MAX_SEEN - 1);
        seen.last.push_front(event);
    }

    /// How many were sent, the last one of `hub` among them.
    pub(crate) fn count_with(&self, hub: &Hub) -> usize {
        self.look_at(hub);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}
