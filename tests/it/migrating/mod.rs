//! Other stacks, and this crate in their place: what Sentry and OpenTelemetry are told of the
//! same calls by each, as the guides in `src/manual/migrating` say it.

mod calls;
mod from_sentry_tower;
mod from_sentry_tracing;
mod from_tonic_tracing_opentelemetry;
mod from_tower_http;
mod guides;
pub(crate) mod stack;
mod told;
mod told_otel;
