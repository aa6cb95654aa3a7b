//! Which failure an event reports, so that none is reported twice.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::thread;

use sentry_core::protocol::{Context, Event, Value};

/// The contexts in which sentry-tracing puts the fields and the source location of an event of
/// tracing.
pub(crate) const TRACING_FIELDS: &str = "Rust Tracing Fields";
const TRACING_LOCATION: &str = "Rust Tracing Location";

/// The mechanism of sentry's panic integration.
const PANIC_MECHANISM: &str = "panic";

/// How many levels of a text are compared, as in `cannot greet: no such person: refused`.
const MAX_LEVELS: usize = 8;

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventSource {
    /// An `ERROR` event of tracing.
    Tracing,
    /// sentry's panic hook.
    Panic,
    /// The application itself, or this crate.
    Captured,
}

impl EventSource {
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

/// A failure, by the hashes of the texts about it, which may be long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// All texts, joined.
    whole: u64,
    /// Its causes, the outermost first: what follows each colon, and the errors of the chain.
    causes: Vec<u64>,
    /// The other fields of the event.
    fields: u64,
}

impl Failure {
    /// `None` where the event has no text.
    pub(crate) fn of(event: &Event<'_>) -> Option<Self> {
        let fields = match event.contexts.get(TRACING_FIELDS) {
            Some(Context::Other(fields)) => Some(fields),
            _ => None,
        };
        let message = event.message.as_deref();
        // The last one is the outermost.
        let chain = event.exception.iter().rev();
        let chain = chain.filter_map(|exception| exception.value.as_deref());
        // `error!(%error, ..)` has no chain.
        let field = fields.and_then(|fields| fields.get("error")?.as_str());
        let said: Vec<&str> = message.into_iter().chain(chain).chain(field).collect();
        let whole = said.join(": ");
        let mut levels = levels(&whole).map(hash);
        let failure = Self {
            whole: levels.next().filter(|_| !whole.is_empty())?,
            causes: levels.chain(said.iter().skip(1).map(hash)).collect(),
            fields: fields.map_or(0, |fields| hash_fields(fields.iter())),
        };
        // A panic hook that logs may put the text of the panic into any field.
        let texts = fields.filter(|_| thread::panicking());
        let texts = texts.into_iter().flat_map(|fields| fields.values());
        let texts = texts.filter_map(Value::as_str).map(hash);
        Some(Self {
            causes: failure.causes.into_iter().chain(texts).collect(),
            ..failure
        })
    }

    /// Whether it is `sent` once more: the same text, or one with more or less context around
    /// it.
    pub(crate) fn repeats(&self, sent: &Self) -> bool {
        self.causes.contains(&sent.whole)
            || sent.causes.contains(&self.whole)
            || self.whole == sent.whole && self.fields == sent.fields
    }
}

/// A text, what follows its first colon, what follows the second, and so on.
fn levels<'t>(text: &'t str) -> impl Iterator<Item = &'t str> {
    let inner = |text: &&'t str| {
        let (_, inner) = text.split_once(": ").or_else(|| text.split_once(":\n"))?;
        Some(inner)
    };
    std::iter::successors(Some(text), inner).take(MAX_LEVELS)
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn hash_fields<'a>(fields: impl Iterator<Item = (&'a String, &'a Value)>) -> u64 {
    let fields = fields.filter(|(name, _)| *name != "error");
    let fields = fields.map(|(name, value)| hash((name, value.to_string())));
    hash(fields.collect::<Vec<_>>())
}
