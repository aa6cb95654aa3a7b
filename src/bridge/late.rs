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

/// Attributes of a span inside a root that has finished.
#[derive(Debug)]
pub(crate) enum Late {
    /// Where it was made.
    Source(&'static Metadata<'static>),
    /// Of an RPC, and how that ended.
    Call(Arc<RpcStart>, Vec<(Cow<'static, str>, Value)>),
}

impl Late {
    fn add_to(self, data: &mut Map<String, Value>) {
        let mut add = |name: &str, value| {
            data.entry(name.to_owned()).or_insert(value);
        };
        match self {
            Self::Source(metadata) => {
                for (name, value) in attributes::source(metadata) {
                    add(name, value);
                }
            }
            Self::Call(rpc, end) => {
                let (name, value) = attributes::origin();
                add(name, value);
                for (name, value) in rpc.about.data() {
                    add(&name, value);
                }
                // How it ended is not for the application to say.
                data.extend(
                    end.into_iter()
                        .map(|(name, value)| (name.into_owned(), value)),
                );
            }
        }
    }
}

/// Adds to each of `spans` what is kept for it, in the order in which they finished but for
/// those that finished at once. Spans of the application have nothing there.
pub(crate) fn complete(spans: &mut [Span], mut late: VecDeque<(SpanId, Late)>) {
    for span in spans {
        let is_its = |(id, _): &(SpanId, Late)| *id == span.span_id;
        let index = late.iter().position(is_its);
        if let Some((_, late)) = index.and_then(|index| late.remove(index)) {
            late.add_to(&mut span.data);
        }
    }
}
