//! The server's side.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Request, Response, Status, Streaming};
use tracing::instrument;

use crate::helloworld::greeter_server::Greeter;
use crate::helloworld::{HelloReply, HelloRequest};
use crate::say;
use crate::upstream::{Kind, ROUTE, Replies, Upstreams, open};

type NameStream = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;
type ReplyStream = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

/// Of a name, in what is printed.
const LONGEST_NAME: usize = 100;

#[derive(Serialize)]
struct Hop<'a> {
    hop: Headers<'a>,
}

#[derive(Serialize)]
struct Headers<'a> {
    method: &'a str,
    name: &'a str,
    #[serde(rename = "sentry-trace")]
    sentry_trace: Vec<&'a str>,
    baggage: Vec<&'a str>,
    metadata: Vec<(&'a str, &'a str)>,
    encoding: Vec<&'a str>,
}

fn say_hop(method: &str, name: &str, metadata: &MetadataMap) {
    let values = |key: &str| {
        let values = metadata.get_all(key).iter();
        values
            .map(|value| value.to_str().unwrap_or("not ASCII"))
            .collect()
    };
    let end = name
        .char_indices()
        .nth(LONGEST_NAME)
        .map_or(name.len(), |(end, _)| end);
    say(&Hop {
        hop: Headers {
            method,
            name: &name[..end],
            sentry_trace: values("sentry-trace"),
            baggage: values("baggage"),
            metadata: of_the_application(metadata),
            encoding: values("grpc-encoding"),
        },
    });
}

fn of_the_application(metadata: &MetadataMap) -> Vec<(&str, &str)> {
    let mut entries: Vec<_> = metadata
        .iter()
        .filter_map(|entry| match entry {
            KeyAndValueRef::Ascii(key, value) => Some((key.as_str(), value.to_str().ok()?)),
            KeyAndValueRef::Binary(..) => None,
        })
        .filter(|(key, _)| key.starts_with("x-") && *key != ROUTE)
        .collect();
    entries.sort_unstable();
    entries
}

#[derive(Debug)]
struct LookupError;

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lookup failed")
    }
}

impl StdError for LookupError {}

#[instrument(skip_all, fields(sentry.op = "function"))]
async fn find_name(name: &str) -> Result<HelloReply, Status> {
    match name.split('-').next() {
        Some("notfound") => Err(Status::not_found("nobody has this name")),
        Some("internal") => {
            sentry::capture_error(&LookupError);
            Err(Status::internal("lookup failed"))
        }
        _ => Ok(HelloReply {
            message: format!("Hello {name}!"),
        }),
    }
}

pub(crate) struct MyGreeter {
    upstreams: Arc<Upstreams>,
}

impl MyGreeter {
    pub(crate) fn new(upstreams: Arc<Upstreams>) -> Self {
        Self { upstreams }
    }

    /// What the rest of the route replies; `None` where it ends here.
    async fn forward(
        &self,
        kind: Kind,
        metadata: &MetadataMap,
        names: Vec<String>,
    ) -> Option<Result<Replies, Status>> {
        let route = metadata.get(ROUTE)?.to_str().ok()?;
        let (server, others) = match route.split_once(',') {
            Some((server, others)) => (server, Some(others)),
            None => (route, None),
        };
        let mut onward = MetadataMap::new();
        if let Some(others) = others {
            onward.insert(ROUTE, others.parse().expect("a part of a value"));
        }
        let client = match self.upstreams.client(server) {
            Ok(client) => client,
            Err(error) => return Some(Err(Status::invalid_argument(error.to_string()))),
        };
        Some(open(client, kind, onward, names).await.map_err(bare))
    }
}

/// Without the metadata that it came with.
fn bare(status: Status) -> Status {
    Status::new(status.code(), status.message())
}

fn one(replies: Replies) -> Result<Response<HelloReply>, Status> {
    match replies {
        Replies::One(reply) => Ok(Response::new(reply)),
        Replies::Many(_) => Err(Status::internal("a stream instead of a reply")),
    }
}

fn many(replies: Replies) -> Result<Response<ReplyStream>, Status> {
    match replies {
        Replies::Many(stream) => {
            let replies = stream.map(|reply| reply.map_err(bare));
            Ok(Response::new(Box::pin(replies)))
        }
        Replies::One(_) => Err(Status::internal("a reply instead of a stream")),
    }
}

/// A stream of requests, of which the first is there.
async fn started(
    method: &str,
    request: Request<Streaming<HelloRequest>>,
) -> Result<(MetadataMap, NameStream), Status> {
    let (metadata, _, mut requests) = request.into_parts();
    let first = requests.message().await?;
    let name = first.map(|request| request.name);
    say_hop(method, name.as_deref().unwrap_or_default(), &metadata);
    let others = requests.map(|request| request.map(|request| request.name));
    let names = tokio_stream::iter(name.map(Ok)).chain(others);
    Ok((metadata, Box::pin(names)))
}

#[tonic::async_trait]
impl Greeter for MyGreeter {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let (metadata, _, HelloRequest { name }) = request.into_parts();
        say_hop("/helloworld.Greeter/SayHello", &name, &metadata);
        match self
            .forward(Kind::Unary, &metadata, vec![name.clone()])
            .await
        {
            Some(replies) => one(replies?),
            None => find_name(&name).await.map(Response::new),
        }
    }

    type SayHelloStreamStream = ReplyStream;

    async fn say_hello_stream(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<ReplyStream>, Status> {
        let (metadata, _, HelloRequest { name }) = request.into_parts();
        say_hop("/helloworld.Greeter/SayHelloStream", &name, &metadata);
        let names = vec![name.clone()];
        if let Some(replies) = self.forward(Kind::ServerStream, &metadata, names).await {
            return many(replies?);
        }
        let replies = tokio_stream::iter(0..3).then(move |number| {
            let name = name.clone();
            async move { find_or_greet(number, &name).await }
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn collect_hellos(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        let (metadata, names) = started("/helloworld.Greeter/CollectHellos", request).await?;
        let names: Vec<String> = names.collect::<Result<_, Status>>().await?;
        match self
            .forward(Kind::ClientStream, &metadata, names.clone())
            .await
        {
            Some(replies) => one(replies?),
            None => {
                let name = names.first().map(String::as_str).unwrap_or_default();
                find_name(name).await.map(Response::new)
            }
        }
    }

    type ChatStream = ReplyStream;

    async fn chat(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<ReplyStream>, Status> {
        let (metadata, names) = started("/helloworld.Greeter/Chat", request).await?;
        if metadata.contains_key(ROUTE) {
            let names = names.collect::<Result<_, Status>>().await?;
            return match self.forward(Kind::Bidi, &metadata, names).await {
                Some(replies) => many(replies?),
                None => Err(Status::invalid_argument("not a route")),
            };
        }
        let mut number = 0;
        let replies = names.then(move |name| {
            number += 1;
            async move { find_or_greet(number - 1, &name?).await }
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// A stream that fails does so after its first reply.
async fn find_or_greet(number: usize, name: &str) -> Result<HelloReply, Status> {
    if number == 0 && matches!(name.split('-').next(), Some("notfound" | "internal")) {
        return Ok(HelloReply {
            message: format!("Hello {name}!"),
        });
    }
    find_name(name).await
}
