//! Fields of a tracing span on its Sentry span.

use std::borrow::Cow;

use sentry_core::TransactionOrSpan;
use sentry_core::protocol::Value;

use crate::report::SeeAttribute;

pub(crate) const NO_TAGS: [(&str, String); 0] = [];

/// Attributes as values.
pub(crate) fn collected(attributes: impl FnOnce(SeeAttribute<'_>)) -> Vec<(String, Value)> {
    let mut data = Vec::new();
    attributes(&mut |name, value| data.push((name.to_owned(), value.to_value())));
    data
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
