//! From what watches a tonic service today to this crate: one page for each start.
//!
//! | what there is | page |
//! |---|---|
//! | `SentryHttpLayer` and `NewSentryLayer` of sentry-tower | [`from_sentry_tower`] |
//! | `SpanLayer` of sentry-tracing, or its older `sentry_tracing::layer()` | [`from_sentry_tracing`] |
//! | `TraceLayer` of tower-http | [`from_tower_http`] |
//! | `OtelGrpcLayer` of tonic-tracing-opentelemetry | [`from_tonic_tracing_opentelemetry`] |
//!
//! Where several of them are there, each page is for its part; the tracing subscriber ends up the
//! same on all.
//!
//! What the pages say of before and after was run: `cargo test --test it migrating` makes the same
//! fourteen calls, over TCP, with each of these stacks and with this crate in its place, and
//! compares all that Sentry or OpenTelemetry is told of them with tables, `tests/it/migrating/*.txt`.
//! The versions are sentry-tower and sentry-tracing 0.49.5, tower-http 0.7.1 and
//! tonic-tracing-opentelemetry 0.42.1.
//!
//! # On all pages
//!
//! * **A failure rate that rises is no fault of the new code.** Calls that failed were `ok` before,
//!   or had no status. Sentry counts every transaction as failed whose status is not `ok`,
//!   `cancelled` or `unknown`, `not_found` too: alerts on `failure_rate()` need new thresholds, or a
//!   filter such as `transaction.status:[internal_error, unknown_error, data_loss]`.
//! * **Streams take longer.** A call lasts to the end of its stream. Alerts on the durations of
//!   streaming methods need new thresholds.
//! * **Failures become issues** that nobody captured before: those with UNKNOWN, INTERNAL or
//!   DATA_LOSS. To go live without, [`capture_codes([])`](crate::SentryServerLayer::capture_codes).
//!   One failure is one event in one service: a handler that passes the status of another service
//!   on, by `?`, makes one of its own. Nothing in a status says who made it, but a status from another
//!   service has no source. If all failures of the service itself have one, by
//!   [`with_source`](crate::StatusExt::with_source):
//!
//!   ```
//!   use sentry_tonic::SentryServerLayer;
//!   use tonic::Code;
//!
//!   let layer = SentryServerLayer::new().capture_if(|call| {
//!       let is_own_fault = matches!(call.code(), Code::Unknown | Code::Internal | Code::DataLoss);
//!       is_own_fault && call.source().is_some()
//!   });
//!   # let _ = layer;
//!   ```
//!
//!   Elsewhere give what is passed on a code that is not captured, or choose by `capture_codes`.
//! * **Callers are told INTERNAL of a panic**, where tonic alone resets the stream, which they see
//!   as CANCELLED. [`panic_policy`](crate::SentryServerLayer::panic_policy) leaves that as it was.
//! * **Health checks are gone**, and reflection:
//!   [`ignore`](crate::SentryServerLayer::ignore).
//! * **Filters** name the target of a span: that of calls is `sentry_tonic`, at INFO. A filter such
//!   as `my_service=info` keeps them from Sentry; `my_service=info,sentry_tonic=info` does not.
//! * **One at a time.** Services may move one after another: `sentry-trace` and `baggage` go in and
//!   out in the same form. Within a service, the old middleware goes as the new one comes, since
//!   with both each call is told twice.
//! * **One sentry.** `cargo tree -i sentry-core` is to name one version, for layers of
//!   one version know nothing of the client of another.

#[doc = include_str!("from_sentry_tower.md")]
pub mod from_sentry_tower {}
#[doc = include_str!("from_sentry_tracing.md")]
pub mod from_sentry_tracing {}
#[doc = include_str!("from_tonic_tracing_opentelemetry.md")]
pub mod from_tonic_tracing_opentelemetry {}
#[doc = include_str!("from_tower_http.md")]
pub mod from_tower_http {}
