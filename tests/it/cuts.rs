//! Connections that are cut, and processes that are killed, amid calls: each side tells what it
//! saw, once.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use sentry::protocol::SpanStatus;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Endpoint, Server};
use tonic::{Code, Status};
use tower::Layer;

use sentry_tonic::{SentryClientLayer, SentryServerLayer};

use crate::support::example::example;
use crate::support::gated::LONG;
use crate::support::greeter::{ObservedClient, Replies, Running, Scripted, listen, reply, request};
use crate::support::helloworld::HelloRequest;
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::proxy::{Network, Proxy};
use crate::support::received::{Received, trace};
use crate::support::tally::counted;

/// A kind of call, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Amid {
    /// The handler has not answered.
    Unary,
    /// One reply has arrived.
    Replies,
    /// The handler has one request.
    Requests,
    /// There was one of each.
    Chat,
}

const ALL: [Amid; 4] = [Amid::Unary, Amid::Replies, Amid::Requests, Amid::Chat];

/// One that hangs in each of its methods, and says when.
fn hanging(hangs: &mpsc::UnboundedSender<()>) -> Scripted {
    let one_reply = |hangs: mpsc::UnboundedSender<()>, name: String| {
        let replies = tokio_stream::once(Ok(reply(&name)));
        let rest = tokio_stream::pending();
        hangs.send(()).unwrap();
        Ok(Box::pin(replies.chain(rest)) as Replies)
    };
    let senders = [(); 4].map(|()| hangs.clone());
    let [unary, stream, requests, chat] = senders;
    Scripted::new()
        .say_hello(move |_| {
            unary.send(()).unwrap();
            std::future::pending()
        })
        .say_hello_stream(move |name| {
            let replies = one_reply(stream.clone(), name);
            async { replies }
        })
        .collect_hellos(move |mut all| {
            let requests = requests.clone();
            async move {
                all.next().await.unwrap()?;
                requests.send(()).unwrap();
                // Fails once the connection is lost.
                all.next().await.unwrap()?;
                unreachable!("there is no second request")
            }
        })
        .chat(move |mut all| {
            let chat = chat.clone();
            async move {
                let name = all.next().await.unwrap()?.name;
                one_reply(chat, name)
            }
        })
}

fn one_request() -> impl Stream<Item = HelloRequest> + Send + 'static {
    tokio_stream::once(request("Ferris")).chain(tokio_stream::pending())
}

impl Amid {
    /// Makes the call, to its end; says when a reply has arrived.
    async fn call(
        self,
        mut client: ObservedClient,
        arrived: mpsc::UnboundedSender<()>,
    ) -> Result<(), Status> {
        let mut replies = match self {
            Self::Unary => return client.say_hello(request("Ferris")).await.map(drop),
            Self::Requests => return client.collect_hellos(one_request()).await.map(drop),
            Self::Replies => client.say_hello_stream(request("Ferris")).await?,
            Self::Chat => client.chat(one_request()).await?,
        };
        while replies.get_mut().message().await?.is_some() {
            arrived.send(()).unwrap();
        }
        Ok(())
    }

    fn has_reply(self) -> bool {
        matches!(self, Self::Replies | Self::Chat)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Unary => "/helloworld.Greeter/SayHello",
            Self::Replies => "/helloworld.Greeter/SayHelloStream",
            Self::Requests => "/helloworld.Greeter/CollectHellos",
            Self::Chat => "/helloworld.Greeter/Chat",
        }
    }
}

/// Operation, name and status of each call, in the order of the operations.
fn told(received: &Received) -> Vec<(String, String, SpanStatus)> {
    assert_eq!(received.events, []);
    let transactions = received.transactions.iter();
    let mut told: Vec<_> = transactions
        .map(|transaction| {
            let name = transaction.name.clone().unwrap();
            let trace = trace(transaction);
            (trace.op.unwrap(), name, trace.status.unwrap())
        })
        .collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    told
}

fn call(op: &str, amid: Amid, status: SpanStatus) -> (String, String, SpanStatus) {
    (op.to_owned(), amid.name().to_owned(), status)
}

fn observed(endpoint: &Endpoint) -> ObservedClient {
    let layer = SentryClientLayer::new().endpoint(endpoint.uri().clone());
    GreeterClient::new(layer.layer(endpoint.connect_lazy()))
}

fn endpoint(proxy: &Proxy) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", proxy.address)).unwrap()
}

/// Calls through a proxy, and has the network `fail` once the call is as far as that.
async fn call_and(
    amid: Amid,
    server: &Running,
    hangs: &mut mpsc::UnboundedReceiver<()>,
    endpoint: impl FnOnce(&Proxy) -> Endpoint,
    fail: Network,
) -> Result<(), Status> {
    let proxy = Proxy::to(server.address).await;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let call = tokio::spawn(amid.call(observed(&endpoint(&proxy)), arrived));
    hangs.recv().await.unwrap();
    if amid.has_reply() {
        arrivals.recv().await.unwrap();
    }
    proxy.set(fail);
    call.await.unwrap()
}

#[test]
fn a_connection_that_is_cut_is_unavailable_to_callers_and_cancelled_for_servers() {
    for network in [Network::Ends, Network::Resets] {
        for amid in ALL {
            let (world, spans) = counted(1.0);
            let status = world.run(async {
                let (entered, mut hangs) = mpsc::unbounded_channel();
                let server = hanging(&entered).serve().await;
                let status = call_and(amid, &server, &mut hangs, endpoint, network).await;
                spans.all_closed().await;
                server.stop().await;
                status
            });
            status.unwrap_err();
            let expected = [
                call("grpc.client", amid, SpanStatus::Unavailable),
                call("grpc.server", amid, SpanStatus::Cancelled),
            ];
            assert_eq!(told(&world.received()), expected, "{network:?} {amid:?}");
        }
    }
}

