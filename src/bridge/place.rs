//! Where in a root an event is captured.

use std::sync::Arc;

use sentry_core::Hub;
use sentry_core::protocol::{Context, Event};

use crate::bridge::local_root::LocalRoot;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::thread_stack;
use crate::bridge::told::Told;
use crate::fields;
use crate::report;
use crate::span_ext::RpcStart;

/// The span of a root that this thread is in, as far as it is in one.
#[derive(Debug)]
pub(crate) struct Place {
    root: Option<Arc<LocalRoot>>,
    cell: Option<Arc<SpanCell>>,
}

impl Place {
    pub(crate) fn of(root: Option<Arc<LocalRoot>>) -> Self {
        let cell = root.as_ref().and_then(thread_stack::last_in);
        Self { root, cell }
    }

    /// The RPCs in the root that this is in, the innermost first.
    fn rpcs(&self) -> impl Iterator<Item = &SpanCell> {
        let both = self.root.iter().zip(&self.cell);
        both.flat_map(|(root, cell)| cell.rpcs(root))
    }

    /// What was told in them.
    pub(crate) fn told(&self) -> impl Iterator<Item = &Told> {
        self.rpcs().map(|rpc| &rpc.told)
    }

    pub(crate) fn main_hub(&self) -> Option<&Arc<Hub>> {
        Some(&self.root.as_ref()?.main.hub)
    }

    /// Says which call the event is of, where that is one inside another or inside a span
    /// of the application: the scope, which they share, knows of the one that the root is,
    /// `outer`.
    pub(crate) fn apply(&self, event: &mut Event<'_>, outer: Option<&Arc<RpcStart>>) {
        let mut servers = self.rpcs().filter(|rpc| rpc.is_server());
        let Some(inner) = servers.next().and_then(SpanCell::started_rpc) else {
            return;
        };
        if outer.is_some_and(|outer| Arc::ptr_eq(outer, &inner)) {
            return;
        }
        let outer = outer.map(|outer| &outer.facts);
        let facts = &inner.facts;
        let is_outers = |key: &str, value: &str| {
            let mut tags = outer.iter().flat_map(|outer| &outer.tags);
            tags.any(|(known, tag)| known == key && tag == value)
        };
        let own = [
            (fields::RPC_SERVICE, &inner.service),
            (fields::RPC_METHOD, &inner.method),
        ];
        let own = own.into_iter();
        let tags = facts.tags.iter().map(|(key, value)| (key.as_str(), value));
        for (key, value) in own.chain(tags) {
            let tag = event.tags.entry(key.to_owned()).or_default();
            if tag.is_empty() || is_outers(key, tag) {
                value.clone_into(tag);
            }
        }
        if let Some(user) = &facts.user {
            let is_outers = event.user.as_ref() == outer.and_then(|outer| outer.user.as_ref());
            if event.user.is_none() || is_outers {
                event.user = Some(user.clone());
            }
        }
        if let Some(context) = &facts.context {
            let entry = event.contexts.entry(report::RPC_CONTEXT.to_owned());
            entry.or_insert_with(|| Context::Other(context.clone()));
        }
    }
}
