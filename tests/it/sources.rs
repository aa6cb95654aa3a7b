//! What `with_source` shows of a failure, and to whom.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::HeaderMap;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Code, Request, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::{error, info_span};

use sentry_tonic::{PanicPolicy, SentryClientLayer, SentryServerLayer, StatusExt as _};

use crate::support::greeter::{
    ObservedClient, Replies, Running, Scripted, listen, replies, reply, request,
};
use crate::support::helloworld::HelloReply;
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::observed::{KINDS, Observed, failing, metadata};
use crate::support::received::{exceptions, map, trace, with_prefixes};
use crate::support::world::{RATES, World};

/// The metadata that names the source of a status inside the server.
pub(crate) const KEY: &str = "x-sentry-tonic-source";

#[derive(Debug, thiserror::Error)]
enum DbError {
    #[error("cannot read the table {table}")]
    Read { table: &'static str, source: Torn },
}

#[derive(Debug, thiserror::Error)]
#[error("checksum mismatch in page {0}")]
struct Torn(u32);

impl From<DbError> for Status {
    fn from(error: DbError) -> Self {
        Self::internal("the database failed").with_source(error)
    }
}

fn read(page: u32) -> Result<HelloReply, DbError> {
    let source = Torn(page);
    Err(DbError::Read {
        table: "users",
        source,
    })
}

/// As a handler reads a row: with `?`.
fn row(page: u32) -> Result<HelloReply, Status> {
    Ok(read(page)?)
}

pub(crate) fn causes(page: u32) -> [(String, Option<String>); 3] {
    let exception = |ty: &str, value: String| (ty.to_owned(), Some(value));
    [
        exception("Torn", format!("checksum mismatch in page {page}")),
        exception("Read", "cannot read the table users".to_owned()),
        exception("INTERNAL", "the database failed".to_owned()),
    ]
}

/// Fails with a source, in all four kinds of calls; streams of replies after one reply.
pub(crate) fn broken() -> Scripted {
    let rows = || replies(vec![Ok(reply("first")), row(7)]);
    Scripted::new()
        .say_hello(|_| async { row(7) })
        .say_hello_stream(move |_| async move { Ok(rows()) })
        .collect_hellos(|mut requests| async move {
            while requests.message().await?.is_some() {}
            row(7)
        })
        .chat(|requests| async move {
            let rows = requests.map(|request| {
                request?;
                row(7)
            });
            Ok(Box::pin(rows) as Replies)
        })
}

pub(crate) const CALLS: [&str; 4] = ["unary", "server stream", "client stream", "bidirectional"];

/// What the caller gets of a call that fails.
async fn failure(client: &mut ObservedClient, call: &str) -> Status {
    let requests = || tokio_stream::iter(["a", "b"].map(request));
    let replies = match call {
        "unary" => return client.say_hello(request("a")).await.unwrap_err(),
        "client stream" => return client.collect_hellos(requests()).await.unwrap_err(),
        "server stream" => client.say_hello_stream(request("a")).await,
        _ => client.chat(requests()).await,
    };
    let mut replies = match replies {
        Ok(replies) => replies.into_inner(),
        Err(status) => return status,
    };
    loop {
        match replies.message().await {
            Ok(reply) => assert!(reply.is_some(), "{call}"),
            Err(status) => return status,
        }
    }
}

/// What a caller may know: not the source, nor that there is one.
#[track_caller]
pub(crate) fn assert_hidden(status: &Status, call: &str) {
    assert_eq!(status.code(), Code::Internal, "{call}");
    assert_eq!(status.message(), "the database failed", "{call}");
    assert!(Error::source(status).is_none(), "{call}");
    assert!(!status.metadata().contains_key(KEY), "{call}");
    assert!(!format!("{status:?}").contains("table"), "{call}");
}

#[test]
fn each_kind_of_call_shows_what_caused_its_failure_to_sentry_alone() {
    for rate in RATES {
        for call in CALLS {
            for pii in [false, true] {
                let world = World::with_pii(rate, pii);
                let side = Observed::Server(SentryServerLayer::new());
                let run = side.run(broken(), async |mut client| {
                    failure(&mut client, call).await
                });
                assert_hidden(&world.run(run), call);
                let received = world.received();
                let event = received.only_event();
                assert_eq!(exceptions(event), causes(7), "{call} {rate:?}");
                assert_eq!(event.fingerprint[2], "Torn");
            }
        }
    }
}

#[test]
fn the_id_is_no_metadata_of_the_response() {
    for call in CALLS {
        let world = World::with_pii(Some(1.0), true);
        let side = Observed::Server(SentryServerLayer::new());
        let run = side.run(broken(), async |mut client| {
            failure(&mut client, call).await
        });
        world.run(run);
        let received = world.received();
        let data = trace(received.only_transaction())
            .data
            .into_iter()
            .collect();
        let response = with_prefixes(&data, &["rpc.response.metadata"]);
        assert_eq!(response, map([]), "{call}");
        let event = serde_json::to_string(received.only_event()).unwrap();
        assert!(!event.contains(KEY), "{call}: {event}");
    }
}

/// A task without a span sends the rows of the stream.
#[test]
fn a_task_without_a_span_may_make_the_status() {
    for threads in [0, 2] {
        let world = World::new();
        let call = async {
            let greeter = Scripted::new().say_hello_stream(|_| async {
                let (rows, received) = mpsc::channel(1);
                tokio::spawn(async move {
                    rows.send(Ok(reply("first"))).await.unwrap();
                    rows.send(row(7)).await.unwrap();
                });
                Ok(Box::pin(ReceiverStream::new(received)) as Replies)
            });
            let side = Observed::Server(SentryServerLayer::new());
            let failure = async |mut client| failure(&mut client, "server stream").await;
            side.run(greeter, failure).await
        };
        let status = match threads {
            0 => world.run(call),
            threads => world.run_threads(threads, call),
        };
        assert_hidden(&status, "server stream");
        assert_eq!(exceptions(world.received().only_event()), causes(7));
    }
}

/// Two streams fail with the same code and message, and in the other order than they began.
#[test]
fn each_call_has_the_source_of_its_own_status() {
    let world = World::new();
    world.run(async {
        let (end_first, first_ends) = oneshot::channel::<()>();
        let first_ends = Mutex::new(Some(first_ends));
        let greeter = Scripted::new().say_hello_stream(move |name| {
            let wait = first_ends.lock().unwrap().take();
            async move {
                let (rows, received) = mpsc::channel(1);
                // Made ahead of the status of the other call, and sent after it.
                let row = row(name.parse().unwrap());
                tokio::spawn(async move {
                    rows.send(Ok(reply(&name))).await.unwrap();
                    if let Some(wait) = wait {
                        wait.await.unwrap();
                    }
                    rows.send(row).await.unwrap();
                });
                Ok(Box::pin(ReceiverStream::new(received)) as Replies)
            }
        });
        let side = Observed::Server(SentryServerLayer::new());
        side.run(greeter, async |mut client| {
            let mut one = client
                .say_hello_stream(request("1"))
                .await
                .unwrap()
                .into_inner();
            one.message().await.unwrap();
            let mut two = client
                .say_hello_stream(request("2"))
                .await
                .unwrap()
                .into_inner();
            two.message().await.unwrap();
            two.message().await.unwrap_err();
            end_first.send(()).unwrap();
            one.message().await.unwrap_err();
        })
        .await;
    });
    let received = world.received();
    let [two, one] = received.events.as_slice() else {
        panic!("{:?}", received.events)
    };
    assert_eq!(exceptions(two), causes(2));
    assert_eq!(exceptions(one), causes(1));
}

#[test]
fn the_last_source_counts() {
    for kind in KINDS {
        let world = World::new();
        let greeter = failing(|| {
            let status = Status::internal("the database failed");
            status.with_source(Torn(1)).with_source("the last one")
        });
        let side = Observed::Server(SentryServerLayer::new());
        let call = side.call(greeter, kind, MetadataMap::new());
        world.run(call).unwrap_err();
        let received = world.received();
        let told = exceptions(received.only_event());
        let values: Vec<_> = told
            .iter()
            .map(|(_, value)| value.as_deref().unwrap())
            .collect();
        assert_eq!(values, ["the last one", "the database failed"], "{kind:?}");
    }
}

#[test]
fn details_and_metadata_of_the_status_reach_the_caller() {
    for kind in KINDS {
        let world = World::new();
        let greeter = failing(|| {
            let mut details = ErrorDetails::new();
            details.set_error_info("TORN", "db.example", []);
            let message = "the database failed";
            let status = Status::with_error_details(Code::Internal, message, details);
            let mut status = status.with_source(Torn(7));
            status
                .metadata_mut()
                .insert("x-shard", "7".parse().unwrap());
            status
        });
        let side = Observed::Server(SentryServerLayer::new());
        let call = side.call(greeter, kind, MetadataMap::new());
        let status = world.run(call).unwrap_err();
        assert_hidden(&status, "");
        let info = status.get_details_error_info().unwrap();
        assert_eq!((&*info.reason, &*info.domain), ("TORN", "db.example"));
        assert_eq!(status.metadata().get("x-shard").unwrap(), "7");
        let causes = exceptions(world.received().only_event());
        assert_eq!(causes[0].0, "Torn");
    }
}

/// Alive as long as something holds it.
#[derive(Debug)]
struct Held(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("held")
    }
}

