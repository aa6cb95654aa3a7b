//! Policy: what an outcome means in Sentry and in OpenTelemetry.

mod attributes;
mod breadcrumb;
mod capture;
mod event;
mod outcome;
mod status;

pub(crate) use self::attributes::record_outcome;
pub(crate) use self::breadcrumb::of_call as breadcrumb_of_call;
pub(crate) use self::capture::Capture;
pub(crate) use self::event::of_status as event_of_status;
pub use self::outcome::RpcOutcome;
pub(crate) use self::status::{span_status, span_status_of_number};
