//! How a local root begins: whose trace it is part of, and what is sent of it.

use std::sync::Arc;
use std::time::Duration;

use sentry_core::protocol::{SpanId, TraceId};
use sentry_core::{
    Client, Hub, TracesSamplingStrategy, TransactionContext, TransactionOrSpan,
    start_transaction_with_timestamp,
};

use crate::bridge::collector::Collector;
use crate::bridge::duration::StartTime;
use crate::bridge::root_trace::RootTrace;
use crate::bridge::sampling::Sampling;
use crate::propagation::{self, IncomingTrace, SamplingContext, SentryTrace, W3cSpanContext};
use crate::send::NO_OP;
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
            (None, Some(client)) if !start.only_if_parent => Self::transaction(start, client),
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

    fn transaction(start: &RootStart<'_>, client: &Arc<Client>) -> Self {
        let options = client.options();
        let incoming = start.incoming.filter(|incoming| incoming.is_for(options));
        // A refused trace must not be continued by way of OpenTelemetry's ids.
        let is_refused = start.incoming.is_some() && incoming.is_none();
        let w3c = start.w3c.filter(|_| !is_refused);
        let ids = Ids::new(incoming.map(|incoming| &incoming.trace), w3c);
        let rpc = start.rpc.map(|rpc| &*rpc.about);
        let context = |sampled| ids.context((start.name, start.op), sampled);
        let sampling = Sampling::decide(ids.trace_id, incoming, rpc, options, context);
        let is_sampled = sampling.sampled == Some(true) && client.is_enabled();
        let collector = match options.traces_sampling_strategy {
            TracesSamplingStrategy::Disabled => None,
            _ => Collector::of(client),
        };
        let hub = collector
            .as_ref()
            .filter(|_| is_sampled)
            .map(|own| own.hub());
        let context = ids.context(start.known_name(), sampling.sampled);
        let span = start_on(hub, context, start);
        let root = SentryTrace {
            trace_id: ids.trace_id,
            span_id: ids.span_id,
            sampled: sampling.sampled,
        };
        let trace = match incoming {
            Some(incoming) if !incoming.is_foreign() => {
                RootTrace::settled(&root, SamplingContext::frozen(incoming))
            }
            // In Sentry the trace begins here.
            _ => RootTrace::head(&root, sampling, Arc::clone(client)),
        };
        Self {
            is_sampled: hub.is_some(),
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
        let ids = Ids::new(trace.as_ref(), start.w3c);
        let root = SentryTrace {
            trace_id: ids.trace_id,
            span_id: ids.span_id,
            sampled: None,
        };
        let sampling = Sampling::deferred(ids.trace_id, None);
        Self {
            span: start_on(None, ids.context(start.known_name(), None), start),
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
    let id = same.map(|w3c| w3c.span_id);
    let id = id.unwrap_or_else(propagation::new_span_id);
    let span = parent.start_child_with_details(start.op, start.name, id, start.start.at);
    span.into()
}

impl RootStart<'_> {
    /// Name and operation, as far as they are not added when the transaction is sent: those of a
    /// call are.
    fn known_name(&self) -> (&str, &str) {
        match self.rpc {
            Some(_) => ("", NO_OP),
            None => (self.name, self.op),
        }
    }
}

/// The ids of a root's span.
#[derive(Debug, Clone, Copy)]
struct Ids {
    trace_id: TraceId,
    span_id: SpanId,
    parent_id: Option<SpanId>,
}

impl Ids {
    /// `w3c` has those of its span in OpenTelemetry.
    fn new(parent: Option<&SentryTrace>, w3c: Option<&W3cSpanContext>) -> Self {
        let trace_id = parent.map(|parent| parent.trace_id);
        let trace_id = trace_id.or(w3c.map(|w3c| w3c.trace_id));
        let trace_id = trace_id.unwrap_or_else(propagation::new_trace_id);
        let same = w3c.filter(|w3c| w3c.trace_id == trace_id);
        let span_id = same.map(|w3c| w3c.span_id);
        Self {
            trace_id,
            span_id: span_id.unwrap_or_else(propagation::new_span_id),
            parent_id: parent.map(|parent| parent.span_id),
        }
    }

    fn context(&self, (name, op): (&str, &str), sampled: Option<bool>) -> TransactionContext {
        let ids = (self.trace_id, Some(self.span_id), self.parent_id);
        let mut context = TransactionContext::new_with_details(name, op, ids.0, ids.1, ids.2);
        context.set_sampled(sampled);
        context
    }
}

thread_local! {
    /// Threads that shared it would wait for its locks.
    static DISABLED: Arc<Hub> = Arc::new(Hub::new(None, Arc::default()));
}

/// A hub without a client. Nothing is written to its scope.
fn disabled_hub() -> Arc<Hub> {
    let hub = DISABLED.try_with(Arc::clone);
    // The thread may end.
    hub.unwrap_or_else(|_| Arc::new(Hub::new(None, Arc::default())))
}

/// Starts a transaction on the client of `hub`; without one, a transaction that is only for the
/// application, and sends nothing.
fn start_on(
    hub: Option<&Arc<Hub>>,
    context: TransactionContext,
    start: &RootStart<'_>,
) -> TransactionOrSpan {
    let transaction = match hub {
        Some(hub) => Hub::run(Arc::clone(hub), || {
            start_transaction_with_timestamp(context, start.start.at)
        }),
        None => disabled_hub().start_transaction(context),
    };
    if start.rpc.is_none() {
        transaction.set_origin(start.origin);
    }
    transaction.into()
}

fn is_sampled(span: &TransactionOrSpan) -> bool {
    #[expect(
        deprecated,
        reason = "deprecated for propagation; tells exactly whether finishing will send"
    )]
    span.is_sampled()
}
