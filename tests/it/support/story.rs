//! What Sentry is told of transactions that are sent in parts.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use sentry::protocol::{EnvelopeItem, Event, Span, SpanId, SpanStatus, Transaction};
use serde_json::json;

use crate::support::gated::LONG;
use crate::support::received::{PRECISION, Received, trace};
use crate::support::world::World;

/// The shortest time after which a transaction is cut.
pub(crate) const SHORT: Duration = Duration::from_millis(10);

/// Everything is sampled, and cut.
pub(crate) fn world() -> World {
    World::with(
        |options| options.traces_sample_rate(1.0),
        |layer| layer.max_transaction_duration(SHORT),
    )
}

/// What Sentry has received so far.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) transactions: Vec<Transaction<'static>>,
    pub(crate) events: Vec<Event<'static>>,
    /// Spans that had no room.
    pub(crate) dropped: u64,
}

impl Story {
    pub(crate) fn hear(&mut self, world: &World) {
        let Received {
            transactions,
            events,
            others,
            ..
        } = world.received();
        self.transactions.extend(transactions);
        self.events.extend(events);
        for item in &others {
            if let EnvelopeItem::ClientReport(report) = item {
                let report = serde_json::to_value(report).unwrap();
                for lost in report["discarded_events"].as_array().unwrap() {
                    assert_eq!(lost["category"], "span", "{report}");
                    assert_eq!(lost["reason"], "buffer_overflow", "{report}");
                    self.dropped += lost["quantity"].as_u64().unwrap();
                }
            }
        }
    }

    pub(crate) fn wait(&mut self, world: &World, is_enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_enough(self) {
            assert!(Instant::now() < deadline, "{:#?}", self.transactions);
            thread::yield_now();
            self.hear(world);
        }
    }

    /// Waits for another part than those that there are: what has happened before is over.
    pub(crate) fn wait_for_a_cut(&mut self, world: &World) {
        self.hear(world);
        // What is cut now may have begun before.
        let known = self.transactions.len();
        self.wait(world, |story| story.transactions.len() >= known + 2);
    }

    pub(crate) fn spans(&self) -> Vec<&Span> {
        let transactions = self.transactions.iter();
        transactions.flat_map(|part| &part.spans).collect()
    }

    #[track_caller]
    pub(crate) fn span(&self, name: &str) -> (&Transaction<'static>, &Span) {
        let all = self.transactions.iter().flat_map(|part| {
            let spans = part.spans.iter();
            spans.map(move |span| (part, span))
        });
        let mut found = all.filter(|(_, span)| span.description.as_deref() == Some(name));
        let span = found.next().unwrap();
        assert!(found.next().is_none(), "{name} is there more than once");
        span
    }

    /// That what was received is one story: of one trace, in parts that follow each other,
    /// each with its spans below it.
    #[track_caller]
    pub(crate) fn check(&self, name: &str, parent: Option<SpanId>, status: SpanStatus) {
        let parts = &self.transactions;
        let first = trace(&parts[0]);
        // A parent that was open at a cut is in a part that follows.
        let ids: HashSet<_> = self.spans().iter().map(|span| span.span_id).collect();
        for (index, part) in parts.iter().enumerate() {
            let own = trace(part);
            assert_eq!(part.name.as_deref(), Some(name));
            assert_eq!(own.trace_id, first.trace_id);
            assert_eq!(own.op, first.op);
            assert_eq!(own.origin, first.origin);
            assert_eq!(own.data["transaction.part"], json!(index + 1));
            match index {
                0 => assert_eq!(own.parent_span_id, parent),
                _ => assert_eq!(own.parent_span_id, Some(first.span_id)),
            }
            let is_last = index + 1 == parts.len();
            assert_eq!(own.status, is_last.then_some(status));
            assert!(part.timestamp.unwrap() + PRECISION > part.start_timestamp);
            for span in &part.spans {
                let parent = span.parent_span_id.unwrap();
                let is_there = parent == own.span_id || ids.contains(&parent);
                // Or it had no room.
                assert!(is_there || self.dropped > 0, "{span:#?}");
                assert_ne!(parent, span.span_id);
                assert_eq!(span.trace_id, first.trace_id);
                assert!(span.description.is_some(), "{span:#?}");
                assert!(!span.op.as_deref().unwrap().is_empty(), "{span:#?}");
            }
        }
        for two in parts.windows(2) {
            assert!(two[0].timestamp.unwrap() <= two[1].start_timestamp + PRECISION);
        }
        let roots = parts.iter().map(|part| trace(part).span_id);
        let all: Vec<_> = roots
            .chain(self.spans().iter().map(|span| span.span_id))
            .collect();
        let ids: HashSet<_> = all.iter().collect();
        assert_eq!(ids.len(), all.len(), "an id is there more than once");
    }

    pub(crate) fn ids(&self) -> HashSet<SpanId> {
        let parts = self.transactions.iter();
        parts.map(|part| trace(part).span_id).collect()
    }
}
