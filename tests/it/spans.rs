//! Tracing spans of any kind as transactions and spans.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use sentry::protocol::{SpanStatus, TraceContext};
use sentry::{Hub, TransactionContext};
use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span, error, info_span, instrument, span, trace_span};

use crate::support::received::{PRECISION, Sp, Tx, event_trace, map, trace};
use crate::support::world::World;

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";

/// `info_span!` with the target of these tests.
macro_rules! test_span {
    (parent: $parent:expr, $($rest:tt)*) => { info_span!(target: "test", parent: $parent, $($rest)*) };
    ($($rest:tt)*) => { info_span!(target: "test", $($rest)*) };
}

fn names(tx: &Tx) -> Vec<(&str, &str)> {
    let spans = tx.spans.iter();
    spans
        .map(|span| (span.name.as_str(), span.parent.as_str()))
        .collect()
}

#[test]
fn spans_nest_as_they_are_entered() {
    let world = World::new();
    world.sync(|| {
        let _job = test_span!("job").entered();
        {
            let _a = test_span!("a").entered();
            test_span!("b").in_scope(|| {});
        }
        test_span!("c").in_scope(|| {});
    });
    let mut tx = world.received().only_tx();
    tx.data.retain(|key, _| !key.starts_with("code."));
    assert_eq!(
        tx,
        Tx {
            name: "job".to_owned(),
            op: "test::job".to_owned(),
            status: SpanStatus::Ok,
            origin: Some("auto.tracing".to_owned()),
            data: map([("sentry.tracing.target", json!("test"))]),
            tags: map([]),
            spans: vec![Sp::ok("b", "a"), Sp::ok("a", "job"), Sp::ok("c", "job")],
        }
    );
}

#[test]
fn fields_are_those_of_sentry_tracing_and_of_opentelemetry() {
    let world = World::new();
    world.sync(|| {
        let job = test_span!(
            "job",
            sentry.name = "named",
            sentry.op = "queue.process",
            sentry.trace = TRACE,
            otel.name = "loses to sentry.name",
            otel.kind = "CONSUMER",
            tags.shop = "berlin",
            tags.paid = true,
            tags.count = 3,
            text = "t",
            number = 1.5,
            big = u64::MAX,
            debug = ?[1],
            display = %"d",
            late = tracing::field::Empty,
            never = tracing::field::Empty,
        );
        job.record("late", -1);
        job.in_scope(|| {});
        job.record("text", "changed");
    });
    let received = world.received();
    let context: TraceContext = trace(received.only_transaction());
    assert_eq!(context.trace_id.to_string(), TRACE[..32]);
    assert_eq!(context.parent_span_id.unwrap().to_string(), TRACE[33..49]);
    let mut tx = received.only_tx();
    let source = tx.data.remove("code.file.path").unwrap();
    assert_eq!(source, json!(file!()));
    assert!(tx.data.remove("code.line.number").unwrap().is_u64());
    assert_eq!(
        tx,
        Tx {
            name: "named".to_owned(),
            op: "queue.process".to_owned(),
            status: SpanStatus::Ok,
            origin: Some("auto.tracing".to_owned()),
            data: map([
                ("sentry.tracing.target", json!("test")),
                ("code.module.name", json!(module_path!())),
                ("sentry.kind", json!("consumer")),
                ("text", json!("changed")),
                ("number", json!(1.5)),
                ("big", json!(u64::MAX)),
                ("debug", json!("[1]")),
                ("display", json!("d")),
                ("late", json!(-1)),
            ]),
            tags: map([("shop", "berlin"), ("paid", "true"), ("count", "3")])
                .into_iter()
                .map(|(key, value)| (key, value.to_owned()))
                .collect(),
            spans: vec![],
        }
    );
}

#[test]
fn names_and_ops_recorded_late_count() {
    let world = World::new();
    world.sync(|| {
        let empty = tracing::field::Empty;
        let job = test_span!(
            "job",
            sentry.name = empty,
            sentry.op = empty,
            otel.name = "otel"
        );
        let child = test_span!(parent: &job, "child", sentry.name = empty, sentry.op = empty);
        // Before the start of one, after the start of the other.
        child
            .record("sentry.name", "late child")
            .record("sentry.op", "late.child");
        child.in_scope(|| {});
        job.record("sentry.name", "late job")
            .record("sentry.op", "late.job");
    });
    let tx = world.received().only_tx();
    assert_eq!((tx.name.as_str(), tx.op.as_str()), ("late job", "late.job"));
    assert_eq!(
        tx.spans,
        [Sp::ok("late child", "late job").op("late.child")]
    );
}

