//! Choices of what an application does.

use sentry::protocol::SpanStatus;
use tracing::Level;

use crate::generate::Generator;
use crate::headers::incoming;
use crate::plan::{
    Asked, Change, Field, Kind, Logged, Number, Op, Opening, Parent, ScopeChange, Val,
};

impl Generator {
    pub(crate) fn ops(&mut self, depth: usize, max: usize) -> Vec<Op> {
        let mut ops = vec![];
        for _ in 0..self.choices.between(1, max) {
            match depth > 0 && self.choices.percent(30) {
                true => self.block(depth, &mut ops),
                false => ops.push(self.op(depth)),
            }
        }
        ops
    }

    /// What happens in a span, as in a function with `#[instrument]`.
    fn block(&mut self, depth: usize, ops: &mut Vec<Op>) {
        let (number, opening) = self.opening();
        ops.push(opening);
        if self.choices.percent(15) {
            ops.push(Op::Continue(number, incoming(&mut self.choices)));
        }
        for _ in 0..self.choices.between(1, 2) {
            ops.push(Op::In(number, self.ops(depth - 1, 4)));
        }
        if self.choices.percent(65) {
            self.spans.retain(|other| *other != number);
            ops.push(Op::Close(number));
        }
    }

    pub(crate) fn op(&mut self, depth: usize) -> Op {
        let inner = if depth == 0 { 0 } else { 1 };
        match self.choices.weighted(&[
            22,
            14 * inner,
            8,
            6,
            4,
            3,
            5 * inner,
            2 * inner,
            6,
            1,
            16,
            16,
            6,
            2,
            7,
        ]) {
            0 => self.open(),
            1 => match self.choices.recent(&self.spans) {
                Some(span) => Op::In(span, self.ops(depth - 1, 4)),
                None => self.open(),
            },
            2 => match self.choices.recent(&self.spans) {
                Some(span) => {
                    let (field, value) = self.field();
                    Op::Record(span, field, value)
                }
                None => self.open(),
            },
            3 => match self.choices.recent(&self.spans) {
                Some(span) => {
                    // It may be asked for again, in vain: what is closed is gone.
                    if self.choices.percent(80) {
                        self.spans.retain(|other| *other != span);
                    }
                    Op::Close(span)
                }
                None => self.open(),
            },
            4 => match self.choices.recent(&self.spans) {
                Some(span) => Op::Continue(span, incoming(&mut self.choices)),
                None => self.open(),
            },
            5 => {
                let number = self.number();
                self.hubs.push(number);
                Op::Fork(number)
            }
            6 => match self.choices.recent(&self.hubs) {
                Some(hub) => Op::OnHub(hub, self.ops(depth - 1, 4)),
                None => Op::Fork(self.fork()),
            },
            7 if self.has_parts => self.open(),
            7 => Op::WithScope(self.number(), self.ops(depth - 1, 3)),
            8 => match self.scope_change() {
                // A part that is sent meanwhile hands these on.
                ScopeChange::Transaction | ScopeChange::RemoveTag if self.has_parts => self.open(),
                change => Op::Scope(self.number(), change),
            },
            9 => {
                let number = self.number();
                self.app_spans.push(number);
                Op::Begin(number, incoming(&mut self.choices))
            }
            10 => self.app_span(depth),
            11 => self.event(),
            12 => Op::Ask(self.number(), self.asked()),
            13 => {
                let span = self.choices.recent(&self.spans);
                Op::Panic(self.number(), span.filter(|_| self.choices.percent(60)))
            }
            _ => match self.choices.below(400) {
                // About as many as Sentry takes.
                0 if !self.has_parts => Op::Many(self.number(), self.choices.between(995, 1010)),
                1..10 => Op::Flush,
                10..60 => Op::Many(self.number(), self.choices.between(2, 6)),
                _ => Op::Crumb(self.number()),
            },
        }
    }

    fn fork(&mut self) -> Number {
        let number = self.number();
        self.hubs.push(number);
        number
    }

    fn open(&mut self) -> Op {
        self.opening().1
    }

    fn opening(&mut self) -> (Number, Op) {
        let number = self.number();
        let kind = self.choices.pick(&[
            Kind::Bare,
            Kind::Named,
            Kind::Named,
            Kind::Rich,
            Kind::Rich,
            Kind::Rich,
            Kind::Debug,
            Kind::Error,
        ]);
        let kind = match kind {
            // In their parts, spans are told apart by their names.
            Kind::Bare if self.has_parts => Kind::Named,
            kind => kind,
        };
        let parent = self.parent();
        let fields = match kind {
            Kind::Rich => (0..self.choices.below(5)).map(|_| self.field()).collect(),
            _ => vec![],
        };
        self.spans.push(number);
        let opening = Opening {
            number,
            kind,
            parent,
            fields,
        };
        (number, Op::Open(opening))
    }

    fn parent(&mut self) -> Parent {
        match self.choices.weighted(&[72, 6, 22]) {
            0 => Parent::Contextual,
            1 => Parent::None,
            _ => match self.choices.recent(&self.spans) {
                Some(span) => Parent::Of(span),
                None => Parent::Contextual,
            },
        }
    }

