//! Channels that come with the middleware.

use std::error::Error;

use http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tracing::{Instrument, info_span};

use sentry_tonic::SentryChannel;

use crate::support::greeter::{Running, Scripted, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::received::{Data, map, trace, with_prefixes};
use crate::support::world::{RATES, World};

/// As an application keeps a client.
#[derive(Debug, Clone)]
struct Shop {
    greeter: GreeterClient<SentryChannel>,
}

impl Shop {
    fn new(channel: SentryChannel) -> Self {
        Self {
            greeter: GreeterClient::new(channel),
        }
    }

    async fn greet(&self) -> Result<(), Status> {
        let mut greeter = self.greeter.clone();
        greeter.say_hello(request("Ferris")).await.map(drop)
    }

    async fn greet_all(&self) -> Result<usize, Status> {
        let mut greeter = self.greeter.clone();
        let mut replies = greeter
            .say_hello_stream(request("Ferris"))
            .await?
            .into_inner();
        let mut number = 0;
        while replies.message().await?.is_some() {
            number += 1;
        }
        Ok(number)
    }
}

fn address(world: &World) -> Data {
    let received = world.received();
    let data = trace(received.only_transaction()).data;
    with_prefixes(&data.into_iter().collect(), &["server."])
}

fn address_of(server: &Running) -> Data {
    map([
        ("server.address", server.address.ip().to_string().into()),
        ("server.port", server.address.port().into()),
    ])
}

#[test]
fn a_channel_observes_calls_and_knows_its_server() {
    for is_lazy in [true, false] {
        for rate in RATES {
            let world = World::with_pii(rate, false);
            let address = world.run(async {
                let (server, arrivals) = Scripted::new().serve_unobserved().await;
                let channel = match is_lazy {
                    true => sentry_tonic::channel(server.endpoint()),
                    false => sentry_tonic::connect(server.endpoint()).await.unwrap(),
                };
                let shop = Shop::new(channel);
                shop.greet().await.unwrap();
                assert!(arrivals.recv().unwrap().contains_key("sentry-trace"));
                let address = address_of(&server);
                drop(shop);
                server.stop().await;
                address
            });
            match rate {
                Some(1.0) => assert_eq!(self::address(&world), address),
                _ => assert_eq!(world.received().txs(), []),
            }
        }
    }
}

/// Whatever the generated `connect` takes.
#[test]
fn connect_takes_texts_and_uris() {
    let world = World::new();
    world.run(async {
        let (server, _arrivals) = Scripted::new().serve_unobserved().await;
        let text = format!("http://{}", server.address);
        let channels = [
            sentry_tonic::connect(text.clone()).await.unwrap(),
            sentry_tonic::connect(text.parse::<Uri>().unwrap())
                .await
                .unwrap(),
            sentry_tonic::connect(bytes::Bytes::from(text))
                .await
                .unwrap(),
        ];
        for channel in channels {
            assert_eq!(Shop::new(channel).greet_all().await.unwrap(), 3);
        }
        server.stop().await;
    });
    assert_eq!(world.received().txs().len(), 3);
}

#[test]
fn calls_of_clones_belong_to_the_span_that_they_are_made_in() {
    let world = World::new();
    world.run(async {
        let (server, _arrivals) = Scripted::new().serve_unobserved().await;
        let shop = Shop::new(sentry_tonic::channel(server.endpoint()));
        let calls = ["one", "two"].map(|_| {
            let shop = shop.clone();
            tokio::spawn(async move { shop.greet().await }.instrument(info_span!("job")))
        });
        for call in calls {
            call.await.unwrap().unwrap();
        }
        drop(shop);
        server.stop().await;
    });
    let txs = world.received().txs();
    let spans = txs.iter().map(|tx| (tx.name.as_str(), tx.spans.len()));
    assert_eq!(spans.collect::<Vec<_>>(), [("job", 1), ("job", 1)]);
}

#[test]
fn a_balanced_channel_that_exists_already_has_the_same_type() {
    let world = World::new();
    let reached = world.run(async {
        let (first, first_arrivals) = Scripted::new().serve_unobserved().await;
        let (second, second_arrivals) = Scripted::new().serve_unobserved().await;
        let servers = [first.endpoint(), second.endpoint()];
        let shop = Shop::new(SentryChannel::from(Channel::balance_list(
            servers.into_iter(),
        )));
        // The balancer chooses at random.
        let mut arrived = [0, 0];
        for _ in 0..200 {
            shop.greet().await.unwrap();
            for (arrived, arrivals) in arrived.iter_mut().zip([&first_arrivals, &second_arrivals]) {
                *arrived += arrivals.try_iter().count();
            }
            if arrived.iter().all(|arrived| *arrived > 0) {
                break;
            }
        }
        drop(shop);
        first.stop().await;
        second.stop().await;
        arrived
    });
    assert!(reached.iter().all(|arrived| *arrived > 0), "{reached:?}");
    let received = world.received();
    assert_eq!(received.txs().len(), reached.iter().sum::<usize>());
    let data = trace(&received.transactions[0]).data.into_iter().collect();
    assert_eq!(with_prefixes(&data, &["server."]), map([]));
}

#[test]
fn an_invalid_endpoint_is_the_error_of_tonic() {
    let world = World::new();
    world.run(async {
        for invalid in ["", "not a uri", "http://"] {
            let ours = sentry_tonic::connect(invalid).await.unwrap_err();
            let theirs = GreeterClient::connect(invalid).await.unwrap_err();
            assert_eq!(chain(&ours), chain(&theirs), "{invalid:?}");
        }
    });
    assert_eq!(world.received().txs(), []);
}

#[test]
fn a_server_that_cannot_be_reached_is_the_error_of_tonic() {
    let world = World::new();
    world.run(async {
        let (server, _arrivals) = Scripted::new().serve_unobserved().await;
        let endpoint = server.endpoint();
        server.stop().await;
        let ours = sentry_tonic::connect(endpoint.clone()).await.unwrap_err();
        let theirs = endpoint.connect().await.unwrap_err();
        assert_eq!(chain(&ours), chain(&theirs));
        // Nothing connects as yet.
        let shop = Shop::new(sentry_tonic::channel(endpoint));
        assert_eq!(shop.greet().await.unwrap_err().code(), Code::Unavailable);
    });
    let statuses = world.received().statuses();
    let [(name, status)] = statuses.as_slice() else {
        panic!("{statuses:?}")
    };
    assert_eq!(name, "/helloworld.Greeter/SayHello");
    assert_eq!(*status, sentry::protocol::SpanStatus::Unavailable);
}

fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |&error: &&(dyn Error + 'static)| {
        error.source()
    })
    .map(ToString::to_string)
    .collect()
}

/// tonic names such a server `http://tonic`, which is no address.
#[cfg(unix)]
#[test]
fn a_unix_socket_has_no_address() {
    use crate::support::helloworld::greeter_server::GreeterServer;
    use tokio::sync::oneshot;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::transport::Server;

    let world = World::new();
    let path = std::env::temp_dir().join(format!("sentry-tonic-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    world.run(async {
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(
            Server::builder()
                .add_service(GreeterServer::new(Scripted::new()))
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
                    let _ = stopped.await;
                }),
        );
        let endpoint = format!("unix://{}", path.display());
        let shop = Shop::new(sentry_tonic::channel(
            Endpoint::from_shared(endpoint).unwrap(),
        ));
        shop.greet().await.unwrap();
        drop(shop);
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
    });
    std::fs::remove_file(&path).unwrap();
    assert_eq!(address(&world), map([]));
}
