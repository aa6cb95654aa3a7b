//! The layer and its options.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sentry_core::Hub;
use sentry_tracing::ErrorLayer;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::bridge::breadcrumb;
use crate::bridge::draft::SpanFields;
use crate::bridge::hubs::base_hub;
use crate::bridge::origin::{Fork, Origin};
use crate::bridge::span_cell::SpanCell;
use crate::bridge::thread_stack;
use crate::bridge::visitor::ValueVisitor;
use crate::propagation::TraceHeaders;
use crate::span_ext::{self, LayerFns, SpanLink, guarded};

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
/// | `otel.kind` | data `sentry.kind`, in lower case |
/// | `otel.status_code` | `ERROR`: status `internal_error`, `OK`: status `ok` |
/// | `rpc.grpc.status_code` | the status of that gRPC code |
/// | any other | data of the span |
///
/// Without a status from a field, a span is `internal_error` if an `ERROR`
/// event occurred in it, as with `#[instrument(err)]`, and else `ok`. A status
/// that the application set on the Sentry span stays.
#[derive(Debug)]
#[must_use = "a layer does nothing until it is added to a subscriber"]
pub struct SentryGrpcLayer {
    id: u64,
    hub: Option<Arc<Hub>>,
    span_level: LevelFilter,
    breadcrumb_level: LevelFilter,
    capture_errors: bool,
}

impl SentryGrpcLayer {
    /// A layer with default options.
    ///
    /// Touches [`Hub::main`], as `sentry::init` does: the thread that is first
    /// to do so has the main hub as its own. That should be the main thread.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let _ = Hub::main();
        span_ext::set_layer_fns(LayerFns {
            headers_of_fork,
            pinned_hub,
        });
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
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

    /// The most verbose level of events to keep as breadcrumbs.
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

    fn origin<S>(&self, attrs: &Attributes<'_>, ctx: &Context<'_, S>) -> Option<Origin>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let parent = match attrs.parent() {
            Some(id) => ctx.span(id),
            None if attrs.is_contextual() => ctx.lookup_current(),
            None => None,
        };
        match parent.as_ref().and_then(nearest_cell) {
            Some(parent) => Some(Origin::Child(parent)),
            None => {
                let origin = Origin::without_parent(self.hub.as_ref(), attrs);
                let is_muted = !attrs.is_root() && span_ext::is_muted();
                origin.filter(|origin| !(is_muted && origin.begins_a_trace()))
            }
        }
    }

    fn cell_of<S>(&self, id: &Id, ctx: &Context<'_, S>) -> Option<Arc<SpanCell>>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if !span_ext::is_alive() {
            return None;
        }
        cell(&ctx.span(id)?).filter(|cell| cell.layer() == self.id)
    }

    /// The hub for an event outside of any span.
    fn hub_outside(&self, event: &Event<'_>) -> Option<Arc<Hub>> {
        let pinned = self.hub.as_ref();
        let fork = || Fork::current(pinned).filter(|_| event.is_contextual());
        match fork() {
            Some(fork) => Some(fork.hub),
            None => base_hub(pinned),
        }
    }

    fn add_breadcrumb(&self, event: &Event<'_>, cell: Option<&SpanCell>) {
        let breadcrumb = breadcrumb::from_event(event);
        match cell {
            Some(cell) => {
                let root = cell.start().root;
                if let Some(client) = &root.client {
                    guarded(|| root.trail.add_breadcrumb(breadcrumb, client));
                }
            }
            None => {
                if let Some(hub) = self.hub_outside(event) {
                    guarded(|| hub.add_breadcrumb(breadcrumb));
                }
            }
        }
    }

    fn capture_error<S>(&self, event: &Event<'_>, cell: Option<&Arc<SpanCell>>, ctx: Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let capture = || {
            guarded(|| ErrorLayer::new().on_event(event, ctx));
        };
        match cell {
            Some(cell) => {
                cell.saw_error();
                if event.is_contextual() && thread_stack::is_in(&cell.start().root) {
                    capture();
                } else {
                    thread_stack::run_beside(cell, capture);
                }
            }
            None => {
                if let Some(hub) = self.hub_outside(event) {
                    Hub::run(hub, capture);
                }
            }
        }
    }
}

impl Default for SentryGrpcLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for SentryGrpcLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if *attrs.metadata().level() > self.span_level || !span_ext::is_free() {
            return;
        }
        let Some(span) = ctx.span(id) else { return };
        let Some(origin) = self.origin(attrs, &ctx) else {
            return;
        };
        let mut fields = SpanFields::default();
        attrs.record(&mut ValueVisitor(&mut fields));
        let key = id.into_u64();
        let cell = SpanCell::new(self.id, key, attrs.metadata(), origin, fields);
        let link = SpanLink(Arc::new(cell));
        let mut extensions = span.extensions_mut();
        // Of two layers in one registry, the first has the span.
        if extensions.get_mut::<SpanLink>().is_none() {
            extensions.insert(link);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(cell) = self.cell_of(id, &ctx) {
            let mut fields = SpanFields::default();
            values.record(&mut ValueVisitor(&mut fields));
            cell.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let level = *event.metadata().level();
        let is_error = level == Level::ERROR;
        if !(is_error || level <= self.breadcrumb_level) || !span_ext::is_free() {
            return;
        }
        let cell = ctx.event_span(event).as_ref().and_then(nearest_cell);
        // Of two layers in one registry, the one that has the span has its
        // events.
        if cell.as_ref().is_some_and(|cell| cell.layer() != self.id) {
            return;
        }
        if is_error && self.capture_errors {
            self.capture_error(event, cell.as_ref(), ctx);
        } else {
            if let (true, Some(cell)) = (is_error, &cell) {
                cell.saw_error();
            }
            if level <= self.breadcrumb_level {
                self.add_breadcrumb(event, cell.as_deref());
            }
        }
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        if let Some(cell) = self.cell_of(id, &ctx) {
            thread_stack::enter(&cell, span_ext::runs_the_call());
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        thread_stack::exit(id.into_u64(), self.id);
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(cell) = ctx.span(&id).as_ref().and_then(cell) else {
            return;
        };
        match span_ext::is_alive() {
            _ if cell.layer() != self.id => {}
            true => cell.close(),
            false => cell.abandon(),
        }
    }
}

fn pinned_hub(dispatch: &Dispatch) -> Option<Arc<Hub>> {
    dispatch.downcast_ref::<SentryGrpcLayer>()?.hub.clone()
}

fn headers_of_fork(pinned: Option<&Arc<Hub>>) -> Option<TraceHeaders> {
    let fork = Fork::current(pinned)?;
    Some(fork.trail.headers(&fork.span))
}

/// The cell of the innermost span from `span` outwards that has one.
fn nearest_cell<S>(span: &SpanRef<'_, S>) -> Option<Arc<SpanCell>>
where
    S: for<'a> LookupSpan<'a>,
{
    span.scope().find_map(|span| cell(&span))
}

fn cell<S>(span: &SpanRef<'_, S>) -> Option<Arc<SpanCell>>
where
    S: for<'a> LookupSpan<'a>,
{
    // The lock on the extensions ends here: what is done with a cell calls
    // into Sentry.
    let sink = Arc::clone(&span.extensions().get::<SpanLink>()?.0);
    sink.into_any().downcast().ok()
}
