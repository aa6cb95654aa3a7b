//! How a span finishes.

use std::sync::Arc;

use crate::bridge::span_cell::SpanCell;
use crate::bridge::span_state::LiveSpan;
use crate::span_ext::guarded;

impl SpanCell {
    /// Starts the span if it never was, and finishes it.
    pub(crate) fn close(self: &Arc<Self>) {
        self.finish_or_wait(self.start());
    }

    /// Leaves a span inside a root unfinished, on a thread where nothing of Sentry
    /// can be called any more.
    pub(crate) fn abandon(&self) {
        let is_inside = |live: &&LiveSpan| !live.is_root && live.is_recorded();
        let Some(live) = self.live().filter(is_inside) else {
            return;
        };
        if !std::mem::replace(&mut self.lock().is_finished, true) {
            // A root that waits for nothing else is not sent, but is let go.
            drop(live.root.child_finished(None));
        }
    }

    /// Finishes the span; if it is a root, once those inside it have.
    pub(crate) fn finish_or_wait(self: &Arc<Self>, live: &LiveSpan) {
        {
            let mut state = self.lock();
            if state.ended_at.is_none() {
                state.ended_at = Some(self.start.end());
            }
        }
        if !(live.is_root && live.root.wait_for_children(self)) {
            self.finish();
        }
    }

    pub(crate) fn finish(&self) {
        let Some(live) = self.live() else { return };
        let (status, ended_at) = {
            let mut state = self.lock();
            if std::mem::replace(&mut state.is_finished, true) {
                return;
            }
            (state.status(), state.ended_at)
        };
        let (part, span) = match live.hold() {
            Some((part, span)) => (Some(part), Some(span)),
            None => (None, live.recorded()),
        };
        let Some(span) = span else { return };
        let ended_at = ended_at.unwrap_or_else(|| self.start.end());
        // A lock of sentry-core's may be poisoned, here as elsewhere.
        guarded(|| {
            if status.is_certain || span.get_status().is_none() {
                span.set_status(status.status);
            }
        });
        if live.is_root {
            guarded(|| live.root.finish(ended_at));
        } else {
            let record = self.take_record(&live.root, &span);
            guarded(|| span.into_owned().finish_with_timestamp(ended_at));
            let record = match part {
                Some(part) => {
                    live.root.release_part(part.number, record);
                    None
                }
                None => record,
            };
            if let Some(root) = live.root.child_finished(record) {
                root.finish();
            }
        }
    }
}
