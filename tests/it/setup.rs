//! What a process is told of how it is set up.

use std::io::Write;
use std::sync::{Arc, Mutex};

use opentelemetry_sdk::trace::Sampler;
use sentry::integrations::tracing::{ErrorLayer, SpanLayer};
use sentry::test::TestTransport;
use sentry::{Client, ClientOptions, Hub};
use sentry_tonic::{
    SentryClientLayer, SentryMakeSpan, SentryServerLayer, SentryTracingLayer, SetupProblem,
    SetupReport, TraceTransport, check_setup,
};
use tonic::transport::Server;
use tower::Layer as _;
use tower_http::trace::MakeSpan;
use tracing::{Dispatch, dispatcher, error, info_span};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{fmt, registry, reload};

use crate::support::alone::alone;
use crate::support::greeter::{Scripted, listen, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::otel::Otel;
use crate::support::world::{DSN, World};

/// A layer of whatever subscriber it is put on.
macro_rules! quiet {
    () => {
        fmt::layer().with_writer(std::io::sink)
    };
}

/// Without what other tests of this process have done twice.
fn of_setup(report: &SetupReport) -> Vec<SetupProblem> {
    use SetupProblem::{DuplicateClientLayer, DuplicateServerLayer};
    let problems = report.problems().iter().copied();
    problems
        .filter(|problem| !matches!(problem, DuplicateServerLayer | DuplicateClientLayer))
        .collect()
}

/// What is found with this subscriber, and a client that can do all.
fn found<S>(make: impl FnOnce(SentryTracingLayer) -> S) -> Vec<SetupProblem>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
{
    let world = World::subscribed(|hub| make(SentryTracingLayer::new().hub(hub)));
    // Where another layer would send what it makes of the check.
    let report = world.sync(|| Hub::run(Arc::clone(&world.hub), check_setup));
    assert_eq!(world.written(), "");
    of_setup(&report)
}

/// What is found with a client of these options.
fn found_of_client(options: ClientOptions) -> Vec<SetupProblem> {
    let client = Client::from(options.transport(TestTransport::new()));
    found_of(Some(Arc::new(client)))
}

fn found_of(client: Option<Arc<Client>>) -> Vec<SetupProblem> {
    let hub = Arc::new(Hub::new(client, Arc::default()));
    let subscriber = registry().with(SentryTracingLayer::new().hub(hub));
    of_setup(&dispatcher::with_default(
        &Dispatch::new(subscriber),
        check_setup,
    ))
}

#[test]
fn a_client_that_cannot_send_is_found() {
    let options = || ClientOptions::new().dsn(DSN).traces_sample_rate(1.0);
    assert_eq!(found_of_client(options()), []);
    assert_eq!(found_of_client(options().traces_sampler(|_| 0.0)), []);
    assert_eq!(found_of_client(options().traces_sample_rate(0.0)), []);
    assert_eq!(found_of(None), [SetupProblem::NoClient]);
    let without_dsn = ClientOptions::new().traces_sample_rate(1.0);
    assert_eq!(found_of_client(without_dsn), [SetupProblem::NoDsn]);
    let without_rate = ClientOptions::new().dsn(DSN);
    assert_eq!(
        found_of_client(without_rate),
        [SetupProblem::TracingDisabled]
    );

    let without_transport = Arc::new(Client::from(options()));
    assert_eq!(
        found_of(Some(without_transport)),
        [SetupProblem::NoTransport]
    );

    let client = Client::from(options().transport(TestTransport::new()));
    client.close(None);
    let closed = found_of(Some(Arc::new(client)));
    assert_eq!(closed, [SetupProblem::ClientClosed]);
}

#[test]
fn the_client_is_that_of_the_current_hub_else_of_the_main_one() {
    alone(
        "setup::the_client_is_that_of_the_current_hub_else_of_the_main_one",
        || {
            let dispatch = Dispatch::new(registry().with(SentryTracingLayer::new()));
            let check = || dispatcher::with_default(&dispatch, check_setup);
            assert_eq!(check().problems(), [SetupProblem::NoClient]);
            let client = |options: ClientOptions| {
                let options = options.dsn(DSN).transport(TestTransport::new());
                Some(Arc::new(Client::from(options)))
            };
            Hub::main().bind_client(client(ClientOptions::new()));
            assert_eq!(check().problems(), [SetupProblem::TracingDisabled]);
            let own = client(ClientOptions::new().traces_sample_rate(1.0));
            let own = Arc::new(Hub::new(own, Arc::default()));
            assert_eq!(Hub::run(own, check).problems(), []);
            let none = Arc::new(Hub::new(None, Arc::default()));
            assert_eq!(
                Hub::run(none, check).problems(),
                [SetupProblem::TracingDisabled]
            );
        },
    );
}

#[test]
fn a_layer_that_is_missing_is_found() {
    assert_eq!(found(|_| registry()), [SetupProblem::LayerMissing]);
    let report = dispatcher::with_default(&Dispatch::none(), check_setup);
    let problems = [SetupProblem::NoClient, SetupProblem::NoSubscriber];
    assert_eq!(of_setup(&report), problems);
}

#[test]
fn a_layer_is_seen_whatever_stands_around_it() {
    assert_eq!(found(|ours| registry().with(quiet!()).with(ours)), []);
    assert_eq!(found(|ours| registry().with(ours).with(quiet!())), []);
    assert_eq!(found(|ours| registry().with(Some(ours))), []);
    assert_eq!(found(|ours| registry().with(vec![ours])), []);
    assert_eq!(found(|ours| registry().with(ours.boxed())), []);
    assert_eq!(
        found(|ours| registry().with(reload::Layer::new(ours).0)),
        []
    );
    let info = LevelFilter::INFO;
    assert_eq!(found(|ours| registry().with(ours.with_filter(info))), []);
    // The filters of other layers are theirs.
    let filtered = || quiet!().with_filter(EnvFilter::new("warn"));
    assert_eq!(found(|ours| registry().with(filtered()).with(ours)), []);
}

#[test]
fn filters_that_hide_calls_are_found() {
    let filters = ["warn", "off", "info,sentry_tonic=warn", "my_service=debug"];
    for filter in filters {
        let whole = found(|ours| registry().with(ours).with(EnvFilter::new(filter)));
        assert_eq!(whole, [SetupProblem::SpansFiltered], "{filter}");
        let own = found(|ours| registry().with(ours.with_filter(EnvFilter::new(filter))));
        assert_eq!(own, [SetupProblem::SpansFiltered], "{filter}");
    }
    for filter in [
        "info",
        "warn,sentry_tonic=info",
        "debug",
        "sentry_tonic=trace",
    ] {
        let whole = found(|ours| registry().with(ours).with(EnvFilter::new(filter)));
        assert_eq!(whole, [], "{filter}");
    }
    let by_level = found(|ours| registry().with(ours.span_level(LevelFilter::WARN)));
    assert_eq!(by_level, [SetupProblem::SpansFiltered]);
}

#[test]
fn layers_that_do_the_same_work_are_found() {
    let twice = found(|ours| registry().with(ours).with(SentryTracingLayer::new()));
    assert_eq!(twice, [SetupProblem::DuplicateLayer]);

    let beside = [SetupProblem::ConflictingSpanLayer];
    assert_eq!(
        found(|ours| registry().with(ours).with(SpanLayer::new())),
        beside
    );
    assert_eq!(
        found(|ours| registry().with(SpanLayer::new()).with(ours)),
        beside
    );
    let span_layer = || SpanLayer::new().with_filter(LevelFilter::INFO);
    assert_eq!(
        found(|ours| registry().with(ours).with(span_layer())),
        beside
    );
    // It is generic over what it stands upon, so that it cannot be asked for by its type.
    #[expect(deprecated, reason = "it is what an application may have")]
    let legacy = found(|ours| {
        registry()
            .with(sentry::integrations::tracing::layer())
            .with(ours)
    });
    assert_eq!(legacy, beside);
    // Where they stand beside each other, these two panic.
    #[expect(deprecated, reason = "it is what an application may have")]
    let both = found(|ours| {
        let legacy = sentry::integrations::tracing::layer();
        registry().with(legacy).with(SpanLayer::new()).with(ours)
    });
    assert_eq!(both, beside);
    let instead = found(|_| registry().with(SpanLayer::new()));
    let problems = [
        SetupProblem::LayerMissing,
        SetupProblem::ConflictingSpanLayer,
    ];
    assert_eq!(instead, problems);
}

#[test]
fn errors_that_two_layers_send_are_found() {
    let world = World::subscribed(|hub| {
        registry()
            .with(SentryTracingLayer::new().hub(hub))
            .with(ErrorLayer::new())
    });
    world.sync(|| info_span!("outer").in_scope(|| error!("once")));
    assert_eq!(world.received().events.len(), 2);

    let beside = found(|ours| registry().with(ours).with(ErrorLayer::new()));
    assert_eq!(beside, [SetupProblem::ConflictingErrorLayer]);
    let alone = found(|ours| {
        registry()
            .with(ours.capture_errors(false))
            .with(ErrorLayer::new())
    });
    assert_eq!(alone, []);
}

/// What a subscriber writes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn calls_through_two_layers_are_found() {
    alone("setup::calls_through_two_layers_are_found", || {
        let log = Log::default();
        let writer = log.clone();
        let logged = fmt::layer()
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .with_filter(EnvFilter::new("sentry_tonic=debug"));
        let world = World::subscribed(|hub| {
            registry()
                .with(logged)
                .with(SentryTracingLayer::new().hub(hub))
        });
        let check = || world.sync(check_setup).problems().to_vec();
        world.run(async {
            let greeter = || Scripted::new().say_hello(async |name| Ok(reply(&name)));
            greeter().say_hello_once("Ferris").await.unwrap();
            assert_eq!(check(), []);

            let (listening, incoming, stopped) = listen().await;
            let layer = SentryServerLayer::new();
            let server = Server::builder()
                .layer(layer.clone())
                .add_service(layer.layer(GreeterServer::new(greeter())))
                .serve_with_incoming_shutdown(incoming, stopped);
            let server = listening.running(tokio::spawn(server));
            let channel = server.endpoint().connect().await.unwrap();
            let once = SentryClientLayer::new().layer(channel);
            let mut client = GreeterClient::new(once.clone());
            client.say_hello(request("Ferris")).await.unwrap();
            assert_eq!(check(), [SetupProblem::DuplicateServerLayer]);

            let twice = SentryClientLayer::new().layer(once);
            let mut client = GreeterClient::new(twice);
            for _ in 0..3 {
                client.say_hello(request("Ferris")).await.unwrap();
            }
            let problems = [
                SetupProblem::DuplicateServerLayer,
                SetupProblem::DuplicateClientLayer,
            ];
            assert_eq!(check(), problems);
        });
        let log = log.0.lock().unwrap();
        let log = str::from_utf8(&log).unwrap();
        let told: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("layers of the type"))
            .collect();
        assert!(told[0].ends_with(
            "sentry_tonic: a call goes through two layers of the type SentryServerLayer"
        ));
        assert!(told[1].ends_with(
            "sentry_tonic: a call goes through two layers of the type SentryClientLayer"
        ));
        assert_eq!(told.len(), 2);
    });
}

