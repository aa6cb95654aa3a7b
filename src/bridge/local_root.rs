//! The part of a trace that this process reports as one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use sentry_core::{
    Client, Hub, TracesSamplingStrategy, TransactionContext, TransactionOrSpan,
    start_transaction_with_timestamp,
};

use crate::bridge::collector::Collector;
use crate::bridge::hub_slot::HubSlot;
use crate::bridge::root_trace::RootTrace;
use crate::bridge::sampling::Sampling;
use crate::bridge::trail::{Trail, TrailTrace};
use crate::bridge::trails;
use crate::propagation::{IncomingTrace, SamplingContext, SentryTrace};
use crate::span_ext::guarded;

/// Shared by all spans of a local root.
#[derive(Debug)]
pub(crate) struct LocalRoot {
    /// The transaction; where the root is a span inside a transaction of the
    /// application, that span.
    pub(crate) span: TransactionOrSpan,
    /// Whether the spans in it are worth making.
    pub(crate) is_sampled: bool,
    /// Whether the root is the span of an RPC.
    pub(crate) is_rpc: bool,
    pub(crate) main: Arc<HubSlot>,
    pub(crate) trail: Arc<Trail>,
    /// That of the hub when the root began. Kept apart from it, for sentry-core
    /// calls `before_breadcrumb` with its hub locked, and what is traced there
    /// as a breadcrumb comes by here.
    pub(crate) client: Option<Arc<Client>>,
    /// Of the client, where the root is a transaction that goes through it.
    collector: Option<Arc<Collector>>,
    /// Recorded spans inside, not counting the root's, that have not finished.
    open: AtomicUsize,
}

/// How to begin a local root.
#[derive(Debug)]
pub(crate) struct RootStart<'a> {
    pub(crate) base: &'a Arc<Hub>,
    /// A span of the application to go on from.
    pub(crate) inside: Option<&'a TransactionOrSpan>,
    pub(crate) name: &'a str,
    pub(crate) op: &'a str,
    pub(crate) origin: &'a str,
    pub(crate) incoming: Option<&'a IncomingTrace>,
    /// Whether it is left out where there is no span to go on from.
    pub(crate) only_if_parent: bool,
    pub(crate) started_at: SystemTime,
    /// Service and method.
    pub(crate) rpc: Option<(&'a str, &'a str)>,
}

impl LocalRoot {
    pub(crate) fn begin(start: &RootStart<'_>) -> Self {
        let hub = Arc::new(Hub::new_from_top(start.base));
        let client = hub.client();
        let begun = match (start.inside, &client) {
            (Some(parent), client) => match trails::find_of(parent) {
                Some(trail) => Begun::inside_ours(parent, start, trail),
                None => Begun::inside(parent, start, client.as_ref()),
            },
            (None, Some(client)) if !start.only_if_parent => {
                Begun::transaction(&hub, start, client)
            }
            (None, client) => Begun::passive(&hub, start, client.as_ref()),
        };
        let Begun {
            span,
            is_sampled,
            trace,
            collector,
        } = begun;
        let trail = Trail::new(trace);
        if let Some((service, method)) = start.rpc {
            trail.set_rpc(service, method);
        }
        if start.inside.is_none() && !start.only_if_parent {
            trail.set_transaction(start.name);
        }
        let max_breadcrumbs = client
            .as_ref()
            .map_or(0, |client| client.options().max_breadcrumbs);
        hub.configure_scope(|scope| {
            if start.inside.is_none() {
                scope.clear_breadcrumbs();
            }
            scope.set_span(Some(span.clone()));
            scope.add_event_processor(trail.processor(max_breadcrumbs));
        });
        Self {
            is_sampled,
            span,
            is_rpc: start.rpc.is_some(),
            main: Arc::new(HubSlot::new(hub)),
            trail,
            client,
            collector,
            open: AtomicUsize::new(0),
        }
    }

    /// Sends the root.
    pub(crate) fn finish(&self, ended_at: SystemTime) {
        self.trail.set_over();
        self.span.clone().finish_with_timestamp(ended_at);
        if let Some(collector) = self.collector.as_ref().filter(|_| !self.is_sampled) {
            collector.report_losses();
        }
    }

    /// A hub for a thread that finds `busy` in use on another thread.
    pub(crate) fn fork(&self, busy: &HubSlot) -> Arc<HubSlot> {
        let hub = Hub::new_from_top(&busy.hub);
        hub.configure_scope(|scope| scope.set_span(Some(self.span.clone())));
        Arc::new(HubSlot::new(Arc::new(hub)))
    }

    pub(crate) fn sends_pii(&self) -> bool {
        let client = self.client.as_ref();
        client.is_some_and(|client| client.options().send_default_pii)
    }

    pub(crate) fn child_opened(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether it was the last.
    pub(crate) fn child_finished(&self) -> bool {
        self.open.fetch_sub(1, Ordering::SeqCst) == 1
    }

    pub(crate) fn has_open_children(&self) -> bool {
        self.open.load(Ordering::SeqCst) > 0
    }
}

/// A root that has begun.
struct Begun {
    span: TransactionOrSpan,
    is_sampled: bool,
    trace: TrailTrace,
    collector: Option<Arc<Collector>>,
}

impl Begun {
    /// A span in a root of ours, which only the hub leads to. Nothing comes of
    /// one that is made after the root was sent.
    fn inside_ours(parent: &TransactionOrSpan, start: &RootStart<'_>, root: Arc<Trail>) -> Self {
        let is_sampled = is_sampled(parent) && !root.is_over();
        Self {
            span: match is_sampled {
                true => child(parent, start),
                false => parent.clone(),
            },
            is_sampled,
            trace: TrailTrace::Of(root),
            collector: None,
        }
    }

