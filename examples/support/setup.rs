//! What each process of the examples sets up: Sentry by its environment, a
//! subscriber, and an end on a signal.

use std::env::{self, VarError};
use std::error::Error as StdError;

use sentry::transports::DefaultTransportFactory;
use sentry::types::Dsn;
use sentry::{ClientInitGuard, ClientOptions};
use sentry_tonic::{SentryTracingLayer, TraceTransport, check_setup};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) type Error = Box<dyn StdError + Send + Sync>;

/// Starts Sentry with `SENTRY_DSN`, `SENTRY_TRACES_SAMPLE_RATE` (1 where it is
/// not set), `SENTRY_ENVIRONMENT` and `SENTRY_RELEASE`.
///
/// The guard flushes what is queued. Hold it outside of the runtime, whose end
/// ends the last calls.
pub(crate) fn sentry() -> Result<ClientInitGuard, Error> {
    let dsn = variable("SENTRY_DSN")?;
    // `sentry::init` would go on without.
    if let Some(dsn) = &dsn {
        dsn.parse::<Dsn>()
            .map_err(|error| format!("SENTRY_DSN is not a DSN: {error}"))?;
    } else {
        eprintln!("SENTRY_DSN is not set: nothing is sent to Sentry");
    }
    let rate = match variable("SENTRY_TRACES_SAMPLE_RATE")? {
        Some(rate) => parse_rate(&rate)
            .ok_or_else(|| format!("SENTRY_TRACES_SAMPLE_RATE is not from 0 to 1: {rate}"))?,
        None => 1.0,
    };
    let guard = sentry::init(
        ClientOptions::new()
            .traces_sample_rate(rate)
            // By default it holds 30 envelopes, and drops what comes on top.
            .transport_channel_capacity(1_000)
            .transport(TraceTransport::new(DefaultTransportFactory)),
    );
    tracing_subscriber::registry()
        .with(SentryTracingLayer::new())
        .with(LevelFilter::INFO)
        .init();
    let report = check_setup();
    if dsn.is_some() && !report.is_ok() {
        eprintln!("{report}");
    }
    Ok(guard)
}

fn variable(name: &str) -> Result<Option<String>, Error> {
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(error @ VarError::NotUnicode(_)) => Err(format!("{name}: {error}").into()),
    }
}

fn parse_rate(text: &str) -> Option<f32> {
    let rate: f32 = text.parse().ok()?;
    (0.0..=1.0).contains(&rate).then_some(rate)
}

/// From now on, SIGTERM and SIGINT end nothing by themselves; what this returns is
/// done once one of them has come.
#[cfg(unix)]
pub(crate) fn told_to_stop() -> Result<impl Future<Output = ()>, Error> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Done at Ctrl-C.
#[cfg(not(unix))]
pub(crate) fn told_to_stop() -> Result<impl Future<Output = ()>, Error> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
