//! How a root is cut into parts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use sentry_core::protocol::{SpanId, TraceContext, Transaction as SentTransaction};
use sentry_core::{
    Hub, Transaction, TransactionContext, TransactionOrSpan, start_transaction_with_timestamp,
};

use crate::bridge::local_root::LocalRoot;
use crate::bridge::parts::{HeldPart, Part, Parts};
use crate::bridge::trails;
use crate::fields;
use crate::span_ext::guarded;

/// How long to wait for a part that is about to be sent.
const SOON: Duration = Duration::from_millis(1);

impl LocalRoot {
    /// Sends the current part if it is time, and begins another one. Returns when it is time
    /// again.
    pub(crate) fn cut_if_due(&self, now: Instant) -> Option<Instant> {
        let parts = self.parts.as_ref()?;
        let (due, again) = {
            let mut state = parts.lock();
            let due = state.due?;
            if now >= due && !state.retired.is_empty() {
                // The part before is not sent yet, as a span is finishing in it: name and tags
                // that it hands on are not known.
                return now.checked_add(SOON);
            }
            let again = now.checked_add(parts.after);
            if now >= due {
                state.due = again;
            }
            (due, again)
        };
        if now < due {
            return Some(due);
        }
        // Counted as a span inside, so that the root is not sent meanwhile.
        if self.child_opened() {
            self.cut(parts);
            if let Some(root) = self.child_finished(None) {
                root.finish();
            }
        }
        again
    }

    fn cut(&self, parts: &Parts) {
        let before = self.span().into_owned();
        let Some(context) = guarded(|| before.get_trace_context()) else {
            return;
        };
        let now = parts.start.end();
        let Some(next) = guarded(|| self.next_transaction(parts, &context, now)) else {
            return;
        };
        let id = next.get_trace_context().span_id;
        let part = Part::new(0, id, next.clone().into());
        let number = parts.lock().cut(part, now);
        parts.cuts.fetch_add(1, Ordering::Release);
        guarded(|| {
            before.set_data(fields::TRANSACTION_PART, number.into());
            copy(&before, &next);
        });
        self.release_part(number, None);
    }

    /// The parent of each part is the first one: as children of each other, the parts of a long
    /// stream would be nested ever deeper.
    fn next_transaction(
        &self,
        parts: &Parts,
        context: &TraceContext,
        now: SystemTime,
    ) -> Transaction {
        let name = self.trail.transaction();
        let mut next = TransactionContext::new_with_details(
            name.as_deref().unwrap_or_default(),
            context.op.as_deref().unwrap_or_default(),
            context.trace_id,
            None,
            Some(self.trail.root_id()),
        );
        next.set_sampled(true);
        let begin = || start_transaction_with_timestamp(next, now);
        let next = Hub::run(Arc::clone(&parts.hub), begin);
        // By this it is recognized as a part from the start.
        next.set_data(
            fields::TRANSACTION_PART,
            self.part().saturating_add(1).into(),
        );
        if let Some(origin) = &context.origin {
            next.set_origin(origin);
        }
        next
    }

    /// On a hub of its own, as that of the root may be current on another thread.
    pub(crate) fn send_part(&self, parts: &Parts, part: HeldPart) {
        let ended_at = parts
            .ended_at(part.number)
            .unwrap_or_else(|| parts.start.end());
        guarded(|| {
            let hub = Arc::new(Hub::new_from_top(&self.main.hub));
            self.tell_user(&hub);
            let finish = || part.span.finish_with_timestamp(ended_at);
            let finish = || trails::while_sending(&self.trail, part.id, finish);
            Hub::run(hub, finish);
        });
        let mut state = parts.lock();
        if !std::mem::take(&mut state.is_handed_on) {
            // It was not sent, as when the application has finished it itself: neither would
            // the others be.
            state.due = None;
        }
        drop(state);
        let is_it = |retired: &mut Part| retired.number == part.number;
        let sent: Vec<_> = parts.lock().retired.extract_if(.., is_it).collect();
        drop(sent);
    }

    /// Gives the next part the name and the tags of the part that is being sent.
    pub(crate) fn hand_on(&self, id: SpanId, sent: &SentTransaction<'_>) {
        if let Some(parts) = &self.parts
            && self.later_part_id().is_some_and(|current| current != id)
        {
            parts.lock().is_handed_on = true;
            let next = self.span();
            if let Some(name) = &sent.name {
                next.set_name(name);
            }
            for (key, value) in &sent.tags {
                next.set_tag(key, value);
            }
        }
    }
}

/// Copies attributes and status of a part to the next one, unless that has its own by now.
fn copy(before: &TransactionOrSpan, next: &Transaction) {
    let context = before.get_trace_context();
    {
        let mut data = next.data();
        let known: Vec<_> = data.iter().map(|(name, _)| name.clone()).collect();
        let told = context.data.into_iter();
        for (name, value) in told.filter(|(name, _)| !known.contains(name)) {
            data.set_data(name.into(), value);
        }
    }
    if let (Some(status), None) = (context.status, next.get_status()) {
        next.set_status(status);
    }
}
