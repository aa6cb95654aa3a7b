//! Policy: what an outcome means in Sentry and in OpenTelemetry.

mod attributes;
mod status;

pub(crate) use self::attributes::record_outcome;
pub(crate) use self::status::{span_status, span_status_of_number};
