//! Calls that `TraceLayer` of tower-http watches, beside OpenTelemetry, and the example
//! as a newcomer runs it.

use std::convert::Infallible;
use std::future::{pending, ready};

use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::Sampler;
use tower::{Layer, Service, ServiceExt, service_fn};

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::body::{ScriptedBody, Step, grpc_status};
use crate::support::example::example;
use crate::support::greeter::{Scripted, reply, request};
use crate::support::otel::{self, Otel};
use crate::support::world::World;
use crate::trace_layer::{Watcher, hang_up, trace_layer};

#[test]
fn the_example_shows_each_end() {
    let output = example("trace_layer").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    // Of each call, two transactions.
    assert_eq!(said.matches("  grpc.server  ").count(), 5, "{said}");
    for line in [
        "fatal  panic: nobody expected this name (unhandled)",
        "caller got  CANCELLED: stream error received: stream no longer needed",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let output = example("trace_layer").arg("--wrong").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "trace_layer: unknown argument \"--wrong\", usage: trace_layer\n";
    assert_eq!((output.status.code(), said.as_str()), (Some(1), expected));
}

#[test]
fn opentelemetry_sees_the_same_spans_of_a_trace_layer() {
    let otel = Otel::new(Sampler::AlwaysOn);
    for world in otel::worlds(&otel, |sentry| Box::new(sentry), |otel| Box::new(otel)) {
        otel.exporter.reset();
        world.run(async {
            let greeter = Scripted::new().say_hello(|name| async move {
                otel::look_up().await;
                Ok(reply(&name))
            });
            let server = Watcher::TraceLayer
                .serve(greeter, SentryServerLayer::new())
                .await;
            let mut client = server.observed_client(SentryClientLayer::new()).await;
            client.say_hello(request("Ferris")).await.unwrap();
            drop(client);
            server.stop().await;
        });
        otel::assert_same(&world, &otel, "TraceLayer");
        otel.exporter.reset();
        world.run(hang_up(true));
        let dropped = otel::of_sentry(&world.received());
        assert_eq!(dropped.len(), 1);
        let mut exported = otel::all_of_otel(&otel.spans());
        // tonic's own dependencies trace every frame.
        exported.retain(|name, _| name.starts_with("Server"));
        assert_eq!(exported, dropped);
    }
}

#[test]
fn each_call_is_measured_once() {
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let options = || SentryServerLayer::new().otel_metrics(&provider.meter("test"));
    let request = || {
        Request::builder()
            .uri("/helloworld.Greeter/SayHello")
            .header("content-type", "application/grpc")
            .body(Empty::<&[u8]>::new())
            .unwrap()
    };
    let calls = || async {
        let service = service_fn(|_| {
            let body = ScriptedBody::<Infallible>::new([Step::Trailers(grpc_status(13))]);
            ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let service = trace_layer!(options()).layer(service);
        let response = service.oneshot(request()).await.unwrap();
        response.into_body().collect().await.unwrap();
        type Answer = Result<Response<ScriptedBody<Infallible>>, Infallible>;
        let service = service_fn(|_| pending::<Answer>());
        let mut service = trace_layer!(options()).layer(service);
        // Dropped before there is a response.
        drop(service.call(request()));
    };
    World::new().run(calls());
    // Also where no layer of ours sees that its span closes.
    World::subscribed(tracing_subscriber::registry()).run(calls());
    provider.force_flush().unwrap();
    let metrics = exporter.get_finished_metrics().unwrap();
    let metrics = metrics.iter().flat_map(|resource| resource.scope_metrics());
    let mut counts = vec![];
    for metric in metrics.flat_map(|scope| scope.metrics()) {
        let AggregatedMetrics::F64(MetricData::Histogram(histogram)) = metric.data() else {
            panic!("{metric:?}")
        };
        for point in histogram.data_points() {
            let status = point
                .attributes()
                .find(|attribute| attribute.key.as_str() == "rpc.status_code");
            counts.push((status.unwrap().value.to_string(), point.count()));
        }
    }
    counts.sort();
    let expected = [("CANCELLED".to_owned(), 2), ("INTERNAL".to_owned(), 2)];
    assert_eq!(counts, expected);
}
