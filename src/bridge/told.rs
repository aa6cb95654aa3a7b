//! Whether Sentry was told of an RPC's failure before its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sentry_core::Hub;
use sentry_core::types::Uuid;

/// Hubs beyond that are forgotten: at worst, a failure is told twice.
const MAX_PENDING: usize = 8;

type Pending = Vec<(Uuid, Arc<Hub>)>;

/// The events that were captured in an RPC, as far as it matters whether one was
/// sent.
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
    pending: Pending,
}

impl Told {
    /// Of what is no RPC: nobody will ask.
    pub(crate) fn closed() -> Self {
        Self(Mutex::new(State {
            is_over: true,
            ..State::default()
        }))
    }

    /// An event is about to be sent from `hub`.
    pub(crate) fn note(&self, event: Uuid, hub: &Arc<Hub>) {
        let mut state = self.lock();
        if state.is_over || state.is_sent {
            return;
        }
        state.settle();
        let mut kept = std::mem::take(&mut state.pending);
        let mut let_go: Pending = kept
            .extract_if(.., |(_, one)| Arc::ptr_eq(one, hub))
            .collect();
        if state.is_sent {
            let_go.append(&mut kept);
        } else {
            let surplus = (kept.len() + 1).saturating_sub(MAX_PENDING);
            let_go.extend(kept.drain(..surplus));
            kept.push((event, Arc::clone(hub)));
        }
        state.pending = kept;
        drop(state);
        // What a scope holds may do anything when it is dropped.
        drop(let_go);
    }

    /// Whether one was sent. That is the end of it: a hub that is kept keeps what
    /// its scope holds.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.lock();
        state.settle();
        state.is_over = true;
        let (is_sent, let_go) = (state.is_sent, std::mem::take(&mut state.pending));
        drop(state);
        drop(let_go);
        is_sent
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn settle(&mut self) {
        let is_sent = |(event, hub): &(Uuid, Arc<Hub>)| hub.last_event_id() == Some(*event);
        self.is_sent = self.is_sent || self.pending.iter().any(is_sent);
    }
}
