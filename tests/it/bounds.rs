//! What an application can make it keep, at the limits.

use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sentry::integrations::panic::PanicIntegration;
use sentry::protocol::{Context, Value};
use sentry::{Envelope, Transport};
use sentry_tonic::SentryServerLayer;
use tokio_stream::StreamExt;
use tonic::Status;
use tower::Layer;
use tracing::{Span, error, field, info, info_span};

use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::received::{event_trace, trace};
use crate::support::world::{RATES, World};

/// Of a text of a field.
const TEXT: usize = 8192;
/// Of a breadcrumb, a parameter, a part of a fingerprint.
const SHORT: usize = 1024;
/// Of the name of a transaction, and of the value of a tag.
const NAME: usize = 200;
const OP: usize = 128;

/// At the limit, and one more.
fn around(limit: usize) -> [String; 2] {
    [limit, limit + 1].map(|len| "x".repeat(len))
}

/// Two bytes each: the last one that begins within the limit has no room.
fn odd(limit: usize) -> String {
    format!("x{}", "é".repeat(limit / 2))
}

#[test]
fn texts_of_spans_are_cut() {
    for (text, how) in around(TEXT).into_iter().zip(["fits", "is cut"]) {
        let world = World::new();
        world.sync(|| {
            let error = Status::aborted(text.clone());
            let error: &(dyn std::error::Error + 'static) = &error;
            let span = info_span!(
                "job",
                text,
                debug = ?[&text],
                display = %text,
                error,
                "tags.place" = text,
                "sentry.name" = text,
                "sentry.op" = text,
                "rpc.param.text" = text,
                late = field::Empty
            );
            let _job = span.entered();
            info_span!("child", "sentry.name" = text, text).in_scope(|| {});
            Span::current().record("late", &text);
        });
        let received = world.received();
        let transaction = received.only_transaction();
        let trace = trace(transaction);
        let len = |name: &str| trace.data[name].as_str().unwrap().len();
        assert_eq!(len("text"), TEXT, "{how}");
        assert_eq!(len("late"), TEXT, "{how}");
        assert_eq!(len("display"), TEXT, "{how}");
        assert_eq!(len("debug"), TEXT, "{how}");
        assert_eq!(len("error"), TEXT, "{how}");
        assert_eq!(len("rpc.param.text"), SHORT, "{how}");
        assert_eq!(transaction.name, Some("x".repeat(NAME)), "{how}");
        assert_eq!(transaction.tags["place"], "x".repeat(NAME), "{how}");
        assert_eq!(trace.op, Some("x".repeat(OP)), "{how}");
        let [child] = transaction.spans.as_slice() else {
            panic!("{:?}", transaction.spans)
        };
        assert_eq!(child.description, Some("x".repeat(TEXT)), "{how}");
        assert_eq!(child.data["text"], Value::from("x".repeat(TEXT)), "{how}");
    }
}

#[test]
fn texts_are_cut_at_a_character() {
    let world = World::new();
    let (name, place, text) = (odd(NAME), "é".repeat(NAME + 1), odd(TEXT));
    world.sync(|| {
        info_span!("job", "otel.name" = name, "tags.place" = place, text).in_scope(|| {});
    });
    let received = world.received();
    let transaction = received.only_transaction();
    assert_eq!(transaction.name, Some(odd(NAME - 2)));
    assert_eq!(transaction.tags["place"], "é".repeat(NAME));
    assert_eq!(trace(transaction).data["text"], Value::from(odd(TEXT - 2)));
}

/// What is printed may be endless.
#[test]
fn no_more_of_a_field_is_printed_than_is_kept() {
    struct Endless;
    impl std::fmt::Debug for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            loop {
                f.write_str("x")?;
            }
        }
    }
    let world = World::new();
    world.sync(|| info_span!("job", endless = ?Endless).in_scope(|| {}));
    let received = world.received();
    let data = trace(received.only_transaction()).data;
    assert_eq!(data["endless"], Value::from("x".repeat(TEXT)));
}

#[test]
fn a_field_that_is_recorded_again_and_again_is_kept_once() {
    for rate in RATES {
        let world = World::rated(rate, |options| options, |layer| layer);
        record_again_and_again(&world);
        let received = world.received();
        let sent = match rate {
            Some(1.0) => trace(received.only_transaction()),
            _ => event_trace(received.only_event()),
        };
        assert_eq!(sent.data["data"], Value::from("last"));
    }
}

