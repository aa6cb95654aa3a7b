//! Which events were sent in an RPC, so that its failure is not reported twice.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use sentry_core::Hub;
use sentry_core::types::Uuid;

use crate::bridge::repeats::Failure;
use crate::sync::{Mutex, MutexGuard};

/// Older events are forgotten: at worst, a failure is reported twice.
const MAX_PENDING: usize = 8;

/// Older failures are forgotten, too.
const MAX_FAILURES: usize = 64;

/// An event that was captured and may yet be dropped.
#[derive(Debug)]
struct Pending {
    event: Uuid,
    /// The hub that captures the event, and that of the root, in case the event is captured
    /// from elsewhere.
    hubs: [Arc<Hub>; 2],
    failure: Option<Failure>,
    /// Whether it stands for the failure of the RPC: an event below ERROR does not.
    is_error: bool,
}

impl Pending {
    fn is_sent(&self) -> bool {
        let is_sent = |hub: &Arc<Hub>| hub.last_event_id() == Some(self.event);
        self.hubs.iter().any(is_sent)
    }
}

/// The events that were captured in an RPC: whether any error was sent, and of which failures.
///
/// A captured event may yet be dropped, by `before_send` or by sampling. Whether it was sent
/// shows in `last_event_id` of its hub, until that hub captures another event.
#[derive(Debug, Default)]
pub(crate) struct SentEvents(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_over: bool,
    has_sent_error: bool,
    /// `None` until there is an event, as in most.
    events: Option<Box<Events>>,
}

#[derive(Debug, Default)]
struct Events {
    pending: VecDeque<Pending>,
    /// Those whose events were sent last.
    failures: VecDeque<Failure>,
}

impl SentEvents {
    /// For a root that is no RPC: nobody will ask.
    pub(crate) fn closed() -> Self {
        Self(Mutex::new(State {
            is_over: true,
            ..State::default()
        }))
    }

    /// Notes an event of `failure` that is about to be sent from one of `hubs`.
    pub(crate) fn note(
        &self,
        event: Uuid,
        hubs: [&Arc<Hub>; 2],
        failure: Option<&Failure>,
        is_error: bool,
    ) {
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        let mut released = state.settle();
        let pending = &mut state.events.get_or_insert_default().pending;
        pending.push_back(Pending {
            event,
            hubs: hubs.map(Arc::clone),
            failure: failure.cloned(),
            is_error,
        });
        let surplus = pending.len().saturating_sub(MAX_PENDING);
        released.extend(pending.drain(..surplus));
        drop(state);
        // A hub goes with it, and what its scope holds may do anything as it is dropped: not
        // under the lock.
        drop(released);
    }

    /// Finds out which events were sent, while their hubs still know.
    pub(crate) fn settle(&self) {
        self.ask(|_| ());
    }

    /// Counts the event of a panic as sent that the limiter held back.
    pub(crate) fn set_sent(&self) {
        self.lock().has_sent_error = true;
    }

    /// Whether an event of `failure` was sent.
    pub(crate) fn has_sent(&self, failure: &Failure) -> bool {
        let is_repeated =
            |events: &Events| events.failures.iter().any(|sent| failure.repeats(sent));
        self.ask(|state| state.events.as_deref().is_some_and(is_repeated))
    }

    /// Whether any error was sent.
    pub(crate) fn has_sent_error(&self) -> bool {
        self.ask(|state| state.has_sent_error)
    }

    fn ask<T: Default>(&self, question: impl FnOnce(&State) -> T) -> T {
        let mut state = self.lock();
        if state.is_over {
            return T::default();
        }
        let released = state.settle();
        let answer = question(&state);
        drop(state);
        drop(released);
        answer
    }

    /// Whether any error was sent. Nothing is noted after this, and the hubs are dropped: they
    /// would keep alive what their scopes hold.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.lock();
        let released = (state.settle(), state.events.take());
        state.is_over = true;
        let has_sent_error = state.has_sent_error;
        drop(state);
        drop(released);
        has_sent_error
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Moves the failures of sent events out of what is pending; returns what is to be dropped
    /// outside of the lock.
    fn settle(&mut self) -> Vec<Pending> {
        let Some(events) = &mut self.events else {
            return Vec::new();
        };
        let all = std::mem::take(&mut events.pending).into_iter();
        let (sent, pending): (Vec<_>, Vec<_>) = all.partition(Pending::is_sent);
        events.pending = pending.into();
        self.has_sent_error |= sent.iter().any(|one| one.is_error);
        let failures = sent.iter().filter_map(|one| one.failure.clone());
        events.failures.extend(failures);
        let surplus = events.failures.len().saturating_sub(MAX_FAILURES);
        events.failures.drain(..surplus);
        sent
    }
}

#[cfg(all(test, sentry_tonic_loom))]
mod loom_models {
    use super::*;
    use crate::sync::{model, spawn};

    #[test]
    fn nothing_is_kept_once_it_is_closed_whoever_notes_what_meanwhile() {
        model(|| {
            let sent = Arc::new(SentEvents::default());
            let hub = Arc::new(Hub::new(None, Arc::default()));
            let threads = [1, 2].map(|events| {
                let (sent, hub) = (Arc::clone(&sent), Arc::clone(&hub));
                spawn(move || {
                    for _ in 0..events {
                        sent.note(Uuid::nil(), [&hub, &hub], None, true);
                    }
                })
            });
            sent.close();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(Arc::strong_count(&hub), 1);
        });
    }
}
