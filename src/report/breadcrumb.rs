//! A call as a breadcrumb.

use std::borrow::Cow;
use std::time::SystemTime;

use sentry_core::protocol::{Map, Value};
use sentry_core::{Breadcrumb, Level};
use tonic::Code;

use crate::report::clock;
use crate::report::outcome::RpcOutcome;
use crate::report::scrub;
use crate::report::status::is_error;
use crate::rpc::{MethodPath, RpcSide, code_name};

/// The breadcrumb of a call that has ended. It is made when an error needs it: most calls are
/// followed by none.
#[derive(Debug)]
pub(crate) struct CallBreadcrumb {
    timestamp: SystemTime,
    side: RpcSide,
    path: MethodPath,
    code: Code,
    message: Option<Cow<'static, str>>,
    milliseconds: f64,
    request_messages: Option<u32>,
    response_messages: Option<u32>,
}

impl CallBreadcrumb {
    pub(crate) fn new(
        outcome: &RpcOutcome<'_>,
        request_messages: Option<u32>,
        response_messages: Option<u32>,
    ) -> Self {
        Self {
            timestamp: clock::now(),
            side: outcome.side(),
            path: outcome.path.clone(),
            code: outcome.code(),
            message: outcome.outcome.message.clone(),
            milliseconds: outcome.milliseconds(),
            request_messages,
            response_messages,
        }
    }

    pub(crate) fn to_breadcrumb(&self) -> Breadcrumb {
        let mut data: Map<String, Value> = Map::from([
            ("method".to_owned(), self.path.full().into()),
            ("status".to_owned(), code_name(self.code).into()),
            ("status_code".to_owned(), (self.code as i32).into()),
            ("duration_ms".to_owned(), self.milliseconds.into()),
        ]);
        for (key, count) in [
            ("request_message_count", self.request_messages),
            ("response_message_count", self.response_messages),
        ] {
            if let Some(count) = count {
                data.insert(key.to_owned(), count.into());
            }
        }
        Breadcrumb {
            timestamp: self.timestamp,
            ty: "grpc".to_owned(),
            category: Some(match self.side {
                RpcSide::Server => "grpc.server".to_owned(),
                RpcSide::Client => "grpc.client".to_owned(),
            }),
            level: level(self.code),
            message: self
                .message
                .as_deref()
                .map(|message| scrub::scrubbed(message).into_owned()),
            data,
        }
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
