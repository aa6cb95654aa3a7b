//! A long transaction in parts. Each part is a transaction of the same trace; spans, errors and
//! attributes of the root go to the current one.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sentry_core::protocol::{SpanId, TraceContext};
use sentry_core::{Hub, TransactionOrSpan};

use crate::bridge::carried_span;
use crate::bridge::duration::StartTime;
use crate::bridge::local_root::LocalRoot;
use crate::fields;
use crate::send::{Records, SpanRecord};
use crate::span_ext::guarded;

/// The parts of a root that is cut.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) after: Duration,
    /// When the root started: all its parts go by this clock.
    pub(crate) start: StartTime,
    /// The hub of the client that sends the parts.
    pub(crate) hub: Arc<Hub>,
    /// How often the root was cut: most roots never are.
    pub(crate) cuts: AtomicU32,
    state: Mutex<PartsState>,
}

#[derive(Debug)]
pub(crate) struct PartsState {
    current: Part,
    /// When it is cut next; `None` where it is not to be.
    pub(crate) due: Option<Instant>,
    /// Parts before the current one that spans are still finishing in. The last such span
    /// sends its part.
    pub(crate) retired: Vec<Part>,
    /// The current part has taken over the name and the tags of the one before.
    pub(crate) is_handed_on: bool,
}

/// One transaction.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) number: u32,
    id: SpanId,
    span: TransactionOrSpan,
    /// How many spans are finishing in it at this moment.
    finishing: usize,
    /// When it was cut.
    ended_at: Option<SystemTime>,
    /// The spans that have finished in it.
    records: Records,
}

/// A part that is not sent until it is released.
#[derive(Debug)]
pub(crate) struct HeldPart {
    pub(crate) number: u32,
    pub(crate) id: SpanId,
    pub(crate) span: TransactionOrSpan,
}

impl Part {
    pub(crate) fn new(number: u32, id: SpanId, span: TransactionOrSpan) -> Self {
        Self {
            number,
            id,
            span,
            finishing: 0,
            ended_at: None,
            records: Records::default(),
        }
    }
}

impl Parts {
    /// For a root whose first transaction is `span`, made by the client of `hub`.
    pub(crate) fn new(
        after: Duration,
        start: StartTime,
        hub: &Arc<Hub>,
        id: SpanId,
        span: TransactionOrSpan,
    ) -> Self {
        Self {
            after,
            start,
            hub: Arc::clone(hub),
            cuts: AtomicU32::new(0),
            state: Mutex::new(PartsState {
                current: Part::new(1, id, span),
                due: None,
                retired: Vec::new(),
                is_handed_on: false,
            }),
        }
    }

    /// Has the root cut from now on. Called once the root has its fields: a part that was cut
    /// before would be without them.
    pub(crate) fn begin(&self) {
        self.lock().due = Instant::now().checked_add(self.after);
    }

    fn is_cut(&self) -> bool {
        self.cuts.load(Ordering::Acquire) > 0
    }

    fn hold(&self) -> HeldPart {
        let mut state = self.lock();
        state.current.finishing += 1;
        HeldPart {
            number: state.current.number,
            id: state.current.id,
            span: state.current.span.clone(),
        }
    }

    /// Releases a part, and keeps the record of the span that finished in it. Returns the part if
    /// it is to be sent now.
    fn release(&self, number: u32, record: Option<SpanRecord>) -> Option<HeldPart> {
        let mut state = self.lock();
        let part = state.part(|part| part.number == number)?;
        part.records.add(record);
        part.finishing = part.finishing.saturating_sub(1);
        let is_last = part.ended_at.is_some() && part.finishing == 0;
        is_last.then(|| HeldPart {
            number,
            id: part.id,
            span: part.span.clone(),
        })
    }

    fn take_records(&self, id: SpanId) -> Records {
        let mut state = self.lock();
        let part = state.part(|part| part.id == id);
        part.map(|part| std::mem::take(&mut part.records))
            .unwrap_or_default()
    }

