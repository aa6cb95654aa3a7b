//! Which transactions are sent, what is said of those that are not, and how
//! they pass the second client.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use sentry::protocol::{EnvelopeItem, Event};
use sentry::test::TestTransport;
use sentry::{Client, ClientOptions, Hub, TransactionContext};
use serde_json::{Value, json};
use tonic::Request;
use tonic::body::Body;
use tower::{Layer, Service, service_fn};
use tracing::info_span;

use sentry_tonic::{SentryClientLayer, SentryServerLayer, SentrySpanExt, SentryTracingLayer};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::received::{PRECISION, Received, trace};
use crate::support::world::World;

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5";
const PARENT: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a";

fn sampler(
    options: ClientOptions,
    rate: impl Fn(&TransactionContext) -> f32 + Send + Sync + 'static,
) -> ClientOptions {
    options.traces_sampler(rate)
}

/// Makes a call with this trace, and returns what its handler would hand on:
/// `sentry-trace` and `baggage`.
fn call(world: &World, sentry_trace: &str, baggage: &str) -> (String, Option<String>) {
    let handed_on = Arc::new(Mutex::new(None));
    let handler = Arc::clone(&handed_on);
    world.run(async {
        let greeter = Scripted::new().say_hello(move |name| {
            *handler.lock().unwrap() = tracing::Span::current().trace_headers();
            async move { Ok(reply(&name)) }
        });
        let server = greeter.serve().await;
        let mut client = server.client().await;
        let mut request = Request::new(request("a"));
        let metadata = request.metadata_mut();
        if !sentry_trace.is_empty() {
            metadata.insert("sentry-trace", sentry_trace.parse().unwrap());
            metadata.insert("baggage", baggage.parse().unwrap());
        }
        client.say_hello(request).await.unwrap();
        drop(client);
        server.stop().await;
    });
    let headers = handed_on.lock().unwrap().take().unwrap();
    let baggage = headers.baggage().map(str::to_owned);
    (headers.sentry_trace().to_owned(), baggage)
}

fn flag(headers: &(String, Option<String>)) -> &str {
    headers.0.split('-').nth(2).unwrap_or_default()
}

fn member<'a>(headers: &'a (String, Option<String>), key: &str) -> Option<&'a str> {
    let list = headers.1.as_deref()?.split(',');
    list.filter_map(|member| member.split_once('='))
        .find_map(|(name, value)| (name.strip_prefix("sentry-") == Some(key)).then_some(value))
}

/// Quantities by category, of transactions that were not sampled.
fn losses(received: &Received) -> Vec<(String, u64)> {
    let mut losses = Vec::new();
    for item in &received.others {
        let EnvelopeItem::ClientReport(report) = item else {
            panic!("{item:?}")
        };
        let report = serde_json::to_value(report).unwrap();
        for item in report["discarded_events"].as_array().unwrap() {
            assert_eq!(item["reason"], "sample_rate");
            let category = item["category"].as_str().unwrap().to_owned();
            losses.push((category, item["quantity"].as_u64().unwrap()));
        }
    }
    losses
}

#[test]
fn what_is_left_to_a_service_it_decides_by_the_number_of_the_trace() {
    for (rate, rand, sampled) in [
        (0.5, "0.499999", true),
        (0.5, "0.5", false),
        (0.5, "0.500001", false),
        (0.000_001, "0.000000", true),
        (0.000_001, "0.000001", false),
        (1.0, "0.999999", true),
        (0.0, "0.000000", false),
    ] {
        for by_sampler in [false, true] {
            let world = World::with(
                |options| match by_sampler {
                    true => sampler(options, move |_| rate),
                    false => options.traces_sample_rate(rate),
                },
                |layer| layer,
            );
            let baggage = format!("sentry-trace_id={TRACE},sentry-sample_rand={rand}");
            let headers = call(&world, PARENT, &baggage);
            assert_eq!(
                flag(&headers),
                if sampled { "1" } else { "0" },
                "{rate} {rand}"
            );
            assert_eq!(headers.1, Some(baggage));
            let received = world.received();
            assert_eq!(received.transactions.len(), usize::from(sampled));
        }
    }
}

