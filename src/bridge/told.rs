//! What Sentry was told in an RPC before its end.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use sentry_core::Hub;
use sentry_core::types::Uuid;

use crate::bridge::repeats::Failure;
use crate::sync::{Mutex, MutexGuard};

/// Older ones are forgotten: at worst, a failure is told twice.
const MAX_PENDING: usize = 8;

/// So are these.
const MAX_FAILURES: usize = 64;

/// An event that was captured and may yet be dropped.
#[derive(Debug)]
struct Pending {
    event: Uuid,
    /// That captures it, or the one of the root, where that is captured from
    /// elsewhere.
    hubs: [Arc<Hub>; 2],
    failure: Option<Failure>,
}

impl Pending {
    fn is_sent(&self) -> bool {
        let is_sent = |hub: &Arc<Hub>| hub.last_event_id() == Some(self.event);
        self.hubs.iter().any(is_sent)
    }
}

/// The events that were captured in an RPC, as far as it matters whether one was
/// sent, and of what.
///
/// An event that is captured may yet be dropped, by `before_send` or by sampling.
/// Its hub tells by its last event, until it captures another one.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_over: bool,
    is_sent: bool,
    /// `None` until there is an event, as in most.
    events: Option<Box<Events>>,
}

#[derive(Debug, Default)]
struct Events {
    pending: VecDeque<Pending>,
    /// The last ones that were sent.
    failures: VecDeque<Failure>,
}

impl Told {
    /// Of what is no RPC: nobody will ask.
    pub(crate) fn closed() -> Self {
        Self(Mutex::new(State {
            is_over: true,
            ..State::default()
        }))
    }

    /// An event that tells of `failure` is about to be sent from one of `hubs`.
    pub(crate) fn note(&self, event: Uuid, hubs: [&Arc<Hub>; 2], failure: Option<&Failure>) {
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        let mut let_go = state.settle();
        let pending = &mut state.events.get_or_insert_default().pending;
        pending.push_back(Pending {
            event,
            hubs: hubs.map(Arc::clone),
            failure: failure.cloned(),
        });
        let surplus = pending.len().saturating_sub(MAX_PENDING);
        let_go.extend(pending.drain(..surplus));
        drop(state);
        // What a scope holds may do anything when it is dropped.
        drop(let_go);
    }

    /// Learns which events were sent, as long as their hubs know.
    pub(crate) fn settle(&self) {
        self.ask(|_| ());
    }

    /// Has an event count as sent that is held back.
    pub(crate) fn set_sent(&self) {
        self.lock().is_sent = true;
    }

    /// Whether `failure` was told.
    pub(crate) fn has_told(&self, failure: &Failure) -> bool {
        let is_repeated =
            |events: &Events| events.failures.iter().any(|told| failure.repeats(told));
        self.ask(|state| state.events.as_deref().is_some_and(is_repeated))
    }

    /// Whether any event was sent.
    pub(crate) fn has_sent_any(&self) -> bool {
        self.ask(|state| state.is_sent)
    }

    fn ask<T: Default>(&self, question: impl FnOnce(&State) -> T) -> T {
        let mut state = self.lock();
        if state.is_over {
            return T::default();
        }
        let let_go = state.settle();
        let answer = question(&state);
        drop(state);
        drop(let_go);
        answer
    }

    /// Whether one was sent. That is the end of it: a hub that is kept keeps what
    /// its scope holds.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.lock();
        let let_go = (state.settle(), state.events.take());
        state.is_over = true;
        let is_sent = state.is_sent;
        drop(state);
        drop(let_go);
        is_sent
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes what was sent out of what is pending.
    fn settle(&mut self) -> Vec<Pending> {
        let Some(events) = &mut self.events else {
            return Vec::new();
        };
        let all = std::mem::take(&mut events.pending).into_iter();
        let (sent, pending): (Vec<_>, Vec<_>) = all.partition(Pending::is_sent);
        events.pending = pending.into();
        self.is_sent |= !sent.is_empty();
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
            let told = Arc::new(Told::default());
            let hub = Arc::new(Hub::new(None, Arc::default()));
            let threads = [1, 2].map(|events| {
                let (told, hub) = (Arc::clone(&told), Arc::clone(&hub));
                spawn(move || {
                    for _ in 0..events {
                        told.note(Uuid::nil(), [&hub, &hub], None);
                    }
                })
            });
            told.close();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(Arc::strong_count(&hub), 1);
        });
    }
}
