//! Policy: what an outcome means in Sentry and in OpenTelemetry.

mod attributes;
mod bounds;
mod breadcrumb;
mod caller;
mod capture;
mod clock;
mod context;
mod conventions;
#[cfg(feature = "error-details")]
mod details;
mod event;
mod limit;
mod metadata;
#[cfg(any(feature = "opentelemetry-metrics", feature = "sentry-metrics"))]
mod metrics;
#[cfg(not(any(feature = "opentelemetry-metrics", feature = "sentry-metrics")))]
mod no_metrics;
#[cfg(feature = "opentelemetry")]
mod otel_exception;
mod outcome;
mod params;
mod scrub;
mod status;
mod tags;

pub(crate) use self::attributes::{Attribute, OutcomeAttributes, SeeAttribute};
pub(crate) use self::bounds::{MAX_TEXT_LEN, bounded_event, bounded_fingerprint, bounded_name};
pub(crate) use self::breadcrumb::CallBreadcrumb;
pub use self::caller::CallerIdentity;
pub(crate) use self::caller::{
    ClaimTargets, bounded as bounded_user, merged as merged_users, set_field as set_user_field,
};
pub(crate) use self::capture::Capture;
pub(crate) use self::clock::now;
pub(crate) use self::context::{NAME as RPC_CONTEXT, name_stream, set_held_back, set_streams};
pub use self::conventions::SemanticConventions;
#[cfg(feature = "error-details")]
pub(crate) use self::details::{
    CONTEXT as ERROR_CONTEXT, attributes as error_attributes, context as error_context,
};
pub(crate) use self::event::{
    clean as clean_event, of_panic as event_of_panic, of_status as event_of_status,
};
pub(crate) use self::limit::{EventKind, EventLimiter};
pub(crate) use self::metadata::{Metadata, MetadataOptions, MetadataPlace};
#[cfg(any(feature = "opentelemetry-metrics", feature = "sentry-metrics"))]
pub(crate) use self::metrics::RpcMetrics;
#[cfg(feature = "opentelemetry-metrics")]
pub(crate) use self::metrics::histogram;
#[cfg(not(any(feature = "opentelemetry-metrics", feature = "sentry-metrics")))]
pub(crate) use self::no_metrics::RpcMetrics;
#[cfg(feature = "opentelemetry")]
pub(crate) use self::otel_exception::otel_exception;
pub use self::outcome::RpcOutcome;
pub(crate) use self::params::ParamOptions;
pub(crate) use self::scrub::{scrubbed, without_metadata};
pub(crate) use self::status::{span_status, span_status_of_number};
pub(crate) use self::tags::{bounded as bounded_tag, bounded_value as bounded_tag_value};

pub(crate) use crate::rpc::{bounded, clip, error_chain};