#[test]
fn two_services_decide_alike_on_traces_that_come_without_a_decision() {
    let (a, b) = (World::sampled(0.5), World::sampled(0.5));
    let mut sampled = 0;
    for id in 1..=40_u64 {
        let parent = format!("{id:016x}{:016x}-9cf635fa5b870b3a", !id);
        let (first, second) = (call(&a, &parent, ""), call(&b, &parent, ""));
        assert_eq!(flag(&first), flag(&second));
        sampled += u32::from(flag(&first) == "1");
    }
    assert!((8..=32).contains(&sampled), "{sampled} of 40");
}

#[test]
fn the_head_says_what_it_decided_by() {
    let rate = 0.3;
    for by_sampler in [false, true] {
        let world = World::with(
            |options| match by_sampler {
                true => sampler(options, move |_| rate),
                false => options.traces_sample_rate(rate),
            },
            |layer| layer,
        );
        let mut decisions = Vec::new();
        for _ in 0..30 {
            let headers = call(&world, "", "");
            assert_eq!(member(&headers, "sample_rate"), Some("0.3"));
            let rand: f64 = member(&headers, "sample_rand").unwrap().parse().unwrap();
            let sampled = flag(&headers) == "1";
            assert_eq!(rand < 0.3, sampled);
            assert_eq!(
                member(&headers, "sampled"),
                Some(if sampled { "true" } else { "false" })
            );
            decisions.push(sampled);
        }
        let sampled = decisions.iter().filter(|&&sampled| sampled).count();
        assert!((1..30).contains(&sampled), "{decisions:?}");
        assert_eq!(world.received().transactions.len(), sampled);
    }
}

#[test]
fn a_sampler_is_told_all_that_is_known_and_asked_once() {
    for (parent, baggage, expected_sampled, expected_rate) in [
        (String::new(), "", None, None),
        (
            format!("{PARENT}-1"),
            "sentry-sample_rate=0.25",
            Some(true),
            Some(0.25),
        ),
        (format!("{PARENT}-0"), "", Some(false), None),
        (PARENT.to_owned(), "sentry-sample_rate=7", None, None),
    ] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let sampler_asked = Arc::clone(&asked);
        let world = World::with(
            |options| {
                sampler(options, move |context| {
                    sampler_asked.lock().unwrap().push((
                        context.name().to_owned(),
                        context.operation().to_owned(),
                        context.sampled(),
                        Value::from(context.custom().cloned().unwrap_or_default()),
                    ));
                    1.0
                })
            },
            |layer| layer,
        );
        call(&world, &parent, baggage);
        let mut custom = json!({
            "rpc.system": "grpc",
            "rpc.service": "helloworld.Greeter",
            "rpc.method": "SayHello",
        });
        if let Some(rate) = expected_rate {
            custom["parent_sample_rate"] = json!(rate);
        }
        assert_eq!(
            *asked.lock().unwrap(),
            [(
                "/helloworld.Greeter/SayHello".to_owned(),
                "grpc.server".to_owned(),
                expected_sampled,
                custom,
            )]
        );
    }
}

#[test]
fn a_sampler_outranks_the_parent_and_leaves_the_sampling_context_alone() {
    let baggage = format!(
        "sentry-trace_id={TRACE},sentry-public_key=head,sentry-sample_rate=0.5,\
         sentry-sample_rand=0.400000,sentry-sampled=true"
    );
    for (parent, rate, sampled) in [("1", 0.0, "0"), ("0", 1.0, "1")] {
        let world = World::with(|options| sampler(options, move |_| rate), |layer| layer);
        let headers = call(&world, &format!("{PARENT}-{parent}"), &baggage);
        assert_eq!(flag(&headers), sampled);
        assert_eq!(headers.1.as_ref(), Some(&baggage));
        let received = world.received();
        assert_eq!(received.transactions.len(), usize::from(sampled == "1"));
        for context in &received.contexts {
            assert_eq!(context["sample_rate"], "0.5");
            assert_eq!(context["public_key"], "head");
        }
    }
}

