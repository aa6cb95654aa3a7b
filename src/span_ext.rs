//! What tracing fields cannot carry, handed to the layer behind a span, and
//! asked of it.
//!
//! The layer leaves a [`SpanLink`] in the extensions of each span it sees, in
//! the [`Registry`] at the bottom of the subscriber. It is found there whatever
//! filters, options, boxes or reload handles stand around the layer. On a
//! subscriber without a `Registry` a span is reported by its fields alone.

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::panic::catch_unwind;
use std::sync::Arc;

use sentry_core::Hub;
use sentry_core::protocol::SpanStatus;
use tracing::span::Entered;
use tracing::{Dispatch, Span, span};
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan;

use crate::propagation::{IncomingTrace, SamplingContext, SentryTrace, TraceHeaders};

/// Trace propagation for any [`tracing::Span`], by whatever protocol its messages
/// travel.
///
/// Calls through [`GrpcServerLayer`](crate::GrpcServerLayer) and
/// [`GrpcClientLayer`](crate::GrpcClientLayer) need none of it. Here a job takes
/// the trace of who queued it, and hands it on:
///
/// ```
/// use std::collections::HashMap;
///
/// use sentry_tonic::SentrySpanExt;
/// use tracing::info_span;
///
/// fn run(message: &HashMap<String, String>) {
///     let span = info_span!("job", sentry.op = "queue.process");
///     // A job that comes without a trace begins one.
///     let headers = message.iter().map(|(name, value)| (name.as_str(), value.as_str()));
///     let _ = span.continue_trace(headers);
///     span.in_scope(|| {
///         let mut next = HashMap::new();
///         if let Some(headers) = tracing::Span::current().trace_headers() {
///             next.extend(headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
///         }
///         // send(next)
///     });
/// }
/// # run(&HashMap::new());
/// ```
pub trait SentrySpanExt: private::Sealed {
    /// Makes the span a transaction that continues the trace in these headers.
    ///
    /// Of the names and values of a request, in any order, it reads
    /// `sentry-trace` and all of `baggage`, the names in any case. A trace of
    /// [another organization] is not continued: the span then is a transaction
    /// that begins a trace.
    ///
    /// # Errors
    ///
    /// The span stays as it is where the headers hold no valid trace, where it
    /// has started (it was entered, a span inside it was, or its headers were
    /// asked for), and where no [`SentryGrpcLayer`](crate::SentryGrpcLayer)
    /// records it.
    ///
    /// [another organization]: https://develop.sentry.dev/sdk/foundations/trace-propagation/#strict-trace-continuation
    fn continue_trace<'a, I>(&self, headers: I) -> Result<(), ContinueTraceError>
    where
        I: IntoIterator<Item = (&'a str, &'a str)>;

    /// The headers that take the trace of this span to another service; starts
    /// the span.
    ///
    /// There are some with tracing disabled, too, and in spans that are not
    /// sampled. A span that is left out, for its level or by a filter, hands on
    /// the span around it, and one outside of any the trace of the current hub.
    ///
    /// `None` where no Sentry client is enabled.
    fn trace_headers(&self) -> Option<TraceHeaders>;
}

mod private {
    pub trait Sealed {}
    impl Sealed for tracing::Span {}
}

impl SentrySpanExt for Span {
    fn continue_trace<'a, I>(&self, headers: I) -> Result<(), ContinueTraceError>
    where
        I: IntoIterator<Item = (&'a str, &'a str)>,
    {
        let trace = IncomingTrace::from_pairs(headers).ok_or(ContinueTraceError::NoTrace)?;
        let sink = sink(self).ok_or(ContinueTraceError::NotRecorded)?;
        match sink.continue_trace(trace) {
            true => Ok(()),
            false => Err(ContinueTraceError::Started),
        }
    }

    fn trace_headers(&self) -> Option<TraceHeaders> {
        let around = self.with_subscriber(|(id, dispatch)| nearest(id, dispatch));
        match around.flatten() {
            Some(sink) => Some(sink.trace_headers()),
            None => headers_of_hub(),
        }
    }
}

/// Why a span does not continue a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContinueTraceError {
    /// There is no valid `sentry-trace` among the headers.
    NoTrace,
    /// The span has started.
    Started,
    /// No [`SentryGrpcLayer`](crate::SentryGrpcLayer) records the span.
    NotRecorded,
}

