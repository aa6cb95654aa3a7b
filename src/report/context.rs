//! The context `rpc` of an event, which says which RPC the event belongs to.

use std::fmt::Display;

use sentry_core::protocol::{Context, Event, Map, Value};

/// Its name among the contexts of an event.
pub(crate) const NAME: &str = "rpc";

const METHOD_TYPE: &str = "method_type";
const STREAM: &str = "stream";

/// Says that the call streams: that it has more than one message in either direction.
pub(crate) fn set_streams(context: &mut Map<String, Value>) {
    context.insert(METHOD_TYPE.to_owned(), STREAM.into());
}

/// Says how many events were held back before this one.
pub(crate) fn set_held_back(event: &mut Event<'_>, held_back: u64) {
    if held_back > 0
        && let Some(Context::Other(context)) = event.contexts.get_mut(NAME)
    {
        context.insert("held_back".to_owned(), held_back.into());
    }
}

/// Adds the id of its span to the context of a stream, so that all events of the stream can be
/// found by it, sampled or not.
pub(crate) fn name_stream(context: &mut Map<String, Value>, span_id: impl Display) {
    if context.get(METHOD_TYPE).and_then(Value::as_str) == Some(STREAM) {
        context.insert("stream_id".to_owned(), span_id.to_string().into());
    }
}