#[test]
fn a_number_that_is_missing_is_made_to_agree_with_the_head() {
    // All that the head kept have numbers below its rate, and all that it dropped
    // have none.
    for (decision, rate) in [("1", 0.5), ("0", 0.25)] {
        let world = World::with(|options| sampler(options, move |_| rate), |layer| layer);
        let mut sampled = 0;
        for id in 1..=40_u64 {
            let parent = format!("{id:032x}-9cf635fa5b870b3a-{decision}");
            let headers = call(&world, &parent, "sentry-sample_rate=0.5");
            sampled += u32::from(flag(&headers) == "1");
        }
        assert_eq!(sampled, if decision == "1" { 40 } else { 0 });
    }
}

#[test]
fn a_sampler_that_returns_nonsense_is_bounded() {
    for (rate, sampled) in [
        (f32::NAN, "0"),
        (-1.0, "0"),
        (7.0, "1"),
        (f32::INFINITY, "1"),
    ] {
        let world = World::with(|options| sampler(options, move |_| rate), |layer| layer);
        let headers = call(&world, "", "");
        assert_eq!(flag(&headers), sampled, "{rate}");
        assert_eq!(member(&headers, "sample_rate"), Some(sampled));
    }
}

#[test]
fn a_sampler_that_panics_leaves_the_decision_to_others() {
    for (parent, flagged) in [("", ""), ("-1", "1"), ("-0", "0")] {
        let asked = Arc::new(Mutex::new(0));
        let sampler_asked = Arc::clone(&asked);
        let world = World::with(
            |options| {
                sampler(options, move |_| {
                    *sampler_asked.lock().unwrap() += 1;
                    panic!("the sampler panics")
                })
            },
            |layer| layer,
        );
        let headers = call(&world, &format!("{PARENT}{parent}"), "");
        assert!(headers.0.starts_with(TRACE));
        assert_eq!(flag(&headers), flagged);
        let sent = world.received().transactions.len();
        assert_eq!(sent, usize::from(flagged == "1"));
        assert_eq!(*asked.lock().unwrap(), 1);
    }
}

#[test]
fn unsampled_transactions_are_reported() {
    let fixed = World::sampled(0.0);
    call(&fixed, "", "");
    fixed.hub.capture_event(Event::default());
    let expected = [("transaction".to_owned(), 1), ("span".to_owned(), 1)];
    assert_eq!(losses(&fixed.received()), expected);

    // With a sampler the first at once, later ones with what is sent next.
    let set = Arc::new(Mutex::new(0.0));
    let asked = Arc::clone(&set);
    let world = World::with(
        |options| sampler(options, move |_| *asked.lock().unwrap()),
        |layer| layer,
    );
    call(&world, "", "");
    assert_eq!(losses(&world.received()), expected);
    call(&world, "", "");
    call(&world, "", "");
    assert_eq!(losses(&world.received()), []);
    *set.lock().unwrap() = 1.0;
    call(&world, "", "");
    let received = world.received();
    assert_eq!(received.transactions.len(), 1);
    let expected = [("transaction".to_owned(), 2), ("span".to_owned(), 2)];
    assert_eq!(losses(&received), expected);
}

