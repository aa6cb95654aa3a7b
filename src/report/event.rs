//! A failed RPC as an error event.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use sentry_core::protocol::{Context, Event, Exception, Level, Map, Mechanism, Value};
use tonic::Status;

use crate::fields;
use crate::report::clock;
use crate::report::context;
use crate::report::outcome::RpcOutcome;
use crate::report::scrub;
use crate::rpc::{self, RpcSide};

/// The type that a panic has in Sentry's SDK for Rust.
const PANIC: &str = "panic";

/// The mechanism of the exceptions that this crate makes.
const MECHANISM: &str = "auto.rpc.tonic";

/// The limit of the text of a source, which a peer may have written.
const MAX_VALUE_LEN: usize = 1024;

const MAX_TYPE_LEN: usize = 128;

/// Takes out of an event what must never be sent, and what cannot be serialized.
pub(crate) fn clean(event: &mut Event<'_>) {
    scrub::scrub(event);
    clock::repair_times(event);
}

/// The event of a failed status. Issues are grouped by method, code and the type
/// of the innermost source, never by the message, which may say anything.
pub(crate) fn of_status(outcome: &RpcOutcome<'_>) -> Event<'static> {
    let sources = exceptions(outcome.source());
    let root = sources.first().map(|source| source.ty.clone());
    let status = Exception {
        ty: outcome.code_name().to_owned(),
        value: outcome.message().map(str::to_owned),
        mechanism: Some(mechanism(true)),
        ..Exception::default()
    };
    Event {
        level: Level::Error,
        exception: sources
            .into_iter()
            .chain([status])
            .collect::<Vec<_>>()
            .into(),
        fingerprint: fingerprint(outcome, root),
        ..of_call(outcome)
    }
}

/// The event of a panic that was caught. It has no stack trace: where it was
/// caught is not where it happened.
pub(crate) fn of_panic(outcome: &RpcOutcome<'_>, message: &str) -> Event<'static> {
    let panic = Exception {
        mechanism: Some(mechanism(false)),
        ..panic(message)
    };
    Event {
        level: Level::Fatal,
        exception: vec![panic].into(),
        fingerprint: fingerprint(outcome, Some(PANIC.to_owned())),
        ..of_call(outcome)
    }
}

fn of_call(outcome: &RpcOutcome<'_>) -> Event<'static> {
    Event {
        tags: tags(outcome),
        contexts: Map::from([(context::NAME.to_owned(), context_of(outcome))]),
        ..Event::default()
    }
}

fn mechanism(handled: bool) -> Mechanism {
    Mechanism {
        ty: MECHANISM.to_owned(),
        handled: Some(handled),
        ..Mechanism::default()
    }
}

fn fingerprint(
    outcome: &RpcOutcome<'_>,
    root: Option<String>,
) -> Cow<'static, [Cow<'static, str>]> {
    let of_call = [outcome.full_method(), outcome.code_name()].map(str::to_owned);
    let parts = of_call.into_iter().chain(root);
    parts.map(Cow::Owned).collect()
}

fn tags(outcome: &RpcOutcome<'_>) -> Map<String, String> {
    Map::from([
        (fields::RPC_SERVICE.to_owned(), outcome.service().to_owned()),
        (fields::RPC_METHOD.to_owned(), outcome.method().to_owned()),
        (
            fields::RPC_GRPC_STATUS_CODE.to_owned(),
            (outcome.code() as i32).to_string(),
        ),
    ])
}

fn context_of(outcome: &RpcOutcome<'_>) -> Context {
    let kind = match outcome.side() {
        RpcSide::Server => "server",
        RpcSide::Client => "client",
    };
    let mut context: Map<String, Value> = [
        ("system", "grpc"),
        ("kind", kind),
        ("service", outcome.service()),
        ("method", outcome.method()),
        ("status", outcome.code_name()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.into()))
    .collect();
    context.insert("status_code".to_owned(), (outcome.code() as i32).into());
    if let Some(message) = outcome.message() {
        context.insert("message".to_owned(), message.into());
    }
    context.insert("duration_ms".to_owned(), outcome.milliseconds().into());
    Context::Other(context)
}

/// The innermost source first, as Sentry wants them.
fn exceptions(source: Option<&(dyn Error + 'static)>) -> Vec<Exception> {
    let mut exceptions: Vec<Exception> = chain(source).map(exception).collect();
    exceptions.reverse();
    exceptions
}

fn chain<'a>(
    source: Option<&'a (dyn Error + 'static)>,
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    source.into_iter().flat_map(rpc::error_chain)
}

/// The innermost source, by whose type issues are grouped.
#[cfg(feature = "opentelemetry")]
pub(crate) fn root(source: Option<&(dyn Error + 'static)>) -> Option<Exception> {
    chain(source).last().map(exception)
}

pub(crate) fn panic(message: &str) -> Exception {
    Exception {
        ty: PANIC.to_owned(),
        value: Some(rpc::clip(message, MAX_VALUE_LEN).to_owned()),
        ..Exception::default()
    }
}

fn exception(error: &(dyn Error + 'static)) -> Exception {
    // Printed in full, it would show its metadata.
    if let Some(status) = as_status(error) {
        return Exception {
            ty: rpc::code_name(status.code()).to_owned(),
            value: Some(rpc::clip(status.message(), MAX_VALUE_LEN).to_owned()),
            ..Exception::default()
        };
    }
    let value = rpc::bounded(MAX_VALUE_LEN, format_args!("{error}"));
    let debug = rpc::bounded(MAX_TYPE_LEN, format_args!("{error:?}"));
    // It prints a status from its own chain.
    let tells_metadata = scrub::without_metadata(&value).is_some();
    Exception {
        ty: type_of(&debug, &value).to_owned(),
        value: (!tells_metadata).then_some(value),
        ..Exception::default()
    }
}

fn as_status<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Status> {
    let boxed = || error.downcast_ref::<Box<Status>>().map(AsRef::as_ref);
    let shared = || error.downcast_ref::<Arc<Status>>().map(AsRef::as_ref);
    error.downcast_ref().or_else(boxed).or_else(shared)
}

/// The type name that `Debug` begins with; `Error` where there is none. An error may print its
/// message instead, which is no use to group by, and may hold anything.
fn type_of<'a>(debug: &'a str, value: &str) -> &'a str {
    let name = sentry_core::parse_type_from_debug(debug);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
    let is_cut = debug.len() == MAX_TYPE_LEN && value.starts_with(debug);
    let is_message = is_cut || !value.is_empty() && debug.starts_with(value);
    if is_name && !is_message {
        name
    } else {
        "Error"
    }
}
