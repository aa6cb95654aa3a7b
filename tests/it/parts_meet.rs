//! Cuts of transactions that meet what happens in them.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use sentry::Hub;
use sentry::protocol::{Context, SpanId, SpanStatus, TraceContext, Transaction};
use serde_json::json;
use tracing::{error, info_span};

use crate::support::received::{event_trace, trace};
use crate::support::story::{Story, world};

#[test]
fn a_span_that_is_open_at_a_cut_is_in_the_part_in_which_it_ends() {
    let world = world();
    let mut story = Story::default();
    let (root, feed) = world.sync(|| {
        let root = info_span!(target: "test", "job");
        let _in_root = root.enter();
        let feed = info_span!(
            target: "test", "feed",
            { "otel.name" } = "the feed", { "sentry.op" } = "queue.process",
            { "tags.shard" } = 7, first = 1, later = tracing::field::Empty,
        );
        feed.in_scope(|| info_span!(target: "test", "before").in_scope(|| {}));
        (root.clone(), feed)
    });
    story.wait_for_a_cut(&world);
    world.sync(|| {
        let _in_feed = feed.enter();
        feed.record("later", 2);
        info_span!(target: "test", "after").in_scope(|| {});
        // Of the application's own making.
        let own = sentry::configure_scope(|scope| scope.get_span()).unwrap();
        own.set_data("own", json!(3));
        own.start_child("db", "query").finish();
    });
    story.wait_for_a_cut(&world);
    let begun = std::time::SystemTime::now();
    world.sync(|| {
        drop(feed);
        drop(root);
    });
    story.hear(&world);
    assert_eq!(story.spans().len(), 4, "{:#?}", story.spans());
    // Its child of the application's names it in a part in which it is not.
    let (part, query) = story.span("query");
    let (last, feed) = story.span("the feed");
    assert_eq!(query.parent_span_id, Some(feed.span_id));
    assert!(trace(part).span_id != trace(last).span_id);
    assert_eq!(trace(last).status, Some(SpanStatus::Ok));
    assert!(feed.start_timestamp < begun && feed.timestamp.unwrap() >= begun);
    assert_eq!(feed.op.as_deref(), Some("queue.process"));
    assert_eq!(feed.status, Some(SpanStatus::Ok));
    assert_eq!(feed.tags["shard"], "7");
    assert_eq!(feed.parent_span_id, Some(trace(last).span_id));
    let data = ["first", "later", "own", "sentry.tracing.target"].map(|name| &feed.data[name]);
    assert_eq!(data, [&json!(1), &json!(2), &json!(3), &json!("test")]);
    let (part, before) = story.span("before");
    assert_eq!(before.parent_span_id, Some(feed.span_id));
    assert_eq!(trace(part).data["transaction.part"], 1);
    let (_, after) = story.span("after");
    assert_eq!(after.parent_span_id, Some(feed.span_id));
}

