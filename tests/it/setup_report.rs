//! The text of a setup report, and its notes.

use std::sync::Arc;

use opentelemetry_sdk::trace::Sampler;
use sentry::test::TestTransport;
use sentry::{Client, ClientOptions, Hub};
use sentry_tonic::{
    SentryClientLayer, SentryMakeSpan, SentryServerLayer, SentryTracingLayer, SetupProblem,
    SetupReport, TraceTransport, check_setup,
};
use tower_http::trace::MakeSpan;
use tracing::{Dispatch, dispatcher};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::support::alone::alone;
use crate::support::greeter::{Scripted, reply, request};
use crate::support::otel::Otel;
use crate::support::world::{DSN, World};

const TWO_PROBLEMS: &str = "\
sentry-tonic setup: 2 problems found
1. The Sentry client has no DSN, so it sends nothing.
   Fix: set ClientOptions::dsn, or the environment variable SENTRY_DSN, which sentry_tonic::init and sentry::init read.
   They ignore a value of SENTRY_DSN that is not a DSN: it must be https://<key>@<host>/<project>.
2. A filter hides the spans of calls from SentryTracingLayer.
   They have the target sentry_tonic and the level INFO.
   Fix: add sentry_tonic=info to the EnvFilter or to RUST_LOG, or give each layer a filter of its own with `with_filter`.
   The filter and the span_level of SentryTracingLayer must pass INFO.

Notes:
 - Servers and clients: no call has passed through a SentryServerLayer or a SentryClientLayer yet.
   Add a SentryServerLayer to each server, and create each channel with sentry_tonic::channel or with a \
SentryClientLayer.
   Call check_setup again after some calls.
 - sentry-tower: SentryHttpLayer must not be on a gRPC server, where it makes an additional HTTP transaction of each \
call.
   It is fine on an HTTP server that calls gRPC services, such as an axum application.
 - sentry versions: `cargo tree -i sentry-core` must list one version.
   If it says that the name is ambiguous, there are two versions, and this check cannot see a client of the other one.
 - Shutdown: hold the guard of sentry_tonic::init, or of sentry::init, until the servers and the Tokio runtime have \
stopped.
   Events that are reported after the guard is dropped are lost.

More: https://docs.rs/sentry-tonic/latest/sentry_tonic/manual/troubleshooting/";

const ERRORS_ONLY: &str = "\
Errors only: the client sends errors, but no transactions.
To send transactions, set ClientOptions::traces_sample_rate or traces_sampler.";
const RATE_IS_0: &str =
    "Sample rate 0: the client sends a transaction only if the caller has sampled the trace.";
const TRANSPORT: &str = "\
Transport: without a TraceTransport, Sentry samples and counts the services of a trace separately.
Use sentry_tonic::init, which adds one unless the options have a transport, or set ClientOptions::transport to a \
TraceTransport.";
const NO_CALLS: &str = "\
Servers and clients: no call has passed through a SentryServerLayer or a SentryClientLayer yet.
Add a SentryServerLayer to each server, and create each channel with sentry_tonic::channel or with a SentryClientLayer.
Call check_setup again after some calls.";
const NO_CLIENTS: &str = "\
Clients: no call has passed through a SentryClientLayer yet.
If this process calls gRPC services, create each channel with sentry_tonic::channel, or add a SentryClientLayer or a \
TracePropagationInterceptor to each client.";
const NO_SERVERS: &str = "\
Servers: no call has passed through a SentryServerLayer yet.
If this process serves gRPC, add a SentryServerLayer, or a TraceLayer with SentryMakeSpan, to each server.";
const NO_IDS: &str = "\
OpenTelemetry: no layer gave OpenTelemetry ids to the span of this check.
If you use tracing-opentelemetry, spans have other ids there than in Sentry.
Its version must be 0.34, its layer must not be in a reload::Layer, and its filter must pass the spans of calls.";

/// The report for a client with these options, and a subscriber with this filter.
fn report(options: ClientOptions, filter: &str) -> SetupReport {
    let hub = Arc::new(Hub::new(
        Some(Arc::new(Client::from(options))),
        Arc::default(),
    ));
    let layer = SentryTracingLayer::new().hub(hub);
    let subscriber = registry().with(layer).with(EnvFilter::new(filter));
    dispatcher::with_default(&Dispatch::new(subscriber), check_setup)
}

/// The notes on the client and on calls, which the report has first.
fn notes(report: &SetupReport) -> Vec<&'static str> {
    let known = [
        ERRORS_ONLY,
        RATE_IS_0,
        TRANSPORT,
        NO_CALLS,
        NO_CLIENTS,
        NO_SERVERS,
    ];
    let notes = report.notes().iter().copied();
    let notes: Vec<_> = notes.take_while(|note| known.contains(note)).collect();
    let rest = report.notes().iter().skip(notes.len());
    assert!(
        rest.clone().all(|note| !known.contains(note)),
        "{report:#?}"
    );
    notes
}

