//! Attributes that are added to spans when their transaction is sent: set on the span
//! itself, sentry-core would copy them once more as it finishes.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use sentry_core::protocol::{Map, Span, SpanId, Value};
use tracing::Metadata;

use crate::bridge::attributes;
use crate::span_ext::RpcStart;

/// sentry-core keeps the first 1001 spans of a transaction. These are kept in the order in
/// which spans finish, which may differ a little from that of sentry-core: so a few more.
pub(crate) const MAX: usize = 1_100;

/// The operation and the name that a span is made with where its own are added late.
pub(crate) const NAMELESS: (Cow<'static, str>, &str) = (Cow::Borrowed(""), "");

/// What is to be added to a finished span inside a root.
#[derive(Debug)]
pub(crate) enum LateData {
    /// For a span that is no RPC: where it was made, and what its fields said as it started.
    Source(&'static Metadata<'static>, Vec<(Cow<'static, str>, Value)>),
    /// For the span of an RPC: what is known of the RPC, and how it ended.
    Call(Arc<RpcStart>, Vec<(Cow<'static, str>, Value)>),
    /// For a span with the target of the middleware that no RPC was announced for.
    Name(&'static Metadata<'static>),
}

impl LateData {
    fn add_to(self, span: &mut Span) {
        match self {
            Self::Source(metadata, fields) => {
                name(span, metadata.name(), || attributes::op(metadata));
                // A field that was recorded more than once has its last value.
                for (name, value) in fields.into_iter().rev() {
                    add(&mut span.data, name, value);
                }
                for (name, value) in attributes::source(metadata) {
                    add(&mut span.data, name.into(), value);
                }
            }
            Self::Call(rpc, end) => {
                name(span, rpc.about.name(), || rpc.op.as_ref().to_owned());
                let (name, value) = attributes::origin();
                add(&mut span.data, name.into(), value);
                for (name, value) in rpc.about.data() {
                    add(&mut span.data, name, value);
                }
                // How it ended outranks what the application set.
                span.data.extend(
                    end.into_iter()
                        .map(|(name, value)| (name.into_owned(), value)),
                );
            }
            Self::Name(metadata) => name(span, metadata.name(), || attributes::op(metadata)),
        }
    }
}

/// Names a span that nobody else has named.
fn name(span: &mut Span, name: &str, op: impl FnOnce() -> String) {
    if span.description.is_none() && !name.is_empty() {
        span.description = Some(name.to_owned());
    }
    if span.op.as_deref().is_none_or(str::is_empty) {
        span.op = Some(op());
    }
}

fn add(data: &mut Map<String, Value>, name: Cow<'static, str>, value: Value) {
    data.entry(name.into_owned()).or_insert(value);
}

/// Adds to each of `spans` what is kept for it. Both are in the order in which the spans
/// finished, or nearly. Spans that the application made itself have nothing kept: returns how
/// many of `spans` are not such.
pub(crate) fn add_to_spans(spans: &mut [Span], mut late: VecDeque<(SpanId, LateData)>) -> u64 {
    let mut ours = 0;
    for span in spans {
        let is_its = |(id, _): &(SpanId, LateData)| *id == span.span_id;
        let index = late.iter().position(is_its);
        if let Some((_, late)) = index.and_then(|index| late.remove(index)) {
            late.add_to(span);
            ours += 1;
        } else if span.op.as_deref() == Some(&*NAMELESS.0) {
            // Ours, but beyond the kept ones: its thread was held up as it finished.
            ours += 1;
        }
    }
    ours
}
