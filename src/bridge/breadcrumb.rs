//! Tracing events as breadcrumbs.

use std::error::Error;

use sentry_core::protocol::{Map, Value};
use sentry_core::{Breadcrumb, Level, parse_type_from_debug};
use tracing::Event;

use crate::bridge::visitor::{FieldSink, ValueVisitor};

/// An error chain longer than this is a circle.
const MAX_SOURCES: usize = 32;

#[derive(Debug, Default)]
struct EventFields {
    message: Option<String>,
    data: Map<String, Value>,
}

impl FieldSink for EventFields {
    fn take(&mut self, name: &'static str, value: Value) {
        match (name, value) {
            ("message", Value::String(text)) => self.message = Some(text),
            (name, value) => {
                self.data.insert(name.to_owned(), value);
            }
        }
    }

    /// The errors of the chain, each with its type.
    fn take_error(&mut self, name: &'static str, error: &(dyn Error + 'static)) {
        let chain = std::iter::successors(Some(error), |&error| error.source());
        let texts: Vec<Value> = chain
            .take(MAX_SOURCES)
            .map(|error| {
                let debug = format!("{error:?}");
                format!("{}: {error}", parse_type_from_debug(&debug)).into()
            })
            .collect();
        self.take(name, texts.into());
    }
}

/// The target as its category, the fields as its data.
pub(crate) fn from_event(event: &Event<'_>) -> Breadcrumb {
    let mut fields = EventFields::default();
    event.record(&mut ValueVisitor(&mut fields));
    // `#[instrument(err)]` says no message, but an `error`.
    if fields.message.is_none()
        && let Some(Value::String(_)) = fields.data.get("error")
        && let Some(Value::String(text)) = fields.data.remove("error")
    {
        fields.message = Some(text);
    }
    Breadcrumb {
        ty: "log".to_owned(),
        category: Some(event.metadata().target().to_owned()),
        level: match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warning,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
        },
        message: fields.message,
        data: fields.data,
        ..Breadcrumb::default()
    }
}
