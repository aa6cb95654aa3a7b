//! The setup of the examples that run as a process: Sentry, configured by the
//! environment, a subscriber, and a shutdown on signals.

use std::env::{self, VarError};
use std::error::Error as StdError;

use sentry::ClientOptions;
use sentry::types::Dsn;
use sentry_tonic::{InitGuard, SentryTracingLayer, check_setup};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) type Error = Box<dyn StdError + Send + Sync>;

/// Initializes Sentry with `SENTRY_DSN`, `SENTRY_TRACES_SAMPLE_RATE` (1 if it is
/// not set), `SENTRY_ENVIRONMENT` and `SENTRY_RELEASE`.
///
/// Dropping the guard sends the queued envelopes. Drop it after the runtime, because
/// the end of the runtime ends the last calls.
pub(crate) fn sentry() -> Result<InitGuard, Error> {
    let dsn = variable("SENTRY_DSN")?;
    // `sentry_tonic::init` ignores an invalid value.
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
    let guard = sentry_tonic::init(ClientOptions::new().traces_sample_rate(rate));
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

/// From this call on, SIGTERM and SIGINT do not end the process. The future resolves
/// when one of them arrives.
#[cfg(unix)]
pub(crate) fn shutdown_signal() -> Result<impl Future<Output = ()>, Error> {
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

/// The future resolves on Ctrl-C.
#[cfg(not(unix))]
pub(crate) fn shutdown_signal() -> Result<impl Future<Output = ()>, Error> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}
