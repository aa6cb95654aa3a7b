//! Which client a call is reported to, and what happens where there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sentry::test::TestTransport;
use sentry::{Client, ClientOptions, Hub, Level};
use tracing::dispatcher::with_default;
use tracing::{Dispatch, error, info, info_span};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;

use sentry_tonic::{SentrySpanExt, SentryTracingLayer};

use crate::support::alone::alone;
use crate::support::greeter::{Scripted, reply, request};
use crate::support::received::{Received, event_trace, messages, trace};
use crate::support::world::{DSN, World};

fn client() -> (Arc<TestTransport>, Arc<Client>) {
    let transport = TestTransport::new();
    let options = ClientOptions::new()
        .dsn(DSN)
        .transport(Arc::clone(&transport))
        .traces_sample_rate(1.0);
    (transport, Arc::new(Client::from(options)))
}

fn names(transport: &TestTransport) -> Vec<String> {
    let received = Received::new(&transport.fetch_and_clear_envelopes());
    let txs = received.txs().into_iter();
    txs.map(|tx| tx.name).collect()
}

fn job(name: &str) {
    info_span!(target: "test", "job", sentry.name = name).in_scope(|| {
        info!("in the job");
        error!("in the job");
    });
}

#[test]
fn the_current_hub_is_the_base() {
    let dispatch = Dispatch::new(registry().with(SentryTracingLayer::new()));
    let (transport_a, a) = client();
    let (transport_b, b) = client();
    let hub_a = Arc::new(Hub::new(Some(a), Arc::default()));
    let hub_b = Arc::new(Hub::new(Some(b), Arc::default()));
    with_default(&dispatch, || {
        Hub::run(hub_a, || job("a"));
        Hub::run(hub_b, || job("b"));
    });
    assert_eq!(names(&transport_a), ["a"]);
    assert_eq!(names(&transport_b), ["b"]);
}