#[test]
fn an_invalid_sentry_trace_field_is_ignored() {
    for value in [
        "",
        "x",
        "00000000000000000000000000000000-0000000000000000-1",
    ] {
        let world = World::new();
        world.sync(|| test_span!("job", sentry.trace = value).in_scope(|| {}));
        let received = world.received();
        assert_eq!(trace(received.only_transaction()).parent_span_id, None);
    }
}

#[test]
fn statuses_come_from_fields_and_errors() {
    fn status(span: impl FnOnce() -> Span) -> SpanStatus {
        let world = World::new();
        world.sync(|| drop(span()));
        world.received().only_tx().status
    }
    assert_eq!(status(|| test_span!("s")), SpanStatus::Ok);
    assert_eq!(
        status(|| test_span!("s", otel.status_code = "ERROR")),
        SpanStatus::InternalError
    );
    assert_eq!(
        status(|| test_span!("s", otel.status_code = "error", rpc.grpc.status_code = 5)),
        SpanStatus::NotFound
    );
    assert_eq!(
        status(|| test_span!("s", rpc.grpc.status_code = 99)),
        SpanStatus::UnknownError
    );
    let failed = || {
        let span = test_span!("s", otel.status_code = tracing::field::Empty);
        span.in_scope(|| error!("failed"));
        span
    };
    assert_eq!(status(failed), SpanStatus::InternalError);
    let forgiven = || {
        let span = failed();
        span.record("otel.status_code", "OK");
        span
    };
    assert_eq!(status(forgiven), SpanStatus::Ok);
    let of_its_own = || {
        let span = failed();
        span.in_scope(|| {
            let sentry_span = sentry::configure_scope(|scope| scope.get_span());
            sentry_span.unwrap().set_status(SpanStatus::Aborted);
        });
        span
    };
    assert_eq!(status(of_its_own), SpanStatus::Aborted);
}

#[instrument(target = "test", err)]
fn fails(depth: u32) -> Result<(), String> {
    match depth {
        0 => Err("deep down".to_owned()),
        depth => fails(depth - 1),
    }
}

#[test]
fn instrument_err_marks_each_span_it_leaves() {
    let world = World::new();
    world.sync(|| {
        let _job = test_span!("job").entered();
        fails(1).unwrap_err();
    });
    let received = world.received();
    let tx = received.only_tx();
    let failed = |parent| Sp::ok("fails", parent).status(SpanStatus::InternalError);
    assert_eq!(tx.status, SpanStatus::Ok);
    assert_eq!(tx.spans, [failed("fails"), failed("job")]);
    assert_eq!(received.events.len(), 2);
}

#[test]
fn parents_can_be_explicit() {
    let world = World::new();
    world.sync(|| {
        let a = test_span!("a");
        let _b = test_span!("b").entered();
        test_span!(parent: &a, "of a").in_scope(|| {
            test_span!("in of a").in_scope(|| {});
        });
        test_span!(parent: None, "alone").in_scope(|| {});
        test_span!("of b").in_scope(|| {});
    });
    let mut txs = world.received().txs();
    txs.sort_by(|a, b| a.name.cmp(&b.name));
    let [a, alone, b] = txs.as_slice() else {
        panic!("{txs:?}")
    };
    assert_eq!(names(a), [("in of a", "of a"), ("of a", "a")]);
    assert_eq!((alone.name.as_str(), names(alone)), ("alone", vec![]));
    assert_eq!(names(b), [("of b", "b")]);
}

#[test]
fn spans_never_entered_arrive() {
    let world = World::new();
    world.sync(|| {
        let job = test_span!("job");
        let a = test_span!(parent: &job, "a");
        let b = test_span!(parent: &a, "b");
        drop((job, a));
        drop(b);
    });
    let tx = world.received().only_tx();
    assert_eq!(tx.spans, [Sp::ok("b", "a"), Sp::ok("a", "job")]);
}

#[test]
fn a_span_starts_when_it_is_made() {
    let world = World::new();
    let (before, after) = world.sync(|| {
        let job = test_span!("job");
        let made = SystemTime::now();
        while SystemTime::now() < made + Duration::from_millis(3) {}
        let entered = SystemTime::now();
        job.in_scope(|| {});
        (made, entered)
    });
    let received = world.received();
    let transaction = received.only_transaction();
    assert!(transaction.start_timestamp <= before + PRECISION);
    assert!(transaction.timestamp.unwrap() >= after);
}

