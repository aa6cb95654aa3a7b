//! What Sentry was told in an RPC before its end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentry_core::Hub;
use sentry_core::types::Uuid;

use crate::bridge::repeats::ErrorKey;

/// Hubs beyond that are forgotten: at worst, a failure is told twice.
const MAX_PENDING: usize = 8;

/// So are errors.
const MAX_ERRORS: usize = 64;

/// An event that was captured and may yet be dropped.
#[derive(Debug)]
struct Pending {
    event: Uuid,
    hub: Arc<Hub>,
    errors: Vec<ErrorKey>,
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
    /// The last one of each hub.
    pending: Vec<Pending>,
    /// Those that were sent, the last ones.
    errors: VecDeque<ErrorKey>,
}

impl Told {
    /// Of what is no RPC: nobody will ask.
    pub(crate) fn closed() -> Self {
        Self(Mutex::new(State {
            is_over: true,
            ..State::default()
        }))
    }

    /// An event that tells of `errors` is about to be sent from `hub`.
    pub(crate) fn note(&self, event: Uuid, hub: &Arc<Hub>, errors: &[ErrorKey]) {
        let mut state = self.lock();
        if state.is_over {
            return;
        }
        let mut let_go = state.settle();
        let mut kept = std::mem::take(&mut state.pending);
        let_go.extend(kept.extract_if(.., |one| Arc::ptr_eq(&one.hub, hub)));
        let surplus = (kept.len() + 1).saturating_sub(MAX_PENDING);
        let_go.extend(kept.drain(..surplus));
        kept.push(Pending {
            event,
            hub: Arc::clone(hub),
            errors: errors.to_vec(),
        });
        state.pending = kept;
        drop(state);
        // What a scope holds may do anything when it is dropped.
        drop(let_go);
    }

    /// Whether one of `errors` was sent.
    pub(crate) fn has_sent(&self, errors: &[ErrorKey]) -> bool {
        self.ask(|state| errors.iter().any(|error| state.errors.contains(error)))
    }

    /// Whether any event was sent.
    pub(crate) fn has_sent_any(&self) -> bool {
        self.ask(|state| state.is_sent)
    }

    fn ask(&self, question: impl FnOnce(&State) -> bool) -> bool {
        let mut state = self.lock();
        if state.is_over {
            return false;
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
        let mut let_go = state.settle();
        state.is_over = true;
        state.errors = VecDeque::new();
        let_go.append(&mut state.pending);
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
        let is_sent = |one: &mut Pending| one.hub.last_event_id() == Some(one.event);
        let sent: Vec<Pending> = self.pending.extract_if(.., is_sent).collect();
        self.is_sent |= !sent.is_empty();
        for error in sent.iter().flat_map(|one| &one.errors) {
            if !self.errors.contains(error) {
                self.errors.push_back(*error);
            }
        }
        let surplus = self.errors.len().saturating_sub(MAX_ERRORS);
        self.errors.drain(..surplus);
        sent
    }
}