#[test]
fn without_a_client_that_can_send_calls_pass_through() {
    let asked = Arc::new(AtomicUsize::new(0));
    let options = || {
        let asked = Arc::clone(&asked);
        let again = Arc::clone(&asked);
        ClientOptions::new()
            .traces_sampler(move |_| {
                asked.fetch_add(1, Ordering::Relaxed);
                1.0
            })
            .before_send(move |event| {
                again.fetch_add(1, Ordering::Relaxed);
                Some(event)
            })
    };
    let transport = TestTransport::new();
    let client = |options: ClientOptions| Some(Arc::new(Client::from(options)));
    let closed = client(options().dsn(DSN).transport(Arc::clone(&transport)));
    closed.as_ref().unwrap().close(None);
    for client in [
        None,
        client(options().transport(Arc::clone(&transport))),
        client(options().dsn(DSN)),
        closed,
    ] {
        let hub = Arc::new(Hub::new(client, Arc::default()));
        let world = World::subscribed(registry().with(SentryTracingLayer::new().hub(hub)));
        world.run(async {
            let greeter = Scripted::new().say_hello(|name| async move {
                info_span!("inside").in_scope(|| error!("nobody hears it"));
                Ok(reply(&name))
            });
            let answer = greeter.say_hello_once("a").await.unwrap();
            assert_eq!(answer, reply("a"));
            error!("nobody hears it");
        });
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(transport.fetch_and_clear_envelopes().len(), 0);
}

#[test]
fn a_client_may_come_late_be_replaced_and_be_closed() {
    let hub = Arc::new(Hub::new(None, Arc::default()));
    let dispatch = Dispatch::new(registry().with(SentryTracingLayer::new()));
    let in_hub = |f: &dyn Fn()| with_default(&dispatch, || Hub::run(Arc::clone(&hub), f));
    in_hub(&|| {
        job("too early");

        let (first, client_one) = client();
        let early = info_span!(target: "test", "made before the client");
        hub.bind_client(Some(Arc::clone(&client_one)));
        early.in_scope(|| job("inside"));
        drop(early);
        assert_eq!(names(&first), ["inside"]);

        let (second, client_two) = client();
        let running = info_span!(target: "test", "running");
        running.in_scope(|| {});
        hub.bind_client(Some(Arc::clone(&client_two)));
        job("second");
        drop(running);
        assert_eq!(names(&first), ["running"]);
        assert_eq!(names(&second), ["second"]);

        let running = info_span!(target: "test", "running");
        running.in_scope(|| {
            client_two.close(None);
            job("after the end");
        });
        drop(running);
        job("after the end");
        assert_eq!(names(&second), [] as [&str; 0]);

        let (third, client_three) = client();
        hub.bind_client(Some(client_three));
        job("third");
        assert_eq!(names(&third), ["third"]);
    });
}

#[test]
fn with_tracing_disabled_each_rpc_has_a_trace_of_its_own() {
    let world = World::with(|options| options, |layer| layer);
    let incoming = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";
    let headers = world.run(async {
        let (send, receive) = std::sync::mpsc::channel();
        let greeter = Scripted::new().say_hello(move |name| {
            let headers: Vec<_> = Hub::current()
                .configure_scope(|scope| scope.iter_trace_propagation_headers().collect());
            send.send(headers[0].1.clone()).unwrap();
            async move {
                info_span!(target: "test", "inner").in_scope(|| info!("inside"));
                tokio::task::yield_now().await;
                sentry::capture_message(&name, Level::Error);
                Ok(reply(&name))
            }
        });
        let server = greeter.serve().await;
        let mut client = server.client().await;
        for name in ["a", "b", "c"] {
            let mut request = tonic::Request::new(request(name));
            if name == "c" {
                let metadata = request.metadata_mut();
                metadata.insert("sentry-trace", incoming.parse().unwrap());
            }
            client.say_hello(request).await.unwrap();
        }
        drop(client);
        server.stop().await;
        receive.iter().collect::<Vec<String>>()
    });
    let received = world.received();
    assert_eq!(received.transactions.len(), 0);
    let traces: Vec<_> = received
        .events
        .iter()
        .map(|event| {
            assert_eq!(messages(&event.breadcrumbs), ["inside"]);
            event_trace(event).trace_id.to_string()
        })
        .collect();
    let [a, b, c] = traces.as_slice() else {
        panic!("{traces:?}")
    };
    assert_ne!(a, b);
    assert_eq!(c, &incoming[..32]);
    // No decision of our own is told, and that of the caller is handed on.
    assert_eq!((headers[0].len(), &headers[0][..32]), (49, a.as_str()));
    assert_eq!((headers[1].len(), &headers[1][..32]), (49, b.as_str()));
    assert!(headers[2].starts_with(c) && headers[2].ends_with("-1"));
}

#[test]
fn spans_of_several_dispatchers_make_one_trace() {
    let world = World::new();
    let other = Dispatch::new(registry().with(SentryTracingLayer::new()));
    world.sync(|| {
        let _outer = info_span!(target: "test", "outer").entered();
        with_default(&other, || {
            let inner = info_span!(target: "test", "inner");
            inner.in_scope(|| {
                error!("failed");
                with_default(&world.dispatch, || {
                    info_span!(target: "test", "innermost").in_scope(|| {});
                });
            });
        });
    });
    let received = world.received();
    let tx = received.only_tx();
    let mut spans: Vec<_> = tx
        .spans
        .iter()
        .map(|span| (span.name.as_str(), span.parent.as_str()))
        .collect();
    spans.sort_unstable();
    assert_eq!(spans, [("inner", "outer"), ("innermost", "outer")]);
    let event = received.only_event();
    let trace = trace(received.only_transaction());
    assert_eq!(event_trace(event).trace_id, trace.trace_id);
    assert_eq!(event.transaction.as_deref(), Some("outer"));
}

#[test]
fn a_span_of_another_dispatcher_is_in_the_call_where_nothing_is_sampled() {
    let world = World::sampled(0.0);
    let other = Dispatch::new(registry().with(SentryTracingLayer::new()));
    world.sync(|| {
        let _outer = info_span!(target: "test", "outer").entered();
        sentry::configure_scope(|scope| scope.set_tag("of", "outer"));
        let trace_of = |span: &tracing::Span| {
            let headers = span.trace_headers().unwrap();
            headers.sentry_trace()[..32].to_owned()
        };
        let own = trace_of(&tracing::Span::current());
        with_default(&other, || {
            let inner = info_span!(target: "test", "inner");
            let elsewhere = std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    let _inner = inner.enter();
                    sentry::capture_message("elsewhere", Level::Error);
                    trace_of(&inner)
                });
                thread.join().unwrap()
            });
            assert_eq!(elsewhere, own);
            let job = info_span!(target: "test", "job");
            let trace = (
                "sentry-trace",
                "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a",
            );
            assert_eq!(job.continue_trace([trace]), Ok(()));
        });
    });
    let received = world.received();
    let event = received.only_event();
    assert_eq!(event.message.as_deref(), Some("elsewhere"));
    assert_eq!(event.transaction.as_deref(), Some("outer"));
}

