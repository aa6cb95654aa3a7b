//! Where a span stands when it is made.

use std::sync::Arc;

use sentry_core::{Hub, TransactionOrSpan};
use tracing::span::Attributes;

use crate::bridge::hubs::base_hub;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::thread_stack;
use crate::bridge::trails;

/// What a span goes on from.
#[derive(Debug)]
pub(crate) enum Origin {
    Child(Arc<SpanCell>),
    Root {
        base: Arc<Hub>,
        inside: Option<TransactionOrSpan>,
    },
}

impl Origin {
    /// Of a span that has no parent in its subscriber; `None` where there is
    /// nobody to send it.
    pub(crate) fn without_parent(
        pinned: Option<&Arc<Hub>>,
        attrs: &Attributes<'_>,
    ) -> Option<Self> {
        let current = Hub::current();
        if pinned.is_none() {
            match thread_stack::span_of(&current) {
                // A span of another subscriber.
                Some(around) if attrs.is_contextual() => return Some(Self::Child(around)),
                Some(around) => {
                    let base = Arc::clone(around.base());
                    return Some(Self::Root { base, inside: None });
                }
                None => {}
            }
        }
        let base = base_hub(pinned)?;
        if attrs.is_root() {
            return Some(Self::Root { base, inside: None });
        }
        if pinned.is_some()
            && let Some(inside) = span_on(&current)
            && trails::find_of(&inside).is_some()
            && is_of_same_client(&current, &base)
        {
            // A fork of a hub of ours, which the application has bound.
            let inside = Some(inside);
            return Some(Self::Root {
                base: current,
                inside,
            });
        }
        let inside = span_on(&base);
        Some(Self::Root { base, inside })
    }
}

fn span_on(hub: &Arc<Hub>) -> Option<TransactionOrSpan> {
    // Of a copy: looking at a scope writes it back, and would undo what another
    // thread writes to a hub that they share.
    Hub::new_from_top(hub).configure_scope(|scope| scope.get_span())
}

fn is_of_same_client(a: &Hub, b: &Hub) -> bool {
    a.client()
        .zip(b.client())
        .is_some_and(|(a, b)| Arc::ptr_eq(&a, &b))
}
