//! Fields of a tracing span on its Sentry span.

use std::borrow::Cow;

use sentry_core::TransactionOrSpan;
use sentry_core::protocol::Value;
use tracing::Metadata;

use crate::fields;

/// See <https://develop.sentry.dev/sdk/telemetry/traces/trace-origin/>.
pub(crate) const ORIGIN_RPC: &str = "auto.rpc.tonic";

pub(crate) const NO_TAGS: [(&str, String); 0] = [];

/// The operation of a span that no field names.
pub(crate) fn op(metadata: &Metadata<'_>) -> String {
    [metadata.target(), "::", metadata.name()].concat()
}

/// Where the span was made, under the names of sentry-tracing.
pub(crate) fn source(metadata: &Metadata<'static>) -> impl Iterator<Item = (&'static str, Value)> {
    let text = |text: Option<&str>| text.map(Value::from);
    let known = [
        ("sentry.tracing.target", text(Some(metadata.target()))),
        ("code.module.name", text(metadata.module_path())),
        ("code.file.path", text(metadata.file())),
        ("code.line.number", metadata.line().map(Value::from)),
    ];
    let known = known.into_iter();
    known.filter_map(|(name, value)| Some((name, value?)))
}

/// Says that a span inside a root is that of an RPC: unlike a transaction, it has
/// no other place for it.
pub(crate) fn origin() -> (&'static str, Value) {
    (fields::SENTRY_ORIGIN, ORIGIN_RPC.into())
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
