//! How a local root begins: whose trace it is part of, and what is sent of it.

use std::sync::Arc;
use std::time::Duration;

use sentry_core::{
    Client, Hub, TracesSamplingStrategy, TransactionContext, TransactionOrSpan,
    start_transaction_with_timestamp,
};

use crate::bridge::collector::Collector;
use crate::bridge::duration::StartTime;
use crate::bridge::root_trace::RootTrace;
use crate::bridge::sampling::Sampling;
use crate::propagation::{IncomingTrace, SamplingContext, SentryTrace, W3cSpanContext};
use crate::span_ext::{RpcStart, guarded};

/// How to begin a local root.
#[derive(Debug)]
pub(crate) struct RootStart<'a> {
    pub(crate) base: &'a Arc<Hub>,
    /// A Sentry span that the application made, to be the parent.
    pub(crate) app_span: Option<&'a TransactionOrSpan>,
    pub(crate) name: &'a str,
    pub(crate) op: &'a str,
    pub(crate) origin: &'a str,
    pub(crate) incoming: Option<&'a IncomingTrace>,
    /// Whether nothing is sent where there is no `app_span`.
    pub(crate) only_if_parent: bool,
    pub(crate) start: StartTime,
    pub(crate) rpc: Option<&'a Arc<RpcStart>>,
    /// Its ids in OpenTelemetry.
    pub(crate) w3c: Option<&'a W3cSpanContext>,
    /// Whether a failure that was reported in it is not reported again.
    pub(crate) deduplicate_errors: bool,
    /// The time after which it is cut into parts.
    pub(crate) part_duration: Option<Duration>,
}

/// A root that has begun.
#[derive(Debug)]
pub(crate) struct BegunRoot {
    pub(crate) span: TransactionOrSpan,
    pub(crate) is_sampled: bool,
    /// Whether `span` is a transaction, and not one inside the application's.
    pub(crate) is_transaction: bool,
    pub(crate) trace: RootTrace,
    pub(crate) collector: Option<Arc<Collector>>,
}

impl BegunRoot {
    /// Begins a root whose hub is `hub`.
    pub(crate) fn new(start: &RootStart<'_>, hub: &Arc<Hub>, client: Option<&Arc<Client>>) -> Self {
        match (start.app_span, client) {
            // A lock of the application's span may be poisoned.
            (Some(parent), client) => guarded(|| Self::in_app_span(parent, start, client))
                .unwrap_or_else(|| Self::passive(hub, start, client)),
            (None, Some(client)) if !start.only_if_parent => Self::transaction(hub, start, client),
            (None, client) => Self::passive(hub, start, client),
        }
    }