#[test]
fn two_services_in_one_process_have_a_hub_each() {
    let (a, b) = (World::new().pinned(), World::new().pinned());
    a.sync(|| job("a"));
    b.sync(|| {
        let _job = info_span!(target: "test", "b").entered();
        // A pinned hub holds even where another hub is current.
        a.sync(|| job("a inside b"));
    });
    let names = |world: &World| -> Vec<_> {
        let txs = world.received().txs().into_iter();
        txs.map(|tx| tx.name).collect()
    };
    assert_eq!(names(&a), ["a", "a inside b"]);
    assert_eq!(names(&b), ["b"]);
}

#[test]
fn the_main_hub_helps_out_where_the_current_one_cannot_send() {
    let name = "hubs::the_main_hub_helps_out_where_the_current_one_cannot_send";
    alone(name, || {
        let world = World::new();
        world.install();
        let (_, closed) = client();
        closed.close(None);
        for current in [None, Some(closed)] {
            let current = Arc::new(Hub::new(current, Arc::default()));
            Hub::run(current, || {
                job("of main");
                error!("outside");
            });
            let received = world.received();
            assert_eq!(received.only_tx().name, "of main");
            let events = received.events.iter();
            let events: Vec<_> = events.filter_map(|e| e.message.as_deref()).collect();
            assert_eq!(events, ["in the job", "outside"]);
        }
    });
}

#[test]
fn layers_with_a_filter_each_report_to_their_own_client() {
    let (a, b) = (World::new(), World::new());
    let layer = |world: &World| SentryTracingLayer::new().hub(Arc::clone(&world.hub));
    let of_a = layer(&a).with_filter(filter_fn(|metadata| metadata.target() == "a"));
    let of_b = layer(&b).with_filter(filter_fn(|metadata| metadata.target() == "b"));
    let dispatch = Dispatch::new(registry().with(of_a).with(of_b));
    with_default(&dispatch, || {
        let _a = info_span!(target: "a", "a").entered();
        let _b = info_span!(target: "b", "b").entered();
        error!(target: "a", "a failed");
        error!(target: "b", "b failed");
    });
    for (world, name) in [(a, "a"), (b, "b")] {
        let received = world.received();
        assert_eq!(received.only_tx().name, name);
        let event = received.only_event();
        assert_eq!(event.message, Some(format!("{name} failed")));
        assert_eq!(event.transaction.as_deref(), Some(name));
    }
}

#[test]
fn of_two_layers_in_one_registry_one_reports_an_event() {
    let layer = SentryTracingLayer::new;
    let world = World::subscribed(registry().with(layer()).with(layer()));
    world.sync(|| job("job"));
    let received = world.received();
    let event = received.only_event();
    assert_eq!(messages(&event.breadcrumbs), ["in the job"]);
}
