//! The attributes that tell how an RPC ended.

use std::borrow::Cow;

use sentry_core::protocol::Value;
use tracing::{Span, record_all};

use crate::fields;
use crate::report::conventions::SemanticConventions;
use crate::report::scrub;
use crate::report::status::is_error;
use crate::rpc::{Outcome, RpcSide, code_name};

/// How many attributes tell how an RPC ended, at most.
const MAX: usize = 6;

/// How an RPC ended, as attributes.
#[derive(Debug)]
pub(crate) struct OutcomeAttributes<'a> {
    pub(crate) conventions: SemanticConventions,
    pub(crate) side: RpcSide,
    pub(crate) outcome: &'a Outcome,
    pub(crate) request_messages: Option<u32>,
    pub(crate) response_messages: Option<u32>,
}

/// The value of one attribute.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attribute<'a> {
    Number(i64),
    Text(&'a str),
    Json(&'a Value),
}

/// Called with attributes, each name once.
pub(crate) type SeeAttribute<'s> = &'s mut dyn FnMut(&str, Attribute<'_>);

impl Attribute<'_> {
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::Number(number) => number.into(),
            Self::Text(text) => text.into(),
            Self::Json(value) => value.clone(),
        }
    }

    fn count(count: Option<u32>) -> Option<Self> {
        count.map(|count| Self::Number(count.into()))
    }
}

fn as_field<'a>((_, value): &'a Named<'_>) -> Option<&'a dyn tracing::Value> {
    match value.as_ref()? {
        Attribute::Number(number) => Some(number),
        Attribute::Text(text) => Some(text),
        Attribute::Json(_) => None,
    }
}

type Named<'a> = (&'static str, Option<Attribute<'a>>);

impl OutcomeAttributes<'_> {
    pub(crate) const MAX: usize = MAX;

    /// Records all of them on the tracing span, once: an OpenTelemetry layer would export a
    /// second value beside the first.
    pub(crate) fn record(&self, span: &Span) {
        let [number, status, response_status, requests, responses, error] = self.all();
        let is_error = error.1.is_some();
        let message = self.outcome.message.as_deref().filter(|_| is_error);
        let message = message.map(scrub::scrubbed);
        record_all!(
            span,
            { number.0 } = as_field(&number),
            { status.0 } = as_field(&status),
            { response_status.0 } = as_field(&response_status),
            { requests.0 } = as_field(&requests),
            { responses.0 } = as_field(&responses),
            { error.0 } = as_field(&error),
            { fields::OTEL_STATUS_CODE } = is_error.then_some("ERROR"),
            { fields::OTEL_STATUS_DESCRIPTION } = message.as_deref(),
        );
    }

    /// The attributes for Sentry.
    pub(crate) fn data(&self) -> impl Iterator<Item = (Cow<'static, str>, Value)> {
        let all = self.all().into_iter();
        all.filter_map(|(name, value)| Some((name.into(), value?.to_value())))
    }

    fn all(&self) -> [Named<'_>; MAX] {
        let name = code_name(self.outcome.code);
        let (legacy, stable) = (self.conventions.has_legacy(), self.conventions.has_stable());
        let number = Attribute::Number(self.outcome.code as i64);
        let name = Attribute::Text(name);
        let requests = Attribute::count(self.request_messages);
        let responses = Attribute::count(self.response_messages);
        let is_error = is_error(self.side, self.outcome.code);
        [
            (fields::RPC_GRPC_STATUS_CODE, legacy.then_some(number)),
            (fields::RPC_STATUS_CODE, stable.then_some(name)),
            (fields::RPC_RESPONSE_STATUS_CODE, Some(name)),
            (fields::RPC_REQUEST_MESSAGE_COUNT, requests),
            (fields::RPC_RESPONSE_MESSAGE_COUNT, responses),
            (fields::ERROR_TYPE, is_error.then_some(name)),
        ]
    }
}
