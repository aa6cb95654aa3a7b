//! Notes: advice on what the check cannot decide. Each sentence is on a line of its own.

use sentry_core::{Client, TracesSamplingStrategy};

use crate::send;

pub(crate) const SENTRY_VERSIONS: &str = "sentry versions: `cargo tree -i sentry-core` must list \
     one version.\n\
     If it says that the name is ambiguous, there are two versions, and this check cannot see a \
     client of the other one.";

pub(crate) const SENTRY_TOWER: &str = "sentry-tower: SentryHttpLayer must not be on a gRPC server, \
     where it makes an additional HTTP transaction of each call.\n\
     It is fine on an HTTP server that calls gRPC services, such as an axum application.";

pub(crate) const SHUTDOWN: &str = "Shutdown: hold the guard of sentry_tonic::init, or of \
     sentry::init, until the servers and the Tokio runtime have stopped.\n\
     Events that are reported after the guard is dropped are lost.";

/// Whether the span of the check has ids in OpenTelemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtelIds {
    /// It has ids, or no layer of this crate saw it.
    Unknown,
    NotFound,
    /// This build does not ask for ids.
    NotAskedFor,
}

/// `seen` says whether calls have passed through a layer of a server, and of a client.
pub(crate) fn about_calls(seen: [bool; 2]) -> Option<&'static str> {
    match seen {
        [true, true] => None,
        [true, false] => Some(
            "Clients: no call has passed through a SentryClientLayer yet.\n\
             If this process calls gRPC services, create each channel with \
             sentry_tonic::channel, or add a SentryClientLayer or a TracePropagationInterceptor \
             to each client.",
        ),
        [false, true] => Some(
            "Servers: no call has passed through a SentryServerLayer yet.\n\
             If this process serves gRPC, add a SentryServerLayer, or a TraceLayer with \
             SentryMakeSpan, to each server.",
        ),
        [false, false] => Some(
            "Servers and clients: no call has passed through a SentryServerLayer or a \
             SentryClientLayer yet.\n\
             Add a SentryServerLayer to each server, and create each channel with \
             sentry_tonic::channel or with a SentryClientLayer.\n\
             Call check_setup again after some calls.",
        ),
    }
}

pub(crate) fn about_otel(ids: OtelIds) -> Option<&'static str> {
    match ids {
        OtelIds::Unknown => None,
        OtelIds::NotFound => Some(
            "OpenTelemetry: no layer gave OpenTelemetry ids to the span of this check.\n\
             If you use tracing-opentelemetry, spans have other ids there than in Sentry.\n\
             Its version must be 0.34, its layer must not be in a reload::Layer, and its filter \
             must pass the spans of calls.",
        ),
        OtelIds::NotAskedFor => Some(
            "OpenTelemetry: the feature `opentelemetry` of sentry-tonic is off.\n\
             If you use tracing-opentelemetry, spans have other ids there than in Sentry.",
        ),
    }
}

pub(crate) fn about_client(client: Option<&Client>) -> Vec<&'static str> {
    let Some(client) = client.filter(|client| client.is_enabled()) else {
        return vec![];
    };
    let mut notes = vec![];
    match &client.options().traces_sampling_strategy {
        TracesSamplingStrategy::Disabled => notes.push(
            "Errors only: the client sends errors, but no transactions.\n\
             To send transactions, set ClientOptions::traces_sample_rate or traces_sampler.",
        ),
        TracesSamplingStrategy::FixedRate(rate) if *rate <= 0.0 => notes.push(
            "Sample rate 0: the client sends a transaction only if the caller has sampled the \
             trace.",
        ),
        _ => {}
    }
    if !send::is_trace_transport_installed() {
        notes.push(
            "Transport: without a TraceTransport, Sentry samples and counts the services of a \
             trace separately.\n\
             Use sentry_tonic::init, which adds one unless the options have a transport, or set \
             ClientOptions::transport to a TraceTransport.",
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_cannot_ask_for_ids_has_a_note() {
        let note = about_otel(OtelIds::NotAskedFor).unwrap();
        assert!(note.contains("the feature `opentelemetry` of sentry-tonic is off"));
    }
}