fn record_again_and_again(world: &World) {
    world.sync(|| {
        let span = info_span!(
            "job",
            data = field::Empty,
            "tags.place" = field::Empty,
            "rpc.param.text" = field::Empty
        );
        let text = "x".repeat(TEXT);
        let record = |times: usize| {
            (0..times).for_each(|_| {
                span.record("data", &text);
                span.record("tags.place", &text);
                span.record("rpc.param.text", &text);
            });
        };
        let check = || {
            record(10);
            let kept = allocation_counter::measure(|| record(1_000)).bytes_current;
            assert!(kept < 1_000, "{kept} bytes");
        };
        // Before the span has started, and after that.
        check();
        span.in_scope(|| {});
        check();
        span.record("data", "last");
        span.in_scope(|| sentry::capture_message("inside", sentry::Level::Info));
    });
}

#[test]
fn error_events_are_cut_and_what_an_application_captures_is_not() {
    for text in around(TEXT) {
        let world = World::new();
        world.sync(|| {
            let _job = info_span!("job").entered();
            let cause: &(dyn std::error::Error + 'static) = &std::io::Error::other(text.clone());
            error!(field = text, cause, "tags.place" = text, "{text}");
            sentry::capture_message(&text, sentry::Level::Error);
        });
        let received = world.received();
        let [traced, captured] = received.events.as_slice() else {
            panic!("{:?}", received.events)
        };
        let cut = "x".repeat(TEXT);
        assert_eq!(captured.message.as_ref(), Some(&text));
        assert_eq!(traced.tags["place"], "x".repeat(NAME));
        let Some(Context::Other(fields)) = traced.contexts.get("Rust Tracing Fields") else {
            panic!("{:?}", traced.contexts)
        };
        assert_eq!(fields["field"], Value::from(cut.as_str()));
        let values = traced.exception.iter().map(|exception| &exception.value);
        let texts: Vec<_> = values.chain([&traced.message]).flatten().collect();
        assert!(texts.len() >= 2, "{texts:?}");
        assert!(texts.iter().all(|text| **text == cut));
    }
}

#[test]
fn what_breadcrumbs_say_is_cut() {
    for text in around(SHORT) {
        let world = World::new();
        world.sync(|| {
            let _job = info_span!("job").entered();
            (0..101).for_each(|number| info!(number, text, debug = %text, "{text}"));
            error!("failed");
        });
        let received = world.received();
        let breadcrumbs = &received.only_event().breadcrumbs.values;
        let cut = "x".repeat(SHORT);
        assert_eq!(breadcrumbs.len(), 100);
        assert_eq!(breadcrumbs[0].data["number"], 1);
        for breadcrumb in breadcrumbs {
            assert_eq!(breadcrumb.message.as_ref(), Some(&cut));
            assert_eq!(breadcrumb.data["text"], cut.as_str());
            assert_eq!(breadcrumb.data["debug"], cut.as_str());
        }
    }
}

#[test]
fn names_and_fingerprints_by_closures_are_cut() {
    for (name, part) in around(NAME).into_iter().zip(around(SHORT)) {
        let world = World::new();
        world.run(async {
            let parts = move || vec![part.clone(); 33];
            let layer = SentryServerLayer::new()
                .span_name(move |_| name.clone())
                .fingerprint(move |_| parts());
            let failing = Scripted::new().say_hello(|_| async { Err(Status::internal("no")) });
            let service = layer.layer(GreeterServer::new(failing));
            let mut client = GreeterClient::new(service);
            client.say_hello(request("x")).await.unwrap_err();
        });
        let received = world.received();
        let transaction = received.only_transaction();
        assert_eq!(transaction.name, Some("x".repeat(NAME)));
        let fingerprint = &received.only_event().fingerprint;
        assert_eq!(fingerprint.len(), 32);
        assert!(fingerprint.iter().all(|part| **part == "x".repeat(SHORT)));
    }
}

/// How many spans the transaction has, and how many it says were dropped.
fn spans_of(children: impl FnOnce()) -> (usize, Option<Value>) {
    let world = World::new();
    world.sync(|| info_span!("job").in_scope(children));
    let received = world.received();
    let transaction = received.only_transaction();
    let dropped = trace(transaction).data.get("dropped_spans_count").cloned();
    (transaction.spans.len(), dropped)
}

fn children(count: usize) {
    (0..count).for_each(|_| info_span!("child").in_scope(|| {}));
}

#[test]
fn spans_that_are_dropped_are_counted() {
    assert_eq!(spans_of(|| children(1_001)), (1_001, None));
    assert_eq!(spans_of(|| children(1_002)), (1_001, Some(1.into())));
    assert_eq!(spans_of(|| children(3_000)), (1_001, Some(1_999.into())));
    // Those of the application take room, and are not counted.
    let mixed = |ours: usize, own: usize| {
        move || {
            let span = sentry::configure_scope(|scope| scope.get_span()).unwrap();
            (0..own).for_each(|_| span.start_child("own", "own").finish());
            children(ours);
        }
    };
    assert_eq!(spans_of(mixed(501, 500)), (1_001, None));
    assert_eq!(spans_of(mixed(511, 500)), (1_001, Some(10.into())));
    assert_eq!(spans_of(mixed(5, 2_000)), (1_001, Some(5.into())));
}

#[test]
fn spans_of_many_threads_that_are_dropped_are_counted() {
    let dispatch = || tracing::dispatcher::get_default(Clone::clone);
    let counted = spans_of(|| {
        let (job, dispatch) = (Span::current(), dispatch());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    tracing::dispatcher::with_default(&dispatch, || {
                        job.in_scope(|| children(500));
                    });
                });
            }
        });
    });
    assert_eq!(counted, (1_001, Some(999.into())));
}

