//! What Sentry received, in a form that a test can write down whole.

use std::collections::BTreeMap;
use std::time::Duration;

use sentry::protocol::{
    Context, EnvelopeItem, Event, Span, SpanStatus, TraceContext, Transaction, Value,
};
use sentry::{Breadcrumb, Envelope};

use crate::support::wire::{self, Item};

/// Data of a span.
pub(crate) type Data = BTreeMap<String, Value>;

/// Builds [`Data`] and maps of tags.
pub(crate) fn map<V>(entries: impl IntoIterator<Item = (&'static str, V)>) -> BTreeMap<String, V> {
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// A transaction, without what differs from run to run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tx {
    pub(crate) name: String,
    pub(crate) op: String,
    pub(crate) status: SpanStatus,
    pub(crate) origin: Option<String>,
    pub(crate) data: Data,
    pub(crate) tags: BTreeMap<String, String>,
    /// In the order in which they finished.
    pub(crate) spans: Vec<Sp>,
}

/// A span in a transaction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sp {
    pub(crate) name: String,
    pub(crate) op: String,
    pub(crate) status: Option<SpanStatus>,
    /// The name of the span that it is a child of.
    pub(crate) parent: String,
}

impl Sp {
    pub(crate) fn ok(name: &str, parent: &str) -> Self {
        Self {
            name: name.to_owned(),
            // Spans of the tests have this target.
            op: format!("test::{name}"),
            status: Some(SpanStatus::Ok),
            parent: parent.to_owned(),
        }
    }

    pub(crate) fn status(self, status: SpanStatus) -> Self {
        Self {
            status: Some(status),
            ..self
        }
    }

    pub(crate) fn op(self, op: &str) -> Self {
        Self {
            op: op.to_owned(),
            ..self
        }
    }
}

/// How far a start time may be off: on the wire it is a number of seconds, in floating point.
pub(crate) const PRECISION: Duration = Duration::from_nanos(500);

/// The envelopes that Sentry received, read from their bytes.
#[derive(Debug, PartialEq)]
pub(crate) struct Received {
    pub(crate) transactions: Vec<Transaction<'static>>,
    /// What the envelope of each transaction says of its trace.
    pub(crate) contexts: Vec<Value>,
    pub(crate) events: Vec<Event<'static>>,
    pub(crate) others: Vec<EnvelopeItem>,
    /// All of these with what sentry's types have no fields for.
    pub(crate) items: Vec<Item>,
}

impl Received {
    pub(crate) fn new(envelopes: &[Envelope]) -> Self {
        let mut received = Self {
            transactions: Vec::new(),
            contexts: Vec::new(),
            events: Vec::new(),
            others: Vec::new(),
            items: Vec::new(),
        };
        for (number, envelope) in envelopes.iter().enumerate() {
            let bytes = wire::bytes(envelope);
            for item in Envelope::from_slice(&bytes).unwrap().into_items() {
                match item {
                    EnvelopeItem::Transaction(transaction) => {
                        received.transactions.push(*transaction);
                    }
                    EnvelopeItem::Event(event) => received.events.push(*event),
                    other => received.others.push(other),
                }
            }
            received.items.extend(wire::items(number, &bytes));
        }
        let items = received.items.iter();
        let transactions = items.filter(|item| item.kind == "transaction");
        received.contexts = transactions
            .map(|item| item.envelope_header["trace"].clone())
            .collect();
        received
    }

    pub(crate) fn txs(&self) -> Vec<Tx> {
        self.transactions.iter().map(tx).collect()
    }

    #[track_caller]
    pub(crate) fn only_transaction(&self) -> &Transaction<'static> {
        let [transaction] = self.transactions.as_slice() else {
            panic!("not one transaction: {:#?}", self.txs());
        };
        transaction
    }

    #[track_caller]
    pub(crate) fn only_tx(&self) -> Tx {
        tx(self.only_transaction())
    }

    #[track_caller]
    pub(crate) fn only_event(&self) -> &Event<'static> {
        let [event] = self.events.as_slice() else {
            panic!("not one event: {:#?}", self.events);
        };
        event
    }

    /// Name and status of each transaction, in the order of arrival.
    pub(crate) fn statuses(&self) -> Vec<(String, SpanStatus)> {
        let txs = self.txs().into_iter();
        txs.map(|tx| (tx.name, tx.status)).collect()
    }
}

pub(crate) fn trace(transaction: &Transaction<'_>) -> TraceContext {
    trace_of(&transaction.contexts)
}

pub(crate) fn event_trace(event: &Event<'_>) -> TraceContext {
    trace_of(&event.contexts)
}

fn trace_of(contexts: &BTreeMap<String, Context>) -> TraceContext {
    match contexts.get("trace") {
        Some(Context::Trace(trace)) => (**trace).clone(),
        other => panic!("no trace context: {other:?}"),
    }
}

/// What an event says of its call, but for the duration: one that is of the end has
/// it, and no other.
#[track_caller]
pub(crate) fn rpc_context(event: &Event<'_>) -> Value {
    let Some(Context::Other(context)) = event.contexts.get("rpc") else {
        panic!("{:?}", event.contexts)
    };
    let mut context = serde_json::to_value(context).unwrap();
    let duration = context.as_object_mut().unwrap().remove("duration_ms");
    assert_eq!(duration.is_some(), context["status"].is_string());
    assert!(duration.is_none_or(|ms| ms.as_f64().unwrap() > 0.0));
    context
}

/// Type and value of each exception.
pub(crate) fn exceptions(event: &Event<'_>) -> Vec<(String, Option<String>)> {
    let exceptions = event.exception.values.iter();
    exceptions
        .map(|exception| (exception.ty.clone(), exception.value.clone()))
        .collect()
}

/// Those of `data` whose names begin with one of these.
pub(crate) fn with_prefixes(data: &Data, prefixes: &[&str]) -> Data {
    let has = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let some = data.iter().filter(|(name, _)| has(name));
    some.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The messages of the breadcrumbs.
pub(crate) fn messages(breadcrumbs: &[Breadcrumb]) -> Vec<&str> {
    breadcrumbs
        .iter()
        .filter_map(|breadcrumb| breadcrumb.message.as_deref())
        .collect()
}

fn tx(transaction: &Transaction<'static>) -> Tx {
    let trace = trace(transaction);
    let name = transaction.name.clone().unwrap_or_default();
    let name_of = |id| {
        if id == Some(trace.span_id) {
            return name.clone();
        }
        let parent = transaction
            .spans
            .iter()
            .find(|span| Some(span.span_id) == id);
        parent.map_or_else(|| "nobody".to_owned(), span_name)
    };
    let spans = transaction.spans.iter();
    Tx {
        op: trace.op.clone().unwrap_or_default(),
        status: trace.status.expect("a transaction without status"),
        origin: trace.origin.clone(),
        data: trace.data.clone().into_iter().collect(),
        tags: transaction.tags.clone().into_iter().collect(),
        spans: spans
            .map(|span| Sp {
                name: span_name(span),
                op: span.op.clone().unwrap_or_default(),
                status: span.status,
                parent: name_of(span.parent_span_id),
            })
            .collect(),
        name: name.clone(),
    }
}

fn span_name(span: &Span) -> String {
    span.description.clone().unwrap_or_default()
}
