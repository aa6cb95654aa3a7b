//! The layer and its options.

use std::sync::Arc;
use std::time::Duration;

use sentry_core::Hub;
use sentry_core::protocol::Value;
use tracing::level_filters::LevelFilter;
use tracing::span::Id;
use tracing::{Dispatch, Span};

use crate::bridge::options::LayerOptions;
use crate::bridge::recording;
use crate::propagation::W3cSpanContext;
use crate::span_ext::{self, LayerSeen};

/// Shorter parts would hold next to nothing.
const MIN_PART_DURATION: Duration = Duration::from_millis(10);

/// A `tracing_subscriber` layer that reports spans and events to Sentry.
///
/// Spans of any kind become transactions and their spans, not only those of
/// gRPC calls: it takes the place of sentry-tracing's `SpanLayer`, and honours
/// the same fields. `ERROR` events become Sentry errors, others breadcrumbs of
/// the errors in the same transaction. Unlike there, spans and events below
/// INFO are left out unless asked for: tonic's own dependencies trace every
/// frame at those levels.
///
/// ```
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let subscriber = tracing_subscriber::registry()
///     .with(sentry_tonic::SentryTracingLayer::new());
/// # let _ = subscriber;
/// ```
///
/// Names, operations, tags, users, parameters and statuses come from the
/// [fields](crate::manual::fields#any-span) of a span; all others are its data.
#[derive(Debug)]
#[must_use = "a layer does nothing until it is added to a subscriber"]
pub struct SentryTracingLayer {
    pub(crate) options: Arc<LayerOptions>,
    pub(crate) hub: Option<Arc<Hub>>,
    pub(crate) span_level: LevelFilter,
    pub(crate) breadcrumb_level: LevelFilter,
    pub(crate) capture_errors: bool,
}

impl SentryTracingLayer {
    /// A layer with default options.
    ///
    /// Touches [`Hub::main`], as `sentry::init` does: the first thread to do so gets the main
    /// hub as its own. That should be the main thread.
    pub fn new() -> Self {
        let _ = Hub::main();
        span_ext::set_layer_fns(recording::LAYER_FNS);
        Self {
            options: Arc::new(LayerOptions::new()),
            hub: None,
            span_level: LevelFilter::INFO,
            breadcrumb_level: LevelFilter::INFO,
            capture_errors: true,
        }
    }

    /// The hub whose client and scope all transactions start from.
    ///
    /// Defaults to the hub that is current where the first span of a
    /// transaction is made, or, where that has no enabled client, to the main
    /// hub.
    pub fn hub(self, hub: Arc<Hub>) -> Self {
        Self {
            hub: Some(hub),
            ..self
        }
    }

    /// The most verbose level of spans to report.
    ///
    /// Spans below it are left out, and their children go to the span around
    /// them. A filter on the layer (`with_filter`) does the same and more.
    ///
    /// Defaults to [`LevelFilter::INFO`].
    pub fn span_level(self, level: LevelFilter) -> Self {
        Self {
            span_level: level,
            ..self
        }
    }

    /// The most verbose level of events to keep as breadcrumbs, which have the target of
    /// the event for a category and its fields as data, 1024 bytes of each text.
    ///
    /// Defaults to [`LevelFilter::INFO`].
    pub fn breadcrumb_level(self, level: LevelFilter) -> Self {
        Self {
            breadcrumb_level: level,
            ..self
        }
    }

    /// Whether `ERROR` events become Sentry errors, by sentry-tracing's
    /// `ErrorLayer`.
    ///
    /// Switch it off to add an `ErrorLayer` of your own, whose errors belong
    /// to the same transactions; `ERROR` events are breadcrumbs then.
    ///
    /// Defaults to `true`.
    pub fn capture_errors(self, capture: bool) -> Self {
        Self {
            capture_errors: capture,
            ..self
        }
    }

    /// Whether a failure of a call is sent to Sentry once only.
    ///
    /// An `ERROR` event is left out if it repeats one that was sent in the call. Its text is
    /// made of its message, its field `error` and the chain of that. It repeats an event that
    /// has the same text and the same other fields, or whose text has more or less in front:
    /// `cannot greet: refused` repeats `refused`. An event that is left out becomes a
    /// breadcrumb.
    ///
    /// The event of a failed status is left out if any event of the level error or fatal was
    /// sent in the call, and so is that of the panic that ends the call, also if it comes from
    /// `sentry`'s panic integration.
    ///
    /// What the application captures itself is always sent. So are the panics of its tasks, and
    /// those that it catches.
    ///
    /// Defaults to `true`.
    pub fn deduplicate_errors(self, deduplicate: bool) -> Self {
        self.with(|options| options.deduplicate_errors = deduplicate)
    }

    /// Which parameters of calls are tags as well as data: `table` for the field
    /// `rpc.param.table`. The tag has the name of the field. A value is cut at 200 characters.
    ///
    /// The names replace those of a previous call. Defaults to none.
    pub fn tag_params(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        self.with(|options| options.params.tags = names)
    }

