//! Sentry and OpenTelemetry in one subscriber.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use opentelemetry::trace::{SpanId, SpanKind, Status as OtelStatus, TracerProvider};
use opentelemetry::{Array, StringValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, Sampler, SdkTracerProvider, SpanData, SpanProcessor,
};
use sentry::Hub;
use sentry::protocol::Transaction;
use tonic::{Request, Status};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Span, dispatcher, info_span, instrument};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, registry, reload};

use sentry_tonic::{
    GrpcClientLayer, GrpcServerLayer, SemanticConventions, SentryGrpcLayer, SentrySpanExt,
};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::received::{Received, trace};
use crate::support::world::World;

/// An OpenTelemetry SDK of a test's own.
pub(crate) struct Otel {
    pub(crate) provider: SdkTracerProvider,
    pub(crate) exporter: InMemorySpanExporter,
}

impl Otel {
    pub(crate) fn new(sampler: Sampler) -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .with_sampler(sampler)
            .build();
        Self { provider, exporter }
    }

    pub(crate) fn layer<S>(&self) -> OpenTelemetryLayer<S, opentelemetry_sdk::trace::Tracer>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("test"))
    }

    pub(crate) fn spans(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }
}

/// A span by its ids: its own and its parent's.
pub(crate) type Ids = BTreeMap<String, (String, String, Option<String>)>;

pub(crate) fn all_of_otel(spans: &[SpanData]) -> Ids {
    let ids = spans.iter().map(|span| {
        let parent = Some(span.parent_span_id).filter(|id| *id != SpanId::INVALID);
        let context = &span.span_context;
        let ids = (
            context.trace_id().to_string(),
            context.span_id().to_string(),
            parent.map(|id| id.to_string()),
        );
        (format!("{:?} {}", span.span_kind, span.name), ids)
    });
    ids.collect()
}

pub(crate) fn of_otel(spans: &[SpanData]) -> Ids {
    let mut ids = all_of_otel(spans);
    // tonic's own dependencies trace every frame.
    ids.retain(|name, _| NAMES.contains(&name.as_str()));
    ids
}

/// Under the names that they have in OpenTelemetry.
pub(crate) fn of_sentry(received: &Received) -> Ids {
    let own = |transaction: &Transaction<'_>| {
        let trace = trace(transaction);
        let op = trace.op.clone().unwrap();
        let name = transaction.name.clone().unwrap();
        let parent = trace.parent_span_id.map(|id| id.to_string());
        let ids = (
            trace.trace_id.to_string(),
            trace.span_id.to_string(),
            parent,
        );
        (named(&op, &name), ids)
    };
    let mut ids: Ids = received.transactions.iter().map(own).collect();
    for transaction in &received.transactions {
        ids.extend(transaction.spans.iter().map(|span| {
            let op = span.op.as_deref().unwrap();
            let name = span.description.as_deref().unwrap();
            let parent = span.parent_span_id.map(|id| id.to_string());
            let ids = (span.trace_id.to_string(), span.span_id.to_string(), parent);
            (named(op, name), ids)
        }));
    }
    ids
}

fn named(op: &str, name: &str) -> String {
    let kind = match op {
        "grpc.server" => SpanKind::Server,
        "grpc.client" => SpanKind::Client,
        _ => SpanKind::Internal,
    };
    format!("{kind:?} {}", name.trim_start_matches('/'))
}

#[instrument]
pub(crate) async fn look_up() -> &'static str {
    info_span!("query").in_scope(|| "nobody")
}

/// A call whose handler has spans of its own, from a client in one too.
pub(crate) async fn call() {
    let greeter = Scripted::new().say_hello(|name| async move {
        look_up().await;
        Ok(reply(&name))
    });
    let server = greeter.serve().await;
    let mut client = server.observed_client(GrpcClientLayer::new()).await;
    client.say_hello(request("Ferris")).await.unwrap();
    drop(client);
    server.stop().await;
}

pub(crate) fn sentry(hub: Arc<Hub>) -> SentryGrpcLayer {
    SentryGrpcLayer::new().hub(hub)
}

