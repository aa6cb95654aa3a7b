//! Spans and events of tracing, each of a callsite of its own.

use std::error::Error;
use std::fmt;

use tracing::field::{DebugValue, debug};
use tracing::{Level, Span};

use crate::plan::{Field, Kind, Opening, Parent, Text, Val};
use crate::world::World;

/// An error with a source, perhaps.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    source: Option<Box<Self>>,
}

impl Failure {
    pub(crate) fn new(number: usize, text: Text) -> Self {
        let inner = |text: &str| {
            let text = text.to_owned();
            Some(Box::new(Self { text, source: None }))
        };
        let source = match (text, number % 3) {
            (Text::CannotGreet, 0) => inner("refused"),
            (Text::Own, 0) => inner("cause"),
            _ => None,
        };
        Self {
            text: text.of(number),
            source,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_deref()?)
    }
}

/// A text that is recorded by its `Debug`.
struct Plain(String);

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

enum Boxed {
    Value(Box<dyn tracing::Value>),
    Debug(DebugValue<Plain>),
}

impl Boxed {
    fn new(value: &Val) -> Self {
        match value {
            Val::Text(text) => Self::Value(Box::new(text.clone())),
            Val::Int(value) => Self::Value(Box::new(*value)),
            Val::Unsigned(value) => Self::Value(Box::new(*value)),
            Val::Float(value) => Self::Value(Box::new(*value)),
            Val::Bool(value) => Self::Value(Box::new(*value)),
            Val::Debug(text) => Self::Debug(debug(Plain(text.clone()))),
        }
    }

    fn get(&self) -> &dyn tracing::Value {
        match self {
            Self::Value(value) => &**value,
            Self::Debug(value) => value,
        }
    }
}

/// A span of one callsite for each kind of parent.
macro_rules! open {
    ($parent:expr, $level:expr, $name:literal, $($fields:tt)*) => {
        match $parent {
            Around::Contextual => tracing::span!(target: "app", $level, $name, $($fields)*),
            Around::None => tracing::span!(target: "app", parent: None, $level, $name, $($fields)*),
            Around::Of(around) => {
                tracing::span!(target: "app", parent: around, $level, $name, $($fields)*)
            }
        }
    };
}

macro_rules! log {
    ($parent:expr, $level:expr, $($fields:tt)*) => {
        match $parent {
            Around::Contextual => tracing::event!(target: "app", $level, $($fields)*),
            Around::None => tracing::event!(target: "app", parent: None, $level, $($fields)*),
            Around::Of(around) => {
                tracing::event!(target: "app", parent: around, $level, $($fields)*)
            }
        }
    };
}

/// A [`Parent`] that is there.
enum Around {
    Contextual,
    None,
    Of(Span),
}

impl Around {
    fn new(world: &World, parent: Parent) -> Self {
        match parent {
            Parent::Contextual => Self::Contextual,
            Parent::None => Self::None,
            Parent::Of(number) => world.spans.get(number).map_or(Self::Contextual, Self::Of),
        }
    }
}

pub(crate) fn open(world: &World, opening: &Opening) -> Span {
    let around = Around::new(world, opening.parent);
    let number = opening.number;
    match opening.kind {
        Kind::Bare => open!(&around, Level::INFO, "bare",),
        Kind::Named => named(&around, number),
        Kind::Debug => open!(
            &around,
            Level::DEBUG,
            "debug",
            otel.name = format!("debug {number}")
        ),
        Kind::Error => open!(
            &around,
            Level::ERROR,
            "error",
            otel.name = format!("error {number}")
        ),
        Kind::Rich => rich(&around, number, &opening.fields),
    }
}

/// A span with that many inside, one after the other.
pub(crate) fn many(number: usize, count: usize) {
    let _entered = named(&Around::Contextual, number).entered();
    for index in 0..count {
        let name = format!("many {number}.{index}");
        drop(
            open!(
                &Around::Contextual,
                Level::INFO,
                "many",
                otel.name = name,
                index
            )
            .entered(),
        );
    }
}

fn named(around: &Around, number: usize) -> Span {
    open!(
        around,
        Level::INFO,
        "named",
        otel.name = format!("span {number}"),
        number
    )
}

fn rich(around: &Around, number: usize, fields: &[(Field, Val)]) -> Span {
    let boxed: Vec<_> = fields
        .iter()
        .map(|(field, value)| (field.0, Boxed::new(value)))
        .collect();
    let value = |name: &str| {
        let found = boxed.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.get())
    };
    let own_name = format!("rich {number}");
    let name = value("otel.name").unwrap_or(&own_name);
    open!(
        around,
        Level::INFO,
        "rich",
        sentry.name = value("sentry.name"),
        otel.name = name,
        sentry.op = value("sentry.op"),
        sentry.trace = value("sentry.trace"),
        otel.kind = value("otel.kind"),
        otel.status_code = value("otel.status_code"),
        otel.status_description = value("otel.status_description"),
        tags.color = value("tags.color"),
        tags.size = value("tags.size"),
        user.id = value("user.id"),
        user.email = value("user.email"),
        user.name = value("user.name"),
        rpc.param.table = value("rpc.param.table"),
        rpc.param.token = value("rpc.param.token"),
        rpc.grpc.status_code = value("rpc.grpc.status_code"),
        count = value("count"),
        ratio = value("ratio"),
        flag = value("flag"),
        text = value("text"),
    )
}

pub(crate) fn record(span: &Span, field: Field, value: &Val) {
    span.record(field.0, Boxed::new(value).get());
}

pub(crate) fn log(world: &World, logged: &crate::plan::Logged) {
    let around = Around::new(world, logged.parent);
    let number = logged.number;
    let text = logged.text.of(number);
    let failure = logged.has_error.then(|| Failure::new(number, logged.text));
    let error = failure
        .as_ref()
        .map(|failure| failure as &(dyn Error + 'static));
    match logged.level {
        Level::ERROR if number.is_multiple_of(4) => {
            log!(&around, Level::ERROR, error, tags.number = number, "{text}");
        }
        Level::ERROR => log!(&around, Level::ERROR, error, "{text}"),
        Level::WARN => log!(&around, Level::WARN, error, number, "{text}"),
        Level::INFO => log!(&around, Level::INFO, number, "{text}"),
        Level::DEBUG => log!(&around, Level::DEBUG, number, "{text}"),
        Level::TRACE => log!(&around, Level::TRACE, number, "{text}"),
    }
}
