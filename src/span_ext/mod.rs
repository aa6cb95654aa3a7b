//! The way from a tracing span to the Sentry layer behind it, for what the fields of a span cannot
//! carry. Used by the middleware, and by applications.

mod enter;
mod ext;
mod held;
mod mute;
mod opened;
#[cfg(feature = "opentelemetry")]
mod otel;
mod otel_parent;
mod outgoing;
#[cfg(feature = "tower-http")]
mod parked;
mod probe;
mod sink;
mod status_ext;
mod thread_guard;

pub(crate) use self::enter::{
    Enterer, RpcKey, SpanEntered, drop_span, enter, is_middleware_entering,
};
pub use self::ext::{ContinueTraceError, SentrySpanExt};
pub(crate) use self::ext::{LayerFns, set_layer_fns};
pub(crate) use self::held::{HeldPanics, hold_panic};
pub(crate) use self::mute::{Muted, is_muted};
pub(crate) use self::opened::{hand_over, opened};
#[cfg(feature = "opentelemetry")]
pub(crate) use self::otel::{
    add_event as add_otel_event, otel_span, set_attributes as set_otel_attributes,
};
pub(crate) use self::otel_parent::{OtelParent, OtelParentFn};
pub(crate) use self::outgoing::inject;
#[cfg(feature = "tower-http")]
pub(crate) use self::parked::{Parked, ParkedLink, park, parked, unpark};
pub(crate) use self::probe::{LayerSeen, OtelIdsFn, has_otel_ids, saw_probe, seen_by};
pub(crate) use self::sink::{
    AboutRpc, EnteredUnrecorded, LeftAside, RpcEnd, RpcFacts, RpcStart, SpanLink, SpanSink,
    Unrecorded, find_sink, is_being_entered, own_sink, recorded_after_all,
};
pub use self::status_ext::StatusExt;
pub(crate) use self::thread_guard::{guarded, is_thread_alive, is_thread_free, is_thread_gone};
