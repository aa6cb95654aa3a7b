//! Which errors an event tells of, so that none is told twice.

use std::hash::{DefaultHasher, Hash, Hasher};

use sentry_core::protocol::{Context, Event, Value};

/// Under these names sentry-tracing puts what an event of tracing holds, and where
/// it was made, into contexts.
const TRACING_FIELDS: &str = "Rust Tracing Fields";
const TRACING_LOCATION: &str = "Rust Tracing Location";

/// That of sentry's panic integration.
const PANIC_MECHANISM: &str = "panic";

/// Levels of a text, as in `cannot greet: no such person: refused`.
const MAX_LEVELS: usize = 8;

/// The text of an error, hashed: it may be long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErrorKey(u64);

impl ErrorKey {
    fn of(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Some(Self(hasher.finish()))
    }
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// An `ERROR` event of tracing.
    Tracing,
    /// sentry's panic hook.
    Panic,
    /// The application itself, or this crate.
    Captured,
}

impl Source {
    pub(crate) fn of(event: &Event<'_>) -> Self {
        let mut mechanisms = event.exception.iter().filter_map(|e| e.mechanism.as_ref());
        if event.contexts.contains_key(TRACING_LOCATION) {
            Self::Tracing
        } else if mechanisms.any(|m| m.ty == PANIC_MECHANISM && m.handled == Some(false)) {
            Self::Panic
        } else {
            Self::Captured
        }
    }
}

/// The errors that an event tells of: those of its chain; and as
/// `#[instrument(err)]` and `error!(%error, ..)` have no chain, the field `error`;
/// else the message, and what follows the colons in it: `cannot greet: {error}`.
pub(crate) fn errors_of(event: &Event<'_>) -> Vec<ErrorKey> {
    let chain = event.exception.iter().filter_map(|e| e.value.as_deref());
    let field = match event.contexts.get(TRACING_FIELDS) {
        Some(Context::Other(fields)) => fields.get("error").and_then(Value::as_str),
        _ => None,
    };
    let mut errors: Vec<ErrorKey> = chain.chain(field).filter_map(ErrorKey::of).collect();
    if errors.is_empty()
        && let Some(message) = &event.message
    {
        errors.extend(levels(message).filter_map(ErrorKey::of));
    }
    errors
}

fn levels<'m>(message: &'m str) -> impl Iterator<Item = &'m str> {
    let inner = |text: &&'m str| text.split_once(": ").map(|(_, inner)| inner);
    std::iter::successors(Some(message), inner).take(MAX_LEVELS)
}
