//! The changing part of a span, and what it has once it has started.

use std::sync::Arc;
use std::time::SystemTime;

use sentry_core::TransactionOrSpan;
use sentry_core::protocol::SpanStatus;

use crate::bridge::attributes;
use crate::bridge::draft::{Draft, FieldStatus, SpanFields};
use crate::bridge::hub_slot::HubSlot;
use crate::bridge::local_root::LocalRoot;
use crate::report;

/// The part of a span that changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) draft: Draft,
    pub(crate) live: Option<Live>,
    /// The hubs of this span, in the order of preference.
    pub(crate) slots: Vec<Arc<HubSlot>>,
    pub(crate) rpc_status: Option<SpanStatus>,
    pub(crate) field_status: Option<FieldStatus>,
    /// An ERROR event was seen in the span.
    pub(crate) saw_error: bool,
    pub(crate) ended_at: Option<SystemTime>,
    pub(crate) is_finished: bool,
}

impl State {
    /// The status to finish with, and whether it outranks one that the
    /// application set on the Sentry span itself.
    pub(crate) fn status(&self) -> (SpanStatus, bool) {
        if let Some(status) = self.rpc_status {
            return (status, true);
        }
        match self.field_status {
            Some(FieldStatus::Grpc(code)) => (report::span_status_of_number(code), true),
            Some(FieldStatus::OtelError) => (SpanStatus::InternalError, true),
            Some(FieldStatus::OtelOk) => (SpanStatus::Ok, true),
            None if self.saw_error => (SpanStatus::InternalError, false),
            None => (SpanStatus::Ok, false),
        }
    }
}

/// A span that has started.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) root: Arc<LocalRoot>,
    /// Whether `root` began with this span.
    pub(crate) is_root: bool,
    /// Its span in Sentry; `None` where nothing would come of it.
    pub(crate) recorded: Option<TransactionOrSpan>,
}

impl Live {
    pub(crate) fn set_fields(&self, mut fields: SpanFields, of_middleware: bool) {
        let Some(span) = &self.recorded else { return };
        // The middleware names its spans through their sink.
        if !of_middleware {
            if let Some(name) = fields.name.or(fields.otel_name) {
                span.set_name(&name);
                if self.is_root {
                    self.root.trail.set_transaction(&name);
                }
            }
            if let Some(op) = &fields.op {
                span.set_op(op);
            }
        } else if !self.root.sends_pii() {
            fields.data.retain(|(name, _)| !attributes::is_pii(name));
        }
        attributes::set(span, fields.data, fields.tags);
    }
}
