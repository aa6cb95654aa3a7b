//! Sentry and the subscriber, by the environment.

use std::env;

use sentry::transports::DefaultTransportFactory;
use sentry::{ClientInitGuard, ClientOptions};
use sentry_tonic::{SentryTracingLayer, TraceTransport};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Error;

/// `SENTRY_DSN`, `SENTRY_ENVIRONMENT` and `SENTRY_RELEASE` are read by sentry.
pub(crate) fn sentry() -> Result<ClientInitGuard, Error> {
    let rate: f32 = variable("SENTRY_TRACES_SAMPLE_RATE")
        .ok_or("SENTRY_TRACES_SAMPLE_RATE is not set")?
        .parse()?;
    let mut options = ClientOptions::new()
        .traces_sample_rate(rate)
        .strict_trace_continuation(variable("PEER_STRICT").is_some())
        .transport_channel_capacity(10_000)
        .transport(TraceTransport::new(DefaultTransportFactory));
    if let Some(org) = variable("PEER_ORG_ID") {
        options = options.org_id(org.parse()?);
    }
    let guard = sentry::init(options);
    tracing_subscriber::registry()
        .with(SentryTracingLayer::new())
        .with(LevelFilter::INFO)
        .init();
    Ok(guard)
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
