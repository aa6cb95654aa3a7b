//! Calls of all kinds, of which some fail, and what their caller has of them.

use std::panic::resume_unwind;

use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::{Status, Streaming};

use crate::support::greeter::{Replies, Scripted, reply, request};
use crate::support::helloworld::HelloReply;
use crate::support::helloworld::greeter_client::GreeterClient;

/// How many there are.
pub(crate) const CALLS: usize = 8;

/// Fails where the name says so.
pub(crate) fn greeter() -> Scripted {
    Scripted::new()
        .say_hello(|name| async move {
            match name.as_str() {
                "internal" => Err(Status::internal("it broke")),
                "panic" => resume_unwind(Box::new("it panicked")),
                _ => Ok(reply(&name)),
            }
        })
        .say_hello_stream(|name| async move {
            let replies = tokio_stream::iter(0..3).map(move |number| match name.as_str() {
                "internal" if number == 2 => Err(Status::internal("it broke")),
                "panic" if number == 2 => resume_unwind(Box::new("it panicked")),
                _ => Ok(reply(&name)),
            });
            Ok(Box::pin(replies) as Replies)
        })
}

/// Makes them, and returns what came of each.
pub(crate) async fn every_call<T>(mut client: GreeterClient<T>) -> Vec<String>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let mut said = Vec::new();
    for name in ["Ferris", "internal", "panic"] {
        said.push(told(name, client.say_hello(request(name)).await.map(|_| 1)));
        let replies = match client.say_hello_stream(request(name)).await {
            Ok(replies) => all(replies.into_inner()).await,
            Err(status) => Err(status),
        };
        said.push(told(name, replies));
    }
    let requests = || tokio_stream::iter(["a", "b"].map(request));
    let reply = client.collect_hellos(requests()).await;
    said.push(told("collect", reply.map(|_| 1)));
    let replies = client.chat(requests()).await.unwrap().into_inner();
    said.push(told("chat", all(replies).await));
    assert_eq!(said.len(), CALLS);
    said
}

async fn all(mut replies: Streaming<HelloReply>) -> Result<usize, Status> {
    let mut number = 0;
    while replies.message().await?.is_some() {
        number += 1;
    }
    Ok(number)
}

fn told(name: &str, result: Result<usize, Status>) -> String {
    match result {
        Ok(replies) => format!("{name}: {replies}"),
        Err(status) => format!("{name}: {:?} {}", status.code(), status.message()),
    }
}

/// What comes of them where nobody looks, but for panics: what the caller has of these is
/// up to the server's layer.
pub(crate) async fn without_us() -> Vec<String> {
    let (server, _) = greeter().serve_unobserved().await;
    let client = server.client().await;
    let mut said = every_call(client).await;
    server.stop().await;
    for said in &mut said {
        if said.starts_with("panic: ") {
            *said = "panic: Internal internal server error".to_owned();
        }
    }
    said
}
