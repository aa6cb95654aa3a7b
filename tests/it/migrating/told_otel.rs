//! What OpenTelemetry is told of calls, as lines of text.

use std::collections::HashMap;

use opentelemetry::Value;
use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;

use crate::migrating::calls::Ended;
use crate::migrating::told::reach;

pub(crate) fn lines(spans: &[SpanData], ended: &Ended) -> Vec<String> {
    let mut spans: Vec<_> = spans.iter().collect();
    spans.sort_by_key(|span| span.start_time);
    let names: HashMap<_, _> = spans
        .iter()
        .map(|span| (span.span_context.span_id(), &*span.name))
        .collect();
    let lines = |span: &&SpanData| [Some(line(span, ended, &names)), data(span)];
    spans.iter().flat_map(lines).flatten().collect()
}

/// What tracing-opentelemetry itself says of each span.
const OF_ANY: [&str; 5] = ["busy_ns", "code.", "idle_ns", "target", "thread."];

/// The attributes, and which are empty.
fn data(span: &SpanData) -> Option<String> {
    let is_own = |key: &str| !OF_ANY.iter().any(|prefix| key.starts_with(prefix));
    let attributes = span
        .attributes
        .iter()
        .filter(|own| is_own(own.key.as_str()));
    let mut keys: Vec<_> = attributes
        .map(|own| match own.value.as_str().is_empty() {
            true => format!("{}=\"\"", own.key),
            false => own.key.to_string(),
        })
        .collect();
    keys.sort_unstable();
    (!keys.is_empty()).then(|| format!("  data {}", keys.join(" ")))
}

fn line(span: &SpanData, ended: &Ended, names: &HashMap<SpanId, &str>) -> String {
    let mut line = format!("{}, {:?}: ", span.name, span.span_kind);
    line += &match &span.status {
        Status::Unset => "unset".to_owned(),
        Status::Ok => "ok".to_owned(),
        Status::Error { description } if description.is_empty() => "error".to_owned(),
        Status::Error { description } => format!("error {description:?}"),
    };
    let code = span.attributes.iter();
    let mut code = code.filter(|attribute| attribute.key.as_str() == "rpc.grpc.status_code");
    match code.next().map(|attribute| &attribute.value) {
        Some(Value::I64(code)) => line += &format!(", code {code}"),
        Some(value) => line += &format!(", code as text {value}"),
        None => {}
    }
    match names.get(&span.parent_span_id) {
        Some(parent) => line += &format!(", below {parent}"),
        None if span.parent_span_id == SpanId::INVALID => {}
        None => line += ", below nobody",
    }
    if span.span_kind != SpanKind::Internal {
        line += reach(span.end_time, ended);
    }
    for event in span.events.iter() {
        line += &format!(", event {:?}", event.name);
    }
    line
}
