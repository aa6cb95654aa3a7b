//! What a check cannot see, in plain words.

use sentry_core::{Client, TracesSamplingStrategy};

use crate::bridge;

pub(crate) const OTHER_CRATES: &str = "Other crates: `cargo tree -i sentry-core` is to show one \
    version; where it calls the name ambiguous there are two, and a client of the other one is \
    not seen here. `cargo tree -i sentry-tower` is to find nothing: its SentryHttpLayer makes a \
    second transaction of each call.";

pub(crate) const THE_END: &str = "The end: drop the guard of sentry::init last, after the servers \
    have stopped and outside of the runtime, or what is queued is lost.";

/// What is known of the ids of OpenTelemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtelIds {
    /// They were found, or nobody saw the span that was to have them.
    Unknown,
    NotFound,
    /// Nothing in this build asks for them.
    NotAskedFor,
}

/// Whether calls have come through a layer of a server, and of a client.
pub(crate) fn of_calls(seen: [bool; 2]) -> Vec<&'static str> {
    match seen {
        [true, true] => vec![],
        [true, false] => vec![
            "Clients: calls have come through a SentryServerLayer, and none has gone through a \
             SentryClientLayer so far. Each client needs one, or a TracePropagationInterceptor.",
        ],
        [false, true] => vec![
            "Servers: calls have gone through a SentryClientLayer, and none has come through a \
             SentryServerLayer so far. Each server needs one, or a TraceLayer with SentryMakeSpan.",
        ],
        [false, false] => vec![
            "Servers and clients: no call has gone through a SentryServerLayer or a \
             SentryClientLayer so far. Each server and each client needs one: check again after \
             some calls.",
        ],
    }
}

pub(crate) fn of_otel(ids: OtelIds) -> Vec<&'static str> {
    match ids {
        OtelIds::Unknown => vec![],
        OtelIds::NotFound => vec![
            "OpenTelemetry: nothing has given the span of this check ids. If there is a layer of \
             tracing-opentelemetry, it is not of 0.34, or in a reload::Layer, or filters the \
             spans of calls out: its ids are not Sentry's then.",
        ],
        OtelIds::NotAskedFor => vec![
            "OpenTelemetry: this build is without the feature `opentelemetry`. If there is a \
             layer of tracing-opentelemetry, its ids are not Sentry's.",
        ],
    }
}

pub(crate) fn of_client(client: Option<&Client>) -> Vec<&'static str> {
    let Some(client) = client.filter(|client| client.is_enabled()) else {
        return vec![];
    };
    let mut hints = vec![];
    let strategy = &client.options().traces_sampling_strategy;
    if matches!(strategy, TracesSamplingStrategy::FixedRate(rate) if *rate <= 0.0) {
        hints.push("The rate is 0: no transaction is sent, but of traces that a caller samples.");
    }
    if !bridge::is_trace_transport_installed() {
        hints.push(
            "The transport: without a TraceTransport, Sentry samples and counts each service of \
             a trace for itself.",
        );
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_cannot_ask_for_ids_says_so() {
        let [hint] = of_otel(OtelIds::NotAskedFor).try_into().unwrap();
        assert!(hint.contains("without the feature `opentelemetry`"));
    }
}