impl Error for Held {}

#[test]
fn a_source_is_dropped_with_its_status_whether_that_was_sent_or_not() {
    let token = Arc::new(());
    let status = || Status::internal("sorry").with_source(Held(Arc::clone(&token)));
    let copy = {
        let status = status();
        assert_eq!(Arc::strong_count(&token), 2);
        status.clone()
    };
    assert_eq!(Arc::strong_count(&token), 2);
    drop(copy);
    assert_eq!(Arc::strong_count(&token), 1);
    for kind in KINDS {
        let world = World::new();
        let held = Arc::clone(&token);
        let greeter = failing(move || Status::internal("sorry").with_source(Held(held.clone())));
        let side = Observed::Server(SentryServerLayer::new());
        world
            .run(side.call(greeter, kind, MetadataMap::new()))
            .unwrap_err();
        assert_eq!(exceptions(world.received().only_event()).len(), 2);
        drop(world);
        assert_eq!(Arc::strong_count(&token), 1, "{kind:?}");
    }
}

/// What the caller gets where no layer removes the id: the id, and nothing that the source says.
pub(crate) async fn fail_seen(server: Running, call: &str) -> Status {
    let mut client = server
        .observed_client(SentryClientLayer::new().ignore_if(|_| true))
        .await;
    let status = failure(&mut client, call).await;
    drop(client);
    server.stop().await;
    let id = status.metadata().get(KEY).unwrap().to_str().unwrap();
    assert!(u64::from_str_radix(id, 16).is_ok(), "{call}: {id}");
    status
}

