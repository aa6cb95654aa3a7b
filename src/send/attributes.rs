//! Attributes of what is sent, from several sources of which one outranks the other.

use std::borrow::Cow;

use sentry_core::protocol::{Map, Value};
use tracing::Metadata;

use crate::report::{Attribute, SeeAttribute};
use crate::span_ext::RpcStart;

/// See <https://develop.sentry.dev/sdk/telemetry/traces/trace-origin/>.
pub(crate) const ORIGIN_RPC: &str = "auto.rpc.tonic";

/// Attributes in the order in which they became known: the last of a name counts.
pub(crate) type Values = [(Cow<'static, str>, Value)];

/// The operation of a span that no field names.
pub(crate) fn op(metadata: &Metadata<'_>) -> String {
    [metadata.target(), "::", metadata.name()].concat()
}

/// Where a span was made, under the names of sentry-tracing.
pub(crate) fn source(metadata: &Metadata<'static>, see: SeeAttribute<'_>) {
    for (name, text) in [
        ("sentry.tracing.target", Some(metadata.target())),
        ("code.module.name", metadata.module_path()),
        ("code.file.path", metadata.file()),
    ] {
        if let Some(text) = text {
            see(name, Attribute::Text(text));
        }
    }
    if let Some(line) = metadata.line() {
        see("code.line.number", Attribute::Number(line.into()));
    }
}

/// The attributes of a call's span: how the call ended outranks what the application set, and that
/// outranks what is known of the call.
pub(crate) fn of_call(
    call: Option<&RpcStart>,
    end: &Values,
    set: &Map<String, Value>,
    see: SeeAttribute<'_>,
) {
    for (name, value) in last(end) {
        see(name, Attribute::Json(value));
    }
    let set_only = set.iter().filter(|(name, _)| !has(end, name));
    for (name, value) in set_only {
        see(name, Attribute::Json(value));
    }
    if let Some(call) = call {
        call.about.attributes(&mut |name, value| {
            if !has(end, name) && !set.contains_key(name) {
                see(name, value);
            }
        });
    }
}

/// The attributes of a span that is no call: what the application set outranks what its fields
/// said as it started, and that outranks where it was made.
pub(crate) fn of_code(
    metadata: &Metadata<'static>,
    fields: &Values,
    set: &Map<String, Value>,
    see: SeeAttribute<'_>,
) {
    for (name, value) in set {
        see(name, Attribute::Json(value));
    }
    for (name, value) in last(fields).filter(|(name, _)| !set.contains_key(*name)) {
        see(name, Attribute::Json(value));
    }
    source(metadata, &mut |name, value| {
        if !has(fields, name) && !set.contains_key(name) {
            see(name, value);
        }
    });
}

pub(crate) fn has(values: &Values, name: &str) -> bool {
    values.iter().any(|(known, _)| known == name)
}

/// Each name with its last value.
fn last(values: &Values) -> impl Iterator<Item = (&str, &Value)> {
    let is_last = |(index, (name, _)): &(usize, &(Cow<'static, str>, Value))| {
        let later = values.get(index + 1..).unwrap_or_default();
        !has(later, name)
    };
    let all = values.iter().enumerate().filter(is_last);
    all.map(|(_, (name, value))| (&**name, value))
}
