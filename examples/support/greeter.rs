//! A Greeter as an application would write it. The name in a request chooses
//! what happens: `notfound`, `internal`, `unavailable` and `dataloss` fail, `panic`
//! panics, `slow` takes a second, for each message of a stream; any other is greeted,
//! and, in a stream of replies, `endless` without end, `idle` once. Without one, `SayHello` fails.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::{error, info, instrument};

use sentry_tonic::{SentryChannel, StatusExt as _};

use super::helloworld::greeter_client::GreeterClient;
use super::helloworld::greeter_server::Greeter;
use super::helloworld::{HelloReply, HelloRequest};

type ReplyStream = Pin<Box<dyn Stream<Item = Result<HelloReply, Status>> + Send>>;

#[derive(Debug, Default)]
pub(crate) struct MyGreeter {
    /// The server that answers `SayHello` in place of this one.
    pub(crate) upstream: Option<GreeterClient<SentryChannel>>,
}

#[derive(Debug)]
struct StoreError;

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection to the name store lost")
    }
}

impl Error for StoreError {}

#[derive(Debug)]
struct LookupError(StoreError);

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot look up a name")
    }
}

impl Error for LookupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// Says by `google.rpc` details what is wrong with a request.
fn check(request: &HelloRequest) -> Result<(), Status> {
    if !request.name.is_empty() {
        return Ok(());
    }
    let mut details = ErrorDetails::new();
    details
        .set_error_info("NAME_MISSING", "greeter.example.com", HashMap::new())
        .add_bad_request_violation("name", "must not be empty");
    let code = Code::InvalidArgument;
    Err(Status::with_error_details(code, "whom to greet?", details))
}

#[instrument(fields(sentry.op = "function"))]
async fn find_name(name: &str) -> Result<String, Status> {
    info!(name, "looking up a name");
    query_store(name).await?;
    Ok(name.to_uppercase())
}

// Parameters of the call, of which one is a secret.
#[instrument(fields(
    sentry.op = "db.query",
    rpc.param.table = "names",
    rpc.param.api_key = "only for the store",
))]
async fn query_store(name: &str) -> Result<(), Status> {
    tokio::time::sleep(Duration::from_millis(2)).await;
    match name {
        "notfound" => Err(Status::not_found("nobody has this name")),
        "internal" => {
            let failure = LookupError(StoreError);
            error!(error = &failure as &dyn Error, "lookup failed");
            Err(Status::internal("lookup failed").with_source(failure))
        }
        "unavailable" => Err(Status::unavailable("the name store is down")),
        "dataloss" => Err(Status::data_loss("the name store is damaged")),
        "panic" => panic!("nobody expected this name"),
        "slow" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

#[instrument(fields(sentry.op = "template.render"))]
async fn render(name: &str) -> HelloReply {
    tokio::time::sleep(Duration::from_millis(1)).await;
    HelloReply {
        message: format!("Hello {name}!"),
    }
}

#[tonic::async_trait]
impl Greeter for MyGreeter {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let request = request.into_inner();
        check(&request)?;
        if let Some(upstream) = &self.upstream {
            let reply = upstream.clone().say_hello(request).await?;
            return Ok(Response::new(reply.into_inner()));
        }
        let name = find_name(&request.name).await?;
        Ok(Response::new(render(&name).await))
    }

    type SayHelloStreamStream = ReplyStream;

    async fn say_hello_stream(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<ReplyStream>, Status> {
        let HelloRequest { name } = request.into_inner();
        let count = if name == "endless" { usize::MAX } else { 3 };
        let pause = match name.as_str() {
            "idle" => Duration::from_secs(3_600),
            _ => Duration::from_millis(5),
        };
        let replies = tokio_stream::iter(0..count).then(move |number| {
            let name = name.clone();
            async move {
                if number > 0 {
                    tokio::time::sleep(pause).await;
                }
                let name = find_name(&name).await?;
                Ok(render(&name).await)
            }
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn collect_hellos(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<HelloReply>, Status> {
        let mut requests = request.into_inner();
        let mut names = Vec::new();
        while let Some(request) = requests.next().await {
            names.push(find_name(&request?.name).await?);
        }
        Ok(Response::new(render(&names.join(" and ")).await))
    }

    type ChatStream = ReplyStream;

    async fn chat(
        &self,
        request: Request<Streaming<HelloRequest>>,
    ) -> Result<Response<ReplyStream>, Status> {
        let replies = request.into_inner().then(|request| async {
            let name = find_name(&request?.name).await?;
            Ok(render(&name).await)
        });
        Ok(Response::new(Box::pin(replies)))
    }
}
