//! A span that is open when its root is cut, and goes on in the next part.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use sentry_core::protocol::SpanId;
use sentry_core::{Span, TransactionOrSpan};

use crate::bridge::local_root::LocalRoot;
use crate::bridge::parts::HeldPart;
use crate::span_ext::guarded;

/// What it takes to make a span once more in a later part: sentry-core binds a span to the
/// transaction that it was made in, and does not give out its name and tags.
#[derive(Debug)]
pub(crate) struct CarriedSpan {
    started_at: SystemTime,
    /// The span that it is in; `None` where that is the transaction, which each part has its own
    /// of.
    parent: Option<SpanId>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The part in which the span was made last.
    part: u32,
    /// The span of that part; `None` where it is the first one, which the caller has.
    span: Option<TransactionOrSpan>,
    name: Option<String>,
    op: Option<String>,
    tags: Vec<(&'static str, String)>,
}

/// A span in the transaction of `part` that has the id of a span from an earlier part, so that
/// others can be made below it. It is not sent itself.
pub(crate) fn stand_in(part: &TransactionOrSpan, id: SpanId) -> TransactionOrSpan {
    part.start_child_with_details("", "", id, UNIX_EPOCH).into()
}

impl State {
    fn span<'s>(&self, first: &'s TransactionOrSpan) -> Cow<'s, TransactionOrSpan> {
        let span = self.span.clone();
        span.map_or(Cow::Borrowed(first), Cow::Owned)
    }
}

impl CarriedSpan {
    pub(crate) fn new(part: u32, parent: Option<SpanId>, started_at: SystemTime) -> Self {
        Self {
            started_at,
            parent,
            state: Mutex::new(State {
                part,
                span: None,
                name: None,
                op: None,
                tags: Vec::new(),
            }),
        }
    }

    /// Keeps what is set on the span, for the next part.
    pub(crate) fn keep(
        &self,
        name: Option<&str>,
        op: Option<&str>,
        tags: &[(&'static str, String)],
    ) {
        let mut state = self.lock();
        if let Some(name) = name {
            state.name = Some(name.to_owned());
        }
        if let Some(op) = op {
            state.op = Some(op.to_owned());
        }
        for (key, value) in tags {
            state.tags.retain(|(known, _)| known != key);
            state.tags.push((key, value.clone()));
        }
    }

    pub(crate) fn in_current<'s>(
        &self,
        root: &LocalRoot,
        first: &'s TransactionOrSpan,
    ) -> Cow<'s, TransactionOrSpan> {
        let number = root.part();
        let known = {
            let state = self.lock();
            (state.part >= number).then(|| state.span(first))
        };
        known.unwrap_or_else(|| self.make(number, &root.span(), first).1)
    }

    /// The span in `part`; `None` where it is in a later part already.
    pub(crate) fn in_part<'s>(
        &self,
        part: &HeldPart,
        first: &'s TransactionOrSpan,
    ) -> Option<Cow<'s, TransactionOrSpan>> {
        let known = {
            let state = self.lock();
            (state.part >= part.number).then(|| (state.part, state.span(first)))
        };
        let (number, span) = known.unwrap_or_else(|| self.make(part.number, &part.span, first));
        (number == part.number).then_some(span)
    }

    /// No lock is held while Sentry makes the span; of two threads that meet here, the first to
    /// be done wins.
    fn make<'s>(
        &self,
        part: u32,
        around: &TransactionOrSpan,
        first: &'s TransactionOrSpan,
    ) -> (u32, Cow<'s, TransactionOrSpan>) {
        let before = self.lock().span(first);
        let made = guarded(|| self.copy(around, &before)).flatten();
        let mut state = self.lock();
        if state.part < part {
            state.part = part;
            // Nothing was made if a lock of the span before is poisoned: then the old span
            // stays, and what is set on it is lost.
            state.span = made.map(Into::into).or(state.span.take());
        }
        (state.part, state.span(first))
    }

    fn copy(&self, around: &TransactionOrSpan, before: &TransactionOrSpan) -> Option<Span> {
        let TransactionOrSpan::Span(before) = before else {
            return None;
        };
        let (name, op, tags) = {
            let state = self.lock();
            (state.name.clone(), state.op.clone(), state.tags.clone())
        };
        let (name, op) = (name.unwrap_or_default(), op.unwrap_or_default());
        let id = before.get_span_id();
        let around = match self.parent {
            Some(parent) => &stand_in(around, parent),
            None => around,
        };
        let span = around.start_child_with_details(&op, &name, id, self.started_at);
        let data = before.data().clone();
        *span.data() = data;
        for (key, value) in tags {
            span.set_tag(key, value);
        }
        if let Some(status) = before.get_status() {
            span.set_status(status);
        }
        Some(span)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