    pub(crate) fn ended_at(&self, number: u32) -> Option<SystemTime> {
        self.lock().part(|part| part.number == number)?.ended_at
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, PartsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartsState {
    fn part(&mut self, is_it: impl Fn(&Part) -> bool) -> Option<&mut Part> {
        let mut all = std::iter::once(&mut self.current).chain(&mut self.retired);
        all.find(|part| is_it(part))
    }

    /// Makes `next` the current part. The part before is held; returns its number.
    pub(crate) fn cut(&mut self, mut next: Part, now: SystemTime) -> u32 {
        next.number = self.current.number.saturating_add(1);
        let mut old = std::mem::replace(&mut self.current, next);
        old.ended_at = Some(now);
        old.finishing += 1;
        let number = old.number;
        self.retired.push(old);
        number
    }
}

/// The id of the root that a transaction is a later part of, if it is one.
pub(crate) fn root_of_part(context: &TraceContext) -> Option<SpanId> {
    let number = context.data.get(fields::TRANSACTION_PART)?.as_u64()?;
    context.parent_span_id.filter(|_| number > 1)
}

/// Whether a transaction is that of this root, or a later part of it.
pub(crate) fn is_part_of(context: &TraceContext, root: SpanId) -> bool {
    context.span_id == root || root_of_part(context) == Some(root)
}

impl LocalRoot {
    /// The transaction that is current; or the root's span, where that is inside a transaction
    /// of the application.
    pub(crate) fn span(&self) -> Cow<'_, TransactionOrSpan> {
        match self.cut_parts() {
            Some(parts) => Cow::Owned(parts.lock().current.span.clone()),
            None => Cow::Borrowed(&self.first),
        }
    }

    /// The number of the part that is current, from 1.
    pub(crate) fn part(&self) -> u32 {
        self.cut_parts().map_or(1, |parts| {
            parts.cuts.load(Ordering::Acquire).saturating_add(1)
        })
    }

    /// The id of the transaction that is current, where it is not the first.
    pub(crate) fn later_part_id(&self) -> Option<SpanId> {
        Some(self.cut_parts()?.lock().current.id)
    }

    /// Whether `context` is that of a part before the current one.
    pub(crate) fn is_earlier_part(&self, context: &TraceContext) -> bool {
        let is_earlier = |current| context.span_id != current;
        self.later_part_id().is_some_and(is_earlier) && is_part_of(context, self.trail.root_id())
    }

    /// The current transaction, if `span` is an earlier one.
    pub(crate) fn renewed(&self, span: &TransactionOrSpan) -> Option<TransactionOrSpan> {
        let TransactionOrSpan::Transaction(transaction) = span else {
            return None;
        };
        self.cut_parts()?;
        let context = guarded(|| transaction.get_trace_context())?;
        let is_earlier = self.is_earlier_part(&context);
        is_earlier.then(|| self.span().into_owned())
    }

    /// The parent for spans that are made in `span`: if that is in an earlier part, a stand-in
    /// for it in the current one.
    pub(crate) fn around<'s>(&self, span: &'s TransactionOrSpan) -> Cow<'s, TransactionOrSpan> {
        // For a child span, too, sentry-core returns the context of its transaction.
        let is_in_current = |current| span.get_trace_context().span_id == current;
        match (self.later_part_id(), span) {
            (None, _) => Cow::Borrowed(span),
            (Some(current), _) if is_in_current(current) => Cow::Borrowed(span),
            (Some(_), TransactionOrSpan::Transaction(_)) => Cow::Owned(self.span().into_owned()),
            (Some(_), TransactionOrSpan::Span(span)) => {
                Cow::Owned(carried_span::stand_in(&self.span(), span.get_span_id()))
            }
        }
    }

    /// Keeps the current part from being sent while a span finishes in it.
    pub(crate) fn hold_part(&self) -> Option<HeldPart> {
        Some(self.parts.as_ref()?.hold())
    }

    /// Undoes [`hold_part`](Self::hold_part): a span has finished in the part, and has this record.
    pub(crate) fn release_part(&self, number: u32, record: Option<SpanRecord>) {
        if let Some(parts) = &self.parts
            && let Some(part) = parts.release(number, record)
        {
            self.send_part(parts, part);
        }
    }

    pub(crate) fn take_records_of_part(&self, id: SpanId) -> Option<Records> {
        Some(self.parts.as_ref()?.take_records(id))
    }

    /// `None` until the first cut.
    fn cut_parts(&self) -> Option<&Parts> {
        self.parts.as_ref().filter(|parts| parts.is_cut())
    }
}
