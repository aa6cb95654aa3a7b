//! Tests of the integration suite that need no other features than the default ones, or none.
#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "the rest of the support is for other tests"
)]

#[path = "../it/support/mod.rs"]
mod support;

#[cfg(feature = "transport")]
#[path = "../it/aborts.rs"]
mod aborts;
#[path = "../it/allocations.rs"]
mod allocations;
#[path = "../it/attributes.rs"]
mod attributes;
#[path = "../it/bounds.rs"]
mod bounds;
#[path = "../it/breadcrumbs.rs"]
mod breadcrumbs;
#[path = "../it/calls.rs"]
mod calls;
#[cfg(feature = "transport")]
#[path = "../it/channel.rs"]
mod channel;
#[path = "../it/client_endings.rs"]
mod client_endings;
#[path = "../it/client_retries.rs"]
mod client_retries;
#[path = "../it/client_traces.rs"]
mod client_traces;
#[path = "../it/clients.rs"]
mod clients;
#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#[path = "../it/clocks.rs"]
mod clocks;
#[path = "../it/contexts.rs"]
mod contexts;
#[path = "../it/contracts.rs"]
mod contracts;
#[cfg(all(unix, feature = "transport"))]
#[path = "../it/cuts.rs"]
mod cuts;
#[path = "../it/dispatchers.rs"]
mod dispatchers;
#[path = "../it/endings.rs"]
mod endings;
#[path = "../it/events.rs"]
mod events;
#[path = "../it/failures.rs"]
mod failures;
#[path = "../it/failures_once.rs"]
mod failures_once;
#[path = "../it/failures_texts.rs"]
mod failures_texts;
#[path = "../it/faults_client.rs"]
mod faults_client;
#[path = "../it/faults_ingest.rs"]
mod faults_ingest;
#[path = "../it/forks.rs"]
mod forks;
#[path = "../it/grpc_web.rs"]
mod grpc_web;
#[path = "../it/hostile.rs"]
mod hostile;
#[path = "../it/hosts.rs"]
mod hosts;
#[path = "../it/hubs.rs"]
mod hubs;
#[cfg(feature = "init")]
#[path = "../it/init.rs"]
mod init;
#[path = "../it/isolation.rs"]
mod isolation;
#[path = "../it/isolation_guests.rs"]
mod isolation_guests;
#[path = "../it/isolation_hubs.rs"]
mod isolation_hubs;
#[path = "../it/isolation_tasks.rs"]
mod isolation_tasks;
#[path = "../it/metadata.rs"]
mod metadata;
#[path = "../it/middleware.rs"]
mod middleware;
#[path = "../it/nested.rs"]
mod nested;
#[path = "../it/noise.rs"]
mod noise;
#[path = "../it/outcomes.rs"]
mod outcomes;
#[path = "../it/outgoing.rs"]
mod outgoing;
#[path = "../it/panics.rs"]
mod panics;
#[path = "../it/params.rs"]
mod params;
#[path = "../it/parts.rs"]
mod parts;
#[path = "../it/parts_meet.rs"]
mod parts_meet;
#[path = "../it/people.rs"]
mod people;
#[path = "../it/poisoned.rs"]
mod poisoned;
#[path = "../it/propagation.rs"]
mod propagation;
#[path = "../it/sampling.rs"]
mod sampling;
#[path = "../it/secrets.rs"]
mod secrets;
#[cfg(feature = "release-health")]
#[path = "../it/sessions.rs"]
mod sessions;
#[path = "../it/setup.rs"]
mod setup;
#[path = "../it/sources.rs"]
mod sources;
#[path = "../it/span_ext.rs"]
mod span_ext;
#[path = "../it/spans.rs"]
mod spans;
#[path = "../it/storms.rs"]
mod storms;
#[path = "../it/teardown.rs"]
mod teardown;
#[path = "../it/told.rs"]
mod told;
#[path = "../it/traceparent.rs"]
mod traceparent;
#[path = "../it/transparent/mod.rs"]
mod transparent;
#[path = "../it/transport.rs"]
mod transport;
#[path = "../it/transport_losses.rs"]
mod transport_losses;
#[path = "../it/transport_threads.rs"]
mod transport_threads;
#[path = "../it/trust.rs"]
mod trust;