#[test]
fn a_transaction_is_that_of_the_real_client() {
    #[derive(Debug)]
    struct Named(Arc<Mutex<u32>>);
    impl sentry::Integration for Named {
        fn name(&self) -> &'static str {
            "named"
        }
        fn setup(&self, _: &mut ClientOptions) {
            *self.0.lock().unwrap() += 1;
        }
    }
    let setups = Arc::new(Mutex::new(0));
    let named = Named(Arc::clone(&setups));
    let world = World::with(
        |options| {
            options
                .traces_sample_rate(1.0)
                .release("r")
                .environment("e")
                .server_name("s")
                .add_integration(named)
        },
        |layer| layer,
    );
    world.run(async {
        let greeter = Scripted::new().say_hello(|name| async move {
            sentry::configure_scope(|scope| scope.set_tag("tag", "value"));
            Ok(reply(&name))
        });
        greeter.say_hello_once("a").await.unwrap();
    });
    let received = world.received();
    let transaction = received.only_transaction();
    assert_eq!(transaction.release.as_deref(), Some("r"));
    assert_eq!(transaction.environment.as_deref(), Some("e"));
    assert_eq!(transaction.server_name.as_deref(), Some("s"));
    assert_eq!(transaction.tags["tag"], "value");
    let sdk = transaction.sdk.as_ref().unwrap();
    assert_eq!(sdk.name, "sentry.rust");
    assert_eq!(sdk.integrations, ["named", "tonic"]);
    let packages: Vec<_> = sdk.packages.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(packages, ["cargo:sentry", "cargo:sentry-tonic"]);
    assert_eq!(transaction.platform, "native");
    assert_eq!(*setups.lock().unwrap(), 1);
}

#[test]
fn spans_that_end_before_they_start_do_not_cost_the_transaction() {
    let world = World::new();
    world.sync(|| {
        let _entered = info_span!(target: "test", "root").entered();
        let span = sentry::configure_scope(|scope| scope.get_span()).unwrap();
        let child = span.start_child("short", "short");
        child.finish_with_timestamp(SystemTime::now() - Duration::from_secs(60));
    });
    let received = world.received();
    let span = &received.only_transaction().spans[0];
    let end = span.start_timestamp + Duration::from_micros(1);
    assert!((end - PRECISION..end + PRECISION).contains(&span.timestamp.unwrap()));

    world.sync(|| {
        let _entered = info_span!(target: "test", "root").entered();
        let span = sentry::configure_scope(|scope| scope.get_span()).unwrap();
        span.set_status(sentry::protocol::SpanStatus::Ok);
        span.finish_with_timestamp(SystemTime::now() - Duration::from_secs(60));
    });
    let received = world.received();
    let root = received.only_transaction();
    let end = root.start_timestamp + Duration::from_micros(1);
    assert!((end - PRECISION..end + PRECISION).contains(&root.timestamp.unwrap()));
}

#[test]
fn a_transaction_that_the_application_finishes_is_sent_once_with_its_context() {
    let baggage = format!("sentry-trace_id={TRACE},sentry-public_key=head,sentry-sample_rate=0.5");
    for (parent, baggage) in [(String::new(), ""), (format!("{PARENT}-1"), &*baggage)] {
        let world = World::with(|options| sampler(options, |_| 0.999_999_9), |layer| layer);
        world.run(async {
            let greeter = Scripted::new().say_hello(|name| async move {
                let span = sentry::configure_scope(|scope| scope.get_span()).unwrap();
                span.finish();
                Ok(reply(&name))
            });
            let server = greeter.serve().await;
            let mut client = server.client().await;
            let mut request = Request::new(request("a"));
            if !parent.is_empty() {
                let metadata = request.metadata_mut();
                metadata.insert("sentry-trace", parent.parse().unwrap());
                metadata.insert("baggage", baggage.parse().unwrap());
            }
            client.say_hello(request).await.unwrap();
            drop(client);
            server.stop().await;
        });
        let received = world.received();
        assert_eq!(received.transactions.len(), 1);
        let context = &received.contexts[0];
        let (key, rate) = match parent.is_empty() {
            true => ("public", "0.9999999"),
            false => ("head", "0.5"),
        };
        assert_eq!(
            (&context["public_key"], &context["sample_rate"]),
            (&json!(key), &json!(rate))
        );
    }
}

