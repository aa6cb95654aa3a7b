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
use crate::propagation::W3cSpan;
use crate::report::Redact;
use crate::span_ext::{self, LayerSeen};

/// Shorter ones would be nothing but parts.
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
///     .with(sentry_tonic::SentryGrpcLayer::new());
/// # let _ = subscriber;
/// ```
///
/// # Fields
///
/// | field | effect |
/// |---|---|
/// | `sentry.name`, else `otel.name` | name of the transaction, description of the span; defaults to the name of the tracing span |
/// | `sentry.op` | operation; defaults to `<target>::<name>` |
/// | `sentry.trace` | continues the trace of this `sentry-trace` header; at creation only, and outside of any span. It brings no sampling context and no organization: [`continue_trace`](crate::SentrySpanExt::continue_trace) does |
/// | `tags.<key>` | a tag |
/// | `rpc.param.<name>` | a parameter of the call around the span: data of the call's span, redacted and cut |
/// | `user.id`, `user.email`, `user.name` | the user of the transaction and of the errors in it, where the scope has none; and data |
/// | `otel.kind` | data `sentry.kind`, in lower case |
/// | `otel.status_code` | `ERROR`: status `internal_error`, `OK`: status `ok` |
/// | `rpc.grpc.status_code` | the status of that gRPC code |
/// | any other | data of the span |
///
/// Of a text 8192 bytes are told, of an operation 128, of the name of a transaction 200, and
/// of a tag 200 characters; of an `ERROR` event 8192 bytes of its message, of each error in it
/// and of each field. Of a transaction with more than 1001 spans, `dropped_spans_count` says
/// how many others have finished.
///
/// Without a status from a field, a span is `internal_error` if an `ERROR`
/// event occurred in it, as with `#[instrument(err)]`, and else `ok`. A status
/// that the application set on the Sentry span stays.
#[derive(Debug)]
#[must_use = "a layer does nothing until it is added to a subscriber"]
pub struct SentryGrpcLayer {
    pub(crate) options: Arc<LayerOptions>,
    pub(crate) hub: Option<Arc<Hub>>,
    pub(crate) span_level: LevelFilter,
    pub(crate) breadcrumb_level: LevelFilter,
    pub(crate) capture_errors: bool,
}

impl SentryGrpcLayer {
    /// A layer with default options.
    ///
    /// Touches [`Hub::main`], as `sentry::init` does: the thread that is first
    /// to do so has the main hub as its own. That should be the main thread.
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

    /// Whether a failure that Sentry was told of in a call is not told again.
    ///
    /// An `ERROR` event is left out where it repeats one that was sent in the call: the
    /// same text, of its message, its field `error` and its chain, with the same other
    /// fields; or that text with more before it (`cannot greet: ` and the text), or with
    /// less. It is a breadcrumb of the errors that follow. The event of a status, or of
    /// the panic that ends the call, also that of `sentry`'s panic integration, is left
    /// out where any event was sent in the call. What the application captures is always
    /// sent, and so are the panics of its tasks, and those that it catches.
    ///
    /// Defaults to `true`.
    pub fn one_event_per_failure(self, one: bool) -> Self {
        self.with(|options| options.one_event_per_failure = one)
    }

    /// Which parameters of calls are tags, beside data: `table` for the field
    /// `rpc.param.table`, whose tag has the field's name. A value is cut at 200 characters.
    ///
    /// Defaults to none.
    pub fn tag_params(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        self.with(|options| options.params.tags = names)
    }

