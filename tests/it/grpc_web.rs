//! Calls of browsers, which tonic-web turns into gRPC.

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use sentry::protocol::SpanStatus;
use tonic::Status;
use tonic::transport::Server;
use tonic_web::GrpcWebLayer;

use sentry_tonic::SentryServerLayer;

use crate::support::greeter::{Running, Scripted, listen, request};
use crate::support::helloworld::greeter_server::GreeterServer;
use crate::support::world::World;

fn nobody() -> GreeterServer<Scripted> {
    GreeterServer::new(Scripted::new().say_hello(async |_| Err(Status::not_found("nobody"))))
}

/// Calls it as a browser does, by HTTP/1.1, and stops it. Returns what the answer holds.
async fn call(server: Running) -> String {
    let message = request("Ferris").encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    let body = [&[0], &length.to_be_bytes()[..], &message].concat();
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_11)
        .uri(format!(
            "http://{}/helloworld.Greeter/SayHello",
            server.address
        ))
        .header("content-type", "application/grpc-web+proto")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    drop(client);
    server.stop().await;
    format!("{:?} {}", head.headers, String::from_utf8_lossy(&body))
}

#[test]
fn a_call_of_a_browser_is_observed_inside_of_the_layer_that_turns_it_into_grpc() {
    let world = World::new();
    let answer = world.run(async {
        let (listening, incoming, stopped) = listen().await;
        let server = Server::builder()
            .accept_http1(true)
            .layer(GrpcWebLayer::new())
            .layer(SentryServerLayer::new())
            .add_service(nobody())
            .serve_with_incoming_shutdown(incoming, stopped);
        call(listening.running(tokio::spawn(server))).await
    });
    assert!(answer.contains("nobody"), "{answer}");
    let tx = world.received().only_tx();
    assert_eq!(tx.name, "/helloworld.Greeter/SayHello");
    assert_eq!(tx.status, SpanStatus::NotFound);
    assert_eq!(tx.data["rpc.request.message_count"], 1);
}

#[test]
fn outside_of_it_the_call_passes_through() {
    let world = World::new();
    let answer = world.run(async {
        let (listening, incoming, stopped) = listen().await;
        let server = Server::builder()
            .accept_http1(true)
            .layer(SentryServerLayer::new())
            .layer(GrpcWebLayer::new())
            .add_service(nobody())
            .serve_with_incoming_shutdown(incoming, stopped);
        call(listening.running(tokio::spawn(server))).await
    });
    assert!(answer.contains("nobody"), "{answer}");
    assert_eq!(world.written(), "");
}
