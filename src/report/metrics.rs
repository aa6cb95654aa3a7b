//! The durations of calls as metrics.
//!
//! See <https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/>.

use http::uri::Authority;

use crate::fields;
use crate::report::outcome::RpcOutcome;
use crate::report::status::is_error;
use crate::rpc::RpcSide;

/// Where the durations of calls go.
#[derive(Debug, Clone, Default)]
pub(crate) struct RpcMetrics {
    #[cfg(feature = "opentelemetry-metrics")]
    pub(crate) histogram: Option<opentelemetry::metrics::Histogram<f64>>,
    #[cfg(feature = "sentry-metrics")]
    pub(crate) to_sentry: bool,
}

/// An attribute of a duration.
enum Attribute<'a> {
    Text(&'static str, &'a str),
    Number(&'static str, i64),
}

impl RpcMetrics {
    pub(crate) fn is_on(&self) -> bool {
        #[cfg(feature = "opentelemetry-metrics")]
        if self.histogram.is_some() {
            return true;
        }
        #[cfg(feature = "sentry-metrics")]
        if self.to_sentry {
            return true;
        }
        false
    }

    /// Records the duration of a call. A method that is not known is `_OTHER`: callers may make up
    /// any number of names.
    pub(crate) fn record(
        &self,
        outcome: &RpcOutcome<'_>,
        is_known: bool,
        server: Option<&Authority>,
    ) {
        if !self.is_on() {
            return;
        }
        let method = match is_known {
            true => outcome.path.qualified(),
            false => fields::UNKNOWN_METHOD,
        };
        let name = outcome.code_name();
        let is_error = is_error(outcome.side(), outcome.code());
        let attributes = [
            Some(Attribute::Text(fields::RPC_SYSTEM_NAME, "grpc")),
            Some(Attribute::Text(fields::RPC_METHOD, method)),
            Some(Attribute::Text(fields::RPC_STATUS_CODE, name)),
            is_error.then_some(Attribute::Text(fields::ERROR_TYPE, name)),
            server.map(|authority| Attribute::Text(fields::SERVER_ADDRESS, authority.host())),
            server
                .and_then(Authority::port_u16)
                .map(|port| Attribute::Number(fields::SERVER_PORT, port.into())),
        ];
        let attributes: Vec<Attribute<'_>> = attributes.into_iter().flatten().collect();
        self.record_with(outcome, &attributes);
    }

    fn record_with(&self, outcome: &RpcOutcome<'_>, attributes: &[Attribute<'_>]) {
        let seconds = outcome.duration().as_secs_f64();
        #[cfg(feature = "opentelemetry-metrics")]
        if let Some(histogram) = &self.histogram {
            histogram.record(seconds, &otel(attributes));
        }
        #[cfg(feature = "sentry-metrics")]
        if self.to_sentry {
            to_sentry(name(outcome.side()), seconds, attributes);
        }
    }
}

fn name(side: RpcSide) -> &'static str {
    match side {
        RpcSide::Server => "rpc.server.call.duration",
        RpcSide::Client => "rpc.client.call.duration",
    }
}

#[cfg(feature = "opentelemetry-metrics")]
pub(crate) fn histogram(
    side: RpcSide,
    meter: &opentelemetry::metrics::Meter,
) -> opentelemetry::metrics::Histogram<f64> {
    /// In seconds.
    const BOUNDARIES: [f64; 14] = [
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];
    meter
        .f64_histogram(name(side))
        .with_unit("s")
        .with_description(match side {
            RpcSide::Server => "How long calls that came in took.",
            RpcSide::Client => "How long calls that went out took.",
        })
        .with_boundaries(BOUNDARIES.to_vec())
        .build()
}

#[cfg(feature = "opentelemetry-metrics")]
fn otel(attributes: &[Attribute<'_>]) -> Vec<opentelemetry::KeyValue> {
    let attributes = attributes.iter().map(|attribute| match attribute {
        Attribute::Text(name, text) => opentelemetry::KeyValue::new(*name, (*text).to_owned()),
        Attribute::Number(name, number) => opentelemetry::KeyValue::new(*name, *number),
    });
    attributes.collect()
}

#[cfg(feature = "sentry-metrics")]
fn to_sentry(name: &'static str, seconds: f64, attributes: &[Attribute<'_>]) {
    use sentry_core::protocol::Unit;

    let mut metric = sentry_core::metrics::distribution(name, seconds).unit(Unit::Second);
    for attribute in attributes {
        metric = match attribute {
            Attribute::Text(name, text) => metric.attribute(*name, *text),
            Attribute::Number(name, number) => metric.attribute(*name, *number),
        };
    }
    metric.capture();
}