const OTHER_CRATES: &str = "Other crates: `cargo tree -i sentry-core` is to show one version; where it calls the name \
    ambiguous there are two, and a client of the other one is not seen here. `cargo tree -i sentry-tower` is to find \
    nothing: its SentryHttpLayer makes a second transaction of each call.";
const THE_END: &str = "The end: drop the guard of sentry::init last, after the servers have stopped and outside of the \
    runtime, or what is queued is lost.";
const NO_CALLS: &str = "Servers and clients: no call has gone through a SentryServerLayer or a SentryClientLayer so far. Each \
    server and each client needs one: check again after some calls.";
const NO_CLIENTS: &str = "Clients: calls have come through a SentryServerLayer, and none has gone through a SentryClientLayer \
    so far. Each client needs one, or a TracePropagationInterceptor.";
const NO_SERVERS: &str = "Servers: calls have gone through a SentryClientLayer, and none has come through a SentryServerLayer \
    so far. Each server needs one, or a TraceLayer with SentryMakeSpan.";
const NO_IDS: &str = "OpenTelemetry: nothing has given the span of this check ids. If there is a layer of \
    tracing-opentelemetry, it is not of 0.34, or in a reload::Layer, or filters the spans of calls out: its ids are not \
    Sentry's then.";
const RATE_IS_0: &str =
    "The rate is 0: no transaction is sent, but of traces that a caller samples.";