pub(crate) const NAMES: [&str; 4] = [
    "Client helloworld.Greeter/SayHello",
    "Internal look_up",
    "Internal query",
    "Server helloworld.Greeter/SayHello",
];

#[track_caller]
pub(crate) fn assert_same(world: &World, otel: &Otel, case: &str) {
    let (sentry, otel) = (of_sentry(&world.received()), of_otel(&otel.spans()));
    assert_eq!(sentry.keys().collect::<Vec<_>>(), NAMES, "{case}");
    assert_eq!(sentry, otel, "{case}");
}

pub(crate) type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// Both layers in a subscriber, in one order and in the other.
pub(crate) fn worlds(
    otel: &Otel,
    wrap_sentry: fn(SentryGrpcLayer) -> Boxed,
    wrap_otel: fn(OpenTelemetryLayer<Registry, opentelemetry_sdk::trace::Tracer>) -> Boxed,
) -> [World; 2] {
    [false, true].map(|otel_first| {
        World::subscribed(|hub| {
            let sentry = wrap_sentry(sentry(hub));
            let otel = wrap_otel(otel.layer());
            let layers = if otel_first {
                vec![otel, sentry]
            } else {
                vec![sentry, otel]
            };
            let mut layers = layers.into_iter();
            let first = layers.next().unwrap().and_then(layers.next().unwrap());
            registry().with(first)
        })
    })
}

#[test]
fn both_know_the_same_spans_by_the_same_ids() {
    type WrapSentry = fn(SentryGrpcLayer) -> Boxed;
    type WrapOtel = fn(OpenTelemetryLayer<Registry, opentelemetry_sdk::trace::Tracer>) -> Boxed;
    let cases: [(&str, WrapSentry, WrapOtel); 5] = [
        ("plain", |sentry| Box::new(sentry), |otel| Box::new(otel)),
        (
            "filtered",
            |sentry| Box::new(sentry.with_filter(LevelFilter::INFO)),
            |otel| Box::new(otel.with_filter(LevelFilter::INFO)),
        ),
        (
            "optional",
            |sentry| Box::new(Some(sentry)),
            |otel| Box::new(Some(otel)),
        ),
        (
            "several",
            |sentry| Box::new(vec![sentry]),
            |otel| Box::new(vec![otel]),
        ),
        (
            "reloaded",
            |sentry| Box::new(reload::Layer::new(sentry).0),
            |otel| Box::new(otel),
        ),
    ];
    for (case, sentry, otel) in cases {
        let exported = Otel::new(Sampler::AlwaysOn);
        for world in worlds(&exported, sentry, otel) {
            exported.exporter.reset();
            world.run(call());
            assert_same(&world, &exported, case);
        }
    }
}

/// What a call with these headers is, in Sentry and in OpenTelemetry.
pub(crate) fn receive(world: &World, otel: &Otel, headers: &[(&'static str, &str)]) -> [Ids; 2] {
    otel.exporter.reset();
    world.run(async {
        let server = Scripted::new().serve().await;
        let mut client = server.client().await;
        let mut request = Request::new(request("Ferris"));
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        client.say_hello(request).await.unwrap();
        drop(client);
        server.stop().await;
    });
    [of_sentry(&world.received()), of_otel(&otel.spans())]
}

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5";
const SPAN: &str = "9cf635fa5b870b3a";
const SENTRY: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-0";
const W3C: &str = "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-01";

#[test]
fn both_go_on_from_the_span_that_a_request_names() {
    let otel = Otel::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)));
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        let sampled = &SENTRY.replace("-0", "-1");
        let both = [("sentry-trace", sampled.as_str()), ("traceparent", W3C)];
        for headers in [&both[..], &both[..1], &both[1..]] {
            let [sentry, otel] = receive(&world, &otel, headers);
            let (trace_id, _, parent) = &sentry[NAMES[3]];
            let parent = parent.as_deref();
            assert_eq!(
                (trace_id.as_str(), parent),
                (TRACE, Some(SPAN)),
                "{headers:?}"
            );
            assert_eq!(sentry, otel, "{headers:?}");
        }
        // Whether Sentry samples is none of OpenTelemetry's business.
        let unsampled = [("sentry-trace", SENTRY)];
        let [sentry, exported] = receive(&world, &otel, &unsampled);
        assert_eq!(sentry, Ids::new());
        assert_eq!(exported[NAMES[3]].0, TRACE);
        // Of two traces, each goes on with its own.
        let two = [("sentry-trace", sampled.as_str()), ("traceparent", OTHER)];
        let [sentry, exported] = receive(&world, &otel, &two);
        assert_eq!(sentry[NAMES[3]].0, TRACE);
        assert_eq!(exported[NAMES[3]].0, "1".repeat(32));
        assert_ne!(sentry[NAMES[3]].1, exported[NAMES[3]].1);
    }
}