/// Who waits for the other side in vain learns of it by pings that are not answered.
#[test]
fn a_network_that_stalls_is_a_connection_that_is_lost() {
    const OFTEN: std::time::Duration = std::time::Duration::from_millis(50);
    const ENOUGH: std::time::Duration = std::time::Duration::from_millis(1_500);
    let (world, spans) = counted(1.0);
    world.run(async {
        let (entered, mut hangs) = mpsc::unbounded_channel();
        let (listening, incoming, stopped) = listen().await;
        let server = Server::builder()
            .http2_keepalive_interval(Some(OFTEN))
            .http2_keepalive_timeout(Some(ENOUGH))
            .layer(SentryServerLayer::new())
            .add_service(GreeterServer::new(hanging(&entered)))
            .serve_with_incoming_shutdown(incoming, stopped);
        let server = listening.running(tokio::spawn(server));
        let pinging = |proxy: &Proxy| {
            endpoint(proxy)
                .http2_keep_alive_interval(OFTEN)
                .keep_alive_timeout(ENOUGH)
        };
        let stalled = call_and(Amid::Chat, &server, &mut hangs, pinging, Network::Stalls);
        stalled.await.unwrap_err();
        spans.all_closed().await;
        server.stop().await;
    });
    let expected = [
        call("grpc.client", Amid::Chat, SpanStatus::Unavailable),
        call("grpc.server", Amid::Chat, SpanStatus::Cancelled),
    ];
    assert_eq!(told(&world.received()), expected);
}

#[test]
fn a_caller_that_gives_up_in_a_stall_is_told_at_once_and_the_server_once_it_knows() {
    let (world, spans) = counted(1.0);
    world.run(async {
        let (entered, mut hangs) = mpsc::unbounded_channel();
        let server = hanging(&entered).serve().await;
        let proxy = Proxy::to(server.address).await;
        let mut client = observed(&endpoint(&proxy));
        let mut replies = client.say_hello_stream(request("Ferris")).await.unwrap();
        hangs.recv().await.unwrap();
        replies.get_mut().message().await.unwrap().unwrap();
        proxy.set(Network::Stalls);
        drop(replies);
        let cancelled = call("grpc.client", Amid::Replies, SpanStatus::Cancelled);
        assert_eq!(told(&world.received()), [cancelled]);
        proxy.set(Network::Resets);
        spans.all_closed().await;
        let cancelled = call("grpc.server", Amid::Replies, SpanStatus::Cancelled);
        assert_eq!(told(&world.received()), [cancelled]);
        drop(client);
        server.stop().await;
    });
}

/// A process of its own, until it is killed.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn silent(name: &str, arguments: &[&str]) -> Killed {
    let process = example(name)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Killed(process.unwrap())
}

#[test]
fn a_server_that_is_killed_is_unavailable_in_each_of_its_calls() {
    const CALLS: usize = 20;
    let (world, spans) = counted(1.0);
    world.run(async {
        let mut server = silent("server", &["--addr", "127.0.0.1:0"]);
        let mut line = String::new();
        let said = server.0.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let client = observed(&endpoint);
        let mut streams = Vec::new();
        for _ in 0..CALLS {
            let mut client = client.clone();
            let mut replies = client.say_hello_stream(request("endless")).await.unwrap();
            replies.get_mut().message().await.unwrap().unwrap();
            streams.push(replies.into_inner());
        }
        drop(server);
        for mut replies in streams {
            // Those that have arrived already come first.
            while let Some(reply) = replies.next().await {
                if reply.is_err() {
                    break;
                }
            }
        }
        // Nobody listens there any more.
        let status = client.clone().say_hello(request("a")).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        spans.all_closed().await;
    });
    let mut expected = vec![call("grpc.client", Amid::Replies, SpanStatus::Unavailable); CALLS];
    expected.push(call("grpc.client", Amid::Unary, SpanStatus::Unavailable));
    assert_eq!(told(&world.received()), expected);
}

#[test]
fn a_caller_that_is_killed_has_cancelled_each_of_its_calls() {
    let cancelled = |amid| call("grpc.server", amid, SpanStatus::Cancelled);
    let in_calls = told_of_killed_callers(&["Ferris"], |greeter| greeter);
    assert_eq!(in_calls, [(); 3].map(|()| cancelled(Amid::Unary)));
    let in_streams = told_of_killed_callers(&["--streams", "Ferris"], |greeter| {
        greeter.say_hello(|name| async move { Ok(reply(&name)) })
    });
    let mut expected = vec![call("grpc.server", Amid::Unary, SpanStatus::Ok); 3];
    expected.extend([(); 3].map(|()| cancelled(Amid::Replies)));
    assert_eq!(in_streams, expected);
}

/// Of three, each killed in a call that hangs; in the order of the methods.
fn told_of_killed_callers(
    arguments: &[&str],
    change: impl FnOnce(Scripted) -> Scripted,
) -> Vec<(String, String, SpanStatus)> {
    let (world, spans) = counted(1.0);
    world.run(async {
        let (entered, mut hangs) = mpsc::unbounded_channel();
        let server = change(hanging(&entered)).serve().await;
        let uri = format!("http://{}", server.address);
        let arguments = [&["--addr", &uri], arguments].concat();
        let callers = [(); 3].map(|()| silent("client", &arguments));
        for _ in &callers {
            tokio::time::timeout(LONG, hangs.recv())
                .await
                .unwrap()
                .unwrap();
        }
        drop(callers);
        spans.all_closed().await;
        server.stop().await;
    });
    let mut told = told(&world.received());
    told.sort_by(|one, other| one.1.cmp(&other.1));
    told
}
