//! What Sentry is told, and that it is no more than it should be.

use sentry::Envelope;
use sentry::protocol::{Context, EnvelopeItem, TraceContext, Transaction};
use serde_json::Value;

use crate::transparent::World;

/// Of a text of a peer, with what this crate writes around it.
const MAX_TEXT: usize = 1024 + 64;
const MAX_VALUES: usize = 64;
const MAX_NAME: usize = 200;

#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) transactions: Vec<Transaction<'static>>,
}

impl Told {
    /// Takes it.
    pub(crate) fn of(world: &World) -> Self {
        let mut transactions = vec![];
        for envelope in world.envelopes() {
            check_written(&envelope);
            for item in envelope.items() {
                match item {
                    EnvelopeItem::Transaction(transaction) => {
                        let name = transaction.name.as_deref().unwrap_or_default();
                        assert!(name.len() <= MAX_NAME, "{name}");
                        check_bounds(&serde_json::to_value(transaction).unwrap());
                        transactions.push((**transaction).clone());
                    }
                    EnvelopeItem::Event(event) => {
                        check_bounds(&serde_json::to_value(event).unwrap());
                    }
                    _ => {}
                }
            }
        }
        Self { transactions }
    }

    /// The only transaction, if there is one.
    pub(crate) fn transaction(&self) -> Option<(&Transaction<'static>, &TraceContext)> {
        let [transaction] = self.transactions.as_slice() else {
            assert!(self.transactions.is_empty(), "{self:#?}");
            return None;
        };
        let Some(Context::Trace(trace)) = transaction.contexts.get("trace") else {
            panic!("no trace: {transaction:#?}")
        };
        Some((transaction, trace))
    }
}

/// Whoever gets it can read it.
fn check_written(envelope: &Envelope) {
    let mut written = vec![];
    envelope.to_writer(&mut written).unwrap();
    let read = Envelope::from_slice(&written).unwrap();
    assert_eq!(read.items().count(), envelope.items().count());
}

fn check_bounds(value: &Value) {
    match value {
        Value::String(text) => assert!(text.len() <= MAX_TEXT, "{text}"),
        Value::Array(values) => {
            assert!(values.len() <= MAX_VALUES, "{values:?}");
            values.iter().for_each(check_bounds);
        }
        Value::Object(values) => {
            assert!(values.keys().all(|key| key.len() <= MAX_TEXT), "{value}");
            values.values().for_each(check_bounds);
        }
        _ => {}
    }
}
