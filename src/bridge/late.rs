//! What spans are told as they are sent: on the span itself, sentry-core would copy it
//! once more as that finishes.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use sentry_core::protocol::{Map, Span, SpanId, Value};
use tracing::Metadata;

use crate::bridge::attributes;
use crate::span_ext::RpcStart;

/// sentry-core keeps the first 1001 spans of a transaction, and ours may come here in an
/// order that differs a little.
pub(crate) const MAX: usize = 1_100;

/// The operation and the name of a span that is told its own as it is sent.
pub(crate) const NAMELESS: (Cow<'static, str>, &str) = (Cow::Borrowed(""), "");

/// What a span inside a root that has finished does not say itself.
#[derive(Debug)]
pub(crate) enum Late {
    /// Of a span that is no RPC: where it was made, and what its fields told as it started.
    Source(&'static Metadata<'static>, Vec<(Cow<'static, str>, Value)>),
    /// Of an RPC, and how that ended.
    Call(Arc<RpcStart>, Vec<(Cow<'static, str>, Value)>),
    /// Of a span that is named as those of RPCs are, and is none that is known.
    Name(&'static Metadata<'static>),
}

impl Late {
    fn add_to(self, span: &mut Span) {
        match self {
            Self::Source(metadata, fields) => {
                name(span, metadata.name(), || attributes::op(metadata));
                // Of a field that was recorded more than once, the last holds.
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
                // How it ended is not for the application to say.
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

/// Adds to each of `spans` what is kept for it, in the order in which they finished but for
/// those that finished at once. Spans of the application have nothing there: returns how many
/// are none of its.
pub(crate) fn complete(spans: &mut [Span], mut late: VecDeque<(SpanId, Late)>) -> u64 {
    let mut ours = 0;
    for span in spans {
        let is_its = |(id, _): &(SpanId, Late)| *id == span.span_id;
        let index = late.iter().position(is_its);
        if let Some((_, late)) = index.and_then(|index| late.remove(index)) {
            late.add_to(span);
            ours += 1;
        } else if span.op.as_deref() == Some(&*NAMELESS.0) {
            // It has finished long after others, on a thread that was held up.
            ours += 1;
        }
    }
    ours
}