    /// How secrets are removed from parameters: given a name, such as `table`, and the value,
    /// `redact` returns the value that is sent. Called for each parameter, on the thread where
    /// the span starts or records it. If it panics, `[Filtered]` is sent.
    ///
    /// It replaces the default, which is `[Filtered]` for the values of names that contain `password`,
    /// `token`, `secret`, `key` or `authorization`, in any case.
    pub fn param_redactor(
        self,
        redact: impl Fn(&str, Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        self.with(|options| options.params.redactor = Some(Arc::new(redact)))
    }

    /// Whether secrets are removed from parameters. With `false`, parameters are sent as they
    /// are, passwords included, and [`param_redactor`](Self::param_redactor) is not called.
    ///
    /// Defaults to `true`.
    pub fn redact_params(self, redact: bool) -> Self {
        self.with(|options| options.params.redact = redact)
    }

    /// How many bytes of a parameter are sent. Where one is cut, `sentry` logs a debug message.
    ///
    /// Defaults to 1024.
    pub fn max_param_len(self, bytes: usize) -> Self {
        self.with(|options| options.params.max_len = bytes)
    }

    /// How spans are joined to those of an OpenTelemetry layer of any version: a function that
    /// returns the ids of a span there, and one that sets the parent of a span there.
    ///
    /// `span_context` gives a span the same ids in Sentry. It is called once for each span, as the
    /// span starts, on the thread where the span is first entered or asked for its headers. It may
    /// have the OpenTelemetry layer start the span. If it panics or returns `None`, or if the
    /// trace is not the one in Sentry, the span has ids of its own in Sentry.
    ///
    /// `set_parent` is called with a span that is not yet entered and its parent in another
    /// service: for each call of a server that brings a trace, and by
    /// [`SentrySpanExt::continue_trace`](crate::SentrySpanExt::continue_trace). If it panics, the
    /// span has no remote parent in OpenTelemetry.
    ///
    /// No lock is held during these calls.
    ///
    /// Defaults to the functions of tracing-opentelemetry 0.34 with the feature `opentelemetry`,
    /// and else to none.
    pub fn otel_bridge(
        self,
        span_context: fn(&Id, &Dispatch) -> Option<W3cSpanContext>,
        set_parent: fn(&Span, &W3cSpanContext),
    ) -> Self {
        self.with(|options| {
            options.otel_ids = Some(span_context);
            options.otel_parent = Some(set_parent);
        })
    }

    /// How long a transaction goes on before it is cut: a part of it is sent, and another part
    /// begins. So a call whose stream is open for days, or a span around the work of a whole
    /// process, is seen before its end.
    ///
    /// A sampled transaction that has been open for this time is sent with the spans that have
    /// finished in it, and without a status, unless it only waits for spans of tasks. A thread of
    /// this crate, `sentry-parts`, sees to that, even while nothing happens in the call. The call
    /// goes on in another transaction of the same trace, with the same name, tags and attributes,
    /// whose parent is the first one; and so on each time as much time has passed. Each part has
    /// its number in `transaction.part` (1, 2, ...), and the last one says how the call ended.
    ///
    /// A span is in the part in which it ends, also if its parent ends in a later one. Errors are
    /// in the part in which they happen, with the breadcrumbs of the whole call.
    ///
    /// Each part has room for 1001 spans, counts as a transaction in Sentry's quota, rates and
    /// durations, and goes to the client that the first one went to. For OpenTelemetry, sessions
    /// and metrics a call is one. Spans in a transaction of `sentry::start_transaction` are not
    /// cut. Names and tags that the application set itself on the Sentry span of a span that is
    /// open at a cut are lost, and so are the children that it makes of that Sentry span, until
    /// the span is entered again.
    ///
    /// A cut may be late by up to a sixteenth of the time. Less than 10 ms counts as 10 ms.
    ///
    /// Defaults to none: a transaction is sent as it ends.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let layer = sentry_tonic::SentryTracingLayer::new()
    ///     .max_transaction_duration(Duration::from_secs(3_600));
    /// # let _ = layer;
    /// ```
    pub fn max_transaction_duration(self, duration: Duration) -> Self {
        let duration = duration.max(MIN_PART_DURATION);
        self.with(|options| options.part_duration = Some(duration))
    }

    pub(crate) fn as_seen(&self) -> LayerSeen {
        LayerSeen {
            hub: self.hub.clone(),
            captures_errors: self.capture_errors,
            otel_ids: self.options.otel_ids,
        }
    }

    fn with(mut self, set: impl FnOnce(&mut LayerOptions)) -> Self {
        set(Arc::make_mut(&mut self.options));
        self
    }
}

impl Default for SentryTracingLayer {
    fn default() -> Self {
        Self::new()
    }
}
