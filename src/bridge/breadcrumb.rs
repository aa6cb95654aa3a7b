//! What becomes a breadcrumb: events of tracing, calls, and events that are not sent.

use std::error::Error;
use std::time::SystemTime;

use sentry_core::protocol::{Context, Map, Value};
use sentry_core::{Breadcrumb, Level, parse_type_from_debug};
use tracing::{Event, Metadata};

use crate::bridge::repeats::TRACING_FIELDS;
use crate::bridge::visitor::{self, FieldSink, ValueVisitor};
use crate::report::{self, CallBreadcrumb};

/// How much of a message and of each text in the data is kept: a hundred breadcrumbs go with
/// every event.
const MAX_TEXT_LEN: usize = 1024;

/// A breadcrumb to be. Most are followed by no error, so that it is made into one only when an
/// event needs it.
#[derive(Debug)]
pub(crate) enum Crumb {
    Event(EventCrumb),
    Call(CallBreadcrumb),
    /// Made elsewhere, as by `before_breadcrumb`.
    Made(Box<Breadcrumb>),
}

impl Crumb {
    pub(crate) fn to_breadcrumb(&self) -> Breadcrumb {
        match self {
            Self::Event(event) => event.to_breadcrumb(),
            Self::Call(call) => call.to_breadcrumb(),
            Self::Made(breadcrumb) => Breadcrumb::clone(breadcrumb),
        }
    }
}

impl From<Breadcrumb> for Crumb {
    fn from(breadcrumb: Breadcrumb) -> Self {
        Self::Made(Box::new(breadcrumb))
    }
}

/// A tracing event.
#[derive(Debug)]
pub(crate) struct EventCrumb {
    timestamp: SystemTime,
    metadata: &'static Metadata<'static>,
    message: Option<String>,
    data: Vec<(&'static str, Value)>,
}

impl EventCrumb {
    pub(crate) fn new(event: &Event<'_>) -> Self {
        let mut crumb = Self {
            timestamp: report::now(),
            metadata: event.metadata(),
            message: None,
            data: Vec::new(),
        };
        event.record(&mut ValueVisitor(&mut crumb));
        // Events of `#[instrument(err)]` have no message, but a field `error`.
        if crumb.message.is_none()
            && let Some(error) = crumb.data.iter().position(is_error_text)
            && let (_, Value::String(text)) = crumb.data.remove(error)
        {
            crumb.message = Some(text);
        }
        crumb
    }

    /// The target as its category, the fields as its data.
    fn to_breadcrumb(&self) -> Breadcrumb {
        let data = self.data.iter();
        Breadcrumb {
            timestamp: self.timestamp,
            ty: "log".to_owned(),
            category: Some(self.metadata.target().to_owned()),
            level: match *self.metadata.level() {
                tracing::Level::ERROR => Level::Error,
                tracing::Level::WARN => Level::Warning,
                tracing::Level::INFO => Level::Info,
                tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
            },
            message: self.message.clone(),
            data: data
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
        }
    }
}

fn is_error_text((name, value): &(&'static str, Value)) -> bool {
    *name == "error" && value.is_string()
}

fn bounded(value: Value) -> Value {
    match value {
        Value::String(text) if text.len() > MAX_TEXT_LEN => {
            report::clip(&text, MAX_TEXT_LEN).into()
        }
        value => value,
    }
}

impl FieldSink for EventCrumb {
    fn take(&mut self, name: &'static str, value: Value) {
        match (name, bounded(value)) {
            ("message", Value::String(text)) => self.message = Some(text),
            (name, value) => {
                // Of two fields with one name, the last counts.
                self.data.retain(|(known, _)| *known != name);
                self.data.push((name, value));
            }
        }
    }

    fn max_len(&self, _: &str) -> usize {
        MAX_TEXT_LEN
    }

    /// The errors of the chain, each with its type.
    fn take_error(&mut self, name: &'static str, error: &(dyn Error + 'static)) {
        let texts: Vec<Value> = report::error_chain(error)
            .map(|error| {
                let debug = report::bounded(MAX_TEXT_LEN, format_args!("{error:?}"));
                let ty = parse_type_from_debug(&debug);
                visitor::text_value(report::bounded(MAX_TEXT_LEN, format_args!("{ty}: {error}")))
            })
            .collect();
        self.take(name, texts.into());
    }
}

/// From an error event that is not sent.
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
