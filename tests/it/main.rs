//! The integration tests: one binary, a module for each theme.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a panic fails the test"
)]

mod aborts;
mod allocations;
mod api;
mod attributes;
mod bounds;
mod breadcrumbs;
mod calls;
mod channel;
mod client_endings;
mod client_retries;
mod client_traces;
mod clients;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod clocks;
mod codegen;
mod contexts;
mod contracts;
mod conventions;
mod corpus;
#[cfg(unix)]
mod cuts;
mod details;
mod dispatchers;
mod endings;
mod events;
mod failures;
mod failures_once;
mod failures_texts;
mod faults_client;
mod faults_ingest;
#[cfg(unix)]
mod faults_processes;
mod forks;
mod gallery;
mod grpc_web;
mod hostile;
mod hostile_headers;
mod hosts;
mod house;
mod hubs;
mod init;
mod isolation;
mod isolation_guests;
mod isolation_hubs;
mod isolation_tasks;
mod leaks;
mod manual;
mod metadata;
mod metrics;
mod middleware;
mod migrating;
mod nested;
mod noise;
mod otel;
mod otel_cases;
mod otel_company;
mod otel_example;
mod otel_interceptors;
mod otel_locks;
mod otel_reload;
mod otel_told;
mod otel_traces;
mod otlp;
mod otlp_attributes;
mod otlp_ends;
mod otlp_exceptions;
mod otlp_panics;
mod outcomes;
mod outgoing;
mod panics;
mod params;
mod parts;
mod parts_meet;
mod people;
mod poisoned;
#[cfg(unix)]
mod processes;
mod propagation;
mod quickstart;
mod sampling;
mod secrets;
mod sessions;
mod setup;
mod setup_http_layer;
mod setup_report;
mod soak;
mod sources;
mod span_ext;
mod spans;
mod spotlight;
mod storms;
mod stress;
mod support;
mod teardown;
mod told;
mod trace_layer;
mod trace_layer_beside;
mod trace_layer_cases;
mod trace_layer_tasks;
mod traceparent;
mod tracestate;
mod transparent;
mod transport;
mod transport_losses;
mod transport_threads;
mod trust;
