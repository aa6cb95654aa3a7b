//! What is handed to a span, and asked of it, past its fields.

use std::any::Any;
use std::sync::Arc;

use sentry_core::Hub;

use crate::bridge::span_cell::SpanCell;
use crate::bridge::span_state::Live;
use crate::fields;
use crate::propagation::{IncomingTrace, TraceHeaders};
use crate::span_ext::{RpcEnd, RpcStart, SpanSink, guarded};

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
        if let Some(path) = end.unknown_method {
            guarded(|| live.forget_name(path));
        }
        if let Some(breadcrumb) = end.breadcrumb {
            guarded(|| live.leave(breadcrumb()));
        }
        if let Some(event) = end.event
            && !self.has_reported(&live)
        {
            // Its span is entered: the hub of the RPC is current.
            guarded(|| Hub::with_active(|hub| hub.capture_event(event())));
        }
        self.lock().rpc_status = Some(end.status);
        if let (Some(span), Some(message)) = (&live.recorded, end.message) {
            guarded(|| span.set_data(fields::OTEL_STATUS_DESCRIPTION, message.to_owned().into()));
        }
        // Whatever else holds the tracing span, the RPC is over.
        self.finish_or_wait(&live);
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl SpanCell {
    /// Whether an event was sent since it started, in its root.
    fn has_reported(&self, live: &Live) -> bool {
        let count = live.root.trail.reports.count_with(&Hub::current());
        count > self.lock().reports_before
    }
}
