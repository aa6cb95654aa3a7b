//! Prints received errors for a person, as Sentry shows them: what happened, in
//! which call, to whom, and what led to it.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::ingest::Item;
use super::waterfall::seconds;

const LABEL: usize = 11;

/// All errors of `items`; those that say the same of the same method once, with how
/// often they came.
pub(crate) fn render(items: &[Item]) -> String {
    let errors = items.iter().filter(|item| item.kind() == "event");
    let mut errors: Vec<&Value> = errors.map(|item| &item.payload).collect();
    // Those of several services do not arrive in their order.
    let time = |event: &Value| seconds(&event["timestamp"]);
    errors.sort_by(|a, b| time(a).total_cmp(&time(b)));
    let mut issues: Vec<([String; 2], &Value, usize)> = Vec::new();
    for event in errors {
        let issue = [title(event), place(event)];
        match issues.iter_mut().find(|(known, ..)| *known == issue) {
            Some((.., count)) => *count += 1,
            None => issues.push((issue, event, 1)),
        }
    }
    let mut out = String::new();
    for ([title, _], event, count) in issues {
        let times = match count {
            1 => String::new(),
            count => format!(", {count} events"),
        };
        let _ = writeln!(out, "{title} ({}{times})", handled(event));
        for (label, lines) in facts(event, items) {
            for (number, line) in lines.iter().enumerate() {
                let label = if number == 0 { label } else { "" };
                let _ = writeln!(out, "    {label:LABEL$} {line}");
            }
        }
        out.push('\n');
    }
    out
}

/// Level and outermost exception.
fn title(event: &Value) -> String {
    // Left out where it is the default.
    let level = event["level"].as_str().unwrap_or("error");
    let exception = exceptions(event).next_back();
    let title = exception.map(of_exception).unwrap_or_default();
    format!("{level}  {title}")
}

fn handled(event: &Value) -> &'static str {
    let exception = exceptions(event).next_back().unwrap_or(&Value::Null);
    match exception["mechanism"]["handled"].as_bool() {
        Some(true) => "handled",
        Some(false) => "unhandled",
        // Of an `error!`, nobody can know.
        None => "logged",
    }
}

/// What there is to say, each with its label.
fn facts(event: &Value, items: &[Item]) -> Vec<(&'static str, Vec<String>)> {
    let span = &event["contexts"]["trace"];
    let transaction = transaction_of(span, items);
    // Of the call: an event of its end has it too.
    let data = match transaction {
        Some(transaction) => &transaction["contexts"]["trace"]["data"],
        None => &span["data"],
    };
    let trace = match transaction {
        Some(_) => text(&span["trace_id"]).to_owned(),
        None => format!("{}, which is not sampled", text(&span["trace_id"])),
    };
    let causes = exceptions(event).rev().skip(1).map(of_exception);
    let crumbs = event["breadcrumbs"]["values"].as_array();
    vec![
        ("caused by", causes.collect()),
        ("message", line(text(&event["message"]).to_owned())),
        ("at", line(code_place(event))),
        ("in", vec![place(event)]),
        ("trace", vec![trace]),
        ("caller got", line(seen_by_caller(transaction, items))),
        ("user", line(pairs(&event["user"], |_| true))),
        (
            "tags",
            line(pairs(&event["tags"], |key| {
                !matches!(key, "rpc.service" | "rpc.method" | "rpc.grpc.status_code")
            })),
        ),
        ("params", line(params(data))),
        ("details", details(&event["contexts"]["grpc.error"])),
        (
            "breadcrumbs",
            crumbs.into_iter().flatten().map(crumb).collect(),
        ),
    ]
}

fn place(event: &Value) -> String {
    let (method, server) = (text(&event["transaction"]), text(&event["server_name"]));
    format!("{method} of {server}")
}