    /// How secrets are taken out of parameters: told a name, `table`, and what it is,
    /// `redact` returns what Sentry is told. Called for each, in the place where the
    /// span starts or records it. Where it panics, that is `[Filtered]`.
    ///
    /// Defaults to `[Filtered]` for the values of names that contain `password`,
    /// `token`, `secret`, `key` or `authorization`, in any case. The last of this and
    /// [`unredacted_params`](Self::unredacted_params) holds.
    pub fn redact_params(
        self,
        redact: impl Fn(&str, Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        self.with(|options| options.params.redact = Redact::With(Arc::new(redact)))
    }

    /// Tells parameters as they are, passwords and all.
    pub fn unredacted_params(self) -> Self {
        self.with(|options| options.params.redact = Redact::Off)
    }

    /// How many bytes of a parameter are told. A debug message of `sentry` says where
    /// one is cut.
    ///
    /// Defaults to 1024.
    pub fn max_param_len(self, bytes: usize) -> Self {
        self.with(|options| options.params.max_len = bytes)
    }

    /// How to learn the ids that a span has in OpenTelemetry, so that it has the same ones
    /// in Sentry: from whatever layer gives spans such ids, of whatever version. Called
    /// once for each span, as it starts, on the thread where it is first entered or asked
    /// for its headers, with no lock held; may have that layer start the span. Where it
    /// panics, or returns `None`, or the trace is another one than in Sentry, the ids are
    /// Sentry's own.
    ///
    /// Defaults to asking tracing-opentelemetry 0.34, with the feature `opentelemetry`,
    /// and else to none.
    pub fn otel_ids(self, ids: fn(&Id, &Dispatch) -> Option<W3cSpan>) -> Self {
        self.with(|options| options.otel_ids = Some(ids))
    }

    /// How to tell OpenTelemetry of the parent that a span has in another service: whatever
    /// layer gives spans ids there, of whatever version. Called with a span that is not
    /// yet entered, for each call of a server that brings a trace, and by
    /// [`SentrySpanExt::continue_trace`](crate::SentrySpanExt::continue_trace); with no lock
    /// held. Where it panics, the span has no remote parent there.
    ///
    /// Defaults to telling tracing-opentelemetry 0.34, with the feature `opentelemetry`,
    /// and else nobody.
    pub fn otel_parent(self, tell: fn(&Span, &W3cSpan)) -> Self {
        self.with(|options| options.otel_parent = Some(tell))
    }

    /// How long a transaction goes on before it is sent, as the first of several parts: a call
    /// whose stream is open for days, or a span around the work of a whole process, is seen
    /// before its end.
    ///
    /// A transaction that has been open for this time, if it is sampled, is sent with the spans
    /// that have finished in it, and without a status, unless it only waits for spans of tasks;
    /// a thread of this crate's own, `sentry-parts`, sees to that, also where nothing happens. The call goes on in another transaction of the same
    /// trace, with the same name, tags and attributes, whose parent is the first one; and so on
    /// each time as much time has passed. Each says in `transaction.part` (1, 2, ...) which it
    /// is, and the last one says how the call ended. A span that is open at a cut is in the part
    /// in which it ends, and those in it, which name it as their parent, in the parts in which
    /// they do. Errors are of the part in which they happen, with the breadcrumbs of the whole
    /// call.
    ///
    /// A cut takes with it what the transaction keeps, so that each part has room for 1001
    /// spans. Each part counts as a transaction in Sentry's quota, rates and durations, and goes
    /// to the client that the first one went to. Spans in a transaction of
    /// `sentry::start_transaction` are not cut. To OpenTelemetry, in sessions and in metrics, a call is one. Where a span is open
    /// at a cut, names and tags that the application gave its Sentry span itself are lost, and
    /// so are children that it makes of that by itself, until the span is entered again.
    ///
    /// Up to a sixteenth of the time may go by before a cut. Less than 10 ms counts as 10 ms.
    ///
    /// Defaults to none: a transaction is sent as it ends.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let layer = sentry_tonic::SentryGrpcLayer::new()
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
        }
    }

    fn with(mut self, set: impl FnOnce(&mut LayerOptions)) -> Self {
        set(Arc::make_mut(&mut self.options));
        self
    }
}

impl Default for SentryGrpcLayer {
    fn default() -> Self {
        Self::new()
    }
}
