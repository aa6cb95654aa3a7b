//! Puts the parts of a transaction together again.
//!
//! When a transaction is cut is up to a clock, and so are the part in which a span is and the id
//! that headers and errors name. So of the parts one transaction is made, whose content does not
//! depend on the cuts; and what must hold of parts wherever the cuts are is checked here.

use std::collections::HashMap;

use serde_json::Value;

use crate::envelopes::Received;
use crate::span_order;

/// The attribute that numbers parts.
pub(crate) const PART: &str = "transaction.part";

/// Where a later part belongs.
struct Whole {
    root: String,
    parent: Value,
}

/// Parts by the ids of their first ones, and the positions of their envelopes.
type Parts = Vec<(String, Vec<usize>)>;

pub(crate) fn join(received: &mut Received, seen: &mut [Value]) {
    let parts = find(&received.sent);
    let mut wholes = HashMap::new();
    for (root, at) in &parts {
        let all: Vec<Value> = at
            .iter()
            .map(|at| payload(&received.sent[*at]).clone())
            .collect();
        check(&all, &mut received.wrong);
        let (Some(first), Some(last)) = (all.first(), at.last()) else {
            continue;
        };
        let parent = trace(first)["parent_span_id"].clone();
        for part in &all {
            let id = text(&trace(part)["span_id"]);
            let (root, parent) = (root.clone(), parent.clone());
            wholes.insert(id, Whole { root, parent });
        }
        let spans = all.iter().filter_map(|part| part["spans"].as_array());
        let spans: Vec<Value> = spans.flatten().cloned().collect();
        let whole = &mut received.sent[*last]["items"][0]["payload"];
        whole["start_timestamp"] = first["start_timestamp"].clone();
        whole["spans"] = spans.into();
    }
    let is_last = |at: usize| {
        parts
            .iter()
            .all(|(_, all)| !all.contains(&at) || all.last() == Some(&at))
    };
    let sent = std::mem::take(&mut received.sent).into_iter().enumerate();
    received.sent = sent
        .filter(|(at, _)| is_last(*at))
        .map(|(_, envelope)| envelope)
        .collect();
    received.sent.sort_by_key(order);
    for value in received.sent.iter_mut().chain(seen) {
        forget_cuts(value, &wholes);
    }
    for envelope in &mut received.sent {
        let is_transaction = envelope["items"][0]["header"]["type"] == "transaction";
        let whole = &mut envelope["items"][0]["payload"];
        let root = text(&trace(whole)["span_id"]);
        if is_transaction {
            // Of a call that waits for others, it is the time of the last cut.
            whole["timestamp"] = "end".into();
        } else if let Some(Value::Object(trace)) = whole.pointer_mut("/contexts/trace") {
            // Where there is a cut between the end of a call and its event, it is that of the
            // part before.
            trace.remove("data");
            trace.remove("status");
        }
        if let Some(Value::Array(spans)) = whole.get_mut("spans") {
            span_order::sort(spans, &root);
        }
    }
}

/// Transactions come after all else, in the order of their names: the thread that cuts may send
/// the last part.
fn order(envelope: &Value) -> Option<(String, String)> {
    let payload = payload(envelope);
    let is_transaction = envelope["items"][0]["header"]["type"] == "transaction";
    is_transaction.then(|| {
        (
            text(&payload["transaction"]),
            text(&payload["start_timestamp"]),
        )
    })
}

fn find(sent: &[Value]) -> Parts {
    let mut parts: Parts = vec![];
    for (at, envelope) in sent.iter().enumerate() {
        let trace = trace(payload(envelope));
        let number = trace["data"][PART].as_u64();
        let is_transaction = envelope["items"][0]["header"]["type"] == "transaction";
        let root = match number.filter(|_| is_transaction) {
            Some(1) => text(&trace["span_id"]),
            Some(_) => text(&trace["parent_span_id"]),
            None => continue,
        };
        match parts.iter_mut().find(|(known, _)| *known == root) {
            Some((_, all)) => all.push(at),
            None => parts.push((root, vec![at])),
        }
    }
    parts
}

/// Parts are numbered in the order in which they are sent. A call has a status once it has ended,
/// and may wait for others then.
fn check(all: &[Value], wrong: &mut Vec<String>) {
    let mut before = &Value::Null;
    for (index, part) in all.iter().enumerate() {
        let name = &part["transaction"];
        let own = trace(part);
        if own["data"][PART] != index + 1 {
            wrong.push(format!(
                "{name} has {} for part {}",
                own["data"][PART],
                index + 1
            ));
        }
        let status = &own["status"];
        let is_last = index + 1 == all.len();
        if !before.is_null() && before != status || status.is_null() && is_last {
            wrong.push(format!("{name} has the status {before}, then {status}"));
        }
        before = status;
        for same in ["op", "origin", "trace_id"] {
            let first = &trace(&all[0])[same];
            if own[same] != *first {
                wrong.push(format!("{name} has {first}, then {}", own[same]));
            }
        }
    }
}

/// Removes what tells of the part in which something happened. A sampling context has the name
/// that the transaction has as it is first sent.
fn forget_cuts(value: &mut Value, wholes: &HashMap<String, Whole>) {
    match value {
        Value::String(text) => {
            for (id, whole) in wholes {
                if text.contains(id) {
                    *text = text.replace(id, &whole.root);
                }
            }
            if let Some((before, after)) = text.split_once("sentry-transaction=") {
                let rest = after.split_once(',').map_or("", |(_, rest)| rest);
                *text = format!("{before}sentry-transaction=,{rest}");
            }
        }
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| forget_cuts(value, wholes)),
        Value::Object(fields) => {
            let whole = fields
                .get("span_id")
                .and_then(|id| wholes.get(id.as_str()?));
            match whole {
                Some(whole) if whole.parent.is_null() => fields.remove("parent_span_id"),
                Some(whole) => fields.insert("parent_span_id".to_owned(), whole.parent.clone()),
                None => None,
            };
            if let Some(Value::Object(trace)) = fields.get_mut("trace") {
                trace.remove("transaction");
            }
            fields.remove(PART);
            fields
                .values_mut()
                .for_each(|value| forget_cuts(value, wholes));
        }
        _ => {}
    }
}

fn payload(envelope: &Value) -> &Value {
    &envelope["items"][0]["payload"]
}

fn trace(payload: &Value) -> &Value {
    &payload["contexts"]["trace"]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