#[test]
fn a_transaction_that_is_renamed_is_known_by_its_last_name_unless_it_has_left() {
    for leaves in [false, true] {
        let world = World::new();
        world.run(async move {
            let greeter = Scripted::new().say_hello(move |name| async move {
                if leaves {
                    let _ = tracing::Span::current().trace_headers();
                }
                sentry::configure_scope(|scope| scope.set_transaction(Some("renamed")));
                Ok(reply(&name))
            });
            greeter.say_hello_once("a").await.unwrap();
        });
        let received = world.received();
        assert_eq!(received.only_tx().name, "renamed");
        let name = if leaves {
            "/helloworld.Greeter/SayHello"
        } else {
            "renamed"
        };
        assert_eq!(received.contexts[0]["transaction"], name);
    }
}

#[test]
fn a_sampler_may_call_ask_for_headers_and_enter_spans() {
    let world = World::with(
        |options| {
            sampler(options, |_| {
                assert_eq!(tracing::Span::current().trace_headers(), None);
                tracing::Span::current()
                    .in_scope(|| info_span!(target: "test", "inside").in_scope(|| {}));
                let service = service_fn(|_: http::Request<Body>| {
                    std::future::ready(Ok::<_, Infallible>(http::Response::new(Body::empty())))
                });
                let call = http::Request::post("/a.B/C")
                    .header("content-type", "application/grpc")
                    .body(Body::empty())
                    .unwrap();
                drop(SentryClientLayer::new().layer(service).call(call));
                1.0
            })
        },
        |layer| layer,
    );
    call(&world, "", "");
    let tx = world.received().only_tx();
    assert_eq!((&*tx.op, tx.spans.len()), ("grpc.server", 0));
}

#[test]
fn a_client_that_is_closed_during_a_call_does_the_call_no_harm() {
    for by_sampler in [false, true] {
        let world = World::with(
            |options| match by_sampler {
                true => sampler(options, |_| 1.0),
                false => options.traces_sample_rate(1.0),
            },
            |layer| layer,
        );
        let client = world.hub.client().unwrap();
        world.run(async {
            let greeter = Scripted::new().say_hello(move |name| {
                client.close(None);
                async move { Ok(reply(&name)) }
            });
            greeter.say_hello_once("a").await.unwrap();
            // Nor do calls after it.
            Scripted::new().say_hello_once("b").await.unwrap();
        });
        let received = world.received();
        assert_eq!((received.transactions.len(), received.others.len()), (0, 0));
    }
}

#[test]
fn a_client_is_not_kept_alive() {
    let transport = TestTransport::new();
    let options = ClientOptions::new()
        .dsn("https://key@sentry.invalid/1")
        .traces_sample_rate(1.0)
        .transport(Arc::clone(&transport));
    let client = Arc::new(Client::from(options));
    let weak: Weak<Client> = Arc::downgrade(&client);
    let hub = Arc::new(Hub::new(Some(client), Arc::default()));
    {
        use tracing_subscriber::layer::SubscriberExt;
        let layer = SentryTracingLayer::new().hub(Arc::clone(&hub));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            info_span!(target: "test", "root").in_scope(|| {});
        });
    }
    assert_eq!(transport.fetch_and_clear_envelopes().len(), 1);
    drop(hub);
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_forced_transaction_has_a_trace_of_its_own() {
    let world = World::new();
    world.run(async {
        let layer = SentryServerLayer::new().force_transaction(true);
        let server = Scripted::new().serve_with(layer).await;
        let mut client = server.client().await;
        client.say_hello(request("a")).await.unwrap();
        drop(client);
        server.stop().await;
    });
    let received = world.received();
    let context = trace(received.only_transaction());
    assert_eq!(
        received.contexts[0]["trace_id"],
        context.trace_id.to_string()
    );
}
