//! What the middleware records on a tracing span when its RPC ends.

use tracing::Span;

use crate::fields;
use crate::report::status::is_server_error;
use crate::rpc::{Outcome, code_name};

/// Records the end of a server's RPC. Each field is recorded once: an
/// OpenTelemetry layer exports a second value beside the first.
pub(crate) fn record_outcome(
    span: &Span,
    outcome: &Outcome,
    request_messages: Option<u32>,
    response_messages: Option<u32>,
) {
    let name = code_name(outcome.code);
    span.record(fields::RPC_GRPC_STATUS_CODE, outcome.code as i64);
    span.record(fields::RPC_RESPONSE_STATUS_CODE, name);
    span.record(
        fields::RPC_REQUEST_MESSAGE_COUNT,
        request_messages.map(i64::from),
    );
    span.record(
        fields::RPC_RESPONSE_MESSAGE_COUNT,
        response_messages.map(i64::from),
    );
    if is_server_error(outcome.code) {
        span.record(fields::ERROR_TYPE, name);
        span.record(fields::OTEL_STATUS_CODE, "ERROR");
        span.record(fields::OTEL_STATUS_DESCRIPTION, outcome.message.as_deref());
    }
}
