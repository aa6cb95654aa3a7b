//! The problems that `check_setup` finds.

use std::io::Write;
use std::sync::{Arc, Mutex};

use sentry::integrations::tracing::{ErrorLayer, SpanLayer};
use sentry::test::TestTransport;
use sentry::{Client, ClientOptions, Hub};
use sentry_tonic::{
    SentryClientLayer, SentryServerLayer, SentryTracingLayer, SetupProblem, SetupReport,
    check_setup,
};
use tonic::transport::Server;
use tower::Layer as _;
use tracing::{Dispatch, dispatcher, error, info_span};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{fmt, registry, reload};

use crate::support::alone::alone;
use crate::support::greeter::{Scripted, listen, reply, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::world::{DSN, World};

/// A layer for any subscriber.
macro_rules! quiet {
    () => {
        fmt::layer().with_writer(std::io::sink)
    };
}

/// Without the problems that other tests of this process cause by their calls.
fn of_setup(report: &SetupReport) -> Vec<SetupProblem> {
    use SetupProblem::{DuplicateClientLayer, DuplicateServerLayer};
    let problems = report.problems().iter().copied();
    problems
        .filter(|problem| !matches!(problem, DuplicateServerLayer | DuplicateClientLayer))
        .collect()
}

/// The problems of this subscriber, with a client that has none.
fn found<S>(make: impl FnOnce(SentryTracingLayer) -> S) -> Vec<SetupProblem>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
{
    let world = World::subscribed(make(SentryTracingLayer::new()));
    let report = world.sync(check_setup);
    assert_eq!(world.written(), "");
    of_setup(&report)
}

/// The problems of a client with these options.
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
    let errors_only = ClientOptions::new().dsn(DSN);
    assert_eq!(found_of_client(errors_only), []);

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
                let options = options.transport(TestTransport::new());
                Some(Arc::new(Client::from(options)))
            };
            Hub::main().bind_client(client(ClientOptions::new()));
            assert_eq!(check().problems(), [SetupProblem::NoDsn]);
            let own = client(ClientOptions::new().dsn(DSN));
            let own = Arc::new(Hub::new(own, Arc::default()));
            assert_eq!(Hub::run(own, check).problems(), []);
            let none = Arc::new(Hub::new(None, Arc::default()));
            assert_eq!(Hub::run(none, check).problems(), [SetupProblem::NoDsn]);
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
    // A filter of another layer does not filter this one.
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

    let conflict = [SetupProblem::ConflictingSpanLayer];
    assert_eq!(
        found(|ours| registry().with(ours).with(SpanLayer::new())),
        conflict
    );
    assert_eq!(
        found(|ours| registry().with(SpanLayer::new()).with(ours)),
        conflict
    );
    let span_layer = || SpanLayer::new().with_filter(LevelFilter::INFO);
    assert_eq!(
        found(|ours| registry().with(ours).with(span_layer())),
        conflict
    );
    // It cannot be found by its type, which is generic over the subscriber.
    #[expect(deprecated, reason = "applications may have it")]
    let legacy = found(|ours| {
        registry()
            .with(sentry::integrations::tracing::layer())
            .with(ours)
    });
    assert_eq!(legacy, conflict);
    // These two panic if they are in one subscriber.
    #[expect(deprecated, reason = "applications may have it")]
    let both = found(|ours| {
        let legacy = sentry::integrations::tracing::layer();
        registry().with(legacy).with(SpanLayer::new()).with(ours)
    });
    assert_eq!(both, conflict);
    let instead = found(|_| registry().with(SpanLayer::new()));
    let problems = [
        SetupProblem::LayerMissing,
        SetupProblem::ConflictingSpanLayer,
    ];
    assert_eq!(instead, problems);
}

#[test]
fn errors_that_two_layers_send_are_found() {
    let layers = registry().with(SentryTracingLayer::new());
    let world = World::subscribed(layers.with(ErrorLayer::new()));
    world.sync(|| info_span!("outer").in_scope(|| error!("once")));
    assert_eq!(world.received().events.len(), 2);

    let conflict = found(|ours| registry().with(ours).with(ErrorLayer::new()));
    assert_eq!(conflict, [SetupProblem::ConflictingErrorLayer]);
    let alone = found(|ours| {
        registry()
            .with(ours.capture_errors(false))
            .with(ErrorLayer::new())
    });
    assert_eq!(alone, []);
}

/// The lines that a subscriber writes.
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
        let world = World::subscribed(registry().with(logged).with(SentryTracingLayer::new()));
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
        let logged: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("layers of the type"))
            .collect();
        assert!(logged[0].ends_with(
            "sentry_tonic: a call goes through two layers of the type SentryServerLayer"
        ));
        assert!(logged[1].ends_with(
            "sentry_tonic: a call goes through two layers of the type SentryClientLayer"
        ));
        assert_eq!(logged.len(), 2);
    });
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
