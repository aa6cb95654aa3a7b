//! [`SpanCell`] as the middleware and applications see it: see [`SpanSink`].

use std::any::Any;
use std::sync::Arc;

use sentry_core::protocol::{Event, TraceContext};
use sentry_core::{Hub, TransactionOrSpan};
use tracing::span::Id;
use tracing::{Dispatch, Metadata};

use crate::bridge::attributes;
use crate::bridge::call_facts;
use crate::bridge::origin::Origin;
use crate::bridge::sessions;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::span_state::LiveSpan;
use crate::bridge::thread_stack;
use crate::fields;
use crate::propagation::{IncomingTrace, TraceHeaders};
use crate::span_ext::{
    Enterer, OtelParentFn, RpcEnd, RpcStart, SpanSink, guarded, is_thread_alive,
};

impl SpanSink for SpanCell {
    fn sends_pii(&self) -> bool {
        let client = self.base().client();
        client.is_some_and(|client| client.options().send_default_pii)
    }

    fn learn_dispatch(&self, dispatch: &Dispatch) {
        self.options().learn_dispatch(dispatch);
    }

    fn otel_parent(&self) -> Option<OtelParentFn> {
        self.options().otel_parent
    }

    fn open(&self, start: RpcStart) {
        self.lock().draft.rpc = Some(Arc::new(start));
    }

    fn enter(self: Arc<Self>, by: Enterer) {
        if is_thread_alive() {
            thread_stack::enter(self, by);
        }
    }

    fn exit(&self) {
        thread_stack::exit(self.key(), self.layer());
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
        // A span that was entered can no longer be given a trace to continue.
        cell.lock().is_starting = was_entered;
        Arc::new(cell)
    }

    fn end(self: Arc<Self>, end: RpcEnd<'_>) {
        let live = self.start();
        self.lock().rpc_status = Some(end.status);
        // Without a hub, nothing can be reported.
        if !is_thread_alive() {
            guarded(|| self.has_sent_error(live));
            return self.abandon();
        }
        self.report_end(live, &end);
        // The RPC is over, even if somebody still holds the tracing span.
        self.finish_or_wait(live);
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl SpanCell {
    /// Reports the end of the RPC: on its span, by a breadcrumb, an event and its session.
    fn report_end(&self, live: &LiveSpan, end: &RpcEnd<'_>) {
        if let Some(path) = end.unknown_method {
            guarded(|| live.forget_name(path));
        }
        // Asked even where there is no event to send: it lets go of hubs.
        let has_sent_error = guarded(|| self.has_sent_error(live)).unwrap_or(false);
        let deduplicate_errors = self.options().deduplicate_errors;
        let event = end
            .event
            .filter(|_| !(has_sent_error && deduplicate_errors));
        let event = event.and_then(|event| guarded(event).flatten());
        let is_sent = live.root.is_sampled || event.is_some();
        if let Some(span) = live.recorded().filter(|_| is_sent) {
            let mut data = (end.data)();
            if let Some(message) = end.message {
                let description = fields::OTEL_STATUS_DESCRIPTION.into();
                data.push((description, message.into()));
            }
            guarded(|| {
                // Also where only the event is sent: it takes its trace context from the span.
                span.set_status(end.status);
                if live.root.tells_attributes() {
                    live.set_attributes(data, attributes::NO_TAGS);
                } else if live.is_root {
                    live.root.trail.keep_data(data);
                } else {
                    self.lock().record_data = data;
                }
            });
        }
        if let Some(breadcrumb) = end.breadcrumb {
            guarded(|| live.leave_breadcrumb(breadcrumb(), event.is_some()));
        }
        if let Some(mut event) = event {
            self.complete(live, &mut event);
            // The span is entered, so that the current hub is that of the RPC.
            guarded(|| Hub::with_active(|hub| hub.capture_event(event)));
        }
        let is_session = |rpc: &Arc<RpcStart>| rpc.facts.is_session;
        if live.is_root && self.started_rpc().as_ref().is_some_and(is_session) {
            guarded(|| sessions::end(&live.root.main.hub, end.has_panicked));
        }
    }

    /// Adds what is known of the call to the event of its failure.
    fn complete(&self, live: &LiveSpan, event: &mut Event<'_>) {
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
            // Without one, sentry-core would ask the span for its trace context, panic, and send
            // nothing.
            let trace = TraceContext {
                trace_id: trail.trace_id(),
                span_id: trail.root_id(),
                ..TraceContext::default()
            };
            event.contexts.insert("trace".to_owned(), trace.into());
        }
        call_facts::add_call(event, &rpc, own, true);
    }

    /// Whether an error was sent in this RPC, which ends here.
    fn has_sent_error(&self, live: &LiveSpan) -> bool {
        // Closes both: the hubs that they keep hold the root.
        let root = live.is_root && live.root.trail.sent_events.close();
        self.sent_events.close() || root
    }
}