#[test]
fn exits_out_of_order_leave_the_others_alone() {
    let world = World::new();
    world.sync(|| {
        let hub = Hub::current();
        let a = test_span!("a");
        let b = test_span!(parent: &a, "b");
        let other = test_span!("other");
        let in_a = a.enter();
        let in_b = b.enter();
        let in_other = other.enter();
        drop(in_a);
        test_span!("of other").in_scope(|| {});
        drop(in_other);
        sentry::configure_scope(|scope| scope.set_tag("where", "b"));
        let in_a_again = a.enter();
        drop(in_b);
        test_span!("of a").in_scope(|| {});
        drop(in_a_again);
        assert!(std::sync::Arc::ptr_eq(&hub, &Hub::current()));
    });
    let mut txs = world.received().txs();
    txs.sort_by(|a, b| a.name.cmp(&b.name));
    let [a, other] = txs.as_slice() else {
        panic!("{txs:?}")
    };
    assert_eq!(names(a), [("of a", "a"), ("b", "a")]);
    assert_eq!(a.tags, map([("where", "b".to_owned())]));
    assert_eq!(names(other), [("of other", "other")]);
    assert_eq!(other.tags, map([]));
}

#[test]
fn a_hundred_thousand_children_stay_bounded() {
    let world = World::new();
    world.sync(|| {
        let _job = test_span!("job").entered();
        for _ in 0..100_000 {
            test_span!("child").in_scope(|| {});
        }
    });
    let received = world.received();
    assert_eq!(received.only_transaction().spans.len(), 1_001);
    let report = serde_json::to_value(match received.others.as_slice() {
        [sentry::protocol::EnvelopeItem::ClientReport(report)] => report,
        others => panic!("{others:?}"),
    });
    let discarded = &report.unwrap()["discarded_events"];
    assert_eq!(
        *discarded,
        json!([{ "reason": "buffer_overflow", "category": "span", "quantity": 98_999 }])
    );
}

#[test]
fn a_deep_chain_of_spans_never_entered_starts() {
    let world = World::new();
    world.sync(|| {
        let mut chain = vec![test_span!("job")];
        for _ in 0..2_000 {
            let last = chain.last().unwrap();
            chain.push(test_span!(parent: last, "link"));
        }
        chain.last().unwrap().in_scope(|| {});
        while chain.pop().is_some() {}
    });
    let received = world.received();
    let spans = &received.only_transaction().spans;
    assert_eq!(spans.len(), 1_001);
    let is_named = |span: &sentry::protocol::Span| span.description.as_deref() == Some("link");
    assert!(spans.iter().all(is_named));
}

#[test]
fn what_is_set_on_a_span_holds_over_what_its_fields_said_before() {
    let world = World::new();
    world.sync(|| {
        let _job = test_span!("job").entered();
        let span = test_span!("a", first = 1, set = 1, recorded = 1);
        let _entered = span.enter();
        let sentry_span = sentry::configure_scope(|scope| scope.get_span());
        sentry_span.unwrap().set_data("set", 2.into());
        span.record("recorded", 2);
    });
    let received = world.received();
    let data = &received.only_transaction().spans[0].data;
    for (key, value) in [("first", 1), ("set", 2), ("recorded", 2)] {
        assert_eq!(data[key], json!(value), "{key}");
    }
}

#[test]
fn spans_are_named_beside_a_trace_context_of_the_application() {
    let world = World::new();
    world.sync(|| {
        let _job = test_span!("job").entered();
        sentry::configure_scope(|scope| scope.set_context("trace", TraceContext::default()));
        test_span!("a").in_scope(|| {});
    });
    let received = world.received();
    let span = &received.only_transaction().spans[0];
    assert_eq!(span.description.as_deref(), Some("a"));
    assert_eq!(span.op.as_deref(), Some("test::a"));
}

#[test]
fn a_span_entered_inside_its_child_is_the_current_one() {
    let world = World::new();
    world.sync(|| {
        let job = test_span!("job");
        let _in_job = job.enter();
        let _in_child = test_span!("child").entered();
        job.in_scope(|| sentry::capture_message("in job", sentry::Level::Info));
        sentry::capture_message("in child", sentry::Level::Info);
    });
    let received = world.received();
    let transaction = received.only_transaction();
    let ids: Vec<_> = received
        .events
        .iter()
        .map(|e| event_trace(e).span_id)
        .collect();
    let child = &transaction.spans[0];
    assert_eq!(ids, [trace(transaction).span_id, child.span_id]);
}

