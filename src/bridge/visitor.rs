//! Reads tracing fields as values for Sentry.

use std::error::Error;
use std::fmt::Debug;

use sentry_core::protocol::Value;
use tracing::field::{Field, Visit};

use crate::report;

/// Takes the fields that a [`ValueVisitor`] reads.
pub(crate) trait FieldSink {
    fn take(&mut self, name: &'static str, value: Value);

    /// How many bytes of a text it needs.
    fn max_len(&self, _name: &str) -> usize {
        report::MAX_TEXT_LEN
    }

    fn take_error(&mut self, name: &'static str, error: &(dyn Error + 'static)) {
        let text = report::bounded(self.max_len(name), format_args!("{error}"));
        self.take(name, text_value(text));
    }
}

/// A text as a value, without the metadata of a `tonic::Status` that is printed in it.
pub(crate) fn text_value(text: String) -> Value {
    report::without_metadata(&text).unwrap_or(text).into()
}

/// Turns the values of fields into JSON.
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
        let name = field.name();
        let text = report::clip(value, self.0.max_len(name));
        self.0.take(name, text_value(text.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.0.take_error(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let name = field.name();
        let text = report::bounded(self.0.max_len(name), format_args!("{value:?}"));
        self.0.take(name, text_value(text));
    }
}
