//! Tracing events as breadcrumbs.

use sentry_core::protocol::{Map, Value};
use sentry_core::{Breadcrumb, Level};
use tracing::Event;

use crate::bridge::visitor::{FieldSink, ValueVisitor};

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
}

/// The target as its category, the fields as its data.
pub(crate) fn from_event(event: &Event<'_>) -> Breadcrumb {
    let mut fields = EventFields::default();
    event.record(&mut ValueVisitor(&mut fields));
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