    fn field(&mut self) -> (Field, Val) {
        let number = self.number();
        let text = |text: &str| Val::Text(text.to_owned());
        let own = Val::Text(format!("value {number}"));
        let (name, value) = match self.choices.below(19) {
            0 | 1 if self.has_parts => ("text", own),
            0 => ("sentry.name", Val::Text(format!("name {number}"))),
            1 => ("otel.name", Val::Debug(format!("otel {number}"))),
            2 => (
                "sentry.op",
                self.choices.pick(&[text("db"), text("queue.process")]),
            ),
            3 => (
                "otel.kind",
                self.choices.pick(&[text("Server"), text("producer")]),
            ),
            4 => (
                "otel.status_code",
                self.choices
                    .pick(&[text("ERROR"), text("ok"), text("unset")]),
            ),
            5 => ("otel.status_description", own),
            6 => ("tags.color", own),
            7 => (
                "tags.size",
                self.choices
                    .pick(&[Val::Int(-3), Val::Bool(true), Val::Float(0.5)]),
            ),
            8 => ("user.id", self.choices.pick(&[own, Val::Unsigned(42)])),
            9 => ("user.email", text("ada@example.com")),
            10 => ("user.name", own),
            11 => ("rpc.param.table", own),
            12 => ("rpc.param.token", own),
            13 => (
                "rpc.grpc.status_code",
                self.choices
                    .pick(&[Val::Int(0), Val::Int(5), Val::Unsigned(13), text("5")]),
            ),
            14 => ("count", Val::Unsigned(number as u64)),
            15 => (
                "ratio",
                self.choices.pick(&[Val::Float(1.5), Val::Float(f64::NAN)]),
            ),
            16 => ("flag", Val::Bool(false)),
            17 => ("sentry.trace", Val::Text(self.sentry_trace())),
            _ => (
                "text",
                self.choices.pick(&[own, Val::Debug("x".repeat(2000))]),
            ),
        };
        (Field(name), value)
    }

    fn sentry_trace(&mut self) -> String {
        let pairs = incoming(&mut self.choices);
        let header = pairs.into_iter().find(|(name, _)| name == "sentry-trace");
        header.map_or_else(|| "none".to_owned(), |(_, value)| value)
    }

    fn scope_change(&mut self) -> ScopeChange {
        use ScopeChange::{
            Context, Extra, Fingerprint, Level, NoUser, RemoveTag, Tag, Transaction, User,
        };
        self.choices.pick(&[
            Tag,
            Tag,
            Tag,
            RemoveTag,
            Extra,
            Extra,
            User,
            User,
            NoUser,
            Context,
            Level,
            Fingerprint,
            Transaction,
        ])
    }

    /// What an application does with spans of Sentry's own API.
    fn app_span(&mut self, depth: usize) -> Op {
        if self.has_parts {
            // What it does on the Sentry span of a span is lost if there is a cut.
            return self.open();
        }
        let known = self.choices.recent(&self.app_spans);
        let own = known.filter(|_| self.choices.percent(60));
        match (self.choices.weighted(&[10, 12, 8, 4, 1]), own) {
            (1, _) => Op::Set(own, self.number(), self.change()),
            (2, Some(span)) => {
                self.app_spans.retain(|other| *other != span);
                Op::Finish(span)
            }
            (3, Some(span)) if depth > 0 => Op::Place(span, self.ops(depth - 1, 3)),
            (4, _) if self.choices.percent(30) => Op::FinishCurrent,
            _ => {
                let number = self.number();
                self.app_spans.push(number);
                Op::Child(number, own)
            }
        }
    }

    fn change(&mut self) -> Change {
        let status =
            self.choices
                .pick(&[SpanStatus::Ok, SpanStatus::NotFound, SpanStatus::Aborted]);
        self.choices.pick(&[
            Change::Data,
            Change::Data,
            Change::Tag,
            Change::Tag,
            Change::Status(status),
            Change::Name,
            Change::Op,
        ])
    }

    fn event(&mut self) -> Op {
        let number = self.number();
        match self.choices.weighted(&[60, 10, 12, 6]) {
            0 => {
                let level = self.choices.pick(&[
                    Level::ERROR,
                    Level::ERROR,
                    Level::WARN,
                    Level::INFO,
                    Level::INFO,
                    Level::DEBUG,
                    Level::TRACE,
                ]);
                Op::Log(Logged {
                    number,
                    level,
                    parent: self.parent(),
                    text: self.text(),
                    has_error: self.choices.percent(40),
                })
            }
            1 => {
                use sentry::Level::{Error, Fatal, Info, Warning};
                Op::Message(
                    number,
                    self.choices.pick(&[Info, Warning, Error, Error, Fatal]),
                )
            }
            2 => Op::Error(number, self.text()),
            _ => Op::Event(number),
        }
    }

    fn asked(&mut self) -> Asked {
        match self.choices.weighted(&[4, 3, 2, 3, 2]) {
            1 => match self.choices.recent(&self.spans) {
                Some(span) => Asked::Span(span),
                None => Asked::Current,
            },
            2 => Asked::Interceptor {
                traceparent: self.choices.percent(50),
            },
            3 => Asked::SentrySpan,
            4 => Asked::Scope,
            _ => Asked::Current,
        }
    }
}
