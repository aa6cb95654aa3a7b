//! Trace propagation for any span, as applications use it.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, OnceLock};

use sentry_core::Hub;
use tracing::Span;
use tracing::dispatcher::{Dispatch, get_default};

use crate::propagation::{IncomingTrace, SamplingContext, SentryTrace, TraceHeaders};
use crate::span_ext::otel_parent::OtelParent;
use crate::span_ext::sink::{nearest_sink, sink};
use crate::span_ext::thread_guard;

/// Trace propagation for any [`tracing::Span`], by whatever protocol its messages
/// travel.
///
/// Calls through [`SentryServerLayer`](crate::SentryServerLayer) and
/// [`SentryClientLayer`](crate::SentryClientLayer) do not need it. Here a job continues
/// the trace of whoever queued it, and hands it on:
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
    /// Reads `sentry-trace`, or else `traceparent`, and all values of `baggage`; names may be in
    /// upper or lower case, and in any order. A trace of [another organization] is not continued:
    /// the span then is a transaction that begins a trace.
    ///
    /// Inside a function with `#[instrument]` it is too late for the function's own
    /// span: open one with `info_span!`, as above. With the headers of an HTTP request:
    ///
    /// ```
    /// # use sentry_tonic::SentrySpanExt;
    /// # let span = tracing::Span::none();
    /// # let request = http::Request::new(());
    /// let headers = request.headers().iter();
    /// let headers = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    /// let _ = span.continue_trace(headers);
    /// ```
    ///
    /// # Errors
    ///
    /// The span stays as it is where the headers hold no valid trace, where it
    /// has started (it was entered, a span inside it was, or its headers were
    /// asked for), and where no [`SentryTracingLayer`](crate::SentryTracingLayer)
    /// records it.
    ///
    /// [another organization]: https://develop.sentry.dev/sdk/foundations/trace-propagation/#strict-trace-continuation
    fn continue_trace<'k, 'v, I>(&self, headers: I) -> Result<(), ContinueTraceError>
    where
        I: IntoIterator<Item = (&'k str, &'v str)>;

    /// The headers that take the trace of this span to another service; starts
    /// the span.
    ///
    /// There are headers with tracing disabled, too, and for spans that are not sampled. For a
    /// span that is left out, by its level or a filter, they name the span around it; outside of
    /// any span, they continue the trace of the current hub.
    ///
    /// `None` where no Sentry client is enabled.
    fn trace_headers(&self) -> Option<TraceHeaders>;
}

mod private {
    pub trait Sealed {}
    impl Sealed for tracing::Span {}
}

impl SentrySpanExt for Span {
    fn continue_trace<'k, 'v, I>(&self, headers: I) -> Result<(), ContinueTraceError>
    where
        I: IntoIterator<Item = (&'k str, &'v str)>,
    {
        let trace = IncomingTrace::from_pairs(headers).ok_or(ContinueTraceError::NoTrace)?;
        let sink = sink(self).ok_or(ContinueTraceError::NotRecorded)?;
        match sink.continue_trace(trace.clone()) {
            true => {
                OtelParent::of(&trace).tell(self);
                Ok(())
            }
            false => Err(ContinueTraceError::Started),
        }
    }

    fn trace_headers(&self) -> Option<TraceHeaders> {
        if !thread_guard::is_thread_alive() {
            return None;
        }
        match nearest_sink(self) {
            Some(sink) => sink.trace_headers(),
            // In a callback of Sentry, which may have locked the hub.
            None if !thread_guard::is_thread_free() => None,
            None => thread_guard::guarded(headers_of_hub).flatten(),
        }
    }
}

/// Why a span does not continue a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContinueTraceError {
    /// There is no valid `sentry-trace` or `traceparent` among the headers.
    NoTrace,
    /// The span has started.
    Started,
    /// No [`SentryTracingLayer`](crate::SentryTracingLayer) records the span.
    NotRecorded,
}

impl fmt::Display for ContinueTraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTrace => "there is no valid sentry-trace or traceparent among the headers",
            Self::Started => "the span has started",
            Self::NotRecorded => "no SentryTracingLayer records the span",
        })
    }
}

impl Error for ContinueTraceError {}

/// Functions of the layer that need no span of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerFns {
    /// The headers of the root that the current hub is a fork of, if it is one; with a pinned
    /// hub, only if the root has its client.
    pub(crate) headers_of_fork: fn(pinned: Option<&Arc<Hub>>) -> Option<TraceHeaders>,
    /// The hub that the layer of a subscriber is set to use.
    pub(crate) pinned_hub: fn(&Dispatch) -> Option<Arc<Hub>>,
}

/// Set by the first layer.
static LAYER: OnceLock<LayerFns> = OnceLock::new();

pub(crate) fn set_layer_fns(fns: LayerFns) {
    let _ = LAYER.set(fns);
}

/// The headers of the application's own transaction, or of the trace that a scope has without
/// one.
fn headers_of_hub() -> Option<TraceHeaders> {
    let layer = LAYER.get();
    let pinned = layer.and_then(|layer| get_default(layer.pinned_hub));
    let headers = layer.and_then(|layer| (layer.headers_of_fork)(pinned.as_ref()));
    if headers.is_some() {
        return headers;
    }
    let with_client = |hub: Arc<Hub>| {
        let client = hub.client().filter(|client| client.is_enabled())?;
        Some((hub, client))
    };
    let (hub, client) = match pinned {
        Some(pinned) => with_client(pinned)?,
        None => with_client(Hub::current()).or_else(|| with_client(Hub::main()))?,
    };
    // On a copy: `configure_scope` writes the scope back, and would undo what another thread
    // writes meanwhile to a hub that they share.
    let (header, span) = Hub::new_from_top(hub).configure_scope(|scope| {
        (
            scope.iter_trace_propagation_headers().next(),
            scope.get_span(),
        )
    });
    let trace = SentryTrace::parse(&header?.1)?;
    let context = span.map(|span| span.get_trace_context());
    let sampling = SamplingContext::of_application(&trace, context.as_ref(), &client);
    Some(TraceHeaders::new(
        &trace,
        trace.to_w3c(),
        sampling.baggage().clone(),
    ))
}
