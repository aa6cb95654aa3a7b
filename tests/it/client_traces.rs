//! Which calls of a client take which trace along.

use std::future::ready;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tower::{Layer, ServiceExt, service_fn};
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, info_span};
use tracing_subscriber::layer::SubscriberExt;

use sentry_tonic::{SentryClientLayer, SentryTracingLayer, TracePropagationInterceptor};

use crate::clients::{Answer, SAY_HELLO, grpc_request, unavailable};
use crate::support::body::ScriptedBody;
use crate::support::greeter::{Scripted, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::received::trace;
use crate::support::world::World;

/// Headers of a call with these targets, to a server that is known or not.
fn told(targets: Option<&[&str]>, endpoint: Option<&'static str>) -> bool {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    world.run(async {
        let mut layer = SentryClientLayer::new();
        if let Some(targets) = targets {
            layer = layer.trace_propagation_targets(targets.iter().copied());
        }
        if let Some(endpoint) = endpoint {
            layer = layer.endpoint(endpoint.parse().unwrap());
        }
        let service = layer.layer(unavailable(&arrived));
        let mut request = grpc_request();
        // As above a `Channel`.
        *request.uri_mut() = SAY_HELLO.parse().unwrap();
        service.oneshot(request).await.unwrap();
    });
    // It is observed all the same.
    assert_eq!(world.received().txs().len(), 1);
    let arrived = arrived.lock().unwrap();
    let is_told = arrived[0].contains_key("sentry-trace");
    assert_eq!(arrived[0].contains_key("baggage"), is_told);
    is_told
}

#[test]
fn propagation_targets_match_host_and_method() {
    let server = Some("http://payments.internal:50051");
    assert!(told(None, None));
    assert!(!told(Some(&[]), server));
    assert!(told(Some(&["payments.internal"]), server));
    assert!(!told(Some(&["payments.internal"]), None));
    assert!(told(Some(&["/helloworld.Greeter/"]), None));
    assert!(!told(Some(&["/other.Service/"]), server));
}

#[test]
fn the_server_that_a_request_names_counts() {
    let world = World::new();
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    world.run(async {
        for target in ["localhost:50051", "elsewhere"] {
            let layer = SentryClientLayer::new()
                .endpoint("http://elsewhere:1".parse().unwrap())
                .trace_propagation_targets([target]);
            let service = layer.layer(unavailable(&arrived));
            service.oneshot(grpc_request()).await.unwrap();
        }
    });
    for tx in world.received().txs() {
        assert_eq!(tx.data["server.address"], "localhost");
        assert_eq!(tx.data["server.port"], 50051);
    }
    let arrived = arrived.lock().unwrap();
    let told: Vec<_> = arrived
        .iter()
        .map(|h| h.contains_key("sentry-trace"))
        .collect();
    assert_eq!(told, [true, false]);
}

#[test]
fn a_call_that_no_subscriber_wants_takes_a_trace_along() {
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let errors_only = tracing_subscriber::registry()
        .with(SentryTracingLayer::new())
        .with(LevelFilter::ERROR);
    let world = World::subscribed(errors_only);
    let service = SentryClientLayer::new().layer(unavailable(&arrived));
    world.run(service.oneshot(grpc_request())).unwrap();
    assert_eq!(world.received().txs(), []);
    let header = world.hub.configure_scope(|scope| {
        let (_, header) = scope.iter_trace_propagation_headers().next().unwrap();
        header
    });
    let arrived = arrived.lock().unwrap();
    assert_eq!(arrived[0]["sentry-trace"], header);
    let baggage = arrived[0]["baggage"].to_str().unwrap();
    assert!(baggage.contains("sentry-public_key=public"), "{baggage}");
}

