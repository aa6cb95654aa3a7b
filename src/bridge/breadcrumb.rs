//! Tracing events as breadcrumbs.

use std::error::Error;

use sentry_core::protocol::{Context, Map, Value};
use sentry_core::{Breadcrumb, Level, parse_type_from_debug};
use tracing::Event;

use crate::bridge::repeats::TRACING_FIELDS;
use crate::bridge::visitor::{self, FieldSink, ValueVisitor};
use crate::report;

/// An error chain longer than this is a circle.
const MAX_SOURCES: usize = 32;

/// Of a message, and of each text in the data: a hundred breadcrumbs go with every
/// event.
const MAX_TEXT_LEN: usize = 1024;

#[derive(Debug, Default)]
struct EventFields {
    message: Option<String>,
    data: Map<String, Value>,
}

fn bounded(value: Value) -> Value {
    match value {
        Value::String(text) if text.len() > MAX_TEXT_LEN => {
            report::clip(&text, MAX_TEXT_LEN).into()
        }
        value => value,
    }
}

impl FieldSink for EventFields {
    fn take(&mut self, name: &'static str, value: Value) {
        match (name, bounded(value)) {
            ("message", Value::String(text)) => self.message = Some(text),
            (name, value) => {
                self.data.insert(name.to_owned(), value);
            }
        }
    }

    fn max_len(&self, _: &str) -> usize {
        MAX_TEXT_LEN
    }

    /// The errors of the chain, each with its type.
    fn take_error(&mut self, name: &'static str, error: &(dyn Error + 'static)) {
        let chain = std::iter::successors(Some(error), |&error| error.source());
        let texts: Vec<Value> = chain
            .take(MAX_SOURCES)
            .map(|error| {
                let debug = report::bounded(MAX_TEXT_LEN, format_args!("{error:?}"));
                let ty = parse_type_from_debug(&debug);
                visitor::told(report::bounded(MAX_TEXT_LEN, format_args!("{ty}: {error}")))
            })
            .collect();
        self.take(name, texts.into());
    }
}

/// An error event that is not sent.
pub(crate) fn from_sentry_event(event: &sentry_core::protocol::Event<'_>) -> Breadcrumb {
    let error = event.exception.last().and_then(|e| e.value.clone());
    let message = event.message.clone().or(error);
    let data = match event.contexts.get(TRACING_FIELDS) {
        Some(Context::Other(fields)) => fields.clone(),
        _ => Map::new(),
    };
    let data = data.into_iter();
    Breadcrumb {
        ty: "log".to_owned(),
        category: event.logger.clone(),
        data: data.map(|(name, value)| (name, bounded(value))).collect(),
        level: event.level,
        message: message.map(|text| report::clip(&text, MAX_TEXT_LEN).to_owned()),
        ..Breadcrumb::default()
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
