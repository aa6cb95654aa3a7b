//! Whose traces a server goes on with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use http::HeaderMap;
use http::request::Parts;
use opentelemetry::trace::{SpanId, SpanKind};
use opentelemetry_sdk::trace::Sampler;
use tonic::Request;
use tonic::transport::server::TcpConnectInfo;

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::observed::metadata;
use crate::support::otel::{Otel, worlds};
use crate::support::received::trace;
use crate::support::world::World;

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5";
const SENTRY: (&str, &str) = (
    "sentry-trace",
    "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1",
);
const BAGGAGE: (&str, &str) = (
    "baggage",
    "sentry-trace_id=09e04486820349518ac7b5d2adbf6ba5,sentry-public_key=forged,\
     sentry-sample_rand=0.000001,sentry-sampled=true,sentry-release=forged",
);
const W3C: (&str, &str) = (
    "traceparent",
    "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01",
);
const STATE: (&str, &str) = ("tracestate", "forged=1");

type Headers = [(&'static str, &'static str)];

const FORMATS: [&Headers; 3] = [
    &[SENTRY, BAGGAGE],
    &[W3C, STATE],
    &[SENTRY, BAGGAGE, W3C, STATE],
];

fn is_near(parts: &Parts) -> bool {
    let peer = parts.extensions.get::<TcpConnectInfo>();
    let address = peer.and_then(TcpConnectInfo::remote_addr);
    address.is_some_and(|address| address.ip().is_loopback())
}

/// Layers, and whether they go on with the trace of a peer on this machine.
fn layers() -> [(SentryServerLayer, bool); 4] {
    let layer = SentryServerLayer::new();
    [
        (layer.clone(), true),
        (layer.clone().trust_incoming_trace_if(is_near), true),
        (
            layer
                .clone()
                .trust_incoming_trace_if(|parts| !is_near(parts)),
            false,
        ),
        (
            layer.trust_incoming_trace_if(|_| panic!("who knows")),
            false,
        ),
    ]
}

/// What the call of a handler has, whose own call has `headers`.
fn handed_on(world: &World, layer: &SentryServerLayer, headers: &Headers) -> HeaderMap {
    world.run(async {
        let (behind, arrivals) = Scripted::new().serve_unobserved().await;
        let client = SentryClientLayer::new().propagate_traceparent(true);
        let client = behind.observed_client(client).await;
        let greeter = Scripted::new().say_hello(move |name| {
            let mut client = client.clone();
            async move {
                client.say_hello(request(&name)).await?;
                Ok(reply(&name))
            }
        });
        let server = greeter.serve_with(layer.clone()).await;
        let request = Request::from_parts(metadata(headers), Default::default(), request("Ferris"));
        server.client().await.say_hello(request).await.unwrap();
        server.stop().await;
        behind.stop().await;
        arrivals.recv().unwrap()
    })
}

/// All that goes on, in one text.
fn text(headers: &HeaderMap) -> String {
    let names = ["sentry-trace", "traceparent", "tracestate", "baggage"];
    let values = names.iter().flat_map(|name| headers.get_all(*name));
    let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
    values.join(" ")
}

#[test]
fn who_is_not_trusted_is_in_no_trace_here() {
    for (layer, is_trusted) in layers() {
        for headers in FORMATS {
            let world = World::new();
            let case = format!("{layer:?} {headers:?}");
            let onwards = text(&handed_on(&world, &layer, headers));
            assert_eq!(onwards.matches(TRACE).count() > 1, is_trusted, "{case}");
            assert_eq!(onwards.contains("forged"), is_trusted, "{case}");
            let received = world.received();
            let transaction = trace(received.only_transaction());
            let id = transaction.trace_id.to_string();
            assert_eq!(id == TRACE, is_trusted, "{case}");
            assert_eq!(transaction.parent_span_id.is_some(), is_trusted, "{case}");
            let context = received.contexts[0].to_string();
            assert_eq!(context.contains(TRACE), is_trusted, "{case}");
            // The new trace is whole: what goes on is of it.
            assert!(onwards.contains(&id), "{case}");
        }
    }
}

#[test]
fn who_is_not_trusted_does_not_decide_what_is_sampled() {
    for (layer, is_trusted) in layers() {
        for headers in FORMATS {
            let world = World::sampled(0.0);
            let onwards = handed_on(&world, &layer, headers);
            let flag = onwards["sentry-trace"].to_str().unwrap().rsplit('-').next();
            assert_eq!(flag == Some("1"), is_trusted, "{headers:?}");
            let sent = world.received().transactions.len();
            assert_eq!(sent, usize::from(is_trusted), "{headers:?}");
        }
    }
}

#[cfg(feature = "opentelemetry")]
#[test]
fn opentelemetry_goes_on_with_no_other_traces() {
    for (layer, is_trusted) in layers() {
        for headers in FORMATS {
            let otel = Otel::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)));
            for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
                otel.exporter.reset();
                let onwards = text(&handed_on(&world, &layer, headers));
                assert_eq!(onwards.contains(TRACE), is_trusted, "{headers:?}");
                assert_eq!(onwards.contains("forged"), is_trusted, "{headers:?}");
                let spans = otel.spans();
                let server = spans.iter().find(|s| s.span_kind == SpanKind::Server);
                let server = server.unwrap();
                let id = server.span_context.trace_id().to_string();
                assert_eq!(id == TRACE, is_trusted, "{headers:?}");
                let is_child = server.parent_span_id != SpanId::INVALID;
                assert_eq!(is_child, is_trusted, "{headers:?}");
            }
        }
    }
}

#[test]
fn it_is_asked_once_of_each_call_that_names_a_trace() {
    let asked = Arc::new(AtomicU32::new(0));
    let layer = SentryServerLayer::new().trust_incoming_trace_if({
        let asked = Arc::clone(&asked);
        move |_| asked.fetch_add(1, SeqCst) < u32::MAX
    });
    let world = World::new();
    for (headers, expected) in [
        (&[][..], 0),
        (&[BAGGAGE, STATE], 0),
        (&[("sentry-trace", "nonsense")], 0),
        (&[SENTRY, BAGGAGE, W3C, STATE], 1),
    ] {
        handed_on(&world, &layer, headers);
        assert_eq!(asked.swap(0, SeqCst), expected, "{headers:?}");
    }
    let layer = layer.ignore_if(|_| true);
    handed_on(&world, &layer, &[SENTRY]);
    assert_eq!(asked.load(SeqCst), 0);
}