const TRANSPORT: &str = "The transport: without a TraceTransport, Sentry samples and counts each service of a trace for \
    itself.";
const MORE: &str = "More: https://docs.rs/sentry-tonic/latest/sentry_tonic/manual/troubleshooting/";

fn lines(report: &SetupReport) -> Vec<String> {
    report.to_string().lines().map(str::to_owned).collect()
}

fn hint(text: &str) -> String {
    format!(" - {text}")
}

#[test]
fn it_says_in_plain_words_what_is_wrong_and_what_to_do() {
    alone(
        "setup::it_says_in_plain_words_what_is_wrong_and_what_to_do",
        || {
            let check = |options: ClientOptions, filter: &str| {
                let client = Client::from(options.dsn(DSN));
                let hub = Arc::new(Hub::new(Some(Arc::new(client)), Arc::default()));
                let layer = SentryTracingLayer::new().hub(hub);
                let subscriber = registry().with(layer).with(EnvFilter::new(filter));
                dispatcher::with_default(&Dispatch::new(subscriber), check_setup)
            };
            let report = check(ClientOptions::new().transport(TestTransport::new()), "warn");
            assert!(!report.is_ok());
            assert_eq!(report.hints(), [OTHER_CRATES, THE_END, NO_CALLS, TRANSPORT]);
            assert_eq!(
                lines(&report),
                [
                    "sentry-tonic: 2 things are wrong with the set-up.",
                    " * Tracing is disabled: errors are sent, transactions are not.",
                    "   Set ClientOptions::traces_sample_rate, or traces_sampler. With a rate of 0 a service sends what \
                 its callers sample.",
                    " * A filter keeps the spans of calls, of the target sentry_tonic and the level INFO, from \
                 SentryTracingLayer.",
                    "   Give each other layer a filter of its own, by `with_filter`. Or add sentry_tonic=info to the \
                 EnvFilter or RUST_LOG, or set the filter and the span_level of SentryTracingLayer to INFO.",
                    "What cannot be seen from here:",
                    &hint(OTHER_CRATES),
                    &hint(THE_END),
                    &hint(NO_CALLS),
                    &hint(TRANSPORT),
                    MORE,
                ]
            );

            let options = ClientOptions::new()
                .traces_sample_rate(0.0)
                .transport(TraceTransport::new(TestTransport::new()));
            let report = check(options, "info");
            assert!(report.is_ok());
            assert_eq!(
                lines(&report),
                [
                    "sentry-tonic: nothing is wrong with the set-up, as far as it can be seen.",
                    "What cannot be seen from here:",
                    &hint(OTHER_CRATES),
                    &hint(THE_END),
                    &hint(NO_CALLS),
                    &hint(NO_IDS),
                    &hint(RATE_IS_0),
                    MORE,
                ]
            );
            let none = dispatcher::with_default(&Dispatch::none(), check_setup);
            assert_eq!(
                lines(&none)[0],
                "sentry-tonic: 2 things are wrong with the set-up."
            );
        },
    );
}