#[test]
fn a_manual_transaction_is_the_parent() {
    let world = World::new();
    world.sync(|| {
        let transaction = sentry::start_transaction(TransactionContext::new("manual", "op"));
        sentry::configure_scope(|scope| scope.set_span(Some(transaction.clone().into())));
        {
            let _a = test_span!("a").entered();
            test_span!("b").in_scope(|| {});
        }
        test_span!(parent: None, "alone").in_scope(|| {});
        sentry::configure_scope(|scope| {
            assert_eq!(scope.get_span(), Some(transaction.clone().into()));
        });
        transaction.set_status(SpanStatus::Ok);
        transaction.finish();
    });
    let mut txs = world.received().txs();
    txs.sort_by(|a, b| a.name.cmp(&b.name));
    let [alone, manual] = txs.as_slice() else {
        panic!("{txs:?}")
    };
    assert_eq!((alone.name.as_str(), names(alone)), ("alone", vec![]));
    assert_eq!(names(manual), [("b", "a"), ("a", "manual")]);
}

#[test]
fn a_manual_child_of_a_tracing_span_is_a_child() {
    let world = World::new();
    world.sync(|| {
        let _job = test_span!("job").entered();
        let _inner = test_span!("inner").entered();
        let span = sentry::configure_scope(|scope| scope.get_span()).unwrap();
        let child = span.start_child("manual.op", "manual");
        child.set_status(SpanStatus::Ok);
        child.finish();
    });
    let tx = world.received().only_tx();
    assert_eq!(
        tx.spans,
        [
            Sp::ok("manual", "inner").op("manual.op"),
            Sp::ok("inner", "job")
        ]
    );
}

#[test]
fn levels_below_info_are_left_out_unless_asked_for() {
    fn spans(
        layer: impl FnOnce(sentry_tonic::SentryTracingLayer) -> sentry_tonic::SentryTracingLayer,
    ) -> Vec<String> {
        let world = World::with(|options| options.traces_sample_rate(1.0), layer);
        world.sync(|| {
            let _job = test_span!("job").entered();
            let _debug = span!(target: "test", Level::DEBUG, "debug").entered();
            let _trace = trace_span!(target: "test", "trace").entered();
            test_span!("info").in_scope(|| {});
        });
        let tx = world.received().only_tx();
        tx.spans
            .into_iter()
            .map(|span| format!("{} of {}", span.name, span.parent))
            .collect()
    }
    assert_eq!(spans(|layer| layer), ["info of job"]);
    assert_eq!(
        spans(|layer| layer.span_level(LevelFilter::DEBUG)),
        ["info of debug", "debug of job"]
    );
}

#[test]
fn a_tracing_span_that_outlives_its_thread_is_finished_elsewhere() {
    let world = World::new();
    let job = world.sync(|| {
        let job = test_span!("job");
        job.in_scope(|| {});
        job
    });
    std::thread::spawn(move || drop(job)).join().unwrap();
    assert_eq!(world.received().only_tx().name, "job");
}

#[test]
fn sentry_trace_on_a_nested_span_starts_no_second_transaction() {
    let world = World::new();
    world.sync(|| {
        let _job = test_span!("job").entered();
        test_span!("child", sentry.trace = TRACE).in_scope(|| {});
    });
    assert_eq!(world.received().only_tx().spans, [Sp::ok("child", "job")]);
}

#[test]
fn an_error_as_a_field_is_its_text() {
    let world = World::new();
    world.sync(|| {
        let error = std::fmt::Error;
        let error = &error as &(dyn std::error::Error + 'static);
        drop(test_span!("job", cause = error, tags.cause = error));
    });
    let tx = world.received().only_tx();
    let text = std::fmt::Error.to_string();
    assert_eq!(tx.data["cause"], json!(text));
    assert_eq!(tx.tags["cause"], text);
}

/// Only a global subscriber is still there when thread locals are destroyed,
/// and so the test has a process of its own.
#[test]
fn thread_locals_that_trace_while_they_are_destroyed_do_no_harm() {
    const CHILD: &str = "TRACES_IN_DESTRUCTORS";
    struct TracesOnDrop;
    impl Drop for TracesOnDrop {
        fn drop(&mut self) {
            tracing::info!("late");
            error!("late");
        }
    }
    thread_local! {
        static EARLY: RefCell<Option<TracesOnDrop>> = const { RefCell::new(None) };
        static LATE: RefCell<Option<TracesOnDrop>> = const { RefCell::new(None) };
    }
    if std::env::var_os(CHILD).is_none() {
        let name = "spans::thread_locals_that_trace_while_they_are_destroyed_do_no_harm";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let world = World::new();
    world.install();
    std::thread::spawn(|| {
        EARLY.set(Some(TracesOnDrop));
        test_span!("job").in_scope(|| {});
        LATE.set(Some(TracesOnDrop));
    })
    .join()
    .unwrap();
    let received = world.received();
    assert_eq!(received.only_tx().name, "job");
    // One while the thread still has its hub.
    let messages: Vec<_> = received
        .events
        .iter()
        .map(|e| e.message.as_deref())
        .collect();
    assert_eq!(messages, [Some("late")]);
}
