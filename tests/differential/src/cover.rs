//! Counts what trees consist of and what comes of them.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::plan::{Op, Order, Plan};

#[derive(Debug, Default)]
pub(crate) struct Cover {
    trees: u64,
    /// By group and name.
    counts: BTreeMap<(&'static str, String), u64>,
}

impl Cover {
    fn add(&mut self, group: &'static str, name: impl Into<String>, count: u64) {
        *self.counts.entry((group, name.into())).or_default() += count;
    }

    pub(crate) fn plan(&mut self, plan: &Plan) {
        for step in &plan.steps {
            self.op(&step.op);
        }
    }

    fn op(&mut self, op: &Op) {
        self.add("planned, for each seed", variant(op), 1);
        match op {
            Op::In(_, ops) | Op::OnHub(_, ops) | Op::WithScope(_, ops) | Op::Place(_, ops) => {
                ops.iter().for_each(|op| self.op(op));
            }
            Op::Poll(_, orders) => {
                for order in orders {
                    match order {
                        Order::Do(ops) => ops.iter().for_each(|op| self.op(op)),
                        order => self.add("planned, for each seed", variant(order), 1),
                    }
                }
            }
            _ => {}
        }
    }

    pub(crate) fn line(&mut self, line: &Value) {
        self.trees += 1;
        let envelopes = line["sent"].as_array().into_iter().flatten();
        let mut is_empty = true;
        for item in envelopes
            .flat_map(|envelope| envelope["items"].as_array())
            .flatten()
        {
            is_empty = false;
            self.item(
                &item["payload"],
                item["header"]["type"].as_str().unwrap_or("?"),
            );
        }
        self.add("sent", "trees of which nothing is sent", is_empty.into());
        for group in ["lost", "sessions"] {
            for (key, count) in line[group].as_object().into_iter().flatten() {
                let key = key
                    .rsplit(' ')
                    .next()
                    .filter(|_| group == "sessions")
                    .unwrap_or(key);
                self.add(
                    if group == "lost" { "lost" } else { "sessions" },
                    key,
                    count.as_u64().unwrap_or(0),
                );
            }
        }
        for one in line["seen"].as_array().into_iter().flatten() {
            self.seen(one);
        }
        let wrong = line["wrong"].as_array().map_or(0, Vec::len);
        self.add("wrong", "what must not be", wrong as u64);
    }

    fn item(&mut self, payload: &Value, kind: &str) {
        self.add("sent", kind, 1);
        let trace = &payload["contexts"]["trace"];
        if kind == "transaction" {
            let spans = payload["spans"].as_array().map_or(0, Vec::len);
            self.add("sent", "spans", spans as u64);
            self.add("transactions", format!("of {}", trace["origin"]), 1);
            self.add("transactions", format!("status {}", trace["status"]), 1);
            let has = |field: &str| !trace["data"][field].is_null();
            self.add(
                "transactions",
                "with dropped spans",
                has("dropped_spans_count").into(),
            );
            self.add(
                "transactions",
                "with a parent",
                (!trace["parent_span_id"].is_null()).into(),
            );
            self.add(
                "transactions",
                "with tags",
                (!payload["tags"].is_null()).into(),
            );
            self.add(
                "transactions",
                "with a user",
                (!payload["user"].is_null()).into(),
            );
            let size = match spans {
                0 => "0 spans",
                1..=3 => "1 to 3 spans",
                4..=10 => "4 to 10 spans",
                11..=100 => "11 to 100 spans",
                _ => "more spans",
            };
            self.add("transactions", size, 1);
        } else {
            self.add("events", format!("level {}", payload["level"]), 1);
            let mechanism = &payload["exception"]["values"][0]["mechanism"]["type"];
            self.add("events", format!("mechanism {mechanism}"), 1);
            let has = |field: &str| !payload[field].is_null();
            self.add("events", "with breadcrumbs", has("breadcrumbs").into());
            self.add("events", "in a trace", (!trace.is_null()).into());
            self.add(
                "events",
                "with an RPC",
                (!payload["contexts"]["rpc"].is_null()).into(),
            );
            self.add("events", "with a user", has("user").into());
        }
    }

    fn seen(&mut self, one: &Value) {
        let Some(fields) = one.as_object() else {
            return;
        };
        for (name, value) in fields {
            let is_what = matches!(
                name.as_str(),
                "asked"
                    | "called"
                    | "sampler"
                    | "captured"
                    | "error"
                    | "failed"
                    | "trailers"
                    | "panicked"
            );
            if is_what {
                self.add("seen", name, 1);
            }
            match (name.as_str(), value.as_str()) {
                ("result", Some(result)) => self.add("seen", format!("continued: {result}"), 1),
                ("headers", None) => {
                    for header in value.as_array().into_iter().flatten() {
                        let name = header[0].as_str().unwrap_or_default();
                        if matches!(name, "sentry-trace" | "baggage" | "traceparent") {
                            self.add("outgoing headers", name, 1);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

/// The name of a variant.
fn variant(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} trees", self.trees)?;
        let mut before = "";
        for ((group, name), count) in &self.counts {
            if *group != before {
                writeln!(f, "{group}:")?;
            }
            before = group;
            writeln!(f, "  {count:>9} {name}")?;
        }
        Ok(())
    }
}