/// A call of so many messages: at most so many bytes at once.
fn most_of_stream(messages: usize) -> u64 {
    struct Nowhere;
    impl Transport for Nowhere {
        fn send_envelope(&self, _: Envelope) {}
    }
    let options = |options: sentry::ClientOptions| {
        options.traces_sample_rate(1.0).transport(Arc::new(Nowhere))
    };
    let world = World::with(options, |layer| layer);
    let greeter = Scripted::new().say_hello_stream(|name| async move {
        let count: usize = name.parse().unwrap();
        let replies = tokio_stream::iter(0..count).then(|number| async move {
            info_span!("message", number).in_scope(|| info!(number, "on its way"));
            if number % 200 == 0 {
                error!(number, "one that is lost");
            }
            tokio::task::yield_now().await;
            Ok(reply("x"))
        });
        Ok(Box::pin(replies) as Replies)
    });
    let service = SentryServerLayer::new().layer(GreeterServer::new(greeter));
    let call = || {
        world.run(async {
            let mut client = GreeterClient::new(service.clone());
            let name = request(&messages.to_string());
            let mut replies = client.say_hello_stream(name).await.unwrap().into_inner();
            let mut got = 0;
            while replies.message().await.unwrap().is_some() {
                got += 1;
            }
            assert_eq!(got, messages);
        });
    };
    allocation_counter::measure(call).bytes_max
}

#[test]
fn a_stream_keeps_no_more_the_longer_it_is() {
    let long = std::env::var("STREAM_MESSAGES").map_or(20_000, |count| count.parse().unwrap());
    let (short, long) = (most_of_stream(3_000), most_of_stream(long));
    assert!(
        long < short + 64 * 1024,
        "{long} bytes, and {short} of a short one"
    );
}

/// They are told once the poll is over, or where there are too many of them.
#[test]
fn panics_that_are_caught_in_one_poll_are_held_up_to_a_limit() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = {
        let sent = Arc::clone(&sent);
        move |event| {
            sent.fetch_add(1, Ordering::Relaxed);
            Some(event)
        }
    };
    let options = |options: sentry::ClientOptions| {
        let options = options.add_integration(PanicIntegration::new());
        options.before_send(count)
    };
    let world = World::with(options, |layer| layer);
    let amid = Arc::clone(&sent);
    let greeter = Scripted::new().say_hello(move |name| {
        let amid = Arc::clone(&amid);
        async move {
            error!("told before");
            for (panics, expected) in [(32, 1), (8, 9)] {
                for number in 0..panics {
                    catch_unwind(|| panic!("caught {panics} {number}")).unwrap_err();
                }
                assert_eq!(amid.load(Ordering::Relaxed), expected);
            }
            Ok(reply(&name))
        }
    });
    world.run(greeter.say_hello_once("Ferris")).unwrap();
    assert_eq!(sent.load(Ordering::Relaxed), 41);
    assert_eq!(world.received().events.len(), 41);
}