/// Where it happened in this program: of a panic by its stack, of an `error!` by
/// what that says.
fn code_place(event: &Value) -> String {
    let location = &event["contexts"]["Rust Tracing Location"];
    if let Some(file) = location["file"].as_str() {
        return format!("{file}:{}", location["line"]);
    }
    let mut frames = exceptions(event)
        .filter_map(|exception| exception["stacktrace"]["frames"].as_array())
        .flatten();
    let own = concat!(env!("CARGO_CRATE_NAME"), "::");
    let is_own = |frame: &&Value| text(&frame["function"]).starts_with(own);
    // The innermost is the last one.
    let Some(frame) = frames.rfind(is_own) else {
        return String::new();
    };
    let function = text(&frame["function"]).trim_end_matches("::{{closure}}");
    let file = text(&frame["filename"]);
    format!("{file}:{}, in {function}", frame["lineno"])
}

/// The transaction that a span is, or is in.
fn transaction_of<'a>(span: &Value, items: &'a [Item]) -> Option<&'a Value> {
    let transactions = items.iter().filter(|item| item.kind() == "transaction");
    transactions.map(|item| &item.payload).find(|transaction| {
        let spans = transaction["spans"].as_array().into_iter().flatten();
        let mut all = spans.chain([&transaction["contexts"]["trace"]]);
        all.any(|one| one["span_id"] == span["span_id"])
    })
}

/// What the call around a server's `transaction` says.
fn seen_by_caller(transaction: Option<&Value>, items: &[Item]) -> String {
    let span = transaction.map(|transaction| &transaction["contexts"]["trace"]["parent_span_id"]);
    let data = span.and_then(|id| {
        items.iter().find_map(|item| {
            let trace = &item.payload["contexts"]["trace"];
            let spans = item.payload["spans"].as_array().into_iter().flatten();
            let found = spans.chain([trace]).find(|span| span["span_id"] == *id);
            found.map(|span| &span["data"])
        })
    });
    let Some(data) = data else {
        return String::new();
    };
    let code = text(&data["rpc.response.status_code"]);
    format!("{code}: {}", text(&data["otel.status_description"]))
}

fn params(data: &Value) -> String {
    let params = data.as_object().into_iter().flatten();
    let params = params.filter_map(|(key, value)| {
        let name = key.strip_prefix("rpc.param.")?;
        Some((name.to_owned(), value.clone()))
    });
    pairs(&params.collect::<Map<_, _>>().into(), |_| true)
}

/// The `google.rpc` details.
fn details(context: &Value) -> Vec<String> {
    let details = context.as_object().into_iter().flatten();
    details
        .filter(|(key, _)| *key != "type")
        .flat_map(|(key, value)| {
            let values = value.as_array().map_or(std::slice::from_ref(value), |v| v);
            values.iter().map(move |value| match violation(value) {
                Some(violation) => format!("{key}: {violation}"),
                None => format!("{key}: {}", plain(value)),
            })
        })
        .collect()
}

/// A field and what is wrong with it, which are JSON in a text.
fn violation(value: &Value) -> Option<String> {
    let object: Value = serde_json::from_str(value.as_str()?).ok()?;
    let field = object["field"].as_str()?;
    Some(format!("{field} {}", text(&object["description"])))
}

fn crumb(crumb: &Value) -> String {
    let level = crumb["level"].as_str().unwrap_or("info");
    let (message, data) = (text(&crumb["message"]), &crumb["data"]);
    let told = match data["status"].as_str() {
        // Of a call.
        Some(status) => {
            let category = text(&crumb["category"]);
            let method = text(&data["method"]);
            format!("{category} {method} ended with {status}: {message}")
        }
        None => match pairs(data, |_| true) {
            data if data.is_empty() => message.to_owned(),
            data => format!("{message}, {data}"),
        },
    };
    format!("{level}: {told}")
}

fn exceptions(event: &Value) -> impl DoubleEndedIterator<Item = &Value> {
    let exceptions = event["exception"]["values"].as_array();
    exceptions.into_iter().flatten()
}

fn of_exception(exception: &Value) -> String {
    let (ty, value) = (text(&exception["type"]), text(&exception["value"]));
    format!("{ty}: {value}")
}

fn pairs(object: &Value, wants: impl Fn(&str) -> bool) -> String {
    let entries = object.as_object().into_iter().flatten();
    let entries = entries.filter(|(key, _)| wants(key));
    let texts: Vec<String> = entries
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
    texts.join(", ")
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// What is empty is not told.
fn line(line: String) -> Vec<String> {
    let line = Some(line).filter(|line| !line.is_empty());
    line.into_iter().collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
