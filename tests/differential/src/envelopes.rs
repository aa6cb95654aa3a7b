//! Reads envelopes from the bytes that go to Sentry.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use crate::headers::KNOWN;
use crate::parts::PART;
use crate::span_order;
use crate::times::{self, Times};
use crate::world::LAST;

/// What Sentry received of a tree.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// Envelopes in the order of arrival.
    pub(crate) sent: Vec<Value>,
    /// Sessions by their attributes, whatever the minute in which they began.
    pub(crate) sessions: BTreeMap<String, u64>,
    /// Quantities by category and reason, whatever the envelopes that reports came with.
    pub(crate) lost: BTreeMap<String, u64>,
    /// What must not be, of what is not shown.
    pub(crate) wrong: Vec<String>,
}

impl Received {
    pub(crate) fn read(&mut self, envelope: &[u8], times: &Times) {
        let mut rest = envelope;
        let Some(mut header) = line(&mut rest).and_then(json) else {
            self.wrong.push("an envelope without a header".to_owned());
            return;
        };
        if let Value::Object(fields) = &mut header {
            fields.remove("sdk");
            fields.remove("sent_at");
        }
        let mut items = vec![];
        while let Some(item_header) = line(&mut rest) {
            if item_header.is_empty() {
                continue;
            }
            let Some(item_header) = json(item_header) else {
                self.wrong.push("an item without a header".to_owned());
                return;
            };
            let length = item_header["length"].as_u64();
            let payload = match length.and_then(|length| usize::try_from(length).ok()) {
                Some(length) if length <= rest.len() => {
                    let (payload, after) = rest.split_at(length);
                    rest = after;
                    payload
                }
                Some(_) => {
                    self.wrong.push("an item that is too short".to_owned());
                    return;
                }
                None => line(&mut rest).unwrap_or_default(),
            };
            items.extend(self.item(item_header, payload, times));
        }
        if !items.is_empty() {
            self.hide_random(&mut header);
            self.sent.push(json!({"header": header, "items": items}));
        }
    }

    /// An item as it is compared; `None` for one that is counted.
    fn item(&mut self, mut header: Value, payload: &[u8], times: &Times) -> Option<Value> {
        if let Value::Object(fields) = &mut header {
            fields.remove("length");
        }
        let Some(mut payload) = json(payload) else {
            self.wrong.push("a payload that is not JSON".to_owned());
            return None;
        };
        let kind = header["type"].as_str().unwrap_or_default().to_owned();
        match kind.as_str() {
            "client_report" => {
                for loss in array(&payload, "discarded_events") {
                    let key = format!("{} {}", loss["category"], loss["reason"]).replace('"', "");
                    *self.lost.entry(key).or_default() += loss["quantity"].as_u64().unwrap_or(0);
                }
                return None;
            }
            "sessions" => {
                self.count_sessions(&payload);
                return None;
            }
            "transaction" => self.transaction(&mut payload),
            _ => {}
        }
        let name = payload["transaction"]
            .as_str()
            .or(payload["message"].as_str());
        if name == Some(LAST) {
            return None;
        }
        self.hide_random(&mut payload);
        hide_build(&mut payload);
        show_times(&mut payload, times);
        Some(json!({"header": header, "payload": payload}))
    }

    fn count_sessions(&mut self, payload: &Value) {
        for aggregate in array(payload, "aggregates") {
            for status in ["exited", "errored", "abnormal", "crashed"] {
                if let Some(count) = aggregate[status].as_u64() {
                    let key = format!("{} {} {status}", payload["attrs"], aggregate["did"]);
                    *self.sessions.entry(key).or_default() += count;
                }
            }
        }
    }

    /// Checks the times of a transaction, and orders its spans.
    fn transaction(&mut self, payload: &mut Value) {
        let root = payload["contexts"]["trace"]["span_id"].clone();
        let root = root.as_str().unwrap_or_default();
        let trace_id = payload["contexts"]["trace"]["trace_id"].clone();
        let mut starts = HashMap::new();
        let start = self.start_of(payload);
        // A later part of a transaction is the parent of spans that were there before it.
        let is_later = payload["contexts"]["trace"]["data"][PART].as_u64() > Some(1);
        starts.insert(root.to_owned(), start.filter(|_| !is_later));
        let no_spans = Value::Array(vec![]);
        let spans = payload.get("spans").unwrap_or(&no_spans).as_array();
        for span in spans.into_iter().flatten() {
            let id = span["span_id"].as_str().unwrap_or_default().to_owned();
            if starts.insert(id, self.start_of(span)).is_some() {
                self.wrong.push("two spans have one id".to_owned());
            }
            if span["trace_id"] != trace_id {
                self.wrong
                    .push(format!("{} is of another trace", span["description"]));
            }
        }
        for span in spans.into_iter().flatten() {
            let around = span["parent_span_id"]
                .as_str()
                .and_then(|id| starts.get(id)?.as_ref());
            if let (Some(own), Some(around)) = (times::read(&span["start_timestamp"]), around)
                && own < *around
            {
                let name = &span["description"];
                self.wrong.push(format!("{name} starts before its parent"));
            }
        }
        if let Some(Value::Array(spans)) = payload.get_mut("spans") {
            span_order::sort(spans, root);
        }
    }