#[test]
fn without_a_layer_the_caller_sees_an_id_and_no_source() {
    for call in CALLS {
        let world = World::new();
        let mut status = world.run(async {
            let (server, _arrivals) = broken().serve_unobserved().await;
            fail_seen(server, call).await
        });
        status.metadata_mut().remove(KEY);
        assert_hidden(&status, call);
        assert!(world.received().events.is_empty());
    }
}

/// As a handler that passes the metadata of another service on.
#[test]
fn an_id_that_names_no_source_is_removed_and_ignored() {
    for kind in KINDS {
        for id in ["", "not hex", "ffffffffffffffff", "7"] {
            let world = World::new();
            let greeter = failing(move || {
                let metadata = metadata(&[(KEY, id)]);
                Status::with_metadata(Code::Internal, "the database failed", metadata)
            });
            let side = Observed::Server(SentryServerLayer::new());
            let call = side.call(greeter, kind, MetadataMap::new());
            let status = world.run(call).unwrap_err();
            assert_hidden(&status, id);
            let received = world.received();
            assert_eq!(exceptions(received.only_event()), causes(7)[2..]);
        }
    }
}

#[test]
fn the_id_is_removed_where_calls_are_not_recorded() {
    let subscriber = tracing_subscriber::registry;
    for layer in [
        SentryServerLayer::new().ignore_if(|_| true),
        SentryServerLayer::new().panic_policy(PanicPolicy::Ignore),
    ] {
        for call in CALLS {
            let world = World::subscribed(subscriber());
            let side = Observed::Server(layer.clone());
            let run = side.run(broken(), async |mut client| {
                failure(&mut client, call).await
            });
            assert_hidden(&world.run(run), call);
        }
    }
    // Where there is no subscriber, no layer wants a span.
    for call in CALLS {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let layer = SentryServerLayer::new().panic_policy(PanicPolicy::Ignore);
        let side = Observed::Server(layer);
        let run = side.run(broken(), async |mut client| {
            failure(&mut client, call).await
        });
        assert_hidden(&runtime.block_on(run), call);
    }
}

