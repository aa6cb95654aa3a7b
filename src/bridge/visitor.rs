//! Reads tracing fields into what Sentry wants of them.

use std::error::Error;
use std::fmt::Debug;

use sentry_core::protocol::Value;
use tracing::field::{Field, Visit};

use crate::bridge::draft::{FieldStatus, SpanFields};
use crate::fields;
use crate::propagation::IncomingTrace;

/// An error chain longer than this is a circle.
const MAX_SOURCES: usize = 32;

/// What a field can hold.
pub(crate) trait FieldSink {
    fn take(&mut self, name: &'static str, value: Value);
}

/// Turns what `tracing` shows into JSON values.
#[derive(Debug)]
pub(crate) struct ValueVisitor<'a, T>(pub(crate) &'a mut T);

impl<T: FieldSink> Visit for ValueVisitor<'_, T> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.take(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.take(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.take(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.take(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.take(field.name(), value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let chain = std::iter::successors(Some(value), |&error| error.source());
        let texts: Vec<Value> = chain
            .take(MAX_SOURCES)
            .map(|error| error.to_string().into())
            .collect();
        self.0.take(field.name(), texts.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.take(field.name(), format!("{value:?}").into());
    }
}

impl FieldSink for SpanFields {
    fn take(&mut self, name: &'static str, value: Value) {
        match (name, value) {
            (fields::SENTRY_NAME, Value::String(text)) => self.name = Some(text),
            (fields::SENTRY_OP, Value::String(text)) => self.op = Some(text),
            (fields::SENTRY_TRACE, Value::String(text)) => {
                self.incoming = IncomingTrace::from_sentry_trace(&text);
            }
            (fields::OTEL_NAME, Value::String(text)) => self.otel_name = Some(text),
            (fields::OTEL_STATUS_CODE, Value::String(text)) => {
                if text.eq_ignore_ascii_case("error") {
                    self.status = Some(FieldStatus::OtelError);
                } else if text.eq_ignore_ascii_case("ok") {
                    self.status = Some(FieldStatus::OtelOk);
                }
            }
            (fields::OTEL_KIND, Value::String(text)) => self
                .data
                .push((fields::SENTRY_KIND, text.to_lowercase().into())),
            (fields::RPC_GRPC_STATUS_CODE, value) => {
                self.status = value.as_i64().map(FieldStatus::Grpc).or(self.status);
                self.data.push((name, value));
            }
            (name, value) => match name.strip_prefix(fields::TAGS_PREFIX) {
                Some(tag) => match tag_value(value) {
                    Ok(value) => self.tags.push((tag, value)),
                    Err(value) => self.data.push((name, value)),
                },
                None => self.data.push((name, value)),
            },
        }
    }
}

fn tag_value(value: Value) -> Result<String, Value> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(value) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(value),
    }
}
