//! In which span and call of a root an event is captured.

use std::sync::Arc;

use sentry_core::Hub;
use sentry_core::protocol::Event;

use crate::bridge::call_facts;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::sent_events::SentEvents;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::thread_stack;
use crate::fields;
use crate::span_ext::RpcStart;

/// The root of an event, and the span of it that this thread is in, if it is in one.
#[derive(Debug)]
pub(crate) struct EventPlace {
    root: Option<Arc<LocalRoot>>,
    cell: Option<Arc<SpanCell>>,
}

impl EventPlace {
    pub(crate) fn of(root: Option<Arc<LocalRoot>>) -> Self {
        let cell = root.as_ref().and_then(thread_stack::last_in);
        Self { root, cell }
    }

    /// The RPCs in the root that this is in, the innermost first.
    fn rpcs(&self) -> impl Iterator<Item = &SpanCell> {
        let both = self.root.iter().zip(&self.cell);
        both.flat_map(|(root, cell)| cell.rpcs(root))
    }

    /// What was sent in them.
    pub(crate) fn sent_events(&self) -> impl Iterator<Item = &SentEvents> {
        self.rpcs().map(|rpc| &rpc.sent_events)
    }

    /// The innermost call that a server received.
    fn server(&self) -> Option<&SpanCell> {
        self.rpcs().find(|rpc| rpc.is_server())
    }

    pub(crate) fn call(&self) -> Option<Arc<RpcStart>> {
        self.server()?.started_rpc()
    }

    /// What was sent in that call alone.
    pub(crate) fn sent_in_call(&self) -> Option<&SentEvents> {
        Some(&self.server()?.sent_events)
    }

    /// Whether the span of the root has the attributes of its RPC.
    pub(crate) fn tells_attributes(&self) -> bool {
        self.root
            .as_ref()
            .is_some_and(|root| root.tells_attributes())
    }

    pub(crate) fn main_hub(&self) -> Option<&Arc<Hub>> {
        Some(&self.root.as_ref()?.main.hub)
    }

    /// Adds to the event what is known of the innermost server call, where the root itself is
    /// not that call. `outer` is the call that the root is, if it is one. Returns whether there
    /// is such an inner call.
    pub(crate) fn tell_inner_call(&self, event: &mut Event<'_>, outer: Option<&RpcStart>) -> bool {
        let Some(server) = self.server() else {
            return false;
        };
        let Some(inner) = server.started_rpc() else {
            return false;
        };
        if let Some(outer) = outer {
            if std::ptr::eq(outer, Arc::as_ptr(&inner)) {
                return false;
            }
            call_facts::forget_outer(event, outer, &inner);
        }
        if event.user.is_none() {
            event.user = inner.facts.user.as_deref().cloned();
        }
        server.field_facts().add_to(event);
        call_facts::add_call(event, &inner, server.recorded_id(), false);
        true
    }
}

impl SpanCell {
    /// The RPCs that this span of `root` is in, the innermost first.
    pub(crate) fn rpcs(&self, root: &LocalRoot) -> impl Iterator<Item = &Self> {
        self.around()
            .take_while(|cell| cell.hub_in(root).is_some())
            .filter(|cell| cell.is_of_middleware())
    }

    /// Whether it is that of an RPC that a server received.
    pub(crate) fn is_server(&self) -> bool {
        self.is_of_middleware() && self.metadata.name() == fields::SERVER_SPAN
    }
}
