//! Prints received transactions for a person: a waterfall for each trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::ingest::Item;

const BAR: usize = 20;
const NAME: usize = 56;
const SERVICE: usize = 7;

/// A span of a trace; a transaction is one too.
#[derive(Debug)]
struct Bar<'a> {
    service: &'a str,
    id: &'a str,
    parent: &'a str,
    op: &'a str,
    name: &'a str,
    status: &'a str,
    start: f64,
    end: f64,
}

/// All traces of `items`.
pub(crate) fn render(items: &[Item]) -> String {
    let mut out = String::new();
    let mut traces: Vec<(&str, Vec<Bar<'_>>)> = Vec::new();
    for item in items.iter().filter(|item| item.kind() == "transaction") {
        let trace_id = text(&item.payload["contexts"]["trace"]["trace_id"]);
        let bars = bars(&item.payload);
        match traces.iter_mut().find(|(id, _)| *id == trace_id) {
            Some((_, trace)) => trace.extend(bars),
            None => traces.push((trace_id, bars)),
        }
    }
    for (_, bars) in &mut traces {
        bars.sort_by(|a, b| a.start.total_cmp(&b.start));
    }
    let begins = |bars: &[Bar<'_>]| bars.first().map_or(0.0, |bar| bar.start);
    traces.sort_by(|(_, a), (_, b)| begins(a).total_cmp(&begins(b)));
    for (id, bars) in &traces {
        let tops: Vec<&Bar<'_>> = bars
            .iter()
            .filter(|bar| !bars.iter().any(|parent| parent.id == bar.parent))
            .collect();
        let _ = writeln!(out, "trace {id}{}", head(items, id));
        let start = bars.iter().map(|bar| bar.start).fold(f64::MAX, f64::min);
        let end = bars.iter().map(|bar| bar.end).fold(f64::MIN, f64::max);
        for bar in tops {
            write_bar(&mut out, bars, bar, 1, start, end);
        }
        out.push('\n');
    }
    out
}

/// What the envelopes of a trace say of its head, if they agree.
fn head(items: &[Item], trace_id: &str) -> String {
    let mut contexts = items
        .iter()
        .filter(|item| text(&item.payload["contexts"]["trace"]["trace_id"]) == trace_id)
        .map(|item| &item.envelope_header["trace"]);
    let Some(first) = contexts.next() else {
        return String::new();
    };
    if contexts.any(|context| context != first) {
        return ", of which its envelopes say different things".to_owned();
    }
    format!(
        ", begun by {:?} of {}, sampled {} at rate {} by {}",
        text(&first["transaction"]),
        text(&first["public_key"]),
        text(&first["sampled"]),
        text(&first["sample_rate"]),
        text(&first["sample_rand"]),
    )
}

fn bars(transaction: &Value) -> Vec<Bar<'_>> {
    let trace = &transaction["contexts"]["trace"];
    let name = text(&transaction["transaction"]);
    let spans = transaction["spans"].as_array().into_iter().flatten();
    let spans = spans.map(|span| (span, span, text(&span["description"])));
    std::iter::once((transaction, trace, name))
        .chain(spans)
        .map(|(times, span, name)| Bar {
            service: text(&transaction["server_name"]),
            name,
            ..bar(times, span)
        })
        .collect()
}

fn bar<'a>(times: &'a Value, span: &'a Value) -> Bar<'a> {
    Bar {
        service: "",
        id: text(&span["span_id"]),
        parent: text(&span["parent_span_id"]),
        op: text(&span["op"]),
        name: "",
        status: text(&span["status"]),
        start: seconds(&times["start_timestamp"]),
        end: seconds(&times["timestamp"]),
    }
}

fn write_bar(out: &mut String, all: &[Bar<'_>], bar: &Bar<'_>, depth: usize, from: f64, to: f64) {
    let label = format!("{:1$}{2}  {3}", "", depth * 2, bar.op, bar.name);
    let scale = BAR as f64 / (to - from).max(f64::MIN_POSITIVE);
    let start = (((bar.start - from) * scale) as usize).min(BAR - 1);
    let len = (((bar.end - bar.start) * scale).round() as usize).clamp(1, BAR - start);
    let graph = format!("{:start$}{}", "", "=".repeat(len));
    let duration = (bar.end - bar.start) * 1_000.0;
    let (service, status) = (bar.service, bar.status);
    let _ = writeln!(
        out,
        "{service:<SERVICE$}{label:NAME$} {status:<18} {duration:>9.2} ms  |{graph:BAR$}|"
    );
    for child in all.iter().filter(|child| child.parent == bar.id) {
        write_bar(out, all, child, depth + 1, from, to);
    }
}

/// How much there is of what.
pub(crate) fn totals(items: &[Item]) -> String {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut statuses: BTreeMap<&str, usize> = BTreeMap::new();
    let mut traces: BTreeSet<&str> = BTreeSet::new();
    let mut spans = 0;
    for item in items {
        *kinds.entry(item.kind()).or_default() += 1;
        if item.kind() == "transaction" {
            let bars = bars(&item.payload);
            let status = bars.first().map_or("", |transaction| transaction.status);
            *statuses.entry(status).or_default() += 1;
            traces.insert(text(&item.payload["contexts"]["trace"]["trace_id"]));
            spans += bars.len();
        }
    }
    let list = |map: &BTreeMap<&str, usize>| {
        let parts: Vec<String> = map.iter().map(|(key, n)| format!("{key} {n}")).collect();
        parts.join(", ")
    };
    format!(
        "envelope items: {}\ntraces {}, spans {spans}\ntransactions by status: {}\n",
        list(&kinds),
        traces.len(),
        list(&statuses)
    )
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A timestamp is a number of seconds or RFC 3339 text.
pub(crate) fn seconds(timestamp: &Value) -> f64 {
    if let Some(seconds) = timestamp.as_f64() {
        return seconds;
    }
    let time = humantime::parse_rfc3339(text(timestamp)).ok();
    time.and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0.0, |time| time.as_secs_f64())
}