#[test]
fn what_opentelemetry_does_not_sample_has_its_ids_too() {
    let otel = Otel::new(Sampler::AlwaysOff);
    for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        world.run(call());
        let sentry = of_sentry(&world.received());
        assert_eq!(sentry.keys().collect::<Vec<_>>(), NAMES);
        let [client, _, _, server] = NAMES.map(|name| sentry[name].clone());
        assert_eq!(
            (&server.0, server.2.as_deref()),
            (&client.0, Some(client.1.as_str()))
        );
        assert_eq!(otel.spans().len(), 0);
    }
}

#[test]
fn an_opentelemetry_layer_that_cannot_be_asked_has_ids_of_its_own() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in worlds(
        &otel,
        |sentry| Box::new(sentry),
        |otel| Box::new(reload::Layer::new(otel).0),
    ) {
        otel.exporter.reset();
        world.run(call());
        let (sentry, otel) = (of_sentry(&world.received()), of_otel(&otel.spans()));
        assert_eq!(sentry.keys().collect::<Vec<_>>(), NAMES);
        assert_eq!(otel.keys().collect::<Vec<_>>(), NAMES);
        assert_ne!(sentry[NAMES[0]].0, otel[NAMES[0]].0);
    }
}

#[test]
fn a_client_hands_on_what_opentelemetry_knows_of_its_span() {
    for (sampler, rate, flags) in [
        (Sampler::AlwaysOn, 1.0, "01"),
        (Sampler::AlwaysOn, 0.0, "01"),
        (Sampler::AlwaysOff, 1.0, "00"),
    ] {
        let otel = Otel::new(Sampler::ParentBased(Box::new(sampler)));
        let world = World::with(|options| options.traces_sample_rate(rate), |layer| layer);
        let layer = sentry(Arc::clone(&world.hub));
        let dispatch = Dispatch::new(registry().with(otel.layer()).with(layer));
        let headers = dispatcher::with_default(&dispatch, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let (server, arrivals) = Scripted::new().serve_unobserved().await;
                let layer = GrpcClientLayer::new().propagate_traceparent(true);
                let mut client = server.observed_client(layer).await;
                client.say_hello(request("Ferris")).await.unwrap();
                drop(client);
                server.stop().await;
                arrivals.recv().unwrap()
            })
        });
        let sentry = headers["sentry-trace"].to_str().unwrap();
        let w3c = headers["traceparent"].to_str().unwrap();
        let ids = sentry.rsplit_once('-').unwrap().0;
        assert_eq!(w3c, format!("00-{ids}-{flags}"));
        if flags == "01" {
            let (trace_id, span_id, _) = &of_otel(&otel.spans())[NAMES[0]];
            assert_eq!(ids, format!("{trace_id}-{span_id}"));
        }
    }
}

