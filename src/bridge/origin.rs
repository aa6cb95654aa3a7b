//! What is around a span when it is made, which decides whether it begins a root.

use std::sync::Arc;

use sentry_core::{Hub, TransactionOrSpan};
use tracing::span::Attributes;

use crate::bridge::hubs::{base_hub, is_enabled};
use crate::bridge::span_cell::SpanCell;
use crate::bridge::thread_stack;
use crate::bridge::trail::Trail;
use crate::bridge::trails;

/// What a span is made in.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A span of the same subscriber.
    Child(Arc<SpanCell>),
    /// A span of another subscriber, found by the current hub.
    Beside(Arc<SpanCell>),
    /// Nothing of ours: it begins a root.
    Root {
        base: Arc<Hub>,
        app_span: Option<TransactionOrSpan>,
    },
    Fork(HubFork),
}

/// A hub that the application forked from that of a root, and bound where no
/// tracing span leads to the root.
#[derive(Debug)]
pub(crate) struct HubFork {
    pub(crate) hub: Arc<Hub>,
    /// The trail of the root.
    pub(crate) trail: Arc<Trail>,
    /// The span on the hub's scope.
    pub(crate) span: TransactionOrSpan,
}

impl HubFork {
    /// The current hub, where it is such a fork; with a pinned hub, only if it has the same
    /// client.
    pub(crate) fn current(pinned: Option<&Arc<Hub>>) -> Option<Self> {
        let hub = Hub::current();
        let span = span_on(&hub)?;
        Self::new(hub, span, pinned)
    }

    fn new(hub: Arc<Hub>, span: TransactionOrSpan, pinned: Option<&Arc<Hub>>) -> Option<Self> {
        let client = hub.client()?;
        if let Some(pinned) = pinned
            && !pinned
                .client()
                .is_some_and(|pinned| Arc::ptr_eq(&pinned, &client))
        {
            return None;
        }
        let trail = trails::find_of(&span)?;
        Some(Self { hub, trail, span })
    }
}

impl Origin {
    /// Whether there is nothing around the span.
    pub(crate) fn begins_a_trace(&self) -> bool {
        matches!(self, Self::Root { app_span: None, .. })
    }

    /// The origin of a span that has no parent in its subscriber; `None` where no client is
    /// enabled.
    pub(crate) fn without_parent(
        pinned: Option<&Arc<Hub>>,
        attrs: &Attributes<'_>,
    ) -> Option<Self> {
        let current = Hub::current();
        if pinned.is_none() {
            match thread_stack::span_of(&current) {
                // A span of another subscriber.
                Some(around) if attrs.is_contextual() => return Some(Self::Beside(around)),
                Some(around) => {
                    let base = Arc::clone(around.base());
                    return Some(Self::Root {
                        base,
                        app_span: None,
                    });
                }
                None => {}
            }
        }
        let on_current = match Arc::strong_count(&current) {
            // Held by the thread and by us alone: no other thread can write to it.
            2 => is_enabled(&current).then(|| current.configure_scope(|scope| scope.get_span())),
            _ => Some(span_on(&current)),
        };
        let on_current = on_current.flatten();
        let fork = |span| HubFork::new(Arc::clone(&current), span, pinned);
        if let Some(fork) = on_current.clone().and_then(fork) {
            return Some(match attrs.is_contextual() {
                true => Self::Fork(fork),
                // A span with `parent: None` has nothing of the root of the fork.
                false => Self::Root {
                    base: Arc::clone(fork.trail.base()),
                    app_span: None,
                },
            });
        }
        let base = base_hub(pinned)?;
        let app_span = match attrs.is_root() {
            true => None,
            false if Arc::ptr_eq(&base, &current) => on_current,
            false => span_on(&base),
        };
        Some(Self::Root { base, app_span })
    }
}

/// The span on the scope of a hub that can send.
fn span_on(hub: &Arc<Hub>) -> Option<TransactionOrSpan> {
    if !is_enabled(hub) {
        return None;
    }
    // On a copy: `configure_scope` writes the scope back, and would undo what another thread
    // writes meanwhile to a hub that they share.
    Hub::new_from_top(hub).configure_scope(|scope| scope.get_span())
}
