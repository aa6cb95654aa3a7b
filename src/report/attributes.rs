//! What the middleware records on a tracing span when its RPC ends.

use tracing::Span;

use crate::fields;
use crate::report::conventions::SemanticConventions;
use crate::report::status::is_error;
use crate::rpc::{Outcome, RpcSide, code_name};

/// Records the end of an RPC. Each field is recorded once: an
/// OpenTelemetry layer exports a second value beside the first.
pub(crate) fn record_outcome(
    span: &Span,
    conventions: SemanticConventions,
    side: RpcSide,
    outcome: &Outcome,
    request_messages: Option<u32>,
    response_messages: Option<u32>,
) {
    let name = code_name(outcome.code);
    if conventions.has_legacy() {
        span.record(fields::RPC_GRPC_STATUS_CODE, outcome.code as i64);
    }
    if conventions.has_stable() {
        span.record(fields::RPC_STATUS_CODE, name);
    }
    span.record(fields::RPC_RESPONSE_STATUS_CODE, name);
    if let Some(count) = request_messages {
        span.record(fields::RPC_REQUEST_MESSAGE_COUNT, i64::from(count));
    }
    if let Some(count) = response_messages {
        span.record(fields::RPC_RESPONSE_MESSAGE_COUNT, i64::from(count));
    }
    if is_error(side, outcome.code) {
        span.record(fields::ERROR_TYPE, name);
        span.record(fields::OTEL_STATUS_CODE, "ERROR");
        if let Some(message) = outcome.message.as_deref() {
            span.record(fields::OTEL_STATUS_DESCRIPTION, message);
        }
    }
}
