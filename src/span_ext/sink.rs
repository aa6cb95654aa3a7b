//! The layer behind a span, as the middleware and applications reach it.
//!
//! The layer leaves a [`SpanLink`] in the extensions of each span it sees, in
//! the [`Registry`] at the bottom of the subscriber. It is found there whatever
//! filters, options, boxes or reload handles stand around the layer. On a
//! subscriber without a `Registry` a span is reported by its fields alone.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use sentry_core::protocol::{Event, Map, SpanStatus, User, Value};
use tracing::{Dispatch, Metadata, Span, Subscriber, span};
use tracing_subscriber::Registry;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::propagation::{IncomingTrace, TraceHeaders};
use crate::report::{CallBreadcrumb, EventKind, EventLimiter, SeeAttribute};
use crate::span_ext::enter::Enterer;
use crate::span_ext::otel_parent::OtelParentFn;

/// What records a tracing span for Sentry.
pub(crate) trait SpanSink: fmt::Debug + Send + Sync {
    /// Whether the client has `send_default_pii`.
    fn sends_pii(&self) -> bool;

    /// Given the dispatcher of the subscriber that the span is in.
    fn learn_dispatch(&self, dispatch: &Dispatch);

    /// The function that sets remote parents in OpenTelemetry, where the application set one.
    fn otel_parent(&self) -> Option<OtelParentFn>;

    /// Says that the span is that of an RPC. Called before the span is first entered.
    fn open(&self, start: RpcStart);

    /// Called when the middleware has entered the span.
    fn enter(self: Arc<Self>, by: Enterer);

    /// Called before it leaves the span.
    fn exit(&self);

    /// Whether the span has started.
    fn has_started(&self) -> bool;

    /// Returns whether it was in time: before the span has started.
    fn continue_trace(&self, trace: IncomingTrace) -> bool;

    /// Starts the span. `None` where it must not start now.
    fn trace_headers(&self) -> Option<TraceHeaders>;

    /// Makes the sink of a span inside this one, which may have been entered already.
    fn inner(
        self: Arc<Self>,
        id: &span::Id,
        metadata: &'static Metadata<'static>,
        was_entered: bool,
    ) -> Arc<dyn SpanSink>;

    /// Ends the RPC. Called once, while the span is entered.
    fn end(self: Arc<Self>, end: RpcEnd<'_>);

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The extension by which a span leads to its [`SpanSink`].
pub(crate) struct SpanLink(pub(crate) Arc<dyn SpanSink>);

/// The extension of a span without a sink, as nothing of its root is sent. It gets one when it
/// is asked for.
pub(crate) struct Unrecorded;

/// The extension, besides [`Unrecorded`], of such a span that was entered: it is too late for it
/// to continue a trace. An extension of its own, as one without a value takes no memory.
pub(crate) struct EnteredUnrecorded;

/// The extension of a span that is left alone, with all that is traced in it: another layer has
/// opened it while a span was being entered.
pub(crate) struct LeftAside;

/// Whether this thread is still entering `current`, its innermost span: then another layer is
/// running, before ours was told. An OpenTelemetry layer has the span locked while it starts it,
/// and must not be asked for its ids.
pub(crate) fn is_being_entered<'a, R: LookupSpan<'a>>(current: &SpanRef<'a, R>) -> bool {
    let extensions = current.extensions();
    let link = extensions.get::<SpanLink>();
    extensions.get::<LeftAside>().is_some() || link.is_some_and(|link| !link.0.has_started())
}

/// Handed over when the middleware has opened the tracing span of an RPC.
#[derive(Debug)]
pub(crate) struct RpcStart {
    pub(crate) op: Cow<'static, str>,
    pub(crate) about: Arc<dyn AboutRpc>,
    pub(crate) incoming: Option<Arc<IncomingTrace>>,
    pub(crate) force_transaction: bool,
    /// Whether nothing is sent to Sentry where there is no span around it.
    pub(crate) only_if_parent: bool,
    /// Whether the code that polls the RPC enters its span as any other code does, and not by
    /// [`enter`](crate::span_ext::enter) as its [`Runner`](Enterer::Runner).
    pub(crate) is_run_by_others: bool,
    pub(crate) facts: RpcFacts,
    /// The limit for panics that a panic hook reports.
    pub(crate) limiter: Option<Arc<EventLimiter>>,
}

impl RpcStart {
    /// How many events were held back before that of a panic; `None` if it is held back, too.
    pub(crate) fn admit_panic(&self) -> Option<u64> {
        let Some(limiter) = &self.limiter else {
            return Some(0);
        };
        limiter.admit(
            &format!("/{}/{}", self.about.service(), self.about.method()),
            EventKind::Panic,
        )
    }
}

/// What may be asked of an RPC while it runs. Computed when it is asked: of most RPCs nobody
/// asks.
pub(crate) trait AboutRpc: fmt::Debug + Send + Sync {
    /// The name of the transaction, or the description of the span.
    fn name(&self) -> &str;

    fn service(&self) -> &str;

    fn method(&self) -> &str;

    /// The context of events in it; `None` where there is to be none.
    fn context(&self) -> Option<Map<String, Value>>;

    /// Calls `see` with each attribute of its span.
    fn attributes(&self, see: SeeAttribute<'_>);
}

/// What is set for an RPC as it begins.
#[derive(Debug, Default)]
pub(crate) struct RpcFacts {
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) user: Option<Box<User>>,
    /// Whether it is a session, if the client's session mode is `Request`.
    pub(crate) is_session: bool,
}

/// How the RPC of a tracing span ended.
pub(crate) struct RpcEnd<'a> {
    pub(crate) status: SpanStatus,
    pub(crate) message: Option<&'a str>,
    /// The path of a method that the server does not know.
    pub(crate) unknown_method: Option<&'a str>,
    pub(crate) has_panicked: bool,
    /// Makes the attributes of its span that tell how it ended.
    pub(crate) data: &'a dyn Fn() -> Vec<(Cow<'static, str>, Value)>,
    /// Makes the breadcrumb of the call; `None` where there is to be none.
    pub(crate) breadcrumb: Option<&'a dyn Fn() -> CallBreadcrumb>,
    /// Makes the event of a failure, unless it is held back; `None` where there is
    /// to be none.
    pub(crate) event: Option<&'a dyn Fn() -> Option<Event<'static>>>,
}