    /// The start of a span that does not end before it.
    fn start_of(&mut self, span: &Value) -> Option<i64> {
        let start = times::read(&span["start_timestamp"]);
        let end = times::read(&span["timestamp"]);
        match (start, end) {
            (Some(start), Some(end)) if start <= end => {}
            times => self
                .wrong
                .push(format!("{}: {times:?}", span["description"])),
        }
        start
    }

    /// Hides the `sample_rand` of traces whose ids are random, from which it comes.
    pub(crate) fn hide_random(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(hidden) = self.without_rand(text) {
                    *text = hidden;
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.hide_random(value)),
            Value::Object(fields) => {
                if let Some(trace_id) = fields.get("trace_id")
                    && fields.contains_key("sample_rand")
                    && is_random(&plain(trace_id))
                {
                    let [rand, rate, sampled] = ["sample_rand", "sample_rate", "sampled"]
                        .map(|name| fields.get(name).map_or(String::new(), plain));
                    self.check_rand(&rand, &rate, &sampled);
                    fields.insert("sample_rand".to_owned(), "random".into());
                }
                fields
                    .values_mut()
                    .for_each(|value| self.hide_random(value));
            }
            _ => {}
        }
    }

    /// The same in a `baggage` header.
    fn without_rand(&mut self, text: &str) -> Option<String> {
        let member = |name: &str| {
            let found = text.split(',').find_map(|member| member.strip_prefix(name));
            found.unwrap_or_default().to_owned()
        };
        let rand = member("sentry-sample_rand=");
        let trace_id = member("sentry-trace_id=");
        if rand.is_empty() || !is_random(&trace_id) {
            return None;
        }
        self.check_rand(
            &rand,
            &member("sentry-sample_rate="),
            &member("sentry-sampled="),
        );
        Some(text.replace(
            &format!("sentry-sample_rand={rand}"),
            "sentry-sample_rand=random",
        ))
    }

    fn check_rand(&mut self, rand: &str, rate: &str, sampled: &str) {
        let (Ok(number), rate) = (rand.parse::<f64>(), rate.parse::<f64>().ok()) else {
            return self.wrong.push(format!("sample_rand {rand}"));
        };
        let is_known = matches!(sampled, "true" | "false");
        let agrees = rate.is_none_or(|rate| !is_known || (number < rate) == (sampled == "true"));
        if !(0.0..1.0).contains(&number) || !agrees {
            self.wrong.push(format!(
                "sample_rand {rand}, rate {rate:?}, sampled {sampled}"
            ));
        }
    }
}

fn line<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    if rest.is_empty() {
        return None;
    }
    let end = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(rest.len());
    let (line, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    Some(line)
}

fn json(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

fn array<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether it is a trace id that no seed decided. Baggage may have others in its place.
fn is_random(trace_id: &str) -> bool {
    trace_id.len() == 32 && !trace_id.starts_with(KNOWN)
}

/// Hides what differs from build to build.
fn hide_build(payload: &mut Value) {
    if let Some(sdk) = payload.get_mut("sdk").and_then(Value::as_object_mut) {
        sdk.remove("version");
        sdk.remove("packages");
    }
    let exceptions = payload
        .pointer_mut("/exception/values")
        .and_then(Value::as_array_mut);
    for exception in exceptions
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        exception.remove("stacktrace");
    }
}

/// Writes the step in which a time falls for that time. Of durations, only the sign is shown.
fn show_times(value: &mut Value, times: &Times) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| show_times(value, times)),
        Value::Object(fields) => {
            for name in ["timestamp", "start_timestamp"] {
                show_time(fields, name, times);
            }
            let duration = fields.get_mut("duration_ms");
            if let Some(duration) = duration.filter(|it| it.as_f64().is_some_and(|ms| ms > 0.0)) {
                *duration = "positive".into();
            }
            fields
                .values_mut()
                .for_each(|value| show_times(value, times));
        }
        _ => {}
    }
}

fn show_time(fields: &mut Map<String, Value>, name: &str, times: &Times) {
    let Some(field) = fields.get_mut(name) else {
        return;
    };
    if let Some(time) = times::read(field) {
        *field = format!("@{}", times.step(time)).into();
    }
}
