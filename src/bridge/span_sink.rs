//! What is handed to a span, and asked of it, past its fields.

use std::any::Any;
use std::sync::Arc;

use sentry_core::Hub;

use crate::bridge::span_cell::SpanCell;
use crate::bridge::span_state::Live;
use crate::fields;
use crate::propagation::{IncomingTrace, TraceHeaders};
use crate::span_ext::{RpcEnd, RpcStart, SpanSink, guarded, is_alive};

impl SpanSink for SpanCell {
    fn open(&self, start: RpcStart) {
        self.lock().draft.rpc = Some(start);
    }

    fn continue_trace(&self, trace: IncomingTrace) -> bool {
        let mut state = self.lock();
        let is_in_time = !state.is_starting;
        if is_in_time {
            state.draft.continued = Some(trace);
        }
        is_in_time
    }

    fn trace_headers(&self) -> Option<TraceHeaders> {
        if !self.may_start() {
            return None;
        }
        let live = self.start();
        let span = live.recorded.as_ref().unwrap_or(&live.root.span);
        guarded(|| live.root.trail.headers(span))
    }

    fn end(self: Arc<Self>, end: RpcEnd<'_>) {
        let live = self.start();
        self.lock().rpc_status = Some(end.status);
        // Elsewhere is no hub to tell anything by.
        if is_alive() {
            self.tell(&live, &end);
        }
        // Whatever else holds the tracing span, the RPC is over.
        self.finish_or_wait(&live);
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
        if let Some(span) = &live.recorded {
            guarded(|| {
                // The event of a failure has it too.
                span.set_status(end.status);
                if let Some(message) = end.message {
                    span.set_data(fields::OTEL_STATUS_DESCRIPTION, message.to_owned().into());
                }
            });
        }
        // Also where there is no event to send: it lets hubs go.
        let was_told = guarded(|| self.was_told(live)).unwrap_or(false);
        let event = end.event.filter(|_| !was_told);
        if let Some(breadcrumb) = end.breadcrumb {
            guarded(|| live.leave(breadcrumb(), event.is_some()));
        }
        if let Some(event) = event {
            // Its span is entered: the hub of the RPC is current.
            guarded(|| Hub::with_active(|hub| hub.capture_event(event())));
        }
    }
    /// Whether an event was sent in this RPC, which is at its end.
    fn was_told(&self, live: &Live) -> bool {
        // Both: a root may have been begun by this span or around it.
        let own = self.told.close();
        own || live.is_root && live.root.trail.told.close()
    }
}
