//! What Sentry is told, and that it is no more than it should be.

use sentry::protocol::{Context, TraceContext, Transaction};
use serde_json::Value;

use crate::support::received::Received;
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
        let Received {
            transactions,
            items,
            ..
        } = world.received();
        for transaction in &transactions {
            let name = transaction.name.as_deref().unwrap_or_default();
            assert!(name.len() <= MAX_NAME, "{name}");
        }
        for item in items {
            if ["event", "transaction"].contains(&item.kind.as_str()) {
                check_bounds(&item.payload);
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
