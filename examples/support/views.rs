//! Two views of the same spans: OpenTelemetry's, as a collector received it, and
//! Sentry's.

use std::collections::BTreeMap;
use std::fmt::Write;

use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::Value;

use super::ingest::Item;

const NAME: usize = 40;

/// A span as one of the two knows it.
#[derive(Debug)]
pub(crate) struct Seen {
    trace_id: String,
    id: String,
    parent: String,
    name: String,
    kind: String,
    status: String,
    /// Of an RPC.
    code: Option<i64>,
    /// In seconds.
    start: f64,
}

pub(crate) fn of_otel(spans: &[Span]) -> Vec<Seen> {
    spans.iter().map(exported).collect()
}

fn exported(span: &Span) -> Seen {
    let status = match &span.status {
        Some(status) if status.code() == StatusCode::Error => "error",
        Some(status) if status.code() == StatusCode::Ok => "ok",
        _ => "unset",
    };
    let kind = match span.kind() {
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        _ => "internal",
    };
    let code = span.attributes.iter().find_map(|attribute| {
        match attribute.value.as_ref()?.value.as_ref()? {
            AnyValue::IntValue(code) if attribute.key == "rpc.grpc.status_code" => Some(*code),
            _ => None,
        }
    });
    Seen {
        trace_id: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        kind: kind.to_owned(),
        status: status.to_owned(),
        code,
        start: span.start_time_unix_nano as f64 / 1e9,
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn of_sentry(items: &[Item]) -> Vec<Seen> {
    let transactions = items.iter().filter(|item| item.kind() == "transaction");
    let spans = transactions.flat_map(|item| {
        let transaction = &item.payload;
        let root = &transaction["contexts"]["trace"];
        let root = reported(root, &transaction["transaction"], transaction);
        let spans = transaction["spans"].as_array().into_iter().flatten();
        std::iter::once(root).chain(spans.map(|span| reported(span, &span["description"], span)))
    });
    spans.collect()
}

fn reported(span: &Value, name: &Value, times: &Value) -> Seen {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let data = &span["data"];
    Seen {
        trace_id: text(&span["trace_id"]),
        id: text(&span["span_id"]),
        parent: text(&span["parent_span_id"]),
        name: text(name),
        kind: data["sentry.kind"]
            .as_str()
            .unwrap_or("internal")
            .to_owned(),
        status: text(&span["status"]),
        code: data["rpc.grpc.status_code"].as_i64(),
        start: times["start_timestamp"].as_f64().unwrap_or_default(),
    }
}

/// What is printed of the two, and where they differ.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) text: String,
    pub(crate) traces: usize,
    pub(crate) spans: usize,
    pub(crate) differences: Vec<String>,
}

/// A span by the ids of its trace and its own.
type Key<'a> = (&'a str, &'a str);

pub(crate) fn compare(otel: &[Seen], sentry: &[Seen]) -> Comparison {
    let mut comparison = Comparison::default();
    let exported = by_ids(otel, "OpenTelemetry", &mut comparison.differences);
    let reported = by_ids(sentry, "Sentry", &mut comparison.differences);
    let mut traces: BTreeMap<&str, Vec<Key<'_>>> = BTreeMap::new();
    let mut keys: Vec<_> = exported.iter().chain(&reported).collect();
    // By either clock: each has its own start of the same span.
    keys.sort_by(|(_, a), (_, b)| a.start.total_cmp(&b.start));
    for (key, _) in &keys {
        let trace = traces.entry(key.0).or_default();
        if !trace.contains(*key) {
            trace.push(**key);
        }
    }
    let mut traces: Vec<_> = traces.into_iter().collect();
    let start = |trace: &[Key<'_>]| keys.iter().position(|(key, _)| trace.contains(*key));
    traces.sort_by_key(|(_, trace)| start(trace));
    comparison.traces = traces.len();
    for (id, trace) in traces {
        let _ = writeln!(
            comparison.text,
            "trace {id}\n{:NAME$} | {:49} | Sentry",
            "", "OpenTelemetry"
        );
        for key in &trace {
            let depth = depth(*key, &exported, &reported);
            let (otel, sentry) = (exported.get(key).copied(), reported.get(key).copied());
            let name = otel.or(sentry).map_or("", |span| &span.name);
            let name = format!("{:1$}{name}", "", 2 * depth);
            let (left, right) = (columns(otel), columns(sentry));
            let line = format!("{name:NAME$} | {left:49} | {right}");
            let _ = writeln!(comparison.text, "{}", line.trim_end());
            let differences = differences(otel, sentry);
            comparison.differences.extend(differences);
            comparison.spans += 1;
        }
        comparison.text.push('\n');
    }
    comparison
}

fn by_ids<'a>(
    spans: &'a [Seen],
    whose: &str,
    differences: &mut Vec<String>,
) -> BTreeMap<Key<'a>, &'a Seen> {
    let mut by_ids = BTreeMap::new();
    for span in spans {
        let key = (span.trace_id.as_str(), span.id.as_str());
        if by_ids.insert(key, span).is_some() {
            differences.push(format!("{whose} has {} {} twice", span.id, span.name));
        }
    }
    by_ids
}

/// How many spans that either knows are around this one.
fn depth<'a>(
    key: Key<'a>,
    otel: &BTreeMap<Key<'a>, &'a Seen>,
    sentry: &BTreeMap<Key<'a>, &'a Seen>,
) -> usize {
    let around = std::iter::successors(Some(key), |key| {
        let span = otel.get(key).or_else(|| sentry.get(key))?;
        let parent = (key.0, span.parent.as_str());
        let is_known = otel.contains_key(&parent) || sentry.contains_key(&parent);
        is_known.then_some(parent)
    });
    around.skip(1).take(NAME).count()
}

