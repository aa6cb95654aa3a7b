//! Transactions that are sent in parts, for they go on for long.

use std::sync::Arc;

use opentelemetry_sdk::trace::Sampler;
use sentry::protocol::{SpanId, SpanStatus};
use sentry::{Level, User};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;
use tracing::{Instrument, Span as TracingSpan, error, info, info_span, instrument};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentryClientLayer, SentryServerLayer, SentrySpanExt, SentryTracingLayer};

use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::helloworld::HelloReply;
use crate::support::otel::{Otel, all_of_otel};
use crate::support::received::{event_trace, messages, trace, with_prefixes};
use crate::support::story::{self, SHORT, Story, world};
use crate::support::world::{RATES, World};

const METHOD: &str = "/helloworld.Greeter/SayHelloStream";

#[instrument(target = "test")]
async fn look_up(name: &str) {
    info!("looking up {name}");
}

type Feed = mpsc::UnboundedSender<Result<HelloReply, Status>>;

/// Its stream stays open as long as the test says, which may run what it likes in the handler.
fn feeding(handle: impl Fn(Feed) + Send + Sync + 'static) -> Scripted {
    let handle = Arc::new(handle);
    Scripted::new().say_hello_stream(move |name| {
        let handle = Arc::clone(&handle);
        async move {
            look_up(&name).await;
            let (feed, replies) = mpsc::unbounded_channel();
            handle(feed);
            Ok(Box::pin(UnboundedReceiverStream::new(replies)) as Replies)
        }
    })
}

#[test]
fn a_stream_is_seen_while_it_is_open() {
    let world = world();
    let mut story = Story::default();
    let (give, feeds) = std::sync::mpsc::channel::<Feed>();
    world.run(async {
        let layer = SentryServerLayer::new().tag("fleet", "navy");
        let greeter = feeding(move |feed| {
            sentry::configure_scope(|scope| scope.set_tag("who", "handler"));
            give.send(feed).unwrap();
        });
        let server = greeter.serve_with(layer).await;
        let mut client = server.client().await;
        let replies = client.say_hello_stream(request("Ferris")).await.unwrap();
        let mut replies = replies.into_inner();
        let feed = feeds.recv().unwrap();
        feed.send(Ok(reply("Ada"))).unwrap();
        replies.next().await.unwrap().unwrap();
        // Nothing happens on the connection from here on.
        story.wait(&world, |story| story.transactions.len() >= 3);
        feed.send(Ok(reply("Grace"))).unwrap();
        replies.next().await.unwrap().unwrap();
        drop(feed);
        assert!(replies.next().await.is_none());
        drop((client, replies));
        server.stop().await;
    });
    story.hear(&world);
    story.check(METHOD, None, SpanStatus::Ok);
    let (part, _) = story.span("look_up");
    assert_eq!(trace(part).data["transaction.part"], 1);
    for part in &story.transactions {
        let data = with_prefixes(
            &trace(part).data.into_iter().collect(),
            &["rpc.", "sentry.k"],
        );
        let is_last = std::ptr::eq(part, story.transactions.last().unwrap());
        let mut expected = vec![
            ("rpc.system", json!("grpc")),
            ("rpc.service", json!("helloworld.Greeter")),
            ("rpc.method", json!("SayHelloStream")),
            ("sentry.kind", json!("server")),
        ];
        if is_last {
            expected.extend([
                ("rpc.grpc.status_code", json!(0)),
                ("rpc.response.status_code", json!("OK")),
                ("rpc.request.message_count", json!(1)),
                ("rpc.response.message_count", json!(2)),
            ]);
        }
        let expected: std::collections::BTreeMap<String, Value> = expected
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        assert_eq!(data, expected);
        assert_eq!(part.tags["fleet"], "navy");
        assert_eq!(part.tags["who"], "handler");
    }
}

