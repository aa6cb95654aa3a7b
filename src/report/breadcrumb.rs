//! A call as a breadcrumb.

use sentry_core::protocol::{Map, Value};
use sentry_core::{Breadcrumb, Level};
use tonic::Code;

use crate::report::outcome::RpcOutcome;
use crate::report::scrub;
use crate::report::status::is_error;
use crate::rpc::RpcSide;

/// What others read of it in the errors that follow.
pub(crate) fn of_call(
    outcome: &RpcOutcome<'_>,
    request_messages: Option<u32>,
    response_messages: Option<u32>,
) -> Breadcrumb {
    let mut data: Map<String, Value> = Map::from([
        ("method".to_owned(), outcome.full_method().into()),
        ("status".to_owned(), outcome.code_name().into()),
        ("status_code".to_owned(), (outcome.code() as i32).into()),
        ("duration_ms".to_owned(), outcome.milliseconds().into()),
    ]);
    for (key, count) in [
        ("request_message_count", request_messages),
        ("response_message_count", response_messages),
    ] {
        if let Some(count) = count {
            data.insert(key.to_owned(), count.into());
        }
    }
    Breadcrumb {
        ty: "grpc".to_owned(),
        category: Some(match outcome.side() {
            RpcSide::Server => "grpc.server".to_owned(),
            RpcSide::Client => "grpc.client".to_owned(),
        }),
        level: level(outcome.code()),
        message: outcome
            .message()
            .map(|message| scrub::scrubbed(message).into_owned()),
        data,
        ..Breadcrumb::default()
    }
}

/// By whose fault it is: nobody's, the caller's, or the server's.
fn level(code: Code) -> Level {
    match code {
        Code::Ok | Code::Cancelled => Level::Info,
        code if is_error(RpcSide::Server, code) => Level::Error,
        _ => Level::Warning,
    }
}
