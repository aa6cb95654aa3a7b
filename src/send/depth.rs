//! Values of the application that are nested too deeply to be read.

use sentry_core::protocol::{Context, Transaction, Value};

/// Parsers of JSON refuse a whole envelope that is nested more deeply than 128 levels; some are
/// those around the value.
const MAX_DEPTH: usize = 100;

/// Replaces what is nested too deeply.
const TOO_DEEP: &str = "[nested too deeply]";

/// Replaces what is nested too deeply in a transaction.
pub(crate) fn limit(transaction: &mut Transaction<'_>) {
    let spans = transaction.spans.iter_mut();
    let data = spans.flat_map(|span| span.data.values_mut());
    data.chain(transaction.extra.values_mut())
        .for_each(limit_value);
    for context in transaction.contexts.values_mut() {
        match context {
            Context::Trace(trace) => trace.data.values_mut().for_each(limit_value),
            Context::Other(values) => values.values_mut().for_each(limit_value),
            _ => {}
        }
    }
}

fn limit_value(value: &mut Value) {
    limit_below(value, MAX_DEPTH);
}

fn limit_below(value: &mut Value, depth: usize) {
    match value {
        Value::Array(_) | Value::Object(_) if depth == 0 => *value = TOO_DEEP.into(),
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| limit_below(value, depth - 1)),
        Value::Object(map) => map
            .values_mut()
            .for_each(|value| limit_below(value, depth - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use sentry_core::protocol::{Map, Span, TraceContext};

    use super::*;

    fn nested(depth: usize) -> Value {
        (0..depth).fold(Value::from("inside"), |value, _| vec![value].into())
    }

    #[test]
    fn values_are_read_however_deep_they_are() {
        let data = || {
            Map::from([
                ("deep".to_owned(), nested(1_000)),
                ("flat".to_owned(), 1.into()),
            ])
        };
        let trace = TraceContext {
            data: data(),
            ..TraceContext::default()
        };
        let mut transaction = Transaction {
            extra: data(),
            contexts: Map::from([
                ("trace".to_owned(), trace.into()),
                ("mine".to_owned(), Context::Other(data())),
            ]),
            spans: vec![Span {
                data: data(),
                ..Span::default()
            }],
            ..Transaction::default()
        };
        limit(&mut transaction);
        let json = serde_json::to_string(&transaction).unwrap();
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json.matches(TOO_DEEP).count(), 4);
        for found in [
            &read["extra"],
            &read["contexts"]["trace"]["data"],
            &read["contexts"]["mine"],
            &read["spans"][0]["data"],
        ] {
            assert_eq!(found["flat"], 1);
        }
    }

    #[test]
    fn values_that_can_be_read_stay() {
        let mut value = nested(MAX_DEPTH);
        limit_value(&mut value);
        assert_eq!(value, nested(MAX_DEPTH));
        let mut value = nested(MAX_DEPTH + 1);
        limit_value(&mut value);
        assert_ne!(value, nested(MAX_DEPTH + 1));
    }
}