#[test]
fn a_stream_of_a_client_is_seen_while_it_is_open() {
    let world = world();
    let mut story = Story::default();
    let (give, feeds) = std::sync::mpsc::channel::<Feed>();
    world.run(async {
        let greeter = feeding(move |feed| give.send(feed).unwrap());
        let (server, headers) = greeter.serve_unobserved().await;
        let mut client = server.observed_client(SentryClientLayer::new()).await;
        let replies = client.say_hello_stream(request("Ferris")).await.unwrap();
        let mut replies = replies.into_inner();
        story.wait(&world, |story| {
            let mut parts = story.transactions.iter();
            parts.any(|part| part.name.as_deref() == Some(METHOD))
        });
        let feed = feeds.recv().unwrap();
        feed.send(Err(Status::unavailable("gone"))).unwrap();
        replies.next().await.unwrap().unwrap_err();
        drop((client, replies, feed));
        server.stop().await;
        // The server was told of the first part.
        let told = headers.recv().unwrap()["sentry-trace"].clone();
        story.hear(&world);
        // Spans of the handler are transactions of their own where no call is observed.
        story
            .transactions
            .retain(|part| part.name.as_deref() == Some(METHOD));
        let first = trace(&story.transactions[0]);
        let expected = format!("{}-{}-1", first.trace_id, first.span_id);
        assert_eq!(told, expected);
    });
    story.check(METHOD, None, SpanStatus::Unavailable);
}

#[test]
fn errors_and_calls_are_of_the_part_that_they_happen_in() {
    let world = world();
    let mut story = Story::default();
    let span = world.sync(|| {
        let span = info_span!(target: "test", "job");
        span.in_scope(|| info!("begun"));
        span
    });
    story.wait_for_a_cut(&world);
    let before = story.ids();
    let headers = world.sync(|| {
        let _entered = span.enter();
        error!("later");
        let headers = TracingSpan::current().trace_headers().unwrap();
        // The thread is in the span all the time.
        story.wait_for_a_cut(&world);
        sentry::capture_message("captured", Level::Error);
        headers
    });
    story.wait_for_a_cut(&world);
    world.sync(|| drop(span));
    story.hear(&world);
    story.check("job", None, SpanStatus::InternalError);
    let [logged, captured] = story.events.as_slice() else {
        panic!("{:#?}", story.events)
    };
    let first = trace(&story.transactions[0]);
    for event in [logged, captured] {
        let own = event_trace(event);
        assert_eq!(own.trace_id, first.trace_id);
        assert!(!before.contains(&own.span_id) && story.ids().contains(&own.span_id));
        assert_eq!(event.transaction.as_deref(), Some("job"));
    }
    let part = |event| event_trace(event).data["transaction.part"].as_u64();
    assert!(part(captured) > part(logged));
    assert_eq!(messages(&captured.breadcrumbs), ["begun"]);
    let parent = headers.sentry_trace().split('-').nth(1).unwrap();
    let parent: SpanId = parent.parse().unwrap();
    assert!(!before.contains(&parent) && story.ids().contains(&parent));
}

#[test]
fn a_call_that_waits_for_a_task_is_seen_with_its_end() {
    let world = world();
    let mut story = Story::default();
    let (go_on, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(Some(wait)));
    world.run(async {
        let (has_ended, mut ended) = mpsc::unbounded_channel();
        let greeter = Scripted::new().say_hello(move |name| {
            let wait = wait.lock().unwrap().take().unwrap();
            let has_ended = has_ended.clone();
            let (has_begun, begun) = tokio::sync::oneshot::channel();
            let task = async move {
                has_begun.send(()).unwrap();
                wait.await.unwrap();
                has_ended.send(()).unwrap();
            };
            tokio::spawn(task.instrument(info_span!(target: "test", "task")));
            async move {
                begun.await.unwrap();
                Err(Status::not_found(name))
            }
        });
        greeter.say_hello_once("nobody").await.unwrap_err();
        // It is sent, with its status, before the task has ended.
        story.wait(&world, |story| {
            let mut parts = story.transactions.iter();
            parts.any(|part| trace(part).status == Some(SpanStatus::NotFound))
        });
        assert!(story.spans().is_empty());
        go_on.send(()).unwrap();
        ended.recv().await.unwrap();
    });
    story.hear(&world);
    let (part, _) = story.span("task");
    let last = story.transactions.last().unwrap();
    assert_eq!(trace(part).span_id, trace(last).span_id);
    for part in &story.transactions {
        let own = trace(part);
        let has_code = own.data.contains_key("rpc.grpc.status_code");
        assert_eq!(own.status.is_some(), has_code, "{own:#?}");
        assert_eq!(part.name.as_deref(), Some("/helloworld.Greeter/SayHello"));
    }
}