    /// A span in a transaction of the application.
    fn inside(
        parent: &TransactionOrSpan,
        start: &RootStart<'_>,
        client: Option<&Arc<Client>>,
    ) -> Self {
        let header = parent.iter_headers().next();
        let context = parent.get_trace_context();
        let trace = header
            .and_then(|(_, value)| SentryTrace::parse(&value))
            .unwrap_or(SentryTrace {
                trace_id: context.trace_id,
                span_id: context.span_id,
                sampled: None,
            });
        let sampling_context = match client {
            Some(client) => SamplingContext::of_application(&trace, Some(&context), client),
            None => SamplingContext::empty(),
        };
        Self {
            span: child(parent, start),
            is_sampled: is_sampled(parent),
            trace: TrailTrace::Own(RootTrace::settled(&trace, sampling_context)),
            collector: None,
        }
    }

    fn transaction(hub: &Arc<Hub>, start: &RootStart<'_>, client: &Arc<Client>) -> Self {
        let options = client.options();
        let incoming = start.incoming.filter(|incoming| incoming.is_for(options));
        let mut context = context(start, incoming.map(|incoming| &incoming.trace));
        context.set_sampled(incoming.and_then(|incoming| incoming.trace.sampled));
        let decided = guarded(|| Sampling::decide(&mut context, incoming, start.rpc, options));
        let sampling = decided.unwrap_or_else(|| Sampling::deferred(&context, incoming));
        context.set_sampled(sampling.sampled);
        let is_collected = match options.traces_sampling_strategy {
            TracesSamplingStrategy::Disabled => false,
            // The real client counts what is lost, but for what its sampler
            // decides, for it would be asked once more.
            _ => sampling.by_sampler || sampling.sampled == Some(true),
        };
        let is_collected = is_collected && client.is_enabled();
        let collector = is_collected.then(|| Collector::of(client)).flatten();
        let hub = match (&collector, decided) {
            (Some(collector), _) => Arc::clone(collector.hub()),
            (None, Some(_)) => Arc::clone(hub),
            // Where the sampler panics, the trace goes on as if there were none.
            (None, None) => nobody(),
        };
        let root = SentryTrace {
            trace_id: context.trace_id(),
            span_id: context.span_id(),
            sampled: sampling.sampled,
        };
        let span = start_on(&hub, &context, start);
        Self {
            is_sampled: is_sampled(&span),
            span,
            trace: TrailTrace::Own(match incoming {
                Some(incoming) => RootTrace::settled(&root, SamplingContext::frozen(incoming)),
                None => RootTrace::head(&root, sampling, Arc::clone(client)),
            }),
            collector,
        }
    }

    /// Nothing that Sentry would see: what is captured and sent in it belongs
    /// to the trace of the scope that it begins in.
    fn passive(hub: &Arc<Hub>, start: &RootStart<'_>, client: Option<&Arc<Client>>) -> Self {
        let header = hub.configure_scope(|scope| scope.iter_trace_propagation_headers().next());
        let trace = header.and_then(|(_, value)| SentryTrace::parse(&value));
        let context = context(start, trace.as_ref());
        let root = SentryTrace {
            trace_id: context.trace_id(),
            span_id: context.span_id(),
            sampled: None,
        };
        let sampling = Sampling::deferred(&context, None);
        Self {
            span: start_on(&nobody(), &context, start),
            is_sampled: false,
            trace: TrailTrace::Own(match client {
                Some(client) => RootTrace::head(&root, sampling, Arc::clone(client)),
                None => RootTrace::settled(&root, SamplingContext::empty()),
            }),
            collector: None,
        }
    }
}

fn child(parent: &TransactionOrSpan, start: &RootStart<'_>) -> TransactionOrSpan {
    let id = Default::default();
    let span = parent.start_child_with_details(start.op, start.name, id, start.started_at);
    span.into()
}

fn context(start: &RootStart<'_>, parent: Option<&SentryTrace>) -> TransactionContext {
    match parent {
        Some(parent) => TransactionContext::new_with_details(
            start.name,
            start.op,
            parent.trace_id,
            None,
            Some(parent.span_id),
        ),
        None => TransactionContext::new(start.name, start.op),
    }
}

/// A hub that sends nothing.
fn nobody() -> Arc<Hub> {
    Arc::new(Hub::new(None, Arc::default()))
}

/// Starts a transaction on the client of `hub`.
fn start_on(
    hub: &Arc<Hub>,
    context: &TransactionContext,
    start: &RootStart<'_>,
) -> TransactionOrSpan {
    let begin = || start_transaction_with_timestamp(context.clone(), start.started_at);
    // A client that the collector could not stand in for asks its sampler.
    let transaction = guarded(|| Hub::run(Arc::clone(hub), begin))
        .unwrap_or_else(|| nobody().start_transaction(context.clone()));
    transaction.set_origin(start.origin);
    transaction.into()
}

fn is_sampled(span: &TransactionOrSpan) -> bool {
    #[expect(
        deprecated,
        reason = "deprecated for propagation; tells exactly whether finishing will send"
    )]
    span.is_sampled()
}