    /// A span in a transaction of the application.
    fn in_app_span(
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
            is_transaction: false,
            trace: RootTrace::settled(&trace, sampling_context),
            collector: None,
        }
    }

    fn transaction(hub: &Arc<Hub>, start: &RootStart<'_>, client: &Arc<Client>) -> Self {
        let options = client.options();
        let incoming = start.incoming.filter(|incoming| incoming.is_for(options));
        // A refused trace must not be continued by way of OpenTelemetry's ids.
        let is_refused = start.incoming.is_some() && incoming.is_none();
        let w3c = start.w3c.filter(|_| !is_refused);
        let mut context = context(start, incoming.map(|incoming| &incoming.trace), w3c);
        context.set_sampled(incoming.and_then(|incoming| incoming.trace.sampled));
        let rpc = start.rpc.map(|rpc| &*rpc.about);
        let decided = guarded(|| Sampling::decide(&mut context, incoming, rpc, options));
        let sampling = decided.unwrap_or_else(|| Sampling::deferred(&context, incoming));
        context.set_sampled(sampling.sampled);
        let is_collected = match options.traces_sampling_strategy {
            TracesSamplingStrategy::Disabled => false,
            // Unsampled transactions start on the real client, so that it counts them; but not
            // with a sampler, which it would ask once more.
            _ => sampling.by_sampler || sampling.sampled == Some(true),
        };
        let is_collected = is_collected && client.is_enabled();
        let collector = is_collected.then(|| Collector::of(client)).flatten();
        let hub = match (&collector, decided) {
            (Some(collector), _) => Arc::clone(collector.hub()),
            (None, Some(_)) => Arc::clone(hub),
            // Where the sampler panics, the trace goes on as if there were none.
            (None, None) => disabled_hub(),
        };
        let root = SentryTrace {
            trace_id: context.trace_id(),
            span_id: context.span_id(),
            sampled: sampling.sampled,
        };
        let span = start_on(&hub, context, start);
        let trace = match incoming {
            Some(incoming) if !incoming.is_foreign() => {
                RootTrace::settled(&root, SamplingContext::frozen(incoming))
            }
            // In Sentry the trace begins here.
            _ => {
                let client = collector.as_ref().map_or(client, |own| own.client());
                RootTrace::head(&root, sampling, Arc::clone(client))
            }
        };
        Self {
            is_sampled: is_sampled(&span),
            span,
            is_transaction: true,
            trace: trace.with_state_of(incoming.and_then(|incoming| incoming.w3c.as_ref())),
            collector,
        }
    }

    /// A root that sends no transaction: errors and headers in it belong to the trace of the
    /// scope that it begins in.
    fn passive(hub: &Arc<Hub>, start: &RootStart<'_>, client: Option<&Arc<Client>>) -> Self {
        // A span on the scope may have a poisoned lock.
        let look = || hub.configure_scope(|scope| scope.iter_trace_propagation_headers().next());
        let trace = guarded(look)
            .flatten()
            .and_then(|(_, value)| SentryTrace::parse(&value));
        let context = context(start, trace.as_ref(), start.w3c);
        let root = SentryTrace {
            trace_id: context.trace_id(),
            span_id: context.span_id(),
            sampled: None,
        };
        let sampling = Sampling::deferred(&context, None);
        Self {
            span: start_on(&disabled_hub(), context, start),
            is_sampled: false,
            is_transaction: true,
            trace: match client {
                Some(client) => RootTrace::head(&root, sampling, Arc::clone(client)),
                None => RootTrace::settled(&root, SamplingContext::empty()),
            },
            collector: None,
        }
    }
}

fn child(parent: &TransactionOrSpan, start: &RootStart<'_>) -> TransactionOrSpan {
    let trace_id = parent.get_trace_context().trace_id;
    let same = start.w3c.filter(|w3c| w3c.trace_id == trace_id);
    let id = same.map(|w3c| w3c.span_id).unwrap_or_default();
    let span = parent.start_child_with_details(start.op, start.name, id, start.start.at);
    span.into()
}

fn context(
    start: &RootStart<'_>,
    parent: Option<&SentryTrace>,
    w3c: Option<&W3cSpanContext>,
) -> TransactionContext {
    let (name, op) = (start.name, start.op);
    let (trace_id, parent_id) = match (parent, w3c) {
        (Some(parent), _) => (parent.trace_id, Some(parent.span_id)),
        (None, Some(w3c)) => (w3c.trace_id, None),
        (None, None) => return TransactionContext::new(name, op),
    };
    let same = w3c.filter(|w3c| w3c.trace_id == trace_id);
    let span_id = same.map(|w3c| w3c.span_id);
    TransactionContext::new_with_details(name, op, trace_id, span_id, parent_id)
}

/// A hub that sends nothing.
fn disabled_hub() -> Arc<Hub> {
    Arc::new(Hub::new(None, Arc::default()))
}

/// Starts a transaction on the client of `hub`.
fn start_on(
    hub: &Arc<Hub>,
    context: TransactionContext,
    start: &RootStart<'_>,
) -> TransactionOrSpan {
    let (trace_id, span_id) = (context.trace_id(), context.span_id());
    let begin = || start_transaction_with_timestamp(context, start.start.at);
    let transaction = guarded(|| Hub::run(Arc::clone(hub), begin)).unwrap_or_else(|| {
        // The real client was used, for want of a collector, and its sampler panicked.
        let (name, op, span_id) = (start.name, start.op, Some(span_id));
        let parent_id = start.incoming.map(|incoming| incoming.trace.span_id);
        let context = TransactionContext::new_with_details(name, op, trace_id, span_id, parent_id);
        disabled_hub().start_transaction(context)
    });
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
