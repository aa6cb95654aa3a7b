//! What is recorded of an RPC when it ends.

#[cfg(feature = "tower-http")]
use sentry_core::protocol::Value;
use tracing::Span;

use crate::fields;
use crate::report::conventions::SemanticConventions;
use crate::report::scrub;
use crate::report::status::is_error;
use crate::rpc::{Outcome, RpcSide, code_name};

/// How an RPC ended, as attributes.
#[derive(Debug)]
pub(crate) struct OutcomeAttributes<'a> {
    pub(crate) conventions: SemanticConventions,
    pub(crate) side: RpcSide,
    pub(crate) outcome: &'a Outcome,
    pub(crate) request_messages: Option<u32>,
    pub(crate) response_messages: Option<u32>,
}

enum Attribute<'a> {
    Number(i64),
    Text(&'a str),
}

impl OutcomeAttributes<'_> {
    /// Records each once: an OpenTelemetry layer exports a second value beside the
    /// first.
    pub(crate) fn record(&self, span: &Span) {
        self.each(|name, attribute| {
            match attribute {
                Attribute::Number(number) => span.record(name, number),
                Attribute::Text(text) => span.record(name, text),
            };
        });
    }

    /// Those of a span that cannot be recorded on any more.
    #[cfg(feature = "tower-http")]
    pub(crate) fn data(&self) -> Vec<(String, Value)> {
        let mut data = Vec::new();
        self.each(|name, attribute| {
            let value = match attribute {
                Attribute::Number(number) => number.into(),
                Attribute::Text(text) => text.into(),
            };
            // What becomes of these is told by itself.
            if !matches!(
                name,
                fields::OTEL_STATUS_CODE | fields::OTEL_STATUS_DESCRIPTION
            ) {
                data.push((name.to_owned(), value));
            }
        });
        data
    }

    fn each(&self, mut take: impl FnMut(&'static str, Attribute<'_>)) {
        let name = code_name(self.outcome.code);
        if self.conventions.has_legacy() {
            let number = Attribute::Number(self.outcome.code as i64);
            take(fields::RPC_GRPC_STATUS_CODE, number);
        }
        if self.conventions.has_stable() {
            take(fields::RPC_STATUS_CODE, Attribute::Text(name));
        }
        take(fields::RPC_RESPONSE_STATUS_CODE, Attribute::Text(name));
        let counts = [
            (fields::RPC_REQUEST_MESSAGE_COUNT, self.request_messages),
            (fields::RPC_RESPONSE_MESSAGE_COUNT, self.response_messages),
        ];
        for (field, count) in counts {
            if let Some(count) = count {
                take(field, Attribute::Number(count.into()));
            }
        }
        if is_error(self.side, self.outcome.code) {
            take(fields::ERROR_TYPE, Attribute::Text(name));
            take(fields::OTEL_STATUS_CODE, Attribute::Text("ERROR"));
            if let Some(message) = self.outcome.message.as_deref() {
                let left = scrub::without_metadata(message);
                let message = left.as_deref().unwrap_or(message);
                take(fields::OTEL_STATUS_DESCRIPTION, Attribute::Text(message));
            }
        }
    }
}