#[test]
fn problems_are_numbered_and_followed_by_notes() {
    let name = "setup_report::problems_are_numbered_and_followed_by_notes";
    alone(name, || {
        let options = || ClientOptions::new().transport(TestTransport::new());
        let two = report(options(), "warn");
        assert!(!two.is_ok());
        assert_eq!(two.to_string(), TWO_PROBLEMS);

        let one = report(options(), "info").to_string();
        let (problems, _) = one.split_once("\n\nNotes:\n - ").unwrap();
        assert_eq!(
            problems,
            "sentry-tonic setup: 1 problem found\n\
             1. The Sentry client has no DSN, so it sends nothing.\n   \
             Fix: set ClientOptions::dsn, or the environment variable SENTRY_DSN, which \
             sentry_tonic::init and sentry::init read.\n   \
             They ignore a value of SENTRY_DSN that is not a DSN: it must be \
             https://<key>@<host>/<project>."
        );

        let none = report(options().dsn(DSN).traces_sample_rate(1.0), "info");
        assert!(none.is_ok());
        assert!(
            none.to_string().starts_with(
                "sentry-tonic setup: no problems\n\n\
                 Notes:\n - Transport: without a TraceTransport, "
            ),
            "{none}"
        );
    });
}

#[test]
fn a_problem_is_displayed_with_its_fix() {
    assert_eq!(
        SetupProblem::ConflictingHttpLayer.to_string(),
        "sentry-tower's SentryHttpLayer makes an additional HTTP transaction of each gRPC call.\n\
         It reports failed calls as ok.\n\
         Fix: remove it from the gRPC server.\n\
         On an HTTP server that calls gRPC services, or forwards gRPC requests to another process, \
         it can stay."
    );
}

#[test]
fn what_a_client_does_not_send_is_a_note() {
    let name = "setup_report::what_a_client_does_not_send_is_a_note";
    alone(name, || {
        let options = || {
            ClientOptions::new()
                .dsn(DSN)
                .transport(TestTransport::new())
        };
        let notes_for = |options: ClientOptions| {
            let report = report(options, "info");
            assert!(report.is_ok(), "{report}");
            notes(&report)
        };
        assert_eq!(notes_for(options()), [ERRORS_ONLY, TRANSPORT, NO_CALLS]);
        let never = options().traces_sample_rate(0.0);
        assert_eq!(notes_for(never), [RATE_IS_0, TRANSPORT, NO_CALLS]);
        let sampled = options().traces_sampler(|_| 0.0);
        assert_eq!(notes_for(sampled), [TRANSPORT, NO_CALLS]);
        // From now on, the process has one.
        let kept = options().transport(TraceTransport::new(TestTransport::new()));
        assert_eq!(notes_for(kept), [ERRORS_ONLY, NO_CALLS]);
        let rated = options().traces_sample_rate(0.1);
        assert_eq!(notes_for(rated), [NO_CALLS]);

        // A client that sends nothing at all has a problem instead.
        let without_dsn = ClientOptions::new().transport(TestTransport::new());
        let report = report(without_dsn, "info");
        assert_eq!(report.problems(), [SetupProblem::NoDsn]);
        assert_eq!(notes(&report), [NO_CALLS]);
    });
}

#[test]
fn the_defaults_of_init_have_no_note() {
    alone("setup_report::the_defaults_of_init_have_no_note", || {
        let options = ClientOptions::new()
            .dsn(DSN)
            .traces_sample_rate(0.1)
            .shutdown_timeout(std::time::Duration::ZERO);
        let guard = sentry_tonic::init(options).close_timeout(std::time::Duration::ZERO);
        let dispatch = Dispatch::new(registry().with(SentryTracingLayer::new()));
        let check = || dispatcher::with_default(&dispatch, check_setup);
        assert_eq!(check().problems(), []);
        assert_eq!(notes(&check()), [NO_CALLS]);
        drop(guard);
        assert_eq!(check().problems(), [SetupProblem::ClientClosed]);
    });
}

#[test]
fn layers_that_no_call_passed_through_are_noted() {
    let name = "setup_report::layers_that_no_call_passed_through_are_noted";
    alone(name, || {
        let world = World::new();
        let notes = || notes(&world.sync(check_setup));
        assert_eq!(notes(), [TRANSPORT, NO_CALLS]);
        world.run(async {
            let greeter = Scripted::new().say_hello(async |name| Ok(reply(&name)));
            let (server, _arrivals) = greeter.clone().serve_unobserved().await;
            let mut client = server.observed_client(SentryClientLayer::new()).await;
            client.say_hello(request("Ferris")).await.unwrap();
            assert_eq!(notes(), [TRANSPORT, NO_SERVERS]);
            greeter.say_hello_once("Ferris").await.unwrap();
            assert_eq!(notes(), [TRANSPORT]);
        });
    });
}

#[test]
fn the_callbacks_of_a_trace_layer_count_as_a_layer() {
    let name = "setup_report::the_callbacks_of_a_trace_layer_count_as_a_layer";
    alone(name, || {
        let world = World::new();
        world.sync(|| {
            let request = http::Request::builder()
                .uri("http://localhost/helloworld.Greeter/SayHello")
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            SentryMakeSpan::new(SentryServerLayer::new()).make_span(&request);
        });
        let report = world.sync(check_setup);
        assert_eq!(notes(&report), [TRANSPORT, NO_CLIENTS]);
    });
}

#[test]
fn missing_ids_of_opentelemetry_are_noted() {
    let otel = Otel::new(Sampler::AlwaysOn);
    let has_note = |world: &World| world.sync(check_setup).notes().contains(&NO_IDS);
    let with = World::subscribed(
        registry()
            .with(SentryTracingLayer::new())
            .with(otel.layer()),
    );
    assert!(!has_note(&with));
    let layer = otel.layer().with_filter(EnvFilter::new("it=info"));
    let filtered = World::subscribed(registry().with(SentryTracingLayer::new()).with(layer));
    assert!(has_note(&filtered));
    assert!(has_note(&World::new()));
}