#[test]
fn what_is_not_sampled_has_no_parts() {
    for rate in RATES {
        let cut = |layer: SentryTracingLayer| layer.max_transaction_duration(SHORT);
        let world = World::rated(rate, |options| options, cut);
        let sampled = story::world();
        let open = || info_span!(target: "test", "job").entered();
        let job = world.sync(open);
        // Whoever would cut it comes by here.
        let other = sampled.sync(open);
        Story::default().wait_for_a_cut(&sampled);
        sampled.sync(|| drop(other));
        world.sync(|| drop(job));
        let received = world.received();
        match rate {
            Some(1.0) => assert!(received.transactions.len() > 1),
            _ => assert!(received.transactions.is_empty()),
        }
    }
}

#[test]
fn the_user_and_what_the_application_names_goes_on() {
    let world = world();
    let mut story = Story::default();
    let span = world.sync(|| {
        let span = info_span!(target: "test", "job", { "user.id" } = "ada");
        span.in_scope(|| {
            let own = sentry::configure_scope(|scope| scope.get_span()).unwrap();
            own.set_name("named");
            own.set_tag("own", "tag");
            own.set_data("own", json!(1));
        });
        span
    });
    story.wait_for_a_cut(&world);
    world.sync(|| {
        let _entered = span.enter();
        let own = sentry::configure_scope(|scope| scope.get_span()).unwrap();
        own.set_data("own", json!(2));
        own.start_child("db", "query").finish();
    });
    world.sync(|| drop(span));
    story.hear(&world);
    story.check("named", None, SpanStatus::Ok);
    for part in &story.transactions {
        let ada = User {
            id: Some("ada".to_owned()),
            ..User::default()
        };
        assert_eq!(part.user, Some(ada));
        assert_eq!(part.tags["own"], "tag");
    }
    assert_eq!(trace(&story.transactions[0]).data["own"], 1);
    assert_eq!(trace(story.transactions.last().unwrap()).data["own"], 2);
    story.span("query");
}

#[cfg(feature = "opentelemetry")]
#[test]
fn to_opentelemetry_a_transaction_in_parts_is_one_span() {
    let otel = Otel::new(Sampler::AlwaysOn);
    let sentry = SentryTracingLayer::new().max_transaction_duration(SHORT);
    let world = World::subscribed(registry().with(sentry).with(otel.layer()));
    let mut story = Story::default();
    let root = world.sync(|| {
        let root = info_span!(target: "test", "job");
        root.in_scope(|| info_span!(target: "test", "before").in_scope(|| {}));
        root
    });
    story.wait_for_a_cut(&world);
    world.sync(|| {
        root.in_scope(|| info_span!(target: "test", "after").in_scope(|| {}));
        drop(root);
    });
    story.hear(&world);
    story.check("job", None, SpanStatus::Ok);
    let exported = all_of_otel(&otel.spans());
    let of = |name: &str| exported[&format!("Internal {name}")].clone();
    assert_eq!(exported.len(), 3);
    let first = trace(&story.transactions[0]);
    let (trace_id, root_id, _) = of("job");
    assert_eq!(trace_id, first.trace_id.to_string());
    assert_eq!(root_id, first.span_id.to_string());
    for name in ["before", "after"] {
        let (trace_id, id, parent) = of(name);
        let (_, span) = story.span(name);
        assert_eq!(trace_id, span.trace_id.to_string());
        assert_eq!(id, span.span_id.to_string());
        assert_eq!(parent.as_ref(), Some(&root_id));
    }
}
