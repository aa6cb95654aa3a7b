//! What leaves the process by each way out: to Sentry, to OpenTelemetry, and to the next
//! service.

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::Sampler;
use sentry::SessionMode;
use sentry::integrations::tracing::LogLayer;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, error, info, info_span};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentryClientLayer, SentryServerLayer, SentryTracingLayer};

use crate::support::greeter::{Scripted, reply, request};
use crate::support::observed::metadata;
use crate::support::otel::Otel;
use crate::support::world::World;

/// Who is told of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    sentry: bool,
    /// Sentry, with `send_default_pii`.
    with_pii: bool,
    otel: bool,
    /// The next service, by the headers of a call that the handler makes.
    onwards: bool,
}

const NOBODY: Told = Told {
    sentry: false,
    with_pii: false,
    otel: false,
    onwards: false,
};

const BACKENDS: Told = Told {
    sentry: true,
    with_pii: true,
    otel: true,
    ..NOBODY
};

const EVERYBODY: Told = Told {
    onwards: true,
    ..BACKENDS
};

const WITH_PII: Told = Told {
    with_pii: true,
    ..NOBODY
};

const OTEL: Told = Told {
    otel: true,
    ..NOBODY
};

const OTEL_OR_WITH_PII: Told = Told {
    otel: true,
    ..WITH_PII
};

/// Texts, each of which is in one place of a call, and who is told.
const TEXTS: [(&str, Told); 13] = [
    ("09e04486820349518ac7b5d2adbf6ba5", EVERYBODY),
    // A message of a request, and that of its response.
    ("told-name", NOBODY),
    ("Hello ", NOBODY),
    // The metadata of requests, responses and failures.
    ("told-request", WITH_PII),
    ("told-head", WITH_PII),
    ("told-failure", WITH_PII),
    ("told-secret", NOBODY),
    // What others say in baggage is metadata, and so is the state of a trace.
    ("told-vendor", WITH_PII),
    ("told-state", OTEL_OR_WITH_PII),
    // What a handler tells.
    ("told-status", BACKENDS),
    ("told-param", BACKENDS),
    // OpenTelemetry gets fields of spans as they are.
    ("told-password", OTEL),
    ("network.peer.address", OTEL_OR_WITH_PII),
];

const BAGGAGE: &str = "vendor=told-vendor,sentry-trace_id=09e04486820349518ac7b5d2adbf6ba5";
const W3C: &str = "00-09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-01";
const SENTRY: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a";

fn sent() -> MetadataMap {
    metadata(&[
        ("x-note", "told-request"),
        ("authorization", "told-secret"),
        ("x-api-key", "told-secret"),
        ("sentry-trace", SENTRY),
        ("baggage", BAGGAGE),
        ("traceparent", W3C),
        ("tracestate", "vendor=told-state"),
    ])
}

fn failure() -> Status {
    let answered = metadata(&[("x-note", "told-failure"), ("set-cookie", "told-secret")]);
    Status::with_metadata(Code::Internal, "told-status", answered)
}

/// What left a process in which calls went well and failed, each with a call of its
/// handler.
struct Left {
    sentry: String,
    otel: String,
    onwards: String,
}

fn left(rate: f32, pii: bool) -> Left {
    let mut world = World::with(
        |options| {
            options
                .traces_sample_rate(rate)
                .send_default_pii(pii)
                .release("greeter@1")
                .auto_session_tracking(true)
                .session_mode(SessionMode::Request)
        },
        |layer| layer,
    );
    let otel = Otel::new(Sampler::AlwaysOn);
    let metrics = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(metrics.clone()).build();
    let meters = SdkMeterProvider::builder().with_reader(reader).build();
    let meter = meters.meter("test");
    world.dispatch = Dispatch::new(
        registry()
            .with(SentryTracingLayer::new())
            .with(otel.layer())
            .with(LogLayer::new())
            // tonic's own libraries trace what they read and write.
            .with(LevelFilter::INFO),
    );
    let server = SentryServerLayer::new()
        .sentry_metrics(true)
        .otel_metrics(&meter)
        .breadcrumbs(true);
    let client = SentryClientLayer::new()
        .sentry_metrics(true)
        .otel_metrics(&meter)
        .capture_codes([Code::Internal]);
    let onwards = world.run(async {
        let head = metadata(&[("x-note", "told-head"), ("x-auth", "told-secret")]);
        let upstream = Scripted::new().head(head.clone());
        let (behind, arrivals) = upstream.serve_unobserved().await;
        let asks = behind.observed_client(client.clone()).await;
        let call = move |name: String| {
            let mut asks = asks.clone();
            async move {
                let span = info_span!(
                    "export",
                    rpc.param.note = "told-param",
                    rpc.param.password = "told-password"
                );
                span.in_scope(|| info!("exporting"));
                asks.say_hello(request("Grace")).await?;
                Ok(reply(&name))
            }
        };
        let fails = call.clone();
        let greeter = Scripted::new()
            .head(head)
            .say_hello(call)
            .say_hello_stream(move |name| {
                let fails = fails.clone();
                async move {
                    fails(name).await?;
                    error!("cannot export");
                    Err(failure())
                }
            });
        let server = greeter.serve_with(server).await;
        let mut client = server.observed_client(client).await;
        let request = || {
            let message = request("told-name");
            tonic::Request::from_parts(sent(), tonic::Extensions::new(), message)
        };
        client.say_hello(request()).await.unwrap();
        client.say_hello_stream(request()).await.unwrap_err();
        // Whose trace is the one that it names.
        let mut unobserved = server.client().await;
        unobserved.say_hello(request()).await.unwrap();
        unobserved.say_hello_stream(request()).await.unwrap_err();
        drop((client, unobserved));
        server.stop().await;
        behind.stop().await;
        let calls: Vec<_> = arrivals.try_iter().collect();
        format!("{calls:?}")
    });
    meters.force_flush().unwrap();
    world.hub.client().unwrap().close(None);
    let (spans, metrics) = (otel.spans(), metrics.get_finished_metrics().unwrap());
    Left {
        sentry: world.written(),
        otel: format!("{spans:?} {metrics:?}"),
        onwards,
    }
}

#[test]
fn each_text_is_told_to_whom_it_is_said_to_be_told() {
    for pii in [false, true] {
        let left = left(1.0, pii);
        // That it was looked for in everything.
        for item in ["transaction", "event", "sessions", "trace_metric", "log"] {
            let item = format!(r#""type":"{item}""#);
            assert!(left.sentry.contains(&item), "{item} in {}", left.sentry);
        }
        for (text, told) in TEXTS {
            let expected = if pii { told.with_pii } else { told.sentry };
            let got = [&left.sentry, &left.otel, &left.onwards].map(|all| all.contains(text));
            assert_eq!(got, [expected, told.otel, told.onwards], "{text} {pii}");
        }
    }
}

#[test]
fn of_what_is_not_sampled_no_more_is_told() {
    for pii in [false, true] {
        let left = left(0.0, pii);
        assert!(left.sentry.contains(r#""type":"client_report""#));
        for (text, told) in TEXTS {
            let may = if pii { told.with_pii } else { told.sentry };
            assert!(may || !left.sentry.contains(text), "{text} {pii}");
            assert_eq!(left.onwards.contains(text), told.onwards, "{text} {pii}");
        }
    }
}
