//! Fields of a tracing span on its Sentry span.

use std::borrow::Cow;

use sentry_core::TransactionOrSpan;
use sentry_core::protocol::Value;
use tracing::Metadata;

use crate::fields;

/// See <https://develop.sentry.dev/sdk/telemetry/traces/trace-origin/>.
pub(crate) const ORIGIN_RPC: &str = "auto.rpc.tonic";

pub(crate) const NO_TAGS: [(&str, String); 0] = [];

/// Where the span was made, under the names of sentry-tracing.
pub(crate) fn set_source(span: &TransactionOrSpan, metadata: &Metadata<'_>) {
    let mut data = vec![("sentry.tracing.target", Value::from(metadata.target()))];
    if let Some(module) = metadata.module_path() {
        data.push(("code.module.name", module.into()));
    }
    if let Some(file) = metadata.file() {
        data.push(("code.file.path", file.into()));
    }
    if let Some(line) = metadata.line() {
        data.push(("code.line.number", line.into()));
    }
    set(span, data, NO_TAGS);
}

/// Says that a span inside a root is that of an RPC: unlike a transaction, it has
/// no other place for it.
pub(crate) fn set_origin(span: &TransactionOrSpan) {
    set(span, [(fields::SENTRY_ORIGIN, ORIGIN_RPC.into())], NO_TAGS);
}

/// Sets data and tags, under one lock of the span.
pub(crate) fn set<D, T>(
    span: &TransactionOrSpan,
    data: impl IntoIterator<Item = (D, Value)>,
    tags: impl IntoIterator<Item = (T, String)>,
) where
    D: Into<Cow<'static, str>>,
    T: Into<Cow<'static, str>>,
{
    match span {
        TransactionOrSpan::Transaction(transaction) => {
            let mut target = transaction.data();
            for (key, value) in data {
                target.set_data(key.into(), value);
            }
            for (key, value) in tags {
                target.set_tag(key.into(), value);
            }
        }
        TransactionOrSpan::Span(span) => {
            let mut target = span.data();
            for (key, value) in data {
                target.set_data(key.into().into_owned(), value);
            }
            for (key, value) in tags {
                target.set_tag(key.into().into_owned(), value);
            }
        }
    }
}
