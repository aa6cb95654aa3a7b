//! What is kept of a finished span inside a segment.

use std::borrow::Cow;
use std::sync::Arc;

use sentry_core::protocol::{Map, Span, SpanId, Value};
use tracing::Metadata;

use crate::fields;
use crate::report::{Attribute, SeeAttribute};
use crate::send::attributes::{self, ORIGIN_RPC};
use crate::span_ext::RpcStart;

/// A finished span. What the application set on it is in the span of sentry-core that has the same
/// id, whose name and operation are empty unless the application or a field set them.
#[derive(Debug)]
pub(crate) struct SpanRecord {
    pub(crate) id: SpanId,
    pub(crate) metadata: &'static Metadata<'static>,
    /// The call that it is the span of.
    pub(crate) call: Option<Arc<RpcStart>>,
    /// How the call ended; for a span of another kind, what its fields said as it started.
    pub(crate) data: Vec<(Cow<'static, str>, Value)>,
}

/// The operation of the sentry-core span of a record. The application's own spans have others.
pub(crate) const NO_OP: &str = "";

/// sentry-core keeps the first 1001 spans of a transaction. Records are kept in the order in which
/// spans finish, which may differ a little from that of sentry-core: so a few more.
const MAX: usize = 1_100;

/// The records of the spans that have finished.
#[derive(Debug, Default)]
pub(crate) struct Records {
    kept: Vec<SpanRecord>,
    /// How many spans have finished.
    finished: u64,
}

impl Records {
    pub(crate) fn add(&mut self, record: Option<SpanRecord>) {
        self.finished += u64::from(record.is_some());
        if self.kept.len() < MAX {
            self.kept.extend(record);
        }
    }

    /// Finds the record of each span, and how many spans are not among `spans`. Both are in the
    /// order in which spans finished, or nearly.
    pub(crate) fn aligned(self, spans: &[Span]) -> (Vec<Option<SpanRecord>>, u64) {
        let mut records: Vec<_> = self.kept.into_iter().map(Some).collect();
        let mut next = 0;
        let mut take = |span: &Span| {
            let is_its = |record: &Option<SpanRecord>| {
                let record = record.as_ref();
                record.is_some_and(|record| record.id == span.span_id)
            };
            let index = match records.get(next) {
                Some(record) if is_its(record) => next,
                _ => records.iter().position(is_its)?,
            };
            next = index + 1;
            records.get_mut(index)?.take()
        };
        let mut ours = 0;
        let aligned = spans.iter().map(|span| {
            let record = take(span);
            // The record of a span may not be kept: its thread was held up as it finished.
            let is_ours = record.is_some() || span.op.as_deref() == Some(NO_OP);
            ours += u64::from(is_ours);
            record
        });
        (aligned.collect(), self.finished.saturating_sub(ours))
    }
}

impl SpanRecord {
    pub(crate) fn name<'a>(&'a self, set: &'a Span) -> Option<&'a str> {
        let own = match &self.call {
            Some(call) => call.about.name(),
            None => self.metadata.name(),
        };
        let own = Some(own).filter(|name| !name.is_empty());
        set.description.as_deref().or(own)
    }

    pub(crate) fn op<'a>(&'a self, set: &'a Span) -> Cow<'a, str> {
        match (set.op.as_deref(), &self.call) {
            (Some(op), _) if op != NO_OP => op.into(),
            (_, Some(call)) => (&*call.op).into(),
            (_, None) => attributes::op(self.metadata).into(),
        }
    }

    /// Calls `see` with each attribute; `set` are those that the application set.
    pub(crate) fn attributes(&self, set: &Map<String, Value>, see: SeeAttribute<'_>) {
        let is_of_middleware = self.metadata.target() == fields::TARGET;
        match &self.call {
            None if is_of_middleware => attributes::of_call(None, &[], set, see),
            None => attributes::of_code(self.metadata, &self.data, set, see),
            Some(call) => {
                attributes::of_call(Some(call), &self.data, set, see);
                // Unlike a transaction, a span has no other place for it.
                let origin = fields::SENTRY_ORIGIN;
                if !attributes::has(&self.data, origin) && !set.contains_key(origin) {
                    see(origin, Attribute::Text(ORIGIN_RPC));
                }
            }
        }
    }
}
