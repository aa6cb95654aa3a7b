//! Real calls over TCP, of all four kinds.

use sentry::protocol::SpanStatus;
use serde_json::json;
use tokio_stream::StreamExt;
use tonic::{Response, Streaming};

use crate::support::greeter::{Scripted, request};
use crate::support::helloworld::HelloReply;
use crate::support::received::{Tx, map};
use crate::support::world::World;

async fn count(replies: Response<Streaming<HelloReply>>) -> usize {
    let replies = replies.into_inner();
    replies.fold(0, |count, _| count + 1).await
}

#[test]
fn a_unary_call_is_a_transaction() {
    let world = World::new();
    let port = world.run(async {
        let server = Scripted::new().serve().await;
        let mut client = server.client().await;
        client.say_hello(request("Ferris")).await.unwrap();
        drop(client);
        let port = server.address.port();
        server.stop().await;
        port
    });
    assert_eq!(
        world.received().txs(),
        [Tx {
            name: "/helloworld.Greeter/SayHello".to_owned(),
            op: "grpc.server".to_owned(),
            status: SpanStatus::Ok,
            origin: Some("auto.rpc.tonic".to_owned()),
            data: map([
                ("rpc.system", json!("grpc")),
                ("rpc.service", json!("helloworld.Greeter")),
                ("rpc.method", json!("SayHello")),
                ("rpc.grpc.status_code", json!(0)),
                ("rpc.response.status_code", json!("OK")),
                ("rpc.request.message_count", json!(1)),
                ("rpc.response.message_count", json!(1)),
                ("server.address", json!("127.0.0.1")),
                ("server.port", json!(port)),
                ("sentry.kind", json!("server")),
            ]),
            tags: map([]),
            spans: vec![],
        }]
    );
}

#[test]
fn streams_count_their_messages() {
    let world = World::new();
    world.run(async {
        let server = Scripted::new().serve().await;
        let mut client = server.client().await;
        let replies = client.say_hello_stream(request("Ferris")).await.unwrap();
        assert_eq!(count(replies).await, 3);
        let names = tokio_stream::iter(vec![request("a"); 4]);
        client.collect_hellos(names).await.unwrap();
        let names = tokio_stream::iter(vec![request("a"); 5]);
        let replies = client.chat(names).await.unwrap();
        assert_eq!(count(replies).await, 5);
        drop(client);
        server.stop().await;
    });
    let counts: Vec<_> = world
        .received()
        .txs()
        .into_iter()
        .map(|tx| {
            (
                tx.name,
                tx.status,
                tx.data["rpc.request.message_count"].clone(),
                tx.data["rpc.response.message_count"].clone(),
            )
        })
        .collect();
    let expected = [("SayHelloStream", 1, 3), ("CollectHellos", 4, 1), ("Chat", 5, 5)];
    assert_eq!(
        counts,
        expected.map(|(method, requests, responses)| (
            format!("/helloworld.Greeter/{method}"),
            SpanStatus::Ok,
            json!(requests),
            json!(responses),
        ))
    );
}
