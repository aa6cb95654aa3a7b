//! What `quickstart` prints of what its ingest received.

use super::ingest::Item;
use super::{errors, waterfall};

const TRACES: &str = "\
A client has called a Greeter server, which asks a second one for its answers.
This is what Sentry received from the three of them, by HTTP, in an ingest that
the example brings with it. For each trace its spans: where, operation and name,
status, duration, and where it lies in the trace. A span has the status that it
was given: those inside a call that fails with `?` or is cut short are `ok` unless
they say otherwise, or a panic goes through them.
";

const ERRORS: &str = "\
And these are the errors. One is a panic, which Rust itself tells on standard error:
its caller got an answer, and the server went on. Most of the time that its call took
went into the stack trace.
";

/// For a person. The storm comes last, and is of `failed` calls.
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

/// One line for each item.
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