fn columns(span: Option<&Seen>) -> String {
    let Some(span) = span else {
        return "-".to_owned();
    };
    let parent = match span.parent.as_str() {
        "" => "-",
        parent => parent,
    };
    format!("{:8} {} {parent:16} {}", span.kind, span.id, span.status)
}

fn differences(otel: Option<&Seen>, sentry: Option<&Seen>) -> Vec<String> {
    let (otel, sentry) = match (otel, sentry) {
        (Some(otel), Some(sentry)) => (otel, sentry),
        (Some(one), None) => return vec![format!("Sentry has no {} {}", one.id, one.name)],
        (None, Some(one)) => return vec![format!("OpenTelemetry has no {} {}", one.id, one.name)],
        (None, None) => return vec![],
    };
    let pairs = [
        ("parent", otel.parent.clone(), sentry.parent.clone()),
        // Sentry's are paths.
        (
            "name",
            otel.name.clone(),
            sentry.name.trim_start_matches('/').to_owned(),
        ),
        ("kind", otel.kind.clone(), sentry.kind.clone()),
        ("status", otel.status.clone(), in_otel(sentry).to_owned()),
        (
            "code",
            format!("{:?}", otel.code),
            format!("{:?}", sentry.code),
        ),
    ];
    let differing = pairs.into_iter().filter(|(_, otel, sentry)| otel != sentry);
    let said = differing.map(|(what, left, right)| {
        let (id, name) = (&otel.id, &otel.name);
        format!("the {what} of {id} {name} is {left:?} in OpenTelemetry, {right:?} in Sentry")
    });
    said.collect()
}

/// What OpenTelemetry makes of a status in Sentry: a caller's own mistakes are no
/// errors of the server, and it does not say of anything that it went well.
fn in_otel(span: &Seen) -> &'static str {
    let is_error = match span.kind.as_str() {
        "client" => span.status != "ok",
        "server" => matches!(
            span.status.as_str(),
            "unknown_error"
                | "deadline_exceeded"
                | "unimplemented"
                | "internal_error"
                | "unavailable"
                | "data_loss"
        ),
        _ => span.status == "internal_error",
    };
    if is_error { "error" } else { "unset" }
}