/// The sink of `span`; `None` where no layer of ours records it.
pub(crate) fn sink(span: &Span) -> Option<Arc<dyn SpanSink>> {
    span.with_subscriber(|(id, dispatch)| find_sink(id, dispatch))
        .flatten()
}

pub(crate) fn find_sink(id: &span::Id, dispatch: &Dispatch) -> Option<Arc<dyn SpanSink>> {
    let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
    own_sink(&span).or_else(|| recorded_after_all(&span))
}

/// The sink of `span` itself, if it has one.
pub(crate) fn own_sink<'a, R: LookupSpan<'a>>(span: &SpanRef<'a, R>) -> Option<Arc<dyn SpanSink>> {
    // The lock on the extensions ends here: a sink calls into Sentry.
    let sink = span.extensions().get::<SpanLink>()?.0.clone();
    Some(sink)
}

/// Makes the sink of a span that was [`Unrecorded`].
pub(crate) fn recorded_after_all<'a, R: LookupSpan<'a>>(
    span: &SpanRef<'a, R>,
) -> Option<Arc<dyn SpanSink>> {
    span.extensions().get::<Unrecorded>()?;
    let around = span.parent()?.scope().find_map(|span| own_sink(&span))?;
    let was_entered = span.extensions().get::<EnteredUnrecorded>().is_some();
    let made = around.inner(&span.id(), span.metadata(), was_entered);
    let mut extensions = span.extensions_mut();
    // Another thread may have been here first.
    if extensions.get_mut::<SpanLink>().is_none() {
        extensions.insert(SpanLink(made));
    }
    Some(extensions.get_mut::<SpanLink>()?.0.clone())
}

/// The sink of `span`, or of the nearest span around it that has one.
pub(crate) fn nearest_sink(span: &Span) -> Option<Arc<dyn SpanSink>> {
    span.with_subscriber(|(id, dispatch)| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        let current = registry
            .current_span()
            .id()
            .and_then(|id| registry.span(id));
        if current.is_some_and(|current| is_being_entered(&current)) {
            return None;
        }
        registry
            .span(id)?
            .scope()
            .find_map(|span| own_sink(&span).or_else(|| recorded_after_all(&span)))
    })
    .flatten()
}