#[test]
fn both_are_told_the_same() {
    for conventions in [
        SemanticConventions::Legacy,
        SemanticConventions::Stable,
        SemanticConventions::Both,
    ] {
        let otel = Otel::new(Sampler::AlwaysOn);
        let [world, _] = worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel));
        world.run(async {
            let greeter = Scripted::new().say_hello(|_| async {
                let mut status = Status::not_found("nobody");
                status
                    .metadata_mut()
                    .insert("x-shard", "7".parse().unwrap());
                Err(status)
            });
            let layer = GrpcServerLayer::new().semantic_conventions(conventions);
            let layer = layer.request_metadata(["x-tenant", "authorization"]);
            let layer = layer.unwrap().response_metadata(["x-shard"]).unwrap();
            let server = greeter.serve_with(layer).await;
            let layer = GrpcClientLayer::new().semantic_conventions(conventions);
            let mut client = server.observed_client(layer).await;
            let mut request = Request::new(request("Ferris"));
            let metadata = request.metadata_mut();
            metadata.append("x-tenant", "acme".parse().unwrap());
            metadata.append("x-tenant", "other".parse().unwrap());
            metadata.append("authorization", "Bearer hidden".parse().unwrap());
            client.say_hello(request).await.unwrap_err();
            drop(client);
            server.stop().await;
        });
        let received = world.received();
        let ids = of_sentry(&received);
        assert_eq!(ids[NAMES[3]].2.as_ref(), Some(&ids[NAMES[0]].1));
        assert_eq!(ids, of_otel(&otel.spans()));
        assert!(!format!("{:?}", otel.spans()).contains("hidden"));
        for (op, kind) in [
            ("grpc.server", SpanKind::Server),
            ("grpc.client", SpanKind::Client),
        ] {
            let spans = otel.spans();
            let span = spans.iter().find(|span| span.span_kind == kind).unwrap();
            let txs = received.txs();
            let tx = txs.iter().find(|tx| tx.op == op).unwrap();
            // Those of the calls: OpenTelemetry has some of its own, and Sentry too.
            let is_told = |key: &str| key.starts_with("rpc.") || key.starts_with("server.");
            let exported = span.attributes.iter();
            let exported: BTreeMap<_, _> = exported
                .filter(|attribute| is_told(attribute.key.as_str()))
                .map(|attribute| (attribute.key.to_string(), json_of(&attribute.value)))
                .collect();
            let told: BTreeMap<_, _> = tx
                .data
                .iter()
                .filter(|(key, _)| is_told(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            assert_eq!(exported, told, "{conventions:?} {op}");
            let error = |description: &str| OtelStatus::Error {
                description: description.to_owned().into(),
            };
            let status = match kind {
                SpanKind::Server => OtelStatus::Unset,
                _ => error("nobody"),
            };
            assert_eq!(span.status, status);
        }
    }
}

fn json_of(value: &opentelemetry::Value) -> serde_json::Value {
    use opentelemetry::Value;

    match value {
        Value::Bool(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => value.as_str().into(),
        Value::Array(Array::String(values)) => values.iter().map(StringValue::as_str).collect(),
        other => panic!("{other:?}"),
    }
}

/// A processor that traces, as OpenTelemetry's own do.
#[derive(Debug)]
struct Chatty;

impl SpanProcessor for Chatty {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {
        tracing::error!("a span starts");
    }

    fn on_end(&self, _: SpanData) {
        tracing::warn!("a span ends");
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Where the ids of a span are asked for while it is locked, this hangs.
#[test]
fn what_opentelemetry_traces_while_it_starts_a_span_locks_nothing() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Chatty)
            .with_simple_exporter(exporter.clone())
            .build();
        let otel = Otel { provider, exporter };
        for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
            otel.exporter.reset();
            world.run(call());
            let (sentry, otel) = (of_sentry(&world.received()), of_otel(&otel.spans()));
            for name in NAMES {
                assert_eq!(sentry[name].0, otel[name].0, "{name}");
            }
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}

#[test]
fn events_and_headers_of_spans_that_were_never_entered_lock_nothing() {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let otel = Otel::new(Sampler::AlwaysOn);
        for world in worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
            world.sync(|| {
                let span = info_span!("job");
                tracing::error!(parent: &span, "of a span that was not entered");
                let inner = info_span!(parent: &span, "inner");
                let headers = inner.trace_headers().unwrap();
                inner.in_scope(|| drop(Span::current().trace_headers()));
                drop((span, inner, headers));
                drop(info_span!("never entered"));
            });
        }
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).unwrap();
}
