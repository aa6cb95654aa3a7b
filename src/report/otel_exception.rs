//! The exception event of a failed RPC for OpenTelemetry.

use crate::fields;
use crate::report::event;
use crate::report::outcome::RpcOutcome;
use crate::report::scrub;
use crate::report::status::is_error;

/// The attributes of an [exception]: the innermost source, by which Sentry groups issues, or
/// the panic. `None` where the call has not failed, or where only its status is known, which the
/// span has.
///
/// [exception]: https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/
pub(crate) fn otel_exception(
    outcome: &RpcOutcome<'_>,
    panic: Option<&str>,
) -> Option<Vec<(&'static str, String)>> {
    if !is_error(outcome.side(), outcome.code()) {
        return None;
    }
    let exception = match panic {
        Some(message) => event::panic(message),
        None => event::root(outcome.source())?,
    };
    let message = exception.value.filter(|text| !text.is_empty());
    let message = message.map(|text| scrub::without_metadata(&text).unwrap_or(text));
    let message = message.map(|text| (fields::EXCEPTION_MESSAGE, text));
    let ty = (fields::EXCEPTION_TYPE, exception.ty);
    Some([Some(ty), message].into_iter().flatten().collect())
}