#[test]
fn a_call_that_is_left_out_names_no_errors() {
    let world = World::new();
    world.run(async {
        let inner = service_fn(|_: Request<Body>| {
            sentry::capture_message("inside", sentry::Level::Info);
            ready(Answer::Ok(Response::new(ScriptedBody::new([]))))
        });
        let layer = SentryClientLayer::new().only_if_parent(true);
        layer.layer(inner).oneshot(grpc_request()).await.unwrap();
    });
    let received = world.received();
    assert_eq!(received.only_event().transaction, None);
    assert_eq!(received.txs(), []);
}

#[test]
fn with_no_targets_a_trace_is_continued_all_the_same() {
    let world = World::new();
    world.run(async {
        let (next, arrivals) = Scripted::new().serve_unobserved().await;
        let layer = SentryClientLayer::new().trace_propagation_targets([""; 0]);
        let client = Mutex::new(Some(next.observed_client(layer).await));
        let front = Scripted::new().say_hello(move |name| {
            let client = client.lock().unwrap().take();
            async move {
                client.unwrap().say_hello(request(&name)).await?;
                Ok(reply(&name))
            }
        });
        let front = front.serve().await;
        let mut client = front.client().await;
        let mut request = tonic::Request::new(request("a"));
        let header = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";
        request
            .metadata_mut()
            .insert("sentry-trace", header.parse().unwrap());
        client.say_hello(request).await.unwrap();
        drop(client);
        front.stop().await;
        next.stop().await;
        assert!(!arrivals.recv().unwrap().contains_key("sentry-trace"));
    });
    let received = world.received();
    let context = trace(received.only_transaction());
    assert_eq!(
        context.trace_id.to_string(),
        "09e04486820349518ac7b5d2adbf6ba5"
    );
    assert_eq!(received.only_tx().spans.len(), 1);
}

/// Headers of a call with an interceptor alone.
fn intercepted(world: &World, in_span: bool) -> HeaderMap {
    world.run(async {
        let (server, arrivals) = Scripted::new().serve_unobserved().await;
        let channel = server.endpoint().connect().await.unwrap();
        let interceptor = TracePropagationInterceptor::new();
        let mut client = GreeterClient::with_interceptor(channel, interceptor);
        let mut request = tonic::Request::new(request("a"));
        let metadata = request.metadata_mut();
        metadata.insert("baggage", "vendor=1".parse().unwrap());
        metadata.insert("sentry-trace", "replaced".parse().unwrap());
        let call = client.say_hello(request);
        if in_span {
            call.instrument(info_span!(target: "test", "job"))
                .await
                .unwrap();
        } else {
            call.await.unwrap();
        }
        drop(client);
        server.stop().await;
        arrivals.recv().unwrap()
    })
}

#[test]
fn an_interceptor_hands_on_the_trace_of_the_current_span() {
    for rate in [1.0, 0.0] {
        let world = World::sampled(rate);
        let headers = intercepted(&world, true);
        let header = headers["sentry-trace"].to_str().unwrap();
        assert_eq!(headers.get_all("sentry-trace").iter().count(), 1);
        assert!(header.ends_with(if rate == 1.0 { "-1" } else { "-0" }));
        let baggage = headers["baggage"].to_str().unwrap();
        assert!(
            baggage.starts_with("vendor=1,sentry-trace_id="),
            "{baggage}"
        );
        for transaction in world.received().transactions {
            let context = trace(&transaction);
            assert_eq!(
                header,
                format!("{}-{}-1", context.trace_id, context.span_id)
            );
        }
    }
}

#[test]
fn without_a_client_that_can_send_a_request_stays_as_it_is() {
    let world = World::new();
    world.hub.client().unwrap().close(None);
    let arrived: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let headers = world.run(async {
        let service = SentryClientLayer::new().layer(unavailable(&arrived));
        service.oneshot(grpc_request()).await.unwrap();
        arrived.lock().unwrap()[0].clone()
    });
    assert!(!headers.contains_key("sentry-trace"), "{headers:?}");
    let headers = intercepted(&world, true);
    assert_eq!(headers["sentry-trace"], "replaced");
    assert_eq!(headers["baggage"], "vendor=1");
}
