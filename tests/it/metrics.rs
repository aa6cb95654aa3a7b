//! How long calls take, as metrics of both backends.

use std::collections::BTreeMap;

use http::Request;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, RPC_METHOD, RPC_SYSTEM_NAME, SERVER_ADDRESS, SERVER_PORT,
};
use opentelemetry_semantic_conventions::metric::{
    RPC_CLIENT_CALL_DURATION, RPC_SERVER_CALL_DURATION,
};
use sentry::protocol::{EnvelopeItem, ItemContainer, Unit};
use serde_json::{Value, json};
use tonic::Status;
use tonic::service::Routes;
use tower::{Layer, ServiceExt};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::greeter::{Scripted, request};
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::world::World;

/// See <https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/>.
const BOUNDARIES: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

type Attributes = BTreeMap<String, Value>;

/// One call that succeeds, and one that fails.
async fn call(server: SentryServerLayer, client: SentryClientLayer) -> u16 {
    let greeter = Scripted::new().say_hello_stream(|_| async { Err(Status::not_found("nobody")) });
    let server = greeter.serve_with(server).await;
    let port = server.address.port();
    let mut observed = server.observed_client(client).await;
    observed.say_hello(request("Ferris")).await.unwrap();
    observed
        .say_hello_stream(request("Ferris"))
        .await
        .unwrap_err();
    drop(observed);
    server.stop().await;
    port
}

fn expected(method: &str, code: &str, error: bool, server: Option<u16>) -> Attributes {
    let mut attributes = Attributes::from([
        (RPC_SYSTEM_NAME.to_owned(), json!("grpc")),
        (
            RPC_METHOD.to_owned(),
            json!(format!("helloworld.Greeter/{method}")),
        ),
        ("rpc.status_code".to_owned(), json!(code)),
    ]);
    if error {
        attributes.insert(ERROR_TYPE.to_owned(), json!(code));
    }
    if let Some(port) = server {
        attributes.insert(SERVER_ADDRESS.to_owned(), json!("127.0.0.1"));
        attributes.insert(SERVER_PORT.to_owned(), json!(port));
    }
    attributes
}

/// Of those calls, in the order of their methods.
fn all(port: u16) -> [(&'static str, Vec<Attributes>); 2] {
    let of = |errors: bool, server| {
        vec![
            expected("SayHello", "OK", false, server),
            expected("SayHelloStream", "NOT_FOUND", errors, server),
        ]
    };
    [
        (RPC_CLIENT_CALL_DURATION, of(true, Some(port))),
        // That nobody is found is no failure of the server's.
        (RPC_SERVER_CALL_DURATION, of(false, None)),
    ]
}

fn json_of(value: &opentelemetry::Value) -> Value {
    match value {
        opentelemetry::Value::I64(number) => (*number).into(),
        other => other.as_str().into_owned().into(),
    }
}

#[test]
fn opentelemetry_has_histograms_of_durations() {
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let meter = provider.meter("test");
    // Nobody has to listen to the spans.
    let world = World::subscribed(registry().with(LevelFilter::OFF));
    let port = world.run(call(
        SentryServerLayer::new().otel_metrics(&meter),
        SentryClientLayer::new().otel_metrics(&meter),
    ));
    provider.force_flush().unwrap();
    let exported = exporter.get_finished_metrics().unwrap();
    let metrics = exported.iter().flat_map(|all| all.scope_metrics());
    let mut metrics: Vec<_> = metrics.flat_map(|scope| scope.metrics()).collect();
    metrics.sort_by_key(|metric| metric.name());
    let found = metrics.into_iter().map(|metric| {
        assert_eq!(metric.unit(), "s");
        let AggregatedMetrics::F64(MetricData::Histogram(histogram)) = metric.data() else {
            panic!("{metric:?}")
        };
        let mut points: Vec<Attributes> = histogram
            .data_points()
            .map(|point| {
                assert_eq!(point.count(), 1);
                assert!(point.sum() > 0.0 && point.sum() < 60.0, "{}", point.sum());
                assert_eq!(point.bounds().collect::<Vec<_>>(), BOUNDARIES);
                let attributes = point.attributes();
                attributes
                    .map(|a| (a.key.to_string(), json_of(&a.value)))
                    .collect()
            })
            .collect();
        points.sort_by_key(|attributes| attributes[RPC_METHOD].to_string());
        (metric.name().to_owned(), points)
    });
    let expected = all(port).map(|(name, points)| (name.to_owned(), points));
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

#[test]
fn sentry_has_distributions_of_durations() {
    for asked_for in [true, false] {
        let world = World::new();
        let port = world.run(call(
            SentryServerLayer::new().sentry_metrics(asked_for),
            SentryClientLayer::new().sentry_metrics(asked_for),
        ));
        world.hub.client().unwrap().flush(None);
        let metrics = world
            .received()
            .others
            .into_iter()
            .flat_map(|item| match item {
                EnvelopeItem::ItemContainer(ItemContainer::Metrics(metrics)) => metrics,
                _ => vec![],
            });
        let mut found = BTreeMap::<String, Vec<Attributes>>::new();
        for metric in metrics {
            assert_eq!(metric.unit, Some(Unit::Second));
            assert!(metric.value > 0.0 && metric.value < 60.0, "{metric:?}");
            let own = metric.attributes.into_iter();
            let own = own.filter(|(key, _)| !key.starts_with("sentry."));
            let own = own.map(|(key, value)| (key.into_owned(), value.0));
            found
                .entry(metric.name.into_owned())
                .or_default()
                .push(own.collect());
        }
        for points in found.values_mut() {
            points.sort_by_key(|attributes| attributes[RPC_METHOD].to_string());
        }
        let expected = all(port).map(|(name, points)| (name.to_owned(), points));
        let expected = BTreeMap::from(expected);
        assert_eq!(found, if asked_for { expected } else { BTreeMap::new() });
    }
}

/// Whether tonic answers so, or it is not among those that are known.
#[test]
fn methods_that_there_are_not_have_one_name() {
    for layer in [
        SentryServerLayer::new(),
        SentryServerLayer::new().known_methods(["/a.B/*"]),
    ] {
        let world = World::new();
        world.run(async {
            let routes = Routes::new(GreeterServer::new(Scripted::new())).prepare();
            let service = layer.sentry_metrics(true).layer(routes);
            let request = Request::post("http://localhost/helloworld.Greeter/Made1Up")
                .header("content-type", "application/grpc")
                .body(tonic::body::Body::empty());
            drop(service.oneshot(request.unwrap()).await.unwrap());
        });
        assert_eq!(methods(&world), ["_OTHER"]);
    }
    // It is there, but is not among those that are known.
    let world = World::new();
    let layer = SentryServerLayer::new().known_methods(["/a.B/*"]);
    let client = SentryClientLayer::new();
    world.run(call(layer.sentry_metrics(true), client));
    assert_eq!(methods(&world), ["_OTHER", "_OTHER"]);
}

/// Those that Sentry's metrics name.
fn methods(world: &World) -> Vec<Value> {
    world.hub.client().unwrap().flush(None);
    let items = world.received().others.into_iter();
    let metrics = items.flat_map(|item| match item {
        EnvelopeItem::ItemContainer(ItemContainer::Metrics(metrics)) => metrics,
        _ => vec![],
    });
    let method = metrics.map(|mut metric| metric.attributes.remove("rpc.method").unwrap().0);
    method.collect()
}
