//! An order of the spans of a transaction that does not depend on the order in which they were
//! sent.
//!
//! Spans stand by the position of their parents, and siblings by their names, then by all that
//! they hold but ids and times, and then by their start. In this order ids become names, that of
//! the parent of each span, too. So a line tells all of a span but when it was sent.

use std::collections::HashMap;

use serde_json::Value;

use crate::times;

/// What decides between siblings.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone)]
struct Key {
    name: String,
    rest: String,
    start: i64,
}

fn key(span: &Value) -> Key {
    let mut rest = span.clone();
    if let Value::Object(fields) = &mut rest {
        for random in [
            "span_id",
            "parent_span_id",
            "trace_id",
            "start_timestamp",
            "timestamp",
        ] {
            fields.remove(random);
        }
    }
    Key {
        name: text(span, "description").to_owned(),
        rest: rest.to_string(),
        start: start(&span["start_timestamp"]),
    }
}

/// A time, or the step that was written for it.
fn start(value: &Value) -> i64 {
    let step = || value.as_str()?.strip_prefix('@')?.parse().ok();
    times::read(value).or_else(step).unwrap_or_default()
}

fn text<'a>(span: &'a Value, field: &str) -> &'a str {
    span[field].as_str().unwrap_or_default()
}

/// Puts spans in order; `root` is the id of the transaction.
pub(crate) fn sort(spans: &mut Vec<Value>, root: &str) {
    let mut all: Vec<(Key, Value)> = spans.drain(..).map(|span| (key(&span), span)).collect();
    all.sort_by(|(left, _), (right, _)| left.cmp(right));
    let mut of_parent: HashMap<String, Vec<Value>> = HashMap::new();
    let mut roots = vec![root.to_owned()];
    let known: Vec<String> = all
        .iter()
        .map(|(_, span)| text(span, "span_id").to_owned())
        .collect();
    for (_, span) in all {
        let parent = text(&span, "parent_span_id").to_owned();
        // Parents elsewhere come after the transaction, in the order of their children.
        if !known.contains(&parent) && !roots.contains(&parent) {
            roots.push(parent.clone());
        }
        of_parent.entry(parent).or_default().push(span);
    }
    let mut next = std::collections::VecDeque::from(roots);
    while let Some(parent) = next.pop_front() {
        for span in of_parent.remove(&parent).unwrap_or_default() {
            next.push_back(text(&span, "span_id").to_owned());
            spans.push(span);
        }
    }
    // Spans that are each other's parents.
    let mut left: Vec<_> = of_parent.into_values().flatten().collect();
    left.sort_by_key(key);
    spans.extend(left);
}
