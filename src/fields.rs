//! Names of span fields and attributes: the contract between the middleware,
//! which records them on tracing spans, and whatever layer reads them.

/// The target of the middleware's spans and events.
pub(crate) const TARGET: &str = "sentry_tonic";

/// The name of the span of an RPC that a server received.
pub(crate) const SERVER_SPAN: &str = "grpc.server";
/// The name of the span of an RPC that a client makes.
pub(crate) const CLIENT_SPAN: &str = "grpc.client";

/// The name of the probe, the span by which `check_setup` finds layers.
pub(crate) const PROBE_SPAN: &str = "sentry_tonic.check_setup";

// https://github.com/open-telemetry/semantic-conventions/blob/v1.38.0/docs/rpc/grpc.md
pub(crate) const RPC_SYSTEM: &str = "rpc.system";
pub(crate) const RPC_SERVICE: &str = "rpc.service";
pub(crate) const RPC_METHOD: &str = "rpc.method";
pub(crate) const RPC_GRPC_STATUS_CODE: &str = "rpc.grpc.status_code";
pub(crate) const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
pub(crate) const NETWORK_PEER_PORT: &str = "network.peer.port";
pub(crate) const SERVER_ADDRESS: &str = "server.address";
pub(crate) const SERVER_PORT: &str = "server.port";
pub(crate) const ERROR_TYPE: &str = "error.type";

// https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/
#[cfg(feature = "opentelemetry")]
pub(crate) const EXCEPTION: &str = "exception";
#[cfg(feature = "opentelemetry")]
pub(crate) const EXCEPTION_TYPE: &str = "exception.type";
#[cfg(feature = "opentelemetry")]
pub(crate) const EXCEPTION_MESSAGE: &str = "exception.message";

// https://opentelemetry.io/docs/specs/semconv/registry/attributes/rpc/
pub(crate) const RPC_SYSTEM_NAME: &str = "rpc.system.name";
pub(crate) const RPC_STATUS_CODE: &str = "rpc.status_code";
pub(crate) const RPC_METHOD_ORIGINAL: &str = "rpc.method_original";

/// The name of methods that a server does not know: callers may make up any number of names.
pub(crate) const UNKNOWN_METHOD: &str = "_OTHER";

// https://getsentry.github.io/sentry-conventions/attributes/rpc/
pub(crate) const RPC_RESPONSE_STATUS_CODE: &str = "rpc.response.status_code";

// Of no convention: length-prefixed messages, as gRPC counts them.
pub(crate) const RPC_REQUEST_MESSAGE_COUNT: &str = "rpc.request.message_count";
pub(crate) const RPC_RESPONSE_MESSAGE_COUNT: &str = "rpc.response.message_count";

// Of no convention: how many spans of a transaction are not in it, of which sentry-core keeps
// 1001; which part of a long one it is, from 1.
pub(crate) const DROPPED_SPANS_COUNT: &str = "dropped_spans_count";
pub(crate) const TRANSACTION_PART: &str = "transaction.part";

/// The prefix of fields for parameters of a call, on the spans of its handler.
pub(crate) const PARAM_PREFIX: &str = "rpc.param.";

// https://opentelemetry.io/docs/specs/semconv/registry/attributes/user/
pub(crate) const USER_PREFIX: &str = "user.";

// Reserved by tracing-opentelemetry:
// https://docs.rs/tracing-opentelemetry/latest/tracing_opentelemetry/#special-fields
pub(crate) const OTEL_NAME: &str = "otel.name";
pub(crate) const OTEL_KIND: &str = "otel.kind";
pub(crate) const OTEL_STATUS_CODE: &str = "otel.status_code";
pub(crate) const OTEL_STATUS_DESCRIPTION: &str = "otel.status_description";

// Reserved by sentry-tracing:
// https://docs.rs/sentry-tracing/latest/sentry_tracing/#special-span-fields
pub(crate) const SENTRY_NAME: &str = "sentry.name";
pub(crate) const SENTRY_OP: &str = "sentry.op";
pub(crate) const SENTRY_TRACE: &str = "sentry.trace";
pub(crate) const TAGS_PREFIX: &str = "tags.";

// https://getsentry.github.io/sentry-conventions/attributes/sentry/
pub(crate) const SENTRY_KIND: &str = "sentry.kind";
pub(crate) const SENTRY_ORIGIN: &str = "sentry.origin";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    /// Stands for a constant that the crate of the conventions does not have.
    const NONE: &str = "there is none";

    /// That crate has the conventions of 1.42, which are older. Once it has the constant, that
    /// shadows this one.
    const RPC_STATUS_CODE: &str = NONE;

    /// What OpenTelemetry has no constants for: Sentry's, those of the tracing layers,
    /// our own; values, prefixes and the name of an event.
    const OTHERS: [&str; 21] = [
        "CLIENT_SPAN",
        "DROPPED_SPANS_COUNT",
        "EXCEPTION",
        "OTEL_KIND",
        "OTEL_NAME",
        "PARAM_PREFIX",
        "PROBE_SPAN",
        "RPC_REQUEST_MESSAGE_COUNT",
        "RPC_RESPONSE_MESSAGE_COUNT",
        "RPC_STATUS_CODE",
        "SENTRY_KIND",
        "SENTRY_NAME",
        "SENTRY_OP",
        "SENTRY_ORIGIN",
        "SENTRY_TRACE",
        "SERVER_SPAN",
        "TAGS_PREFIX",
        "TARGET",
        "TRANSACTION_PART",
        "UNKNOWN_METHOD",
        "USER_PREFIX",
    ];

    /// All constants of this file, by their names.
    fn ours() -> BTreeMap<&'static str, &'static str> {
        let code = include_str!("fields.rs").split("#[cfg(test)]").next();
        let constants = code.unwrap().split("const ").skip(1);
        let constants = constants.map(|constant| {
            let (name, rest) = constant.split_once(": &str = \"").unwrap();
            (name, rest.split_once("\";").unwrap().0)
        });
        constants.collect()
    }

    macro_rules! of_conventions {
        ($($name:ident)*) => {
            BTreeMap::from([$((stringify!($name), $name)),*])
        };
    }

    #[test]
    #[expect(deprecated, reason = "so are the legacy conventions")]
    fn names_are_those_of_the_conventions() {
        use opentelemetry_semantic_conventions::attribute::*;

        let theirs = of_conventions! {
            ERROR_TYPE EXCEPTION_MESSAGE EXCEPTION_TYPE NETWORK_PEER_ADDRESS NETWORK_PEER_PORT
            OTEL_STATUS_CODE OTEL_STATUS_DESCRIPTION RPC_GRPC_STATUS_CODE RPC_METHOD
            RPC_METHOD_ORIGINAL RPC_RESPONSE_STATUS_CODE RPC_SERVICE RPC_SYSTEM RPC_SYSTEM_NAME
            SERVER_ADDRESS SERVER_PORT
        };
        let mut ours = ours();
        for name in OTHERS {
            assert!(ours.remove(name).is_some(), "{name} is gone");
        }
        assert_eq!(ours, theirs);
        assert_eq!(RPC_STATUS_CODE, NONE, "compare it as the others are");
        assert_eq!(super::RPC_STATUS_CODE, "rpc.status_code");
        assert!(USER_ID.starts_with(super::USER_PREFIX));
        #[cfg(feature = "opentelemetry")]
        assert_eq!(EXCEPTION_TYPE.split('.').next(), Some(super::EXCEPTION));
    }
}