#[test]
fn no_span_is_lost_or_there_twice_however_it_meets_a_cut() {
    const THREADS: usize = 4;
    const EACH: usize = 2_000;
    let world = Arc::new(world());
    let root = world.sync(|| info_span!(target: "test", "job"));
    let threads = (0..THREADS).map(|_| {
        let (world, root) = (Arc::clone(&world), root.clone());
        thread::spawn(move || {
            world.sync(|| {
                let _in_root = root.enter();
                for _ in 0..EACH {
                    let outer = info_span!(target: "test", "outer", number = 1);
                    let _in_outer = outer.enter();
                    info_span!(target: "test", "inner").in_scope(thread::yield_now);
                }
            });
        })
    });
    let threads: Vec<_> = threads.collect();
    let mut story = Story::default();
    while !threads.iter().all(JoinHandle::is_finished) {
        story.hear(&world);
        thread::yield_now();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    story.wait_for_a_cut(&world);
    world.sync(|| drop(root));
    story.hear(&world);
    story.check("job", None, SpanStatus::Ok);
    let spans = story.spans();
    assert_eq!(
        spans.len() as u64 + story.dropped,
        (2 * THREADS * EACH) as u64
    );
    for span in spans {
        let is_outer = span.description.as_deref() == Some("outer");
        assert_eq!(span.data.contains_key("number"), is_outer, "{span:#?}");
        assert_eq!(span.status, Some(SpanStatus::Ok));
    }
}

#[test]
fn a_hub_that_was_forked_in_a_part_before_leads_to_the_current_one() {
    let world = world();
    let mut story = Story::default();
    let (root, fork) = world.sync(|| {
        let root = info_span!(target: "test", "job");
        let fork = root.in_scope(|| Arc::new(Hub::new_from_top(Hub::current())));
        (root, fork)
    });
    story.wait_for_a_cut(&world);
    world.sync(|| {
        Hub::run(fork, || {
            info_span!(target: "test", "forked").in_scope(|| error!("in a fork"));
        });
        drop(root);
    });
    story.hear(&world);
    story.check("job", None, SpanStatus::Ok);
    let (part, forked) = story.span("forked");
    assert_eq!(forked.parent_span_id, Some(trace(part).span_id));
    assert!(trace(part).data["transaction.part"].as_u64().unwrap() > 1);
    let Some(Context::Trace(own)) = story.events[0].contexts.get("trace") else {
        panic!("{:#?}", story.events)
    };
    assert_eq!(own.span_id, forked.span_id);
}

/// The thread that cuts them is amid it as they end.
#[test]
fn a_root_that_ends_amid_a_cut_ends_its_last_part() {
    const ROOTS: usize = 300;
    let world = world();
    let mut story = Story::default();
    for round in 1..=20 {
        let roots: Vec<_> = world.sync(|| {
            let root = |_| info_span!(target: "test", "job", { "tags.own" } = "tag", field = 1);
            let roots: Vec<_> = (0..ROOTS).map(root).collect();
            roots.iter().for_each(|root| root.in_scope(|| {}));
            roots
        });
        let known = story.transactions.len();
        story.wait(&world, |story| story.transactions.len() > known);
        world.sync(|| drop(roots));
        story.wait(&world, |story| {
            let ended = story.transactions.iter();
            ended.filter(|part| trace(part).status.is_some()).count() == round * ROOTS
        });
    }
    let mut parts: HashMap<_, Vec<_>> = HashMap::new();
    for part in &story.transactions {
        assert_eq!(part.name.as_deref(), Some("job"));
        assert_eq!(part.tags["own"], "tag");
        let own = trace(part);
        assert_eq!(own.data["field"], 1);
        parts.entry(own.trace_id).or_default().push(own);
    }
    for parts in parts.values() {
        let (last, before) = parts.split_last().unwrap();
        assert_eq!(last.status, Some(SpanStatus::Ok));
        assert!(before.iter().all(|part| part.status.is_none()));
        if !before.is_empty() {
            for (index, part) in parts.iter().enumerate() {
                assert_eq!(part.data["transaction.part"], json!(index + 1));
            }
        }
    }
}

#[test]
fn however_many_parts_there_were_a_scope_knows_the_current_one() {
    let world = world();
    let mut story = Story::default();
    let root = world.sync(|| info_span!(target: "test", "job"));
    let current = || {
        let span = sentry::configure_scope(|scope| scope.get_span()).unwrap();
        span.get_trace_context().span_id
    };
    world.sync(|| root.in_scope(|| {}));
    story.wait_for_a_cut(&world);
    let early = world.sync(|| root.in_scope(current));
    story.wait(&world, |story| story.transactions.len() > 80);
    let late = world.sync(|| {
        root.in_scope(|| {
            let span = sentry::configure_scope(|scope| scope.get_span()).unwrap();
            span.start_child("db", "query").finish();
            error!("late");
            current()
        })
    });
    world.sync(|| drop(root));
    story.hear(&world);
    assert!(early != late && story.ids().contains(&late));
    story.span("query");
    let own = event_trace(&story.events[0]);
    assert!(own.data["transaction.part"].as_u64().unwrap() > 80);
}

#[test]
fn spans_keep_what_they_are_called_where_the_scope_has_a_trace_context_of_its_own() {
    let world = world();
    let mut story = Story::default();
    let root = world.sync(|| info_span!(target: "test", "job"));
    let inside = |name| {
        world.sync(|| {
            root.in_scope(|| {
                let own = TraceContext::default();
                sentry::configure_scope(|scope| scope.set_context("trace", own));
                info_span!(target: "test", "inner", name).in_scope(|| {});
            });
        });
    };
    inside("early");
    story.wait_for_a_cut(&world);
    inside("late");
    world.sync(|| drop(root));
    story.hear(&world);
    let spans = story.spans();
    let named: Vec<_> = spans
        .iter()
        .map(|span| (span.description.as_deref(), &span.data["name"]))
        .collect();
    let inner = Some("inner");
    assert_eq!(named, [(inner, &json!("early")), (inner, &json!("late"))]);
    let is_named = |part: &Transaction<'_>| part.name.as_deref() == Some("job");
    assert!(story.transactions.iter().all(is_named));
}

#[test]
fn what_the_application_has_finished_is_not_cut() {
    let world = world();
    let mut story = Story::default();
    let [root, other] = world.sync(|| [(); 2].map(|()| info_span!(target: "test", "job")));
    world.sync(|| {
        other.in_scope(|| {});
        root.in_scope(|| {
            let own = sentry::configure_scope(|scope| scope.get_span()).unwrap();
            own.finish();
        });
    });
    let sent = |story: &Story, root: SpanId| {
        let parts = story.transactions.iter().map(trace);
        parts
            .filter(|part| part.span_id == root || part.parent_span_id == Some(root))
            .count()
    };
    story.wait(&world, |story| !story.transactions.is_empty());
    let own = trace(&story.transactions[0]).span_id;
    // Of the other one there are parts on and on.
    story.wait(&world, |story| story.transactions.len() > 20);
    assert_eq!(sent(&story, own), 1);
    world.sync(|| drop((root, other)));
    story.hear(&world);
    assert!(sent(&story, own) <= 2);
    assert!(
        story
            .transactions
            .iter()
            .all(|part| part.name.as_deref() == Some("job"))
    );
}
