//! The context by which an event says of which RPC it is.

use std::fmt::Display;

use sentry_core::protocol::{Map, Value};

/// Its name among the contexts of an event.
pub(crate) const NAME: &str = "rpc";

const METHOD_TYPE: &str = "method_type";
const STREAM: &str = "stream";
const UNARY: &str = "unary";

/// Whether a call has more than one message in either direction.
pub(crate) fn set_method_type(context: &mut Map<String, Value>, streams: bool) {
    let kind = if streams { STREAM } else { UNARY };
    context.insert(METHOD_TYPE.to_owned(), kind.into());
}

/// Gives a stream the id of its span for a name: by it all events of the stream are
/// found, sampled or not.
pub(crate) fn name_stream(context: &mut Map<String, Value>, span_id: impl Display) {
    if context.get(METHOD_TYPE).and_then(Value::as_str) == Some(STREAM) {
        context.insert("stream_id".to_owned(), span_id.to_string().into());
    }
}
