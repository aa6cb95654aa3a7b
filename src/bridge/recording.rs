//! [`SentryTracingLayer`] as a `tracing_subscriber` layer: what it does with spans and events.

use std::sync::Arc;
#[cfg(feature = "tower-http")]
use std::thread;

use sentry_core::Hub;
use sentry_tracing::ErrorLayer;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use crate::bridge::breadcrumb::{Crumb, EventCrumb};
use crate::bridge::draft::SpanFields;
use crate::bridge::hubs::base_hub;
use crate::bridge::layer::SentryTracingLayer;
use crate::bridge::origin::{HubFork, Origin};
use crate::bridge::otel_ids::OtelIdsForbidden;
use crate::bridge::span_cell::SpanCell;
use crate::bridge::thread_stack;
use crate::fields;
use crate::propagation::TraceHeaders;
#[cfg(feature = "tower-http")]
use crate::span_ext::ParkedLink;
use crate::span_ext::{
    self, EnteredUnrecorded, Enterer, LayerFns, LeftAside, SpanLink, SpanSink, Unrecorded, guarded,
    is_being_entered,
};

pub(crate) const LAYER_FNS: LayerFns = LayerFns {
    headers_of_fork,
    pinned_hub,
};

impl<S> Layer<S> for SentryTracingLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.options.learn_dispatch(dispatch);
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if *attrs.metadata().level() > self.span_level || !span_ext::is_thread_free() {
            return;
        }
        if attrs.metadata().name() == fields::PROBE_SPAN {
            span_ext::saw_probe(self.as_seen());
            return;
        }
        let Some(span) = ctx.span(id) else { return };
        let current = ctx.lookup_current();
        let asks_for_ids = self.options.otel_ids.is_some();
        if asks_for_ids && current.as_ref().is_some_and(is_being_entered) {
            span.extensions_mut().replace(LeftAside);
            return;
        }
        let Some(origin) = self.origin(attrs, current.as_ref(), &ctx) else {
            return;
        };
        if is_for_nobody(attrs, &origin) {
            span.extensions_mut().replace(Unrecorded);
            return;
        }
        // The middleware hands over what it knows of its spans, and needs no fields read.
        let has_fields = !attrs.is_empty() && attrs.metadata().target() != fields::TARGET;
        let read = || SpanFields::read(&self.options, |visitor| attrs.record(visitor));
        let fields = has_fields.then(read);
        let key = id.into_u64();
        let cell = SpanCell::new(
            Arc::clone(&self.options),
            key,
            attrs.metadata(),
            origin,
            fields,
        );
        let sink: Arc<dyn SpanSink> = Arc::new(cell);
        let mut extensions = span.extensions_mut();
        // Of two layers in one registry, the first has the span.
        if extensions.get_mut::<SpanLink>().is_none() {
            if attrs.metadata().target() == fields::TARGET {
                span_ext::hand_over(id, &sink);
            }
            extensions.insert(SpanLink(sink));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let cell = self.cell_of(id, &ctx);
        if let Some(cell) = cell.filter(|cell| !cell.is_of_middleware()) {
            cell.record(SpanFields::read(&self.options, |visitor| {
                values.record(visitor);
            }));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let level = *event.metadata().level();
        let is_error = level == Level::ERROR;
        if !(is_error || level <= self.breadcrumb_level) || !span_ext::is_thread_free() {
            return;
        }
        let _forbidden = OtelIdsForbidden::new();
        let find = match event.is_contextual() {
            true => innermost_cell,
            false => nearest_cell,
        };
        let cell = ctx.event_span(event).as_ref().and_then(find);
        // Of two layers in one registry, the one that has the span has its
        // events.
        if cell
            .as_ref()
            .is_some_and(|cell| cell.layer() != self.options.id)
        {
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
        if span_ext::is_middleware_entering(id) || !span_ext::is_thread_alive() {
            return;
        }
        let cell = ctx.span(id).and_then(|span| self.cell_to_enter(&span));
        if let Some(cell) = cell {
            thread_stack::enter(cell, Enterer::Guest);
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        if !span_ext::is_middleware_entering(id) {
            thread_stack::exit(id.into_u64(), self.options.id);
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        let Some(cell) = cell(&span) else { return };
        match span_ext::is_thread_alive() {
            _ if cell.layer() != self.options.id => {}
            true => {
                #[cfg(feature = "tower-http")]
                end_parked(&span, &cell);
                cell.close();
            }
            false => cell.abandon(),
        }
    }
}

impl SentryTracingLayer {
    fn origin<'c, S>(
        &self,
        attrs: &Attributes<'_>,
        current: Option<&SpanRef<'c, S>>,
        ctx: &'c Context<'_, S>,
    ) -> Option<Origin>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let parent = match attrs.parent() {
            Some(id) => ctx.span(id).as_ref().and_then(nearest_cell),
            None if attrs.is_contextual() => current.and_then(innermost_cell),
            None => None,
        };
        match parent {
            Some(parent) => Some(Origin::Child(parent)),
            None => {
                let origin = Origin::without_parent(self.hub.as_ref(), attrs);
                let is_muted = !attrs.is_root() && span_ext::is_muted();
                origin.filter(|origin| !(is_muted && origin.begins_a_trace()))
            }
        }
    }

    /// The cell to enter for `span`. An unrecorded span gets a cell only where the thread is not
    /// in its root yet, for the sake of the hub.
    fn cell_to_enter<S>(&self, span: &SpanRef<'_, S>) -> Option<Arc<SpanCell>>
    where
        S: for<'a> LookupSpan<'a>,
    {
        let own = cell(span).or_else(|| {
            set_entered(span)?;
            let around = nearest_cell(&span.parent()?)?;
            let is_here = around
                .live()
                .is_some_and(|live| thread_stack::is_in(&live.root));
            let made = (!is_here).then(|| span_ext::recorded_after_all(span));
            as_cell(made??)
        });
        own.filter(|cell| cell.layer() == self.options.id)
    }

    fn cell_of<S>(&self, id: &Id, ctx: &Context<'_, S>) -> Option<Arc<SpanCell>>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if !span_ext::is_thread_alive() {
            return None;
        }
        cell(&ctx.span(id)?).filter(|cell| cell.layer() == self.options.id)
    }

    /// The hub for an event outside of any span.
    fn hub_outside(&self, event: &Event<'_>) -> Option<Arc<Hub>> {
        let pinned = self.hub.as_ref();
        let fork = || HubFork::current(pinned).filter(|_| event.is_contextual());
        match fork() {
            Some(fork) => Some(fork.hub),
            None => base_hub(pinned),
        }
    }

    fn add_breadcrumb(&self, event: &Event<'_>, cell: Option<&SpanCell>) {
        let crumb = Crumb::Event(EventCrumb::new(event));
        match cell {
            Some(cell) => {
                let root = &cell.start().root;
                if let Some(client) = &root.client {
                    guarded(|| root.trail.add_breadcrumb(crumb, client));
                }
            }
            None => {
                if let Some(hub) = self.hub_outside(event) {
                    guarded(|| hub.add_breadcrumb(crumb.to_breadcrumb()));
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

/// Ends an RPC that was parked with its span, and whose end no hook has seen.
#[cfg(feature = "tower-http")]
fn end_parked<S>(span: &SpanRef<'_, S>, cell: &Arc<SpanCell>)
where
    S: for<'a> LookupSpan<'a>,
{
    let parked = span
        .extensions()
        .get::<ParkedLink>()
        .map(|link| link.0.clone());
    let Some(parked) = parked else { return };
    let has_panicked = thread::panicking() || cell.lock().saw_panic;
    thread_stack::run_beside(cell, || parked.close(has_panicked));
}

fn pinned_hub(dispatch: &Dispatch) -> Option<Arc<Hub>> {
    dispatch.downcast_ref::<SentryTracingLayer>()?.hub.clone()
}

fn headers_of_fork(pinned: Option<&Arc<Hub>>) -> Option<TraceHeaders> {
    let fork = HubFork::current(pinned)?;
    Some(fork.trail.headers(&fork.span, None))
}

/// Whether a span needs no cell: nothing of its root is sent, and it has no fields for the
/// errors in it. It gets one if it is asked for later, as to begin a transaction.
fn is_for_nobody(attrs: &Attributes<'_>, origin: &Origin) -> bool {
    let is_in_nothing = match origin {
        Origin::Child(parent) => parent.is_for_nobody(),
        Origin::Beside(_) | Origin::Root { .. } | Origin::Fork(_) => false,
    };
    is_in_nothing
        && attrs.metadata().fields().is_empty()
        && attrs.metadata().target() != fields::TARGET
}

/// `None` for a span that is not [`Unrecorded`].
fn set_entered<S>(span: &SpanRef<'_, S>) -> Option<()>
where
    S: for<'a> LookupSpan<'a>,
{
    let was_entered = {
        let extensions = span.extensions();
        extensions.get::<Unrecorded>()?;
        extensions.get::<EnteredUnrecorded>().is_some()
    };
    if !was_entered {
        span.extensions_mut().replace(EnteredUnrecorded);
    }
    Some(())
}

/// The cell of the innermost span that this thread is in, which tracing takes for `span`.
fn innermost_cell<S>(span: &SpanRef<'_, S>) -> Option<Arc<SpanCell>>
where
    S: for<'a> LookupSpan<'a>,
{
    match cell(span) {
        Some(own) => Some(thread_stack::innermost(own)),
        None => nearest_cell(span),
    }
}

/// The cell of `span`, or of the nearest span around it that has one.
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
    as_cell(span_ext::own_sink(span)?)
}

fn as_cell(sink: Arc<dyn SpanSink>) -> Option<Arc<SpanCell>> {
    sink.into_any().downcast().ok()
}
