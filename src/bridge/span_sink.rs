//! What is handed to a span, and asked of it, past its fields.

use std::any::Any;
use std::sync::Arc;

use sentry_core::protocol::{Event, TraceContext};
use sentry_core::{Hub, TransactionOrSpan};
use tonic::Status;
use tracing::span::Id;
use tracing::{Dispatch, Metadata};

use crate::bridge::attributes;
use crate::bridge::call_facts;
use crate::bridge::origin::Origin;
use crate::bridge::sessions;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::span_state::Live;
use crate::bridge::thread_stack;
use crate::fields;
use crate::propagation::{IncomingTrace, TraceHeaders};
use crate::span_ext::{Enterer, OtelParentFn, RpcEnd, RpcStart, SpanSink, guarded, is_alive};

impl SpanSink for SpanCell {
    fn sends_pii(&self) -> bool {
        let client = self.base().client();
        client.is_some_and(|client| client.options().send_default_pii)
    }

    fn learn(&self, dispatch: &Dispatch) {
        self.options().learn(dispatch);
    }

    fn otel_parent(&self) -> Option<OtelParentFn> {
        self.options().otel_parent
    }

    fn open(&self, start: RpcStart) {
        self.lock().draft.rpc = Some(Arc::new(start));
    }

    fn enter(self: Arc<Self>, by: Enterer) {
        if is_alive() {
            thread_stack::enter(self, by);
        }
    }

    fn exit(&self) {
        thread_stack::exit(self.key(), self.layer());
    }

    fn keep_status(&self, status: Status) {
        if let Some(rpc) = self.around().find(|cell| cell.is_of_middleware()) {
            let mut state = rpc.lock();
            let let_go = match state.rpc_status {
                None => state.kept.replace(Box::new(status)),
                // It may hold the span, and nobody asks for it any more.
                Some(_) => Some(Box::new(status)),
            };
            drop(state);
            // Its source may do anything when it is dropped.
            guarded(|| drop(let_go));
        }
    }

    fn kept_status(&self) -> Option<Status> {
        self.lock().kept.take().map(|status| *status)
    }

    fn has_started(&self) -> bool {
        self.live().is_some()
    }

    fn continue_trace(&self, trace: IncomingTrace) -> bool {
        let mut state = self.lock();
        let is_in_time = !state.is_starting;
        if is_in_time {
            state.draft.continued = Some(Arc::new(trace));
        }
        is_in_time
    }

    fn trace_headers(&self) -> Option<TraceHeaders> {
        if !self.may_start() {
            return None;
        }
        let live = self.start();
        let span = live.recorded().unwrap_or_else(|| live.root.span());
        guarded(|| live.root.trail.headers(&span, live.w3c.as_deref()))
    }

    fn inner(
        self: Arc<Self>,
        id: &Id,
        metadata: &'static Metadata<'static>,
        was_entered: bool,
    ) -> Arc<dyn SpanSink> {
        let options = self.shared_options();
        let cell = Self::new(options, id.into_u64(), metadata, Origin::Child(self), None);
        // It is too late to say what it starts with.
        cell.lock().is_starting = was_entered;
        Arc::new(cell)
    }

    fn end(self: Arc<Self>, end: RpcEnd<'_>) {
        let live = self.start();
        self.lock().rpc_status = Some(end.status);
        // Elsewhere is no hub to tell anything by.
        if !is_alive() {
            guarded(|| self.was_told(live));
            return self.abandon();
        }
        self.tell(live, &end);
        // Whatever else holds the tracing span, the RPC is over.
        self.finish_or_wait(live);
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl SpanCell {
    fn tell(&self, live: &Live, end: &RpcEnd<'_>) {
        if let Some(path) = end.unknown_method {
            guarded(|| live.forget_name(path));
        }
        // Also where there is no event to send: it lets hubs go.
        let was_told = guarded(|| self.was_told(live)).unwrap_or(false);
        let is_told_once = self.options().is_told_once;
        let event = end.event.filter(|_| !(was_told && is_told_once));
        let event = event.and_then(|event| guarded(event).flatten());
        let is_told = live.root.is_sampled || event.is_some();
        if let Some(span) = live.recorded().filter(|_| is_told) {
            let mut data = (end.data)();
            if let Some(message) = end.message {
                let description = fields::OTEL_STATUS_DESCRIPTION.into();
                data.push((description, message.into()));
            }
            guarded(|| {
                // The event of a failure has it too.
                span.set_status(end.status);
                if live.tells_attributes() || live.is_root && event.is_some() {
                    if live.is_root && live.root.parts.is_some() {
                        // Of a span that may be cut just now.
                        live.root.trail.keep_end(data.clone());
                    }
                    attributes::set(&span, data, attributes::NO_TAGS);
                } else if live.is_root {
                    live.root.trail.keep_end(data);
                } else {
                    self.lock().late = data;
                }
            });
        }
        if let Some(breadcrumb) = end.breadcrumb {
            guarded(|| live.leave(breadcrumb(), event.is_some()));
        }
        if let Some(mut event) = event {
            self.complete(live, &mut event);
            // Its span is entered: the hub of the RPC is current.
            guarded(|| Hub::with_active(|hub| hub.capture_event(event)));
        }
        let is_session = |rpc: &Arc<RpcStart>| rpc.facts.is_session;
        if live.is_root && self.started_rpc().as_ref().is_some_and(is_session) {
            guarded(|| sessions::end(&live.root.main.hub, end.has_panicked));
        }
    }

    /// Adds what is known of the call to the event of its failure.
    fn complete(&self, live: &Live, event: &mut Event<'_>) {
        let Some(rpc) = self.started_rpc() else {
            return;
        };
        let trail = &live.root.trail;
        let own = match live.recorded().as_deref() {
            Some(TransactionOrSpan::Span(_)) => self.recorded_id(),
            _ if live.is_root => Some(trail.root_id()),
            _ => None,
        };
        let is_poisoned = |span: &TransactionOrSpan| guarded(|| span.get_status()).is_none();
        if live.recorded().as_deref().is_some_and(is_poisoned) {
            // sentry-core would ask that span for it, and send nothing.
            let trace = TraceContext {
                trace_id: trail.trace_id(),
                span_id: trail.root_id(),
                ..TraceContext::default()
            };
            event.contexts.insert("trace".to_owned(), trace.into());
        }
        call_facts::add_call(event, &rpc, own, true);
    }

    /// Whether an event was sent in this RPC, which is at its end.
    fn was_told(&self, live: &Live) -> bool {
        // Both are closed: what they keep holds the root.
        let root = live.is_root && live.root.trail.told.close();
        self.told.close() || root
    }
}
