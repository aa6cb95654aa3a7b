//! What Sentry is told of calls, as lines of text.

use std::collections::HashMap;
use std::time::SystemTime;

use sentry::protocol::{Event, SpanId, SpanStatus, Transaction, Value};

use crate::migrating::calls::{self, CALLS, Ended};
use crate::migrating::stack::Stack;
use crate::support::received::{Received, event_trace, exceptions, messages, trace};
use crate::support::world::World;

/// What Sentry is told of each of the calls, in a world of its own.
pub(crate) fn table(stack: &impl Stack, world: impl Fn() -> World) -> String {
    let rows = CALLS.map(|name| {
        let world = world();
        let ended = calls::make(&world, stack, name);
        row(name, &ended, &lines(&world.received(), &ended))
    });
    rows.concat()
}

pub(crate) fn row(name: &str, ended: &Ended, lines: &[String]) -> String {
    let mut row = format!("{name} => {:?}\n", ended.code);
    for line in lines {
        row += &format!("  {line}\n");
    }
    row
}

/// Transactions first, each with its spans, and then events.
pub(crate) fn lines(received: &Received, ended: &Ended) -> Vec<String> {
    let names = span_names(received);
    let mut transactions: Vec<_> = received.transactions.iter().collect();
    transactions.sort_by_key(|transaction| transaction.start_timestamp);
    let mut lines = Vec::new();
    for transaction in &transactions {
        lines.extend(transaction_lines(transaction, ended, &names));
        if trace(transaction).trace_id != trace(transactions[0]).trace_id {
            lines.push("  in another trace".to_owned());
        }
    }
    let events = received.events.iter();
    lines.extend(events.map(|event| event_line(event, &names)));
    lines
}

/// Of all spans.
type Names = HashMap<SpanId, String>;

fn span_names(received: &Received) -> Names {
    let mut names = Names::new();
    for transaction in &received.transactions {
        let (own, name) = (trace(transaction), transaction.name.clone());
        names.insert(own.span_id, name.unwrap());
        for span in &transaction.spans {
            names.insert(span.span_id, span.description.clone().unwrap());
        }
    }
    names
}

fn status(status: Option<SpanStatus>) -> String {
    status.map_or_else(|| "no status".to_owned(), |status| status.to_string())
}

fn transaction_lines(
    transaction: &Transaction<'static>,
    ended: &Ended,
    names: &Names,
) -> Vec<String> {
    let own = trace(transaction);
    let name = transaction.name.as_deref().unwrap();
    let mut line = format!("{name}, {}: {}", own.op.unwrap(), status(own.status));
    for key in ["http.response.status_code", "rpc.grpc.status_code"] {
        if let Some(value) = own.data.get(key) {
            line += &format!(", {key}={value}");
        }
    }
    if transaction.request.is_some() {
        line += ", request";
    }
    if let Some(parent) = own.parent_span_id {
        line += &format!(
            ", below {}",
            names.get(&parent).map_or("nobody", String::as_str)
        );
    }
    line += reach(transaction.timestamp.unwrap(), ended);
    let mut spans: Vec<_> = transaction.spans.iter().collect();
    spans.sort_by_key(|span| span.start_timestamp);
    let spans = spans.iter().map(|span| {
        let name = span.description.as_deref().unwrap();
        let op = span.op.as_deref().unwrap();
        let parent = names.get(&span.parent_span_id.unwrap());
        let parent = parent.map_or("nobody", String::as_str);
        format!("  {name}, {op}: {}, below {parent}", status(span.status))
    });
    let data = own.data.keys().map(|key| format!(" {key}"));
    let data = format!("  data{}", data.collect::<String>());
    [line, data].into_iter().chain(spans).collect()
}

/// How much of a stream is in a duration.
pub(crate) fn reach(end: SystemTime, ended: &Ended) -> &'static str {
    match ended.head {
        None => "",
        Some(head) if end > head => ", to its end",
        Some(_) => ", to its head",
    }
}

fn event_line(event: &Event<'static>, names: &Names) -> String {
    let text = match exceptions(event).as_slice() {
        [] => event.message.clone().unwrap(),
        all => all
            .iter()
            .map(|(ty, value)| format!("{ty}: {}", value.as_deref().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(" / "),
    };
    let mut line = format!("{} {text:?}", event.level);
    // Of a span that is not told there is an id all the same.
    let own = event_trace(event);
    let span = names.get(&own.span_id).map_or("nobody", String::as_str);
    line += &format!(" in {span}");
    for (key, value) in &event.tags {
        line += &format!(", {key}={value}");
    }
    let breadcrumbs = messages(&event.breadcrumbs.values);
    if !breadcrumbs.is_empty() {
        line += &format!(", after {breadcrumbs:?}");
    }
    if let Some(name) = event.transaction.as_deref() {
        line += &format!(", of {name}");
    }
    if let Some(request) = &event.request {
        let headers: Vec<_> = request.headers.keys().map(String::as_str).collect();
        line += &format!(", request with {}", headers.join(" "));
    }
    if let Some(sentry::protocol::Context::Other(context)) = event.contexts.get("rpc") {
        let of = |key| context.get(key).and_then(Value::as_str).unwrap_or("open");
        line += &format!(", rpc {} {}", of("method"), of("status"));
    }
    line
}

/// Lines that are of no span and no event.
const ASIDE: [&str; 2] = ["  data", "  in another trace"];

/// Of the transactions that Sentry received.
pub(crate) fn names(world: &World) -> Vec<String> {
    let transactions = world.received().transactions.into_iter();
    let mut names: Vec<_> = transactions.filter_map(|own| own.name).collect();
    names.sort();
    names
}

/// What is told of a call before, by its text or the name of a span, and not after.
pub(crate) fn missing(before: &str, after: &str) -> Vec<String> {
    let rows = |table: &str| -> Vec<(String, Vec<String>)> {
        let mut rows: Vec<(String, Vec<String>)> = Vec::new();
        for line in table.lines() {
            match line.strip_prefix("  ") {
                None => rows.push((line.to_owned(), Vec::new())),
                Some(line) if ASIDE.iter().any(|aside| line.starts_with(aside)) => {}
                Some(line) => rows.last_mut().unwrap().1.push(subject(line)),
            }
        }
        rows
    };
    let (before, after) = (rows(before), rows(after));
    let mut missing = Vec::new();
    for ((call, before), (_, after)) in before.iter().zip(&after) {
        let mut left = after.clone();
        for subject in before {
            match left.iter().position(|other| other == subject) {
                Some(found) => drop(left.remove(found)),
                None => missing.push(format!("{call}: {subject}")),
            }
        }
    }
    missing
}

/// The text of an event, or the name of a span; of a call, that it is one.
fn subject(line: &str) -> String {
    let words = line.trim().split_once(' ').unwrap();
    if let Some(text) = words.1.strip_prefix('"') {
        return text.split('"').next().unwrap().to_owned();
    }
    let name = line.trim().split(',').next().unwrap();
    match name.contains("helloworld.Greeter/") || name == "request" {
        true => "the call".to_owned(),
        false => name.to_owned(),
    }
}