impl fmt::Display for ContinueTraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTrace => "there is no valid sentry-trace among the headers",
            Self::Started => "the span has started",
            Self::NotRecorded => "no SentryGrpcLayer records the span",
        })
    }
}

impl Error for ContinueTraceError {}

/// The layer's end of a tracing span.
pub(crate) trait SpanSink: Send + Sync {
    /// Called before the span is first entered.
    fn open(&self, start: RpcStart);

    /// Whether it was in time: before the span starts.
    fn continue_trace(&self, trace: IncomingTrace) -> bool;

    /// Starts the span.
    fn trace_headers(&self) -> TraceHeaders;

    /// Called once, while the span is entered.
    fn end(self: Arc<Self>, end: RpcEnd);

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The extension by which a span leads to its [`SpanSink`].
pub(crate) struct SpanLink(pub(crate) Arc<dyn SpanSink>);

/// Handed over when the middleware has opened the tracing span of an RPC.
#[derive(Debug)]
pub(crate) struct RpcStart {
    pub(crate) op: Cow<'static, str>,
    /// The name of the transaction, or the description of the span.
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) incoming: Option<IncomingTrace>,
    pub(crate) force_transaction: bool,
    /// Whether it is left out of Sentry where there is no span around it.
    pub(crate) only_if_parent: bool,
}

/// How the RPC of a tracing span ended.
#[derive(Debug)]
pub(crate) struct RpcEnd {
    pub(crate) status: SpanStatus,
    pub(crate) message: Option<String>,
}

/// The sink of `span`; `None` where no layer of ours records it.
pub(crate) fn sink(span: &Span) -> Option<Arc<dyn SpanSink>> {
    span.with_subscriber(|(id, dispatch)| find(id, dispatch))
        .flatten()
}

fn find(id: &span::Id, dispatch: &Dispatch) -> Option<Arc<dyn SpanSink>> {
    let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
    // The lock on the extensions ends here: a sink calls into Sentry.
    let sink = span.extensions().get::<SpanLink>()?.0.clone();
    Some(sink)
}

/// The sink of the innermost span from this one outwards that has one.
fn nearest(id: &span::Id, dispatch: &Dispatch) -> Option<Arc<dyn SpanSink>> {
    let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
    span.scope().find_map(|span| {
        let sink = span.extensions().get::<SpanLink>()?.0.clone();
        Some(sink)
    })
}

/// What the application itself has going: its own transaction, or the trace that
/// a scope has without one.
fn headers_of_hub() -> Option<TraceHeaders> {
    // sentry-core's thread-local hub panics once it is destroyed.
    let current = catch_unwind(Hub::current).ok()?;
    let enabled = |hub: &Arc<Hub>| hub.client().filter(|client| client.is_enabled());
    let (hub, client) = match enabled(&current) {
        Some(client) => (current, client),
        None => (Hub::main(), enabled(&Hub::main())?),
    };
    // Of a copy: looking at a scope writes it back, and would undo what another
    // thread writes to a hub that they share.
    let (header, span) = Hub::new_from_top(hub).configure_scope(|scope| {
        (
            scope.iter_trace_propagation_headers().next(),
            scope.get_span(),
        )
    });
    let trace = SentryTrace::parse(&header?.1)?;
    let context = span.map(|span| span.get_trace_context());
    let sampling = SamplingContext::of_application(&trace, context.as_ref(), &client);
    Some(TraceHeaders::new(&trace, sampling.baggage().clone()))
}

thread_local! {
    static RUNS_THE_CALL: Cell<bool> = const { Cell::new(false) };
}

/// Enters the span of an RPC for who polls the RPC itself: its hub is theirs,
/// and not that of a task which was given the span.
pub(crate) fn enter_to_run(span: &Span) -> Entered<'_> {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            let _ = RUNS_THE_CALL.try_with(|flag| flag.set(false));
        }
    }
    let _reset = Reset;
    let _ = RUNS_THE_CALL.try_with(|flag| flag.set(true));
    span.enter()
}

/// Whether the enter that is under way is one of [`enter_to_run`].
pub(crate) fn runs_the_call() -> bool {
    RUNS_THE_CALL.try_with(Cell::get).unwrap_or(false)
}
