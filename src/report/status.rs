//! What gRPC codes mean: as span statuses of Sentry, and as failures.

use sentry_core::protocol::SpanStatus;
use tonic::Code;

use crate::rpc::RpcSide;

/// Sentry's status for a gRPC code: one for each of the 17.
///
/// See <https://develop.sentry.dev/sdk/data-model/event-payloads/contexts/#trace-context>.
pub(crate) fn span_status(code: Code) -> SpanStatus {
    match code {
        Code::Ok => SpanStatus::Ok,
        Code::Cancelled => SpanStatus::Cancelled,
        Code::Unknown => SpanStatus::UnknownError,
        Code::InvalidArgument => SpanStatus::InvalidArgument,
        Code::DeadlineExceeded => SpanStatus::DeadlineExceeded,
        Code::NotFound => SpanStatus::NotFound,
        Code::AlreadyExists => SpanStatus::AlreadyExists,
        Code::PermissionDenied => SpanStatus::PermissionDenied,
        Code::ResourceExhausted => SpanStatus::ResourceExhausted,
        Code::FailedPrecondition => SpanStatus::FailedPrecondition,
        Code::Aborted => SpanStatus::Aborted,
        Code::OutOfRange => SpanStatus::OutOfRange,
        Code::Unimplemented => SpanStatus::Unimplemented,
        Code::Internal => SpanStatus::InternalError,
        Code::Unavailable => SpanStatus::Unavailable,
        Code::DataLoss => SpanStatus::DataLoss,
        Code::Unauthenticated => SpanStatus::Unauthenticated,
    }
}

/// Sentry's status for a recorded `rpc.grpc.status_code`.
pub(crate) fn span_status_of_number(code: i64) -> SpanStatus {
    span_status(i32::try_from(code).map_or(Code::Unknown, Code::from_i32))
}

/// Whether OpenTelemetry counts `code` as a failure: all of them for a client,
/// for a server those that are its own.
///
/// See <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/#grpc-status>.
pub(crate) fn is_error(side: RpcSide, code: Code) -> bool {
    match side {
        RpcSide::Client => code != Code::Ok,
        RpcSide::Server => matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ),
    }
}
