//! Limits of texts that an application writes.

use sentry_core::protocol::{Context, Event, Value};

use crate::report::tags;
use crate::rpc;

/// Relay, which takes Sentry's data in, cuts names of transactions to this length.
const MAX_NAME_LEN: usize = 200;

/// The limit of a text in a field or in an event: Relay cuts messages to it.
pub(crate) const MAX_TEXT_LEN: usize = 8192;

const MAX_PARTS: usize = 32;
const MAX_PART_LEN: usize = 1024;

/// The name of a transaction, as far as Sentry keeps it.
pub(crate) fn bounded_name(name: &str) -> &str {
    rpc::clip(name, MAX_NAME_LEN)
}

/// The first parts of a fingerprint, each cut.
pub(crate) fn bounded_fingerprint(parts: Vec<String>) -> impl Iterator<Item = String> {
    parts.into_iter().take(MAX_PARTS).map(|mut part| {
        cut(&mut part, MAX_PART_LEN);
        part
    })
}

/// Cuts the texts of an event that was made from an event of tracing.
pub(crate) fn bounded_event(event: &mut Event<'_>) {
    let exceptions = event.exception.iter_mut();
    let values = exceptions.filter_map(|exception| exception.value.as_mut());
    for text in event.message.iter_mut().chain(values) {
        cut(text, MAX_TEXT_LEN);
    }
    for context in event.contexts.values_mut() {
        if let Context::Other(fields) = context {
            for value in fields.values_mut() {
                if let Value::String(text) = value {
                    cut(text, MAX_TEXT_LEN);
                }
            }
        }
    }
    for value in event.tags.values_mut() {
        *value = tags::bounded_value(std::mem::take(value));
    }
}

/// Cuts a text, and frees the memory of the rest.
fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        *text = rpc::clip(text, max).to_owned();
    }
}