#[test]
fn outside_of_a_call_a_source_is_the_source_of_the_status() {
    let status = Status::not_found("nobody").with_source(Torn(7));
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "nobody")
    );
    assert!(Error::source(&status).is_some_and(|source| source.is::<Torn>()));
    let mut request = Request::new(());
    *request.metadata_mut() = status.metadata().clone();
    let headers: HeaderMap = request.metadata().clone().into_headers();
    assert!(headers.get(KEY).unwrap().is_sensitive());
}

/// Fails every call below the layer, as middleware that rejects a request does.
#[derive(Debug, Clone)]
struct Rejecting<S>(S);

impl<S, B> tower::Service<http::Request<B>> for Rejecting<S>
where
    S: tower::Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = std::future::Ready<Result<S::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<B>) -> Self::Future {
        std::future::ready(Err(row(7).unwrap_err().into()))
    }
}

#[test]
fn the_id_is_removed_from_the_error_of_middleware() {
    for call in CALLS {
        let world = World::new();
        let status = world.run(async {
            let (listening, incoming, stopped) = listen().await;
            let server = Server::builder()
                .layer(SentryServerLayer::new())
                .layer(tower::layer::layer_fn(Rejecting))
                .add_service(GreeterServer::new(Scripted::new()))
                .serve_with_incoming_shutdown(incoming, stopped);
            let server = listening.running(tokio::spawn(server));
            let layer = SentryClientLayer::new().ignore_if(|_| true);
            let mut client = server.observed_client(layer).await;
            let status = failure(&mut client, call).await;
            drop(client);
            server.stop().await;
            status
        });
        assert_hidden(&status, call);
        let received = world.received();
        assert_eq!(exceptions(received.only_event()), causes(7), "{call}");
    }
}

/// The client's middleware removes what the server of another process has left.
#[test]
fn a_client_removes_an_id_that_names_no_source() {
    for kind in KINDS {
        let world = World::new();
        let greeter = failing(|| {
            let metadata = metadata(&[(KEY, "ffffffffffffffff"), ("x-shard", "7")]);
            Status::with_metadata(Code::Internal, "the database failed", metadata)
        });
        let side = Observed::Client(SentryClientLayer::new());
        let call = side.call(greeter, kind, MetadataMap::new());
        let status = world.run(call).unwrap_err();
        assert_hidden(&status, "");
        assert_eq!(status.metadata().get("x-shard").unwrap(), "7");
    }
}

/// A text of `Debug` is cut where the metadata of a status begins, and its source comes later.
#[test]
fn a_printed_status_keeps_its_source_and_loses_other_metadata() {
    let world = World::new();
    world.sync(|| {
        let _job = info_span!("job").entered();
        let status = row(7).unwrap_err();
        error!("{status:?}");
        error!("{:?}", format!("{status:?}"));
        let mut status = row(7).unwrap_err();
        status
            .metadata_mut()
            .insert("x-shard", "7".parse().unwrap());
        error!("{status:?}");
    });
    let received = world.received();
    let texts = received
        .events
        .iter()
        .map(|event| event.message.as_deref().unwrap());
    let [plain, quoted, other] = texts.collect::<Vec<_>>().try_into().unwrap();
    for text in [plain, quoted] {
        assert!(
            text.contains("Torn(7)") && !text.contains("[Filtered]"),
            "{text}"
        );
    }
    assert!(other.ends_with("metadata: [Filtered]"), "{other}");
}
