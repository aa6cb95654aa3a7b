//! The output of `quickstart`.

use super::ingest::Item;
use super::{errors, waterfall};

const TRACES: &str = "\
A client has called a Greeter server, which calls a second one. An ingest that the
example has started stands for Sentry. These are the traces that it received, with
the spans of each: service, operation and name, status, duration, and position in
the trace. A span inside of a failed call is `ok`, unless it sets another status,
or an `error!` or a panic occurs in it.
";

const ERRORS: &str = "\
These are the errors. One is a panic, which Rust prints on standard error. Its caller
got an answer, and the server continued. The stack trace took most of the time of that
call.
";

/// The output as text. `failed` is the number of calls in the storm.
pub(crate) fn text(items: &[Item], failed: usize) -> String {
    let events = items.iter().filter(|item| {
        let context = &item.envelope_header["trace"];
        item.kind() == "event" && context["public_key"] == "storm"
    });
    format!(
        "{TRACES}\n{}{ERRORS}\n{}That was a storm: {failed} calls failed, {} events. \
         `max_events_per_minute` held back the rest.\n\n{}",
        waterfall::render(items),
        errors::render(items),
        events.count(),
        waterfall::totals(items)
    )
}

/// The output as JSON, with one line for each item.
pub(crate) fn json(items: &[Item]) -> String {
    let lines = items.iter().map(|item| {
        let line = serde_json::json!({
            "type": item.kind(),
            "envelope_header": item.envelope_header,
            "item_header": item.item_header,
            "payload": item.payload,
        });
        format!("{line}\n")
    });
    lines.collect()
}
