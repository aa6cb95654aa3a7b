//! Traces of services that know nothing of Sentry.

use http::HeaderMap;
use sentry::protocol::Transaction;
use serde_json::{Value, json};
use tonic::Request;
use tonic::service::Interceptor;

use sentry_tonic::{
    SentryClientLayer, SentryServerLayer, SentrySpanExt, TraceFormat, TracePropagationInterceptor,
};
use tracing::info_span;

use crate::support::greeter::{Scripted, request};
use crate::support::received::{Received, trace};
use crate::support::world::World;

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5";
const SPAN: &str = "9cf635fa5b870b3a";
const OTHER: &str = "11111111111111111111111111111111-2222222222222222-0";
const W3C: &str = "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01";
const DEFERRED: &str = "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-00";

/// A call with these headers.
fn receive(world: &World, layer: SentryServerLayer, headers: &[(&'static str, &str)]) -> Received {
    world.run(async {
        let server = Scripted::new().serve_with(layer).await;
        let mut client = server.client().await;
        let mut request = Request::new(request("Ferris"));
        for (name, value) in headers {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        client.say_hello(request).await.unwrap();
        drop(client);
        server.stop().await;
    });
    world.received()
}

fn ids(transaction: &Transaction<'_>) -> (String, Option<String>) {
    let trace = trace(transaction);
    let parent = trace.parent_span_id.map(|id| id.to_string());
    (trace.trace_id.to_string(), parent)
}

#[test]
fn a_trace_that_is_named_by_traceparent_alone_goes_on_and_begins_in_sentry() {
    let world = World::new();
    for header in [W3C, DEFERRED] {
        let received = receive(&world, SentryServerLayer::new(), &[("traceparent", header)]);
        let transaction = received.only_transaction();
        assert_eq!(ids(transaction), (TRACE.to_owned(), Some(SPAN.to_owned())));
        // A sampling context of our own, as there is none of a head before.
        let context = &received.contexts[0];
        assert_eq!(context["trace_id"], TRACE);
        assert_eq!(context["public_key"], "public");
        assert_eq!(context["sampled"], "true");
        // Whoever decided has its rate there.
        let rate = if header == W3C {
            Value::Null
        } else {
            json!("1")
        };
        assert_eq!(context["sample_rate"], rate, "{context}");
    }
}

#[test]
fn a_caller_that_does_not_record_leaves_the_decision_open() {
    for (header, rate, sent) in [(W3C, 0.0, 1), (DEFERRED, 0.0, 0), (DEFERRED, 1.0, 1)] {
        let world = World::sampled(rate);
        let received = receive(&world, SentryServerLayer::new(), &[("traceparent", header)]);
        assert_eq!(received.transactions.len(), sent, "{header} {rate}");
    }
}

#[test]
fn the_first_format_that_is_there_and_valid_counts() {
    use TraceFormat::{SentryTrace, Traceparent};

    let world = World::new();
    let default = SentryServerLayer::new();
    let layer = |formats: &[TraceFormat]| {
        default
            .clone()
            .incoming_trace_formats(formats.iter().copied())
    };
    let sentry = &OTHER.replace("-0", "-1");
    let both = [("sentry-trace", sentry.as_str()), ("traceparent", W3C)];
    let other = "1".repeat(32);
    for (layer, headers, trace_id) in [
        (default.clone(), &both[..], Some(other.as_str())),
        (layer(&[Traceparent, SentryTrace]), &both, Some(TRACE)),
        (layer(&[SentryTrace]), &both, Some(other.as_str())),
        (layer(&[Traceparent]), &both, Some(TRACE)),
        (layer(&[]), &both, None),
        (layer(&[SentryTrace]), &both[1..], None),
        (layer(&[Traceparent]), &both[..1], None),
        // What is malformed is not there.
        (
            default.clone(),
            &[("sentry-trace", "x"), ("traceparent", W3C)],
            Some(TRACE),
        ),
        (default.clone(), &[("traceparent", "00-nonsense-01")], None),
        (
            default.clone(),
            &[("traceparent", W3C), ("traceparent", W3C)],
            None,
        ),
    ] {
        let received = receive(&world, layer.clone(), headers);
        let (own, parent) = ids(received.only_transaction());
        match trace_id {
            Some(trace_id) => assert_eq!(own, trace_id, "{headers:?}"),
            None => assert_eq!(parent, None, "{headers:?}"),
        }
    }
}

#[test]
fn sentrys_baggage_beside_traceparent_is_the_sampling_context() {
    let world = World::new();
    let baggage = format!("sentry-trace_id={TRACE},sentry-public_key=head,vendor=1");
    let headers = [("traceparent", W3C), ("baggage", baggage.as_str())];
    let received = receive(&world, SentryServerLayer::new(), &headers);
    let expected = json!({ "trace_id": TRACE, "public_key": "head" });
    assert_eq!(received.contexts, [expected]);
}

#[test]
fn a_client_names_the_same_span_in_both_where_it_is_told_to() {
    for (rate, flags) in [(1.0, "01"), (0.0, "00")] {
        for propagates in [true, false] {
            let world = World::sampled(rate);
            let headers = world.run(async {
                let (server, arrivals) = Scripted::new().serve_unobserved().await;
                let layer = SentryClientLayer::new().propagate_traceparent(propagates);
                let mut client = server.observed_client(layer).await;
                let mut request = Request::new(request("Ferris"));
                let metadata = request.metadata_mut();
                metadata.insert("traceparent", W3C.parse().unwrap());
                metadata.insert("tracestate", "vendor=1".parse().unwrap());
                client.say_hello(request).await.unwrap();
                drop(client);
                server.stop().await;
                arrivals.recv().unwrap()
            });
            assert_eq!(headers["tracestate"], "vendor=1");
            let sentry = headers["sentry-trace"].to_str().unwrap();
            let ids = sentry.rsplit_once('-').unwrap().0;
            let expected = match propagates {
                true => format!("00-{ids}-{flags}"),
                false => W3C.to_owned(),
            };
            assert_eq!(only(&headers, "traceparent"), expected);
        }
    }
}

fn only(headers: &HeaderMap, name: &str) -> String {
    let mut values = headers.get_all(name).iter();
    let value = values.next().unwrap().to_str().unwrap().to_owned();
    assert_eq!(values.next(), None);
    value
}

#[test]
fn an_interceptor_hands_on_a_traceparent_where_it_is_told_to() {
    let world = World::new();
    for propagates in [false, true] {
        let mut interceptor = TracePropagationInterceptor::new().propagate_traceparent(propagates);
        let request = world.sync(|| {
            let span = info_span!("job").entered();
            let request = interceptor.call(Request::new(())).unwrap();
            drop(span);
            request
        });
        let metadata = request.metadata();
        let sentry = metadata.get("sentry-trace").unwrap().to_str().unwrap();
        let w3c = metadata.get("traceparent").map(|w3c| w3c.to_str().unwrap());
        let expected = format!("00-{}-01", sentry.strip_suffix("-1").unwrap());
        assert_eq!(w3c, propagates.then_some(expected.as_str()));
    }
}

#[test]
fn any_span_continues_and_hands_on_a_traceparent() {
    let world = World::new();
    world.sync(|| {
        let span = info_span!("job");
        span.continue_trace([("TraceParent", W3C)]).unwrap();
        let headers = span.trace_headers().unwrap();
        let span_id = headers.sentry_trace().split('-').nth(1).unwrap();
        assert_eq!(headers.traceparent(), format!("00-{TRACE}-{span_id}-01"));
        let mut map = HeaderMap::new();
        headers.inject(&mut map);
        assert!(!map.contains_key("traceparent"));
        headers.inject_traceparent(&mut map);
        assert_eq!(only(&map, "traceparent"), headers.traceparent());
    });
    let transaction = world.received();
    let ids = ids(transaction.only_transaction());
    assert_eq!(ids, (TRACE.to_owned(), Some(SPAN.to_owned())));
}