#[test]
fn the_layers_that_no_call_came_through_are_named() {
    alone(
        "setup::the_layers_that_no_call_came_through_are_named",
        || {
            let of_calls = |world: &World| {
                let report = world.sync(check_setup);
                let known = [NO_CALLS, NO_CLIENTS, NO_SERVERS];
                let hints = report.hints().iter().copied();
                hints
                    .filter(|hint| known.contains(hint))
                    .collect::<Vec<_>>()
            };
            let world = World::new();
            assert_eq!(of_calls(&world), [NO_CALLS]);
            world.run(async {
                let greeter = Scripted::new().say_hello(async |name| Ok(reply(&name)));
                let (server, _arrivals) = greeter.clone().serve_unobserved().await;
                let mut client = server.observed_client(SentryClientLayer::new()).await;
                client.say_hello(request("Ferris")).await.unwrap();
                assert_eq!(of_calls(&world), [NO_SERVERS]);
                greeter.say_hello_once("Ferris").await.unwrap();
                assert_eq!(of_calls(&world), [""; 0]);
            });
        },
    );
}

#[test]
fn the_hooks_of_a_trace_layer_count_as_a_layer() {
    alone("setup::the_hooks_of_a_trace_layer_count_as_a_layer", || {
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
        assert!(report.hints().contains(&NO_CLIENTS), "{report}");
    });
}

#[test]
fn ids_of_opentelemetry_are_looked_for() {
    let otel = Otel::new(Sampler::AlwaysOn);
    let has_hint = |world: &World| world.sync(check_setup).hints().contains(&NO_IDS);
    let with = World::subscribed(|hub| {
        registry()
            .with(SentryTracingLayer::new().hub(hub))
            .with(otel.layer())
    });
    assert!(!has_hint(&with));
    let filtered = World::subscribed(|hub| {
        let layer = otel.layer().with_filter(EnvFilter::new("it=info"));
        registry()
            .with(SentryTracingLayer::new().hub(hub))
            .with(layer)
    });
    assert!(has_hint(&filtered));
    assert!(has_hint(&World::new()));
}

#[test]
fn it_changes_nothing() {
    let world = World::new();
    world.sync(|| {
        info_span!("outer").in_scope(|| {
            let hub = Hub::current();
            assert_eq!(of_setup(&check_setup()), []);
            assert!(Arc::ptr_eq(&hub, &Hub::current()));
            info_span!("inner").in_scope(|| {});
        });
    });
    let tx = world.received().only_tx();
    assert_eq!(tx.name, "outer");
    let names: Vec<&str> = tx.spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["inner"]);
}
